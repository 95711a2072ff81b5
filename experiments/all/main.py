"""The loop over all experiments."""

import concurrent.futures
import contextlib
import multiprocessing
import sys
import time
import traceback

import jax

from experiments import MissingFiles
from experiments.common.command import call
from experiments.common.headers import experiments
from experiments.common.tables import save_table

NEEDS_DATA = True
OTHERS = ("accelerators", "all", "api")
RAN, LEFT_OUT, FAILED = "ran", "left out: its data are missing", "failed"


def run(args):
    table = []
    names = [name for name in experiments() if name not in OTHERS]
    with concurrent.futures.ThreadPoolExecutor(2 if args.quick else 1) as pool:
        for row in pool.map(lambda name: outcome(name, args), names):
            table.append(row)
            print(" ".join(row.values()), flush=True)
    print(save_table(table, args.out, "all"))
    print(f"wrote all.csv and all.md in {args.out}, and a folder for each experiment, with its output in log.txt")
    return int(any(row["outcome"] == FAILED for row in table))


def outcome(name, args) -> dict:
    """An experiment's row of the table."""
    folder = args.out / name
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--seed", str(args.seed), "--out", str(folder), *(["--quick"] if args.quick else [])]
    began = time.perf_counter()
    ended = in_a_process(attempt, name, options, args.data_dir, folder / "log.txt")
    return {"experiment": name, "outcome": ended, "seconds": f"{time.perf_counter() - began:.0f}"}


def in_a_process(function, *arguments) -> str:
    """What `function` returns in a new process; that it failed where the system ended the process.

    An experiment may change JAX's settings, and its time needs a fresh start.
    """
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except concurrent.futures.process.BrokenProcessPool:
            return FAILED


def attempt(name, options, data_dir, log) -> str:
    """Run an experiment, with what it prints in a file."""
    sys.argv[1:] = [name, *options]
    # In small most of an experiment's time is XLA's; not of this one, which trains for long there too.
    jax.config.update("jax_disable_most_optimizations", "--quick" in options and name != "regularizers")
    with log.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            return FAILED if call(name, options, data_dir) else RAN
        except MissingFiles as error:
            print(error)
            return LEFT_OUT
        except (Exception, SystemExit):
            traceback.print_exc()
            return FAILED

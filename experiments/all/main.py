"""The loop over all experiments."""

import importlib
import subprocess
import sys
import time

from experiments.common.headers import experiments
from experiments.common.tables import save_table

NEEDS_DATA = True
MISSING = 3  # the exit status of an experiment whose data are missing
OTHERS = ("all", "api")


def run(args):
    table = []
    for name in (name for name in experiments() if name not in OTHERS):
        command = [sys.executable, "-m", "experiments", name, "--seed", str(args.seed), "--out", str(args.out / name)]
        command += ["--quick"] if args.quick else []
        command += ["--data-dir", str(args.data_dir)] if args.data_dir and needs_data(name) else []
        began = time.perf_counter()
        status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        said = {0: "ran", MISSING: "left out: its data are missing"}.get(status, f"failed with {status}")
        table.append({"experiment": name, "": said, "seconds": f"{time.perf_counter() - began:.0f}"})
        print(f"{name}: {said}, {table[-1]['seconds']} s", flush=True)
    save_table(table, args.out, "all")
    print(f"wrote all.csv and all.md in {args.out}")
    return int(any(row[""].startswith("failed") for row in table))


def needs_data(name):
    return getattr(importlib.import_module(f"experiments.{name}.main"), "NEEDS_DATA", False)

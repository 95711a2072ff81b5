"""The comparison and its report."""

import functools
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments.common.tables import save_table
from experiments.crash_test import child, kill

MOST = 12  # kills a run
REMOVAL = 2e-3  # seconds that a removal takes


def add_options(options):
    options.add_argument("--kills", type=int, help="how often to kill (default: 200, with --quick 4)")
    options.add_argument("--fault", choices=child.FAULTS, help="what restarted processes do wrong on purpose")


def run(args):
    kills = args.kills or (4 if args.quick else 200)
    modes = list(child.MODES)[:: 3 if args.quick else 1]
    context, work = kill.processes(), Path(tempfile.mkdtemp(prefix="crash_test-"))
    arguments = {mode: (mode, args.seed, 2 if args.quick else 5, work / "programs") for mode in modes}

    @functools.cache
    def uninterrupted(mode):
        """The result, how long it takes once programs are compiled, and how much of that there is to a checkpoint."""
        kill.attempt(context, work / mode, (*arguments[mode], True, None))
        whole, began = kill.result(work / mode), time.monotonic()
        again = crash(context, work / f"{mode}, again", arguments[mode], None, [], whole)
        seconds, steps = time.monotonic() - began, kill.newest(work / mode)
        print(f"{mode}: {steps} steps in {seconds:.1f} s, not interrupted; once more: {said(again)}", flush=True)
        if again["difference"]:
            raise SystemExit(f"training is not repeatable: the files are in {work}")
        return whole, seconds, seconds * child.SAVE_EVERY / steps

    runs, struck = [], 0
    while struck < kills:
        number, mode = len(runs), modes[len(runs) % len(modes)]
        rng, folder = np.random.default_rng([args.seed, number]), work / f"run {number}"
        share = min(kills - struck, int(rng.integers(1, 3 if args.quick else MOST + 1)))
        whole, seconds, save = uninterrupted(mode)
        run = crash(context, folder, arguments[mode], args.fault, plan(rng, share, seconds, save), whole)
        runs.append({"mode": mode} | run)
        struck += len(run["kills"])
        fell = ", ".join(f"{where} after {step}" for where, step in run["kills"])
        print(f"run {number}, {mode}: {said(run)}; killed {fell or 'never'}", flush=True)
        if not run["difference"]:
            shutil.rmtree(folder)
        elif not run["kills"]:
            break  # whatever it is, the next run would have it too
    wrong = [number for number, run in enumerate(runs) if run["difference"]]
    fault = f", restarted with the fault {args.fault!r}" if args.fault else ""
    print(save_table(table(runs, modes), args.out, "crash_test", f"{struck} kills{fault}, seed {args.seed}"))
    print(f"wrote crash_test.csv and crash_test.md in {args.out}")
    if wrong:
        print(f"runs {wrong} are not as the one that was never interrupted: their files are in {work}")
    else:
        shutil.rmtree(work)
    return bool(wrong)


def plan(rng, count, seconds, save):
    """When to kill, of a training that takes some seconds and saves every `save` seconds."""
    life = rng.uniform(0.1, 1) * seconds  # the shorter it is, the more processes a run takes
    return [
        (
            kill.Moment(rng.uniform(0, life)),
            kill.Moment(rng.uniform(0, REMOVAL), kill.REMOVAL, rng.integers(1, 3)),
            kill.Moment(rng.uniform(0, save), kill.SAVE, rng.integers(1, 4)),
        )[kind]
        for kind in rng.choice(3, count, p=(0.25, 0.25, 0.5))
    ]


def crash(context, folder, arguments, fault, moments, whole):
    """Kill a run at the moments, let it finish, and compare it with the whole one."""
    kills, difference = [], ""
    try:
        for moment in [*moments, None]:
            where = kill.attempt(context, folder, (*arguments, False, fault if kills else None), moment)
            if where is None:
                break
            kills.append((where, kill.newest(folder)))
        difference = ", ".join(kill.differences(kill.result(folder), whole))
    except kill.Failure as failure:
        difference = str(failure)
    return {"kills": kills, "difference": difference}


def said(run):
    return run["difference"] or "identical"


def table(runs, modes):
    rows = []
    for mode in [*modes, "all"]:
        chosen = [run for run in runs if mode in (run["mode"], "all")]
        kills = [each for run in chosen for each in run["kills"]]
        rows.append(
            {"mode": mode, "runs": len(chosen), "kills": len(kills)}
            | {place: sum(where == place for where, _ in kills) for place in kill.PLACES}
            | {
                "before the first checkpoint": sum(step == 0 for _, step in kills),
                "different newest checkpoints": len({step for _, step in kills} - {0}),
                "runs that differ": sum(bool(run["difference"]) for run in chosen),
            }
        )
    return rows

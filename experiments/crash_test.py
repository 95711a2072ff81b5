"""Crashes: training processes killed by `kill -9` and restarted, against the run that was never interrupted.

A dense network with dropout and batch norm learns scikit-learn's 8x8 digits (adam with a schedule and clipping, an
evaluation every 5 steps, a checkpoint every 3), a batch at a time or as one compiled loop, and returns its last state
or, by early stopping, its best one. A process that trains is killed at a random moment, another makes the same call of
`jdrop.training.fit`, is killed as well, and so on, until a run has had its share of kills and is left to finish.
A quarter of the kills come at a random time after the process's start. Half are aimed at a save and a quarter at the
removal of an old checkpoint: they wait until one begins, and come within the time to the next, or that it takes.

A run differs if one bit of the parameters, the optimizer's state, the batch statistics, the key or the history is not
as in the run that was never interrupted. None may, and no process may fail or warn; else the command exits with 1 and
says which run differs and where. `--fault` has every restarted process draw other masks, or forget the optimizer's
state: the command must then fail.

    python -m experiments crash_test --kills 200

Writes crash_test.csv and crash_test.md. About 15 minutes on two cores that others use too. Expect no run that differs,
and two kills of five in a save: a compiled step takes a millisecond, a checkpoint with its `fsync`s many.
"""

import functools
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from experiments import _crash_child, _crash_kill
from experiments._report import save_table

MOST = 12  # kills a run
REMOVAL = 2e-3  # seconds that a removal takes


def add_options(options):
    options.add_argument("--kills", type=int, help="how often to kill (default: 200, with --quick 4)")
    options.add_argument("--fault", choices=_crash_child.FAULTS, help="what restarted processes do wrong on purpose")


def run(args):
    kills = args.kills or (4 if args.quick else 200)
    modes = list(_crash_child.MODES)[:: 3 if args.quick else 1]
    context, work = _crash_kill.processes(), Path(tempfile.mkdtemp(prefix="crash_test-"))
    arguments = {mode: (mode, args.seed, 2 if args.quick else 5, work / "programs") for mode in modes}

    @functools.cache
    def uninterrupted(mode):
        """The result, how long it takes once programs are compiled, and how much of that there is to a checkpoint."""
        _crash_kill.attempt(context, work / mode, (*arguments[mode], True, None))
        whole, began = _crash_kill.result(work / mode), time.monotonic()
        again = crash(context, work / f"{mode}, again", arguments[mode], None, [], whole)
        seconds, steps = time.monotonic() - began, _crash_kill.newest(work / mode)
        print(f"{mode}: {steps} steps in {seconds:.1f} s, not interrupted; once more: {said(again)}", flush=True)
        if again["difference"]:
            raise SystemExit(f"training is not repeatable: the files are in {work}")
        return whole, seconds, seconds * _crash_child.SAVE_EVERY / steps

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
            _crash_kill.Moment(rng.uniform(0, life)),
            _crash_kill.Moment(rng.uniform(0, REMOVAL), _crash_kill.REMOVAL, rng.integers(1, 3)),
            _crash_kill.Moment(rng.uniform(0, save), _crash_kill.SAVE, rng.integers(1, 4)),
        )[kind]
        for kind in rng.choice(3, count, p=(0.25, 0.25, 0.5))
    ]


def crash(context, folder, arguments, fault, moments, whole):
    """Kill a run at the moments, let it finish, and compare it with the whole one."""
    kills, difference = [], ""
    try:
        for moment in [*moments, None]:
            where = _crash_kill.attempt(context, folder, (*arguments, False, fault if kills else None), moment)
            if where is None:
                break
            kills.append((where, _crash_kill.newest(folder)))
        difference = ", ".join(_crash_kill.differences(_crash_kill.result(folder), whole))
    except _crash_kill.Failure as failure:
        difference = str(failure)
    return {"kills": kills, "difference": difference}


def said(run):
    return run["difference"] or "identical"


def table(runs, modes):
    rows = []
    for mode in [*modes, "all"]:
        chosen = [run for run in runs if mode in (run["mode"], "all")]
        kills = [kill for run in chosen for kill in run["kills"]]
        rows.append(
            {"mode": mode, "runs": len(chosen), "kills": len(kills)}
            | {place: sum(where == place for where, _ in kills) for place in _crash_kill.PLACES}
            | {
                "before the first checkpoint": sum(step == 0 for _, step in kills),
                "different newest checkpoints": len({step for _, step in kills} - {0}),
                "runs that differ": sum(bool(run["difference"]) for run in chosen),
            }
        )
    return rows

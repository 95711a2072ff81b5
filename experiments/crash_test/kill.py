"""A process that is killed at a chosen moment, and what that leaves."""

import json
import multiprocessing
import os
import re
import signal
import time
from typing import NamedTuple

from experiments.crash_test import child

SAVING = ".saving-"  # what the names of folders begin with that `fit` has not saved whole yet, or removes
SAVE, REMOVAL = rf"({re.escape(SAVING)})?\d+", rf"{re.escape(SAVING)}removed-\d+"
POLL = 1e-4  # seconds between two looks; a removal takes about a millisecond
PLACES = ("at its start", "in a save", "in a removal", "between")


class Moment(NamedTuple):
    """Some seconds after the `count`th save or removal has begun, or, with no `kind`, after the process has."""

    seconds: float
    kind: str | None = None
    count: int = 1


class Failure(Exception):
    """A process that ended by itself, but not well."""


def processes():
    """A context for processes that begin with all imports done, by a fork of one that has not used JAX yet."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads, made on import, do not survive a fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([child.__name__])
    return context


def attempt(context, folder, arguments, moment=None):
    """Start the training in `folder`, and kill it at the moment if there is one.

    Returns:
      One of PLACES if it was killed, or None if it ended before.

    Raises:
      Failure: it ended by itself with an error, a warning, or a checkpoint less than there was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trains").unlink(missing_ok=True)
    before, killed = newest(folder), False
    process = context.Process(target=child.main, args=(folder, *arguments), daemon=True)
    process.start()
    if moment is not None and wait(process, folder, moment):
        process.kill()
        killed = True
    process.join()
    if newest(folder) < before:
        raise Failure(
            f"the newest checkpoint in {folder} was that of step {before}, and is that of step {newest(folder)}"
        )
    if process.exitcode == 0:
        return None
    if killed and process.exitcode == -signal.SIGKILL:
        return place(folder)
    raise Failure(f"a process in {folder} ended with {process.exitcode}: {(folder / 'stderr').read_text()}")


def wait(process, folder, moment):
    """Whether the process lives to see the moment."""
    whole, seen = steps(folder), set()
    while moment.kind and len(seen) < moment.count and process.is_alive():
        time.sleep(POLL)
        if (folder / "trains").exists():
            seen |= {name.removeprefix(SAVING) for name in names(folder) if re.fullmatch(moment.kind, name)} - whole
    process.join(moment.seconds)
    return process.is_alive()


def place(folder):
    """Where in a process a kill fell, by what it left."""
    if not (folder / "trains").exists():
        return PLACES[0]
    left = [name for name in names(folder) if name.startswith(SAVING)]
    if any(re.fullmatch(REMOVAL, name) for name in left):
        return PLACES[2]
    return PLACES[1] if left else PLACES[3]


def names(folder):
    try:
        return os.listdir(folder / "checkpoints")
    except FileNotFoundError:
        return []


def steps(folder):
    return {name for name in names(folder) if name.isdecimal()}


def newest(folder):
    """The step of the newest checkpoint, 0 where there is none."""
    return max(map(int, steps(folder)), default=0)


def result(folder):
    return json.loads((folder / "result.json").read_text())


def differences(one, other):
    """What differs between the results of two runs: the leaves of the state, and the lists of the history."""
    return [
        f"{part} {name}"
        for part in ("state", "history")
        for name in one[part] | other[part]
        if name not in one[part] or name not in other[part] or one[part][name] != other[part][name]
    ]

"""Where the numbers of a run go: to callbacks, a file of JSON lines, and the progress bar."""

import contextlib
import copy
import hashlib
import json
import math
import time
from pathlib import Path

import jax
import numpy as np

from jdrop.training._first import CheckpointError, lock


def open_log(path, journal, resumed):
    """A log's absolute path, its file there and open to writing, or None without one or in another process.

    `resumed` is None, or of the checkpoint that the run goes on from: the log's path and its length then. Of the lines
    that came later those that the journal has are cut out, since the run writes them again; what others have written
    there stays.
    """
    if path is None or jax.process_index() != 0:
        return None
    try:
        path = Path(path).expanduser().absolute()
    except TypeError:
        raise TypeError(f"log is a {type(path).__name__}, but the name of a file is needed: log='log.jsonl'.") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opened(path) as file:
            if resumed is not None and resumed[0] == str(path):
                own = set(journal.read_text().split()) if journal.is_file() else set()
                file.seek(resumed[1])
                later = file.read().splitlines(keepends=True)
                # What has no end was being written when its process was killed.
                others = [line for line in later if line.endswith(b"\n") and _name(line) not in own]
                if len(others) < len(later):
                    file.truncate(resumed[1])
                    file.writelines(others)
    except OSError as error:
        raise ValueError(f"log {path} can't be written to ({error}): give the name of a file that can.") from error
    return path


@contextlib.contextmanager
def _opened(path):
    """A log, that no other run writes to in the meantime."""
    with path.open("a+b") as file:
        lock(file.fileno())
        yield file


def _name(line):
    return hashlib.sha256(line).hexdigest()


class Reporter:
    """Tells the callbacks, the log and the progress bar what is new at a run's step."""

    def __init__(self, run, source, callbacks, log, journal, advance, epochs):
        self.run, self.source, self.callbacks, self.log, self.journal = run, source, callbacks, log, journal
        self.advance, self.epochs = advance, epochs
        self.started, self.step_before = time.monotonic(), run.step

    def report(self, news, seconds):
        """Report the news of the steps since the last report, which took so many seconds."""
        step, epoch = self.run.step, self._epoch()
        record = {"step": step, "epoch": epoch, **news}
        numbers = [f"{name} {np.mean(value):.4g}" for name, value in news.items()]
        self.advance(step, f"epoch {epoch}/{self.epochs}", "  ".join(numbers))
        if self.log is not None:
            rate = (step - self.step_before) * self.run.examples(self.source) / max(seconds, 1e-9)
            timed = record | {"seconds": time.monotonic() - self.started, "examples_per_second": rate}
            self._write(json.dumps(_finite(timed)).encode() + b"\n")
        self.step_before = step
        self._call(record)

    def _write(self, line):
        try:
            if self.journal is not None:
                with self.journal.open("a") as file:
                    file.write(f"{_name(line)}\n")
            with _opened(self.log) as file:
                whole = file.seek(0, 2) == 0 or (file.seek(-1, 2) >= 0 and file.read(1) == b"\n")
                file.write(line if whole else b"\n" + line)
        except OSError as error:
            raise CheckpointError(
                f"log {self.log} can't be written to any more ({error}); the run's checkpoints are untouched: give a "
                "log that can, and run the same again to resume."
            ) from error

    def report_interrupt(self):
        """Give the callbacks the state that an interrupted run ends with."""
        self._call({"step": self.run.step, "epoch": self._epoch(), "interrupted": True})

    def _epoch(self):
        return -(-self.run.step // self.run.steps)

    def _call(self, record):
        for callback in self.callbacks:
            callback(self.run.state, copy.deepcopy(record))


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None

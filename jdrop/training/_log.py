"""Where the numbers of a run go: to callbacks, a file of JSON lines, and the progress bar."""

import json
import math
import time
from pathlib import Path

import jax
import numpy as np


def open_log(path, resumed):
    """A log's absolute path, its file there and open to writing, or None without one or in another process.

    `resumed` is None, or of the checkpoint that the run goes on from: the log's path and its length then. What was
    written later is cut off, since the run writes it again.
    """
    if path is None or jax.process_index() != 0:
        return None
    path = Path(path).expanduser().absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if resumed is not None and resumed[0] == str(path) and file.tell() > resumed[1]:
                file.truncate(resumed[1])
    except OSError as error:
        raise ValueError(f"log {path} can't be written to ({error}): give the name of a file that can.") from error
    return path


class Reporter:
    """Tells the callbacks, the log and the progress bar what is new at a run's step."""

    def __init__(self, run, callbacks, log, advance, epochs):
        self.run, self.callbacks, self.log, self.advance, self.epochs = run, callbacks, log, advance, epochs
        self.started, self.step_before = time.monotonic(), run.step

    def report(self, news, seconds):
        """Report the news of the steps since the last report, which took so many seconds."""
        step, epoch = self.run.step, self._epoch()
        record = {"step": step, "epoch": epoch, **news}
        numbers = [f"{name} {np.mean(value):.4g}" for name, value in news.items()]
        self.advance(step, f"epoch {epoch}/{self.epochs}", "  ".join(numbers))
        if self.log is not None:
            rate = (step - self.step_before) * self.run.batch_size / max(seconds, 1e-9)
            timed = record | {"seconds": time.monotonic() - self.started, "examples_per_second": rate}
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(timed)) + "\n")
        self.step_before = step
        self._call(record)

    def report_interrupt(self):
        """Give the callbacks the state that an interrupted run ends with."""
        self._call({"step": self.run.step, "epoch": self._epoch(), "interrupted": True})

    def _epoch(self):
        return -(-self.run.step // self.run.steps)

    def _call(self, record):
        for callback in self.callbacks:
            callback(self.run.state, dict(record))


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None

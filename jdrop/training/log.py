"""Where the numbers of a run go: a JSON line each, or TensorBoard."""

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


def reporter(run, callbacks, log, advance, epochs):
    """A function that tells the callbacks, the log and the progress bar what is new at a run's step."""
    started, step_before = time.monotonic(), run.step

    def report(news, seconds):
        """Report the news of the steps since the last report, which took so many seconds."""
        nonlocal step_before
        epoch = -(-run.step // run.steps)
        record = {"step": run.step, "epoch": epoch, **news}
        numbers = [f"{name} {np.mean(value):.4g}" for name, value in news.items()]
        advance(run.step, f"epoch {epoch}/{epochs}", "  ".join(numbers))
        if log is not None:
            rate = (run.step - step_before) * run.batch_size / max(seconds, 1e-9)
            timed = record | {"seconds": time.monotonic() - started, "examples_per_second": rate}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_finite(timed)) + "\n")
        step_before = run.step
        for callback in callbacks:
            callback(run.state, dict(record))

    return report


def _finite(value):
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def tensorboard(folder):
    """Make a callback of `fit` that writes the run's numbers for TensorBoard, by the library tensorboardX.

    Args:
      folder: where the event file goes; made when missing. A resumed run hides what it will write again.

    Returns:
      `(state, record) -> None`.

    Raises:
      ModuleNotFoundError: tensorboardX is not installed.

    Example:
      >>> import jdrop
      >>> write = jdrop.training.tensorboard("runs/first")  # doctest: +SKIP
      >>> jdrop.training.fit(state, step, data, epochs=2, batch_size=4, callbacks=[write])  # doctest: +SKIP
    """
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'tensorboardX writes for TensorBoard but is not installed: write pip install "jdrop[tensorboard]".'
        ) from error
    writer = None

    def write(state, record):
        nonlocal writer
        writer = writer or SummaryWriter(str(folder), purge_step=record["step"], flush_secs=1)
        for name, value in record.items():
            if name != "step":
                for tag, number in enumerate(value) if isinstance(value, list) else [(None, value)]:
                    writer.add_scalar(name if tag is None else f"{name}/{tag}", number, record["step"])

    return write

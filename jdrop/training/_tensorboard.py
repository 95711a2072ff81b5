"""The numbers of a run in TensorBoard."""

import os
from collections.abc import Callable
from typing import Any

import jax


def tensorboard(folder: str | os.PathLike[str]) -> Callable[[Any, dict[str, Any]], None]:
    """Make a callback of `fit` that writes the run's numbers for TensorBoard, by the library tensorboardX.

    Args:
      folder: where the event file goes; made when missing. A resumed run hides what it will write again.

    Returns:
      `(state, record) -> None`. Of several processes the first one writes.

    Raises:
      TypeError: a folder that is no path.
      ModuleNotFoundError: tensorboardX is not installed.

    Example:
      >>> import jdrop
      >>> write = jdrop.training.tensorboard("runs/first")  # doctest: +SKIP
      >>> jdrop.training.fit(state, step, data, epochs=2, batch_size=4, callbacks=[write])  # doctest: +SKIP
    """
    try:
        folder = os.fspath(folder)
    except TypeError:
        raise TypeError(f"folder is a {type(folder).__name__}, but a path is needed: folder='runs/first'.") from None
    try:
        from tensorboardX import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'tensorboardX writes for TensorBoard but is not installed: write pip install "jdrop[tensorboard]".'
        ) from error
    writer = None

    def write(state, record):
        nonlocal writer
        if jax.process_index() != 0:  # of several processes one writes
            return
        writer = writer or SummaryWriter(folder, purge_step=record["step"], flush_secs=1)
        for name, value in record.items():
            if name not in ("step", "interrupted"):
                for tag, number in enumerate(value) if isinstance(value, list) else [(None, value)]:
                    writer.add_scalar(name if tag is None else f"{name}/{tag}", number, record["step"])

    return write

"""Where a run's batches come from: arrays and indexed examples, or batches that something else makes."""

import base64
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import jax
import numpy as np

from jdrop._checks import as_size
from jdrop.training._data import Examples, as_sent, host_array, is_array, placed

_KINDS = (
    "give a tree of arrays or an object with a length and an index, and a batch_size; or an iterable of batches that "
    "can be read again, such as a list or a DataLoader, without one"
)


def as_source(data, batch_size, steps_per_epoch):
    """The source of batches that `data` is.

    Raises:
      TypeError: it is none.
      ValueError: sizes that do not fit it.
    """
    if data is None or isinstance(data, (str, bytes, int, float, complex)) or callable(data):
        raise TypeError(f"data is {data!r} of type {type(data).__name__}, which has no examples: {_KINDS}.")
    leaves = [] if isinstance(data, Iterator) else jax.tree.leaves(data)
    is_arrays = isinstance(data, (dict, tuple, list)) or (bool(leaves) and all(map(is_array, leaves)))
    if batch_size is None:
        if (is_arrays and not isinstance(data, list)) or not hasattr(data, "__iter__"):
            raise TypeError(
                f"batch_size is None, but an integer of at least 1 is needed, as data is a {type(data).__name__}, "
                f"which makes no batches: {_KINDS}."
            )
        return Batches(data, steps_per_epoch)
    batch_size = as_size("batch_size", batch_size, write=32)
    if steps_per_epoch is not None:
        raise ValueError(
            "steps_per_epoch is for data that are batches: an epoch of examples is all whole batches of them."
        )
    if not is_arrays and not (hasattr(data, "__getitem__") and isinstance(data, Sized)):
        raise TypeError(f"data is a {type(data).__name__}, which makes batches or has no examples: {_KINDS}.")
    return Examples(data, is_arrays, batch_size)


class Batches:
    """Batches that something else makes, one after the other.

    An epoch is a pass over it; or, with `steps_per_epoch`, so many of its batches, which begins anew where it ends. An
    iterator that can say where it is (`get_state`, `set_state`, as grain's) goes on there; another is read up to there.
    """

    is_arrays = False
    examples = None  # as many as come

    def __init__(self, data, steps_per_epoch):
        self.data, self.after, self.batch_size = data, None, 1
        self.iterator: Any = None
        self.is_stream, self.once = steps_per_epoch is not None, isinstance(data, Iterator)
        if self.once and not hasattr(data, "get_state"):
            raise TypeError(
                f"data is a {type(data).__name__}, which can be read once only, so that no second epoch and no resumed "
                f"run would see it: {_KINDS}."
            )
        if self.once and not self.is_stream:
            raise ValueError(
                "steps_per_epoch is missing: an iterator has no length, so write how many batches make one."
            )
        self.steps = as_size("steps_per_epoch", steps_per_epoch, write=100) if self.is_stream else _count(data)

    def begin(self, run, sharding):
        self.stack, self.sharding = run.stack, sharding

    def batch(self, step):
        if self.iterator is None or self.after != step:
            self._seek(step)
        elif not self.is_stream and step % self.steps == 0:
            self.iterator = iter(self.data)
        batch = jax.tree.map(self._leaf, self._next())
        self.after = step + 1
        leaves = jax.tree.leaves(batch)
        self.batch_size = (
            int(np.prod(leaves[0].shape[: len(self.stack) + 1])) // int(np.prod(self.stack)) if leaves else 1
        )
        return placed(batch, self.sharding)

    def _leaf(self, leaf):
        array = as_sent(host_array(leaf))
        return np.broadcast_to(array, (*self.stack, *array.shape)) if self.stack else array

    def _next(self):
        try:
            return next(self.iterator)
        except StopIteration:
            if self.is_stream and not self.once:
                self.iterator = iter(self.data)
                if (batch := next(self.iterator, None)) is not None:
                    return batch
        raise ValueError(
            f"data ended before the {self.steps} batches of an epoch were read: let it have as many each time, or "
            "write steps_per_epoch."
        )

    def _seek(self, step):
        """Begin with the batch of a step."""
        self.iterator = self.data if self.once else iter(self.data)
        if not self.once:
            for _ in range(step if self.is_stream else step % self.steps):
                self._next()

    @property
    def fingerprint(self):
        return ["batches", self.steps]

    def state(self):
        """Where the iterator is, as JSON has it, or None where it can't say."""
        if not hasattr(self.iterator, "get_state"):
            return None
        state = self.iterator.get_state()
        return {"bytes": base64.b64encode(state).decode()} if isinstance(state, bytes) else {"json": state}

    def restore(self, state, step):
        """Go on after so many steps, from what `state` said then."""
        if state is None:
            return
        self.iterator, self.after = (self.data if self.once else iter(self.data)), step
        if not hasattr(self.iterator, "set_state"):
            raise ValueError("the data of the checkpoint could say where they were, and these can't")
        self.iterator.set_state(base64.b64decode(state["bytes"]) if "bytes" in state else state["json"])


def _count(data: Iterable) -> int:
    """How many batches a pass over the data has."""
    try:
        count = len(data)  # pyright: ignore[reportArgumentType]
    except TypeError:  # also of what has a length that it does not know
        count = sum(1 for _ in data)
    if not count:
        raise ValueError("data has no batches, but at least one is needed.")
    return count

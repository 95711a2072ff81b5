"""Which mask is meant: the key, the rate and the shape, checked once for all that draw."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdrop._keys import as_typed_key, note_use
from jdrop.masks._rate import Threshold, as_rate, is_random, static_bits, threshold
from jdrop.masks._shape import shared_shape


class Spec(NamedTuple):
    """What is known of a mask when a program is compiled."""

    impl: str  # the name of the key's PRNG implementation
    shape: tuple[int, ...]  # of the decisions: 1 on the axes along which one is shared
    bits: int  # how many leading bits of the thresholds may be set, from `static_bits`


@functools.partial(jax.tree_util.register_dataclass, data_fields=["key", "limit"], meta_fields=["shape", "bits"])
@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask that is not drawn yet; that of several thresholds has their shape, broadcast with its own."""

    key: Any  # typed, shape (); None where nothing is drawn
    limit: Threshold
    shape: tuple[int, ...]
    bits: int

    @property
    def keeps_all(self) -> bool:
        """Whether it is known to keep every element."""
        low, all_dropped, _ = self.limit
        return isinstance(low, (np.ndarray, np.generic)) and all_dropped is None and not low.any()

    def unless(self, deterministic) -> "Mask":
        """The mask that keeps all where a traced flag is True."""
        limit = jax.tree.map(lambda leaf: jnp.where(deterministic, jnp.zeros_like(leaf), leaf), self.limit)
        return dataclasses.replace(self, limit=limit._replace(valid=self.limit.valid))

    @property
    def spec(self) -> Spec:
        return Spec(str(jax.random.key_impl(self.key)), self.shape, self.bits)


def as_mask(key, shape, rate, broadcast_dims=(), *, drawn=True) -> Mask:
    """The mask that `keep_mask` draws for a checked shape.

    Args:
      key, rate, broadcast_dims: those of `keep_mask`.
      shape: a tuple of integers.
      drawn: False where it will not be drawn, so that no key is needed; as nothing is at static rates of 0 and 1.

    Raises:
      TypeError: no key where one is needed, a rate that is no real number, `broadcast_dims` that are no integers.
      ValueError: a concrete rate outside [0, 1] or NaN, an array of keys, an axis out of range, or a rate that does not
        broadcast against `shape`.
    """
    rate = as_rate(rate)
    decisions = shared_shape(shape, rate.shape, broadcast_dims)
    if rate.ndim:
        limit, bits = _limit(rate.reshape((1,) * (len(shape) - rate.ndim) + rate.shape))
    elif isinstance(rate, np.ndarray):
        limit, bits = _number_limit(rate.item(), rate.dtype.type)
    else:
        limit, bits = _limit(rate)
    if key is None and not (drawn and is_random(rate)):
        key = jax.random.key(0) if drawn else None  # any key does
    else:
        key = as_typed_key(key)
        if drawn and is_random(rate):
            note_use(key)
    return Mask(key, limit, decisions, bits)


def _limit(rate):
    limit = threshold(rate)
    return limit, static_bits(limit)


@functools.lru_cache
def _number_limit(rate, dtype):
    return _limit(np.asarray(rate, dtype))

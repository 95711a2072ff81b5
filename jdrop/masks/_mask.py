"""Which mask is meant: the key, the rate and the shape, checked once for all that draw."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from jdrop._keys import as_typed_key
from jdrop.masks._rate import Threshold, static_bits, threshold
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

    key: jax.Array  # typed, shape ()
    limit: Threshold
    shape: tuple[int, ...]
    bits: int

    @property
    def spec(self) -> Spec:
        return Spec(str(jax.random.key_impl(self.key)), self.shape, self.bits)


def as_mask(key, shape, rate, broadcast_dims=()) -> Mask:
    """The mask that `keep_mask` draws for a checked shape and a rate from `as_rate`.

    Raises:
      TypeError: no key, `broadcast_dims` that are no integers.
      ValueError: an array of keys, an axis out of range, or a rate that does not broadcast against `shape`.
    """
    drawn = shared_shape(shape, rate.shape, broadcast_dims)
    if rate.ndim:
        limit, bits = _limit(rate.reshape((1,) * (len(shape) - rate.ndim) + rate.shape))
    elif isinstance(rate, np.ndarray):
        limit, bits = _number_limit(rate.item(), rate.dtype.type)
    else:
        limit, bits = _limit(rate)
    return Mask(as_typed_key(key), limit, drawn, bits)


def _limit(rate):
    limit = threshold(rate)
    return limit, static_bits(limit)


@functools.lru_cache
def _number_limit(rate, dtype):
    return _limit(np.asarray(rate, dtype))

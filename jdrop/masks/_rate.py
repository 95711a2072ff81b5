"""What a rate means: the threshold that its units fall under, and the probability that is left."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdrop._checks import at_least_float32, is_concrete, refuse_masked

_ALLOWED = "a rate is the probability that a unit is dropped, a number in [0, 1]"


class Threshold(NamedTuple):
    """A rate as the mask needs it; every field has the rate's shape."""

    low: Any  # uint32: a unit is dropped if its 32-bit uniform lies below
    all_dropped: Any  # bool: the threshold is 2**32, which `low` cannot say; None if it nowhere is
    valid: Any  # bool: the rate lies in [0, 1]; None if it was checked to


def as_rate(rate) -> np.ndarray | jax.Array:
    """Return `rate` as a float scalar or array in JAX's precision, or say what is wrong with it.

    A Python number is rounded as JAX rounds every Python number (to float32 unless
    `jax_enable_x64` is on), so that a static and a traced rate mean the same probability.

    Raises:
      TypeError: not a real number or an array of them.
      ValueError: a concrete rate that is NaN or outside [0, 1].
    """
    if type(rate) is float:
        return _as_number(rate, jax.config.jax_enable_x64)  # pyright: ignore
    if isinstance(rate, (bool, np.bool_)) or not isinstance(rate, (int, float, np.ndarray, np.generic, jax.Array)):
        raise TypeError(f"rate is {rate!r} of type {type(rate).__name__}, but {_ALLOWED}: write rate=0.5.")
    refuse_masked("rate", rate)
    dtype = getattr(rate, "dtype", None) or jnp.result_type(float)
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        write = "convert it with rate.astype(jnp.float32)"
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            write = "write jdrop.dropout(key, x, rate), the arguments in this order"
        raise TypeError(f"rate is an array of {dtype}, but {_ALLOWED}: {write}.")
    dtype = jax.dtypes.canonicalize_dtype(at_least_float32(dtype))  # float64 only where JAX has it
    return _as_concrete(rate, dtype) if is_concrete(rate) else jnp.asarray(rate, dtype)


@functools.lru_cache
def _as_number(rate: float, _):
    """A Python float's rate: what eager calls on small arrays would spend a fifth of their time on."""
    return _as_concrete(rate, at_least_float32(jnp.result_type(rate)))


def _as_concrete(rate, dtype):
    concrete = np.asarray(rate)
    bad = ~((concrete >= 0) & (concrete <= 1))
    if bad.any():
        raise ValueError(f"rate is {concrete[bad].flat[0]}, but {_ALLOWED}: write rate=0.5 to drop half of the units.")
    return concrete.astype(dtype)


def threshold(rate) -> Threshold:
    """The threshold round(rate * 2**32) of each rate; that of an invalid (traced) rate is 0."""
    xp, traced = (jnp, True) if isinstance(rate, jax.Array) else (np, False)
    dtype = rate.dtype.type
    valid = (rate >= 0) & (rate <= 1) if traced else None
    scaled = xp.round((xp.where(valid, rate, dtype(0)) if traced else rate) * dtype(2**32))
    all_dropped = scaled >= dtype(2**32)
    low = xp.where(all_dropped, dtype(0), scaled).astype(np.uint32)
    return Threshold(low, all_dropped if traced or all_dropped.any() else None, valid)


def is_random(rate) -> bool:
    """Whether it takes a key to drop at a rate from `as_rate`: not at static ones of 0 and 1."""
    return isinstance(rate, jax.Array) or not np.isin(rate, (0, 1)).all()


def static_bits(limit: Threshold) -> int:
    """How many leading bits of the threshold may be set: 0, 4 (a static multiple of 1/16) or 32.

    Three classes and no finer, so that a schedule of static rates compiles at most three programs.
    """
    if isinstance(limit.low, jax.Array) or limit.low.ndim:
        return 32
    low = int(limit.low)
    return 0 if low == 0 else 4 if low % 2**28 == 0 else 32


def scales(limit, dtype, scaling):
    """The factors of (training, evaluation), in at least float32; NaN for an invalid rate."""
    if isinstance(limit.low, jax.Array) or limit.low.ndim:
        return _computed_scales(limit, dtype, scaling)
    return _number_scales(int(limit.low), limit.all_dropped is not None, dtype, scaling)


@functools.lru_cache
def _number_scales(low, all_dropped, dtype, scaling):
    limit = Threshold(np.asarray(low, np.uint32), np.asarray(True) if all_dropped else None, None)
    return _computed_scales(limit, dtype, scaling)


def _computed_scales(limit, dtype, scaling):
    low, all_dropped, valid = limit
    xp, dtype = jnp if isinstance(low, jax.Array) else np, np.dtype(at_least_float32(dtype)).type
    one = xp.ones(low.shape, dtype) if valid is None else xp.where(valid, dtype(1), dtype(np.nan))
    # 2**32 - low exactly, then rounded once: one minus a rounded rate near 1 could be 0.
    left = 2.0**32 - low.astype(np.float64) if xp is np else np.uint32(0) - low
    keep = xp.where(low == 0, one, one * (left.astype(dtype) / dtype(2**32)))
    inverse = dtype(1) / keep
    if all_dropped is not None:
        keep, inverse = (xp.where(all_dropped, dtype(0), factor) for factor in (keep, inverse))
    return {"inverted": (inverse, one), "classic": (one, keep), "none": (one, one)}[scaling]

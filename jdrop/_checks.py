"""What every room checks, and the precision that every room computes in."""

import operator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


def as_size(name, value, least: int = 1, write=None) -> int:
    """Return a count as a Python int of at least `least`; `write` is the number that an error advises."""
    write = least if write is None else write
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} is {value!r}, but an integer of at least {least} is needed: write {name}={write}."
        ) from None
    if size < least:
        raise ValueError(f"{name} is {size}, but it must be at least {least}: write {name}={write}.")
    return size


def as_flag(deterministic) -> bool | jax.Array:
    """Return a boolean flag as a Python bool, or as the traced scalar that it is.

    Raises:
      TypeError: not a boolean scalar.
    """
    if isinstance(deterministic, (jax.Array, np.ndarray, np.bool_)):
        if deterministic.dtype == jnp.bool_ and deterministic.shape == ():
            return bool(deterministic) if is_concrete(deterministic) else jnp.asarray(deterministic)
        came = f"an array of {deterministic.dtype} and shape {deterministic.shape}"
    elif isinstance(deterministic, bool):
        return deterministic
    else:
        came = repr(deterministic)
    raise TypeError(
        f"deterministic is {came}, but one boolean is needed: write deterministic=True at evaluation and "
        "deterministic=False while training."
    )


def as_scalar(name, value, valid, allowed, write) -> Any:
    """`value` as a scalar in at least float32; NaN where a traced one is not `valid`.

    Raises:
      TypeError: not a real number.
      ValueError: a concrete value that is not valid.
    """
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if array.shape or not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} is {value!r}, but it must be a number {allowed}: write {write}.")
    array = array.astype(jax.dtypes.canonicalize_dtype(at_least_float32(array.dtype)))
    if not is_concrete(array):
        return jnp.where(valid(array), array, jnp.nan)
    if not valid(array):
        raise ValueError(f"{name} is {value}, but it must be a number {allowed}: write {write}.")
    return array


def check_choice(name, value, allowed):
    """Raise a ValueError unless `value` is one of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, allowed))}.")


def is_concrete(value) -> bool:
    """Whether a value is known, so that a bad one can raise."""
    return not isinstance(value, jax.core.Tracer)


def at_least_float32(dtype):
    """float64 for a double-precision dtype, else float32: what scales and sums are computed in."""
    return jnp.float64 if dtype in (jnp.float64, jnp.complex128) else jnp.float32

"""Gaussian noise, multiplied and added."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_flag, at_least_float32, is_concrete, to_array
from jdrop._keys import used_once
from jdrop._types import Flag
from jdrop.functional._dropout import as_input, check_dtype, draws_at
from jdrop.functional._inlined import inlined
from jdrop.masks._rate import as_rate
from jdrop.masks._shape import fits


def gaussian_dropout(key: jax.Array | None, x: ArrayLike, rate: ArrayLike, deterministic: Flag = False) -> jax.Array:
    """Multiply each element of `x` by a normal number with the mean and the variance that dropout's mask has.

    ``y = x * (1 + (rate / (1 - rate)) ** 0.5 * e)`` with ``e = jax.random.normal(key, x.shape)``, in float32 or, for
    double precision, in float64; ``y = x`` at evaluation.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn (evaluation, or a static rate of 0).
      x: a real floating-point array of any shape.
      rate: in [0, 1), that of the dropout whose noise it stands for; a number or an array, traced or not, that
        broadcasts against `x`.
      deterministic: True at evaluation; a boolean, traced or not.

    Returns:
      An array of the shape and dtype of `x`, NaN for a traced rate that is NaN or outside [0, 1). The backward pass
      keeps the key and draws again.

    Raises:
      TypeError: integer or complex input, no key where one is needed, a rate or flag of a wrong type.
      ValueError: a concrete rate outside [0, 1) or NaN: at 1 the variance is infinite.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> jdrop.gaussian_dropout(jax.random.key(0), jnp.ones((2, 3)), 0.5).shape
      (2, 3)

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 10.
    """
    x, rate = as_input(x, rate), as_rate(rate)
    if is_concrete(rate) and (rate == 1).any():
        raise ValueError(
            "rate is 1, where the variance rate / (1 - rate) of the noise is infinite: write a rate below 1, or "
            "jdrop.dropout, which then drops everything."
        )
    if not draws_at(rate, deterministic):
        return x
    valid = (rate >= 0) & (rate < 1)
    std = jnp.sqrt(jnp.where(valid, rate, jnp.nan) / jnp.where(valid, 1 - rate, 1))
    return _noisy(key, x, std, "rate", deterministic, _multiplied)


def gaussian_noise(key: jax.Array | None, x: ArrayLike, std: ArrayLike, deterministic: Flag = False) -> jax.Array:
    """Add normal noise to each element of `x`.

    ``y = x + std * e`` with ``e = jax.random.normal(key, x.shape)``, in float32 or, for double precision, in float64;
    ``y = x`` at evaluation.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn (evaluation, or a static std of 0).
      x: a real floating-point array of any shape.
      std: the standard deviation of the noise, not negative; a number or an array, traced or not, that broadcasts
        against `x`.
      deterministic: True at evaluation; a boolean, traced or not.

    Returns:
      An array of the shape and dtype of `x`, NaN for a traced std that is NaN or negative.

    Raises:
      TypeError: integer or complex input, no key where one is needed, a std or flag of a wrong type.
      ValueError: a concrete std that is NaN, infinite or negative, or of a shape that does not broadcast against `x`.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> jdrop.gaussian_noise(jax.random.key(0), jnp.ones((2, 3)), 0.1).shape
      (2, 3)

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 10.
    """
    x, given = as_input(x, std), to_array("std", std)
    if not (jnp.issubdtype(given.dtype, jnp.floating) or jnp.issubdtype(given.dtype, jnp.integer)):
        raise TypeError(f"std is {std!r}, but a number that is not negative is needed: write std=0.1.")
    if is_concrete(given) and not ((given >= 0) & (given < jnp.inf)).all():
        raise ValueError(f"std is {std}, but it must be finite and not negative: write std=0.1.")
    if not draws_at(given, deterministic):
        return x
    given = jnp.asarray(given, jax.dtypes.canonicalize_dtype(at_least_float32(given.dtype)))
    return _noisy(key, x, jnp.where(given >= 0, given, jnp.nan), "std", deterministic, _added)


def _multiplied(x, noise):
    return x * (1 + noise)


def _added(x, noise):
    return x + noise


def _noisy(key, x, std, name, deterministic, function):
    """`function(x, std * e)` in the precision of e."""
    deterministic = as_flag(deterministic)
    check_dtype(x.dtype)
    if jnp.iscomplexobj(x):
        raise TypeError(
            f"x has dtype {x.dtype}, but noise is of real numbers: give x.real and x.imag, each with a key."
        )
    if not fits(std.shape, x.shape):
        raise ValueError(f"{name} has shape {std.shape}, which does not broadcast to the shape {x.shape} of x.")
    dtype = at_least_float32(x.dtype)
    std = std.astype(dtype)
    std = std if deterministic is False else jnp.where(deterministic, 0, std)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def noisy(key, x, std):
        noise = std * jax.random.normal(inlined(key), x.shape, dtype)
        return function(x.astype(dtype), noise).astype(x.dtype)

    return noisy(used_once(key), x, std)

"""Dropout for self-normalising networks: to the lowest value of SELU, with mean and variance kept."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_flag, at_least_float32
from jdrop._types import Flag
from jdrop.functional._dropout import as_input, check_dtype, drawn
from jdrop.functional._structured import places, with_axes
from jdrop.masks._drop import chosen
from jdrop.masks._rate import scales

LOWEST = -1.0507009873554805 * 1.6732632423543772  # of SELU, -scale * alpha


def alpha_dropout(key: jax.Array | None, x: ArrayLike, rate: ArrayLike, deterministic: Flag = False) -> jax.Array:
    """Set each element of `x` to the lowest value of SELU with probability `rate`, and keep mean and variance.

    ``y = a * (x if keep else l) + b`` with ``l = -1.7581``, ``q = 1 - rate``, ``a = (q + l**2 * q * rate) ** -0.5`` and
    ``b = -a * rate * l``; ``y = x`` at evaluation. Where x has mean 0 and variance 1 so has y; at rate 1, where no
    variance is left, y is that mean, 0.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: a real floating-point array of any shape, the output of a SELU.
      rate: the probability that an element is dropped, in [0, 1]; a number or an array, traced or not, that
        broadcasts against `x`.
      deterministic: True at evaluation; a boolean, traced or not.

    Returns:
      An array of the shape and dtype of `x`, NaN for a traced rate that is NaN or outside [0, 1].

    Raises:
      TypeError: integer or complex input, no key where one is needed, a rate or flag of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> jdrop.alpha_dropout(jax.random.key(0), jnp.zeros((2, 3)), 0.5).shape
      (2, 3)

    Paper:
      Klambauer et al. 2017, "Self-normalizing neural networks".
    """
    return _alpha(key, as_input(x, rate), rate, deterministic, ())


def feature_alpha_dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    channel_axis: int = -1,
) -> jax.Array:
    """Set each channel of each example to the lowest value of SELU with probability `rate`.

    `alpha_dropout` with one decision for all places of a channel, as in `channel_dropout`.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: a real floating-point array of shape (batch, ..., channels).
      rate: the probability that a channel is dropped, in [0, 1]; a number or an array, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      channel_axis: the axis of the channels, not the first; 1 for (batch, channels, ...).

    Returns:
      An array of the shape and dtype of `x`, NaN for a traced rate that is NaN or outside [0, 1].

    Raises:
      TypeError: integer or complex input, no key where one is needed, a rate, flag or axis of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN; fewer than two axes, or a `channel_axis` that is none but the
        first.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> y = jdrop.feature_alpha_dropout(jax.random.key(0), jnp.zeros((2, 4, 4, 8)), 0.5)
      >>> bool((y == y[:, :1, :1]).all())
      True

    Paper:
      Klambauer et al. 2017, "Self-normalizing neural networks".
    """
    x = with_axes(x, rate, 2, "(batch, ..., channels)")
    return _alpha(key, x, rate, deterministic, places(x, channel_axis))


def _alpha(key, x, rate, deterministic, broadcast_dims):
    mask = drawn(key, x.shape, rate, deterministic, broadcast_dims)
    if mask is None:
        return x
    check_dtype(x.dtype)
    if jnp.iscomplexobj(x):
        raise TypeError(f"x has dtype {x.dtype}, but SELU is a function of real numbers: drop x.real and x.imag.")
    dtype = at_least_float32(x.dtype)
    _, q = scales(mask.limit, dtype, "classic")
    q = jnp.asarray(q, dtype)
    a = jnp.where(q == 0, 0, jax.lax.rsqrt(jnp.where(q == 0, 1, q + LOWEST**2 * q * (1 - q))))
    b = -a * (1 - q) * LOWEST
    flag = as_flag(deterministic)
    a, b = (a, b) if flag is False else (jnp.where(flag, 1, a), jnp.where(flag, 0, b))
    return chosen(mask, (a * x.astype(dtype) + b).astype(x.dtype), (a * LOWEST + b).astype(x.dtype))

"""Dropout of whole parts of an array, one decision each: examples and channels."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_known, as_size
from jdrop._types import Flag, Save, Scaling
from jdrop.functional._dropout import as_input, dropout


def drop_path(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    scaling: Scaling = "inverted",
    save: Save = "key",
) -> jax.Array:
    """Set each example of `x`, such as the output of a residual branch, to zero with probability `rate`.

    ``y[i] = keep[i] * x[i] / (1 - rate)``, stochastic depth in ``x + drop_path(key, branch(x), rate)``; ``y = x`` at
    evaluation. It is `jdrop.dropout` with one decision for all but the first axis.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: a floating-point or complex array of shape (batch, ...).
      rate: the probability that an example is dropped, in [0, 1]; a number or an array, traced or not: such as one
        of `linear_depth_rates`, in a scan over the depth.
      deterministic: True at evaluation; a boolean, traced or not.
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.
      save: "key" or "mask", as in `jdrop.dropout`.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      TypeError: integer input, no key where one is needed, a rate or flag of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN; `x` has no axis.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> y = jdrop.drop_path(jax.random.key(0), jnp.ones((8, 3)), 0.5)
      >>> bool((y == y[:, :1]).all())
      True

    Paper:
      Huang et al. 2016, "Deep networks with stochastic depth"; Larsson et al. 2017, "FractalNet".
    """
    x = with_axes(x, rate, 1, "(batch, ...)")
    return dropout(key, x, rate, deterministic, broadcast_dims=range(1, x.ndim), scaling=scaling, save=save)


def linear_depth_rates(rate: float, depth: int, *, first: float = 0.0) -> jax.Array:
    """The rates of `drop_path` for the blocks of a network, rising with the depth.

    ``rate[l] = first + (rate - first) * l / (depth - 1)`` for the blocks l = 0, ..., depth - 1.

    Args:
      rate: of the last block, in [0, 1].
      depth: the number of blocks, at least 1; of one block the rate is `rate`.
      first: of the first block, in [0, 1]; the paper's rule is ``first=rate / depth``.

    Returns:
      A float32 array of shape (depth,).

    Raises:
      TypeError: a rate that is no number, a depth that is no integer.
      ValueError: a rate outside [0, 1], a depth below 1.

    Example:
      >>> import jdrop
      >>> jdrop.linear_depth_rates(0.2, 5).tolist()
      [0.0, 0.05000000074505806, 0.10000000149011612, 0.15000000596046448, 0.20000000298023224]

    Paper:
      Huang et al. 2016, "Deep networks with stochastic depth".
    """
    rate, first = as_known("rate", rate, 0, 1, "rate=0.1"), as_known("first", first, 0, 1, "first=0.0")
    depth = as_size("depth", depth, write=12)
    return jnp.asarray(np.linspace(first if depth > 1 else rate, rate, depth), jnp.float32)


def channel_dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    channel_axis: int = -1,
    scaling: Scaling = "inverted",
    save: Save = "key",
) -> jax.Array:
    """Set each channel of each example to zero with probability `rate`.

    ``y[i, ..., c] = keep[i, c] * x[i, ..., c] / (1 - rate)``; ``y = x`` at evaluation. Neighbouring pixels know much of
    each other: dropped alone they are hardly missed, dropped with their channel they are.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: a floating-point or complex array of shape (batch, ..., channels), with any number of axes between.
      rate: the probability that a channel is dropped, in [0, 1]; a number or an array, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      channel_axis: the axis of the channels, not the first; 1 for (batch, channels, ...).
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.
      save: "key" or "mask", as in `jdrop.dropout`.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      TypeError: integer input, no key where one is needed, a rate, flag or axis of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN; fewer than two axes, or a `channel_axis` that is none but the
        first.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> y = jdrop.channel_dropout(jax.random.key(0), jnp.ones((2, 4, 4, 8)), 0.5)
      >>> bool((y == y[:, :1, :1]).all())
      True

    Paper:
      Tompson et al. 2015, "Efficient object localization using convolutional networks".
    """
    x = with_axes(x, rate, 2, "(batch, ..., channels)")
    shared = places(x, channel_axis)
    return dropout(key, x, rate, deterministic, broadcast_dims=shared, scaling=scaling, save=save)


def places(x, channel_axis) -> list[int]:
    """The axes of the places that a channel of an example has: all but the first and that of the channels."""
    if isinstance(channel_axis, bool) or not isinstance(channel_axis, (int, np.integer)):
        raise TypeError(f"channel_axis is {channel_axis!r}, but an integer is needed: write channel_axis=-1.")
    if not -x.ndim <= channel_axis < x.ndim or channel_axis % x.ndim == 0:
        raise ValueError(
            f"channel_axis is {channel_axis}, but x has {x.ndim} axes, and the first is that of the examples: write "
            "channel_axis=-1."
        )
    return [axis for axis in range(1, x.ndim) if axis != channel_axis % x.ndim]


def with_axes(x, rate, least, shape) -> jax.Array:
    """The input as an array of at least so many axes; or a ValueError that names its shape."""
    x = as_input(x, rate)
    if x.ndim < least:
        raise ValueError(f"x has shape {x.shape}, but {shape} is needed: write x[None] for one example.")
    return x

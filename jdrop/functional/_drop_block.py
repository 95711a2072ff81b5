"""Dropout of contiguous blocks of an image or a sequence."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from jdrop._checks import as_size, at_least_float32, check_choice, is_concrete
from jdrop._types import Flag
from jdrop.functional._dropout import check_dtype, drawn
from jdrop.functional._structured import with_axes
from jdrop.masks._primitives import keep
from jdrop.masks._rate import as_rate

_SCALINGS = ("inverted", "none")


def drop_block(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    block_size: int = 7,
    scaling: str = "inverted",
) -> jax.Array:
    """Set blocks of each channel of an image, or of a sequence, to zero.

    A block begins at each place where it lies wholly inside with probability
    ``gamma = rate / block_size**2 * (H * W) / ((H - block_size + 1) * (W - block_size + 1))``, and
    ``y = m * x * (H * W) / sum(m)`` with m = 0 in the blocks and the sum over a channel of an example; ``y = x`` at
    evaluation. Blocks overlap: of places in the middle a share ``1 - (1 - gamma)**(block_size**2)`` is dropped, which
    is less than `rate`, and at the edges fewer are. For a sequence both squares are the first power.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: a floating-point or complex array of shape (batch, height, width, channels) or (batch, length, channels).
      rate: about the share that is dropped, in [0, 1]; a number, traced or not. Where gamma is above 1 it is 1.
      deterministic: True at evaluation; a boolean, traced or not.
      block_size: the side of a block, at least 1, cut to the smallest side of the image; at 1 it is `dropout`, but for
        the scale.
      scaling: "inverted" or "none", which leaves what is kept as it is.

    Returns:
      An array of the shape and dtype of `x`; NaN for a traced rate that is NaN or outside [0, 1]. A NaN in a block
      reaches neither the output nor a gradient.

    Raises:
      TypeError: integer input, no key where one is needed, a rate, flag or size of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, or an array of rates; an `x` of other than three or four axes,
        a size below 1, an unknown `scaling`.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> jdrop.drop_block(jax.random.key(0), jnp.ones((2, 8, 8, 3)), 0.1, block_size=3).shape
      (2, 8, 8, 3)

    Paper:
      Ghiasi, Lin & Le 2018, "DropBlock: a regularization method for convolutional networks".
    """
    x = with_axes(x, rate, 3, "(batch, height, width, channels)")
    if x.ndim > 4:
        raise ValueError(f"x has shape {x.shape}, but (batch, height, width, channels) is needed: flatten other axes.")
    check_choice("scaling", scaling, _SCALINGS)
    size = max(1, min(as_size("block_size", block_size, write=7), *x.shape[1:-1]))
    rate = as_rate(rate)
    if rate.ndim:
        raise ValueError(f"rate has shape {rate.shape}, but blocks share one rate: give a number.")
    starts = tuple(max(0, side - size + 1) for side in x.shape[1:-1])
    share = math.prod(x.shape[1:-1]) / max(1, math.prod(starts)) / size ** len(starts)
    valid = (rate >= 0) & (rate <= 1)
    gamma = rate * rate.dtype.type(share)
    gamma = gamma.clip(0, 1) if is_concrete(rate) else jnp.where(valid, jnp.clip(gamma, 0, 1), jnp.nan)
    mask = drawn(key, (x.shape[0], *starts, x.shape[-1]), gamma, deterministic)
    if mask is None or not x.size:
        return x
    check_dtype(x.dtype)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def blocked(mask, x):
        kept, wide = keep(mask), at_least_float32(x.dtype)
        for axis in range(1, x.ndim - 1):  # a block is a line of lines
            sides = [(size - 1, size - 1) if axis == other else (0, 0) for other in range(x.ndim)]
            window = [size if axis == other else 1 for other in range(x.ndim)]
            kept = lax.reduce_window(kept, True, lax.bitwise_and, window, (1,) * x.ndim, sides)
        if scaling == "none":
            return jnp.where(kept, x, jnp.zeros((), x.dtype))
        places = tuple(range(1, x.ndim - 1))
        scale = math.prod(x.shape[1:-1]) / jnp.maximum(kept.sum(places, wide, keepdims=True), 1)
        real = wide if not jnp.iscomplexobj(x) else x.dtype
        return jnp.where(kept, (x.astype(real) * scale.astype(real)).astype(x.dtype), jnp.zeros((), x.dtype))

    y = blocked(mask, x)
    return y if mask.limit.valid is None else jnp.where(mask.limit.valid, y, jnp.asarray(jnp.nan, x.dtype))

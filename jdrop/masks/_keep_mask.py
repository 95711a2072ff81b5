"""A mask by itself."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop.masks._mask import as_mask
from jdrop.masks._primitives import keep
from jdrop.masks._shape import as_shape

STREAM_VERSION = 2


def keep_mask(
    key: jax.Array, shape: Sequence[int], rate: ArrayLike, *, broadcast_dims: Sequence[int] = ()
) -> jax.Array:
    """Draw a boolean mask that is False with probability `rate`.

    ``keep[e] = U(e) >= round(rate * 2**32)``, U(e) a 32-bit uniform of the key and the element.

    Args:
      key: a PRNG key, shape ().
      shape: shape of the mask, a tuple of non-negative integers.
      rate: the probability that an element is dropped, in [0, 1]; a number or an array, traced or
        not, that broadcasts against `shape`.
      broadcast_dims: axes along which one decision is shared; negative ones count from the end.

    Returns:
      bool array of `shape`, True where an element is kept. A traced rate that is NaN or outside
      [0, 1] keeps nothing.

    Raises:
      TypeError: no key, a rate that is no real number, a shape that is no tuple of integers.
      ValueError: a concrete rate outside [0, 1] or NaN, an array of keys, an axis out of range, a
        rate that does not broadcast against `shape`.

    Example:
      >>> import jax, jdrop
      >>> jdrop.keep_mask(jax.random.key(0), (2, 3), 0.5).shape
      (2, 3)
    """
    shape = as_shape(shape)
    return _keep_mask(as_mask(key, shape, rate, broadcast_dims), shape)


@functools.partial(jax.jit, static_argnums=1)
def _keep_mask(mask, shape):
    kept, valid = keep(mask), mask.limit.valid
    return jnp.broadcast_to(kept if valid is None else kept & valid, shape)

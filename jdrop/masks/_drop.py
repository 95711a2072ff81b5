"""An array dropped by a mask: by the kernel where it serves, and else by the mask that XLA draws."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax

from jdrop.masks._packed import draw, opened
from jdrop.masks._primitives import drop, keep, times
from jdrop.masks._shape import is_static

scaled = jax.jit(times)


@functools.partial(jax.jit, static_argnums=(3, 4))
def dropped(mask, x, scale, save, implementation):
    """The elements of x that a mask keeps, times `scale`, and 0 in the place of the others.

    Args:
      mask: a `Mask` that broadcasts to the shape of `x`.
      x: a floating-point or complex array.
      scale: the factor, in the dtype to multiply in.
      save, implementation: those of `jdrop.dropout`.
    """
    limit, shape = mask.limit, mask.shape
    if save == "mask" and is_static(shape):
        shape = jnp.broadcast_shapes(shape, limit.low.shape)
        mask = dataclasses.replace(mask, limit=limit._replace(valid=None), shape=shape)
        loop, unrolled = (functools.partial(draw, unroll=unroll) for unroll in (False, True))
        words = lax.platform_dependent(mask, cuda=unrolled, default=loop)
        return _masked(lambda words: opened(words, shape), words, x, scale)
    if limit.low.ndim == 0 and is_static(shape) and shape == x.shape:
        return drop(mask, scale, x, implementation)
    return _masked(keep, mask, x, scale)


@functools.partial(jax.checkpoint, prevent_cse=False)
def chosen(mask, kept, otherwise):
    """`kept` where a mask keeps and `otherwise` elsewhere; a derivative keeps the key, and draws the mask again."""
    return jnp.where(keep(mask), kept, otherwise)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def _masked(open_mask, source, x, scale):
    """The scaled elements that `open_mask(source)` keeps; a derivative keeps no more than these arguments."""
    return jnp.where(open_mask(source), times(x, scale), jnp.zeros((), x.dtype))

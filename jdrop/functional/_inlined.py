"""The random numbers of JAX, bit for bit, drawn where they are used."""

import math

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdrop.masks._words import threefry2x32


def inlined(key):
    """A key from which `jax.random` draws what it draws from `key`, in one loop with what is made of the numbers.

    JAX's own threefry2x32 is a loop over its rounds on a CPU, and a kernel of its own on a GPU: its words go to memory,
    and its time is most of a normal number's.

    Args:
      key: a typed key of shape ().
    """
    if str(jax.random.key_impl(key)) != "threefry2x32" or not jax.config.jax_threefry_partitionable:  # pyright: ignore
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_IMPL)


def _bits(data, width, shape):
    """JAX's words, as it has defined them since its version 0.5: those of an element come from its place alone."""
    if width < 32 or not all(isinstance(n, int) for n in shape) or math.prod(shape) > 2**32:
        return jax.random.bits(jax.random.wrap_key_data(data, impl="threefry2x32"), shape, f"uint{width}")
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        place += lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
    high, low = threefry2x32(data, (jnp.zeros_like(place), place), rounds=20)
    if width == 32:
        return high ^ low
    return (high.astype(jnp.uint64) << np.uint64(32)) | low.astype(jnp.uint64)


_JAX = jax.extend.random.threefry_prng_impl
_IMPL = jax.extend.random.define_prng_impl(
    key_shape=_JAX.key_shape,
    seed=_JAX.seed,
    split=_JAX.split,
    fold_in=_JAX.fold_in,
    random_bits=_bits,
    name="inlined threefry2x32",
    tag="ifry",
)

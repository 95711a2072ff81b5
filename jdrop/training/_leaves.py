"""Leaves of a state, of which some are typed keys."""

import jax
import jax.numpy as jnp


def is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def data_of(leaf):
    """The words of a key; any other array as it is."""
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def with_data(leaf, data):
    """The key of `leaf`'s implementation with these words, or the data themselves where `leaf` is no key."""
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf)) if is_key(leaf) else data

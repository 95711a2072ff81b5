"""Stochastic forward passes: `vmap` over keys, with rounding that does not depend on how many run at once."""

import functools

import jax
import jax.numpy as jnp

from jdrop.keys import as_typed_key, fold_in
from jdrop.masks.shape import as_size
from jdrop.mc.exact import exact_vmap


def samples(predict, key, x, num_samples=100, *, chunk_size=None):
    """Draw stochastic forward passes.

    Sample i is ``predict(fold_in(key, i), x)``, so that more samples extend a run and never change its first ones.
    What `predict` computes before its first use of the key is computed once for all samples.

    Args:
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make.
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes, an array or a tree of arrays.
      num_samples: how many passes, at least 1.
      chunk_size: how many passes run at once, at least 1; all of them if None. It bounds the memory and never
        changes the result.

    Returns:
      The outputs with a new first axis of `num_samples`.

    Raises:
      TypeError: no key, `predict` is not callable, or a size that is no integer.
      ValueError: a size below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> predict = lambda key, x: jdrop.dropout(key, x, 0.5)
      >>> jdrop.mc.samples(predict, jax.random.key(0), jnp.ones(3), 10, chunk_size=4).shape
      (10, 3)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    if not callable(predict):
        raise TypeError(f"predict is a {type(predict).__name__}, but a function (key, x) -> outputs is needed.")
    num_samples = as_size("num_samples", num_samples)
    chunk_size = num_samples if chunk_size is None else as_size("chunk_size", chunk_size)
    return _samples(as_partial(predict), as_typed_key(key), x, num_samples, min(chunk_size, num_samples))


@functools.partial(jax.jit, static_argnums=(3, 4))
def _samples(predict, key, x, num_samples, chunk_size):
    def sample(i):
        return predict(fold_in(key, i), x)

    run = exact_vmap(sample, jnp.uint32(0))
    whole = num_samples // chunk_size * chunk_size
    indices = jnp.arange(num_samples, dtype=jnp.uint32)
    if chunk_size == num_samples:
        return run(indices)
    chunks = jax.lax.map(run, indices[:whole].reshape(-1, chunk_size))
    outputs = jax.tree.map(lambda chunk: chunk.reshape(whole, *chunk.shape[2:]), chunks)
    if whole == num_samples:
        return outputs
    rest = run(indices[whole:])
    return jax.tree.map(lambda first, last: jnp.concatenate([first, last]), outputs, rest)


def as_partial(function):
    """`function` as a pytree: the arrays of a `Partial` are traced, anything else is part of its identity."""
    return function if isinstance(function, jax.tree_util.Partial) else jax.tree_util.Partial(function)

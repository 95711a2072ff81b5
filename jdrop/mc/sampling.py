"""Stochastic forward passes by `vmap` over keys."""

import functools
import operator

import jax
import jax.numpy as jnp

from jdrop.keys import as_typed_key, fold_in


def samples(predict, key, x, num_samples=100, *, chunk_size=None):
    """Draw stochastic forward passes.

    Sample i is ``predict(fold_in(key, i), x)``, so that more samples extend a run and never change its first ones.

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

    indices = jnp.arange(num_samples, dtype=jnp.uint32)
    if chunk_size == num_samples:
        return jax.vmap(sample)(indices)
    return jax.lax.map(sample, indices, batch_size=chunk_size)


def as_partial(function):
    """`function` as a pytree: the arrays of a `Partial` are traced, anything else is part of its identity."""
    return function if isinstance(function, jax.tree_util.Partial) else jax.tree_util.Partial(function)


def as_size(name, value) -> int:
    """Return a size as a Python int of at least 1."""
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}, but an integer of at least 1 is needed: write {name}=100.") from None
    if size < 1:
        raise ValueError(f"{name} is {size}, but it must be at least 1: write {name}=100.")
    return size

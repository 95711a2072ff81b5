"""Scores of unlabelled examples, and the examples that they choose."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_size
from jdrop._keys import as_typed_key
from jdrop.mc._checks import as_finite, as_probabilities


def mean_std(probabilities: ArrayLike) -> jax.Array:
    """Standard deviation over the samples, averaged over the classes.

    ``(1/C) sum_c sqrt((1/S) sum_i p_ic**2 - ((1/S) sum_i p_ic)**2)`` with C classes.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Scores of shape (...), in [0, 0.5].

    Raises:
      ValueError: not probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.acquisition.mean_std(jnp.eye(2)[:, None])
      Array([0.5], dtype=float32)

    Paper:
      Gal, Islam & Ghahramani 2017, "Deep Bayesian active learning with image data".
    """
    return as_probabilities(probabilities, "num_samples", "...", "classes").std(0).mean(-1)


def random(key: jax.Array, n: int) -> jax.Array:
    """Uniform scores: the baseline that a method must beat.

    ``u[i] ~ U(0, 1)``

    Args:
      key: a PRNG key, shape ().
      n: how many examples, at least 1.

    Returns:
      Scores of shape (n,), in [0, 1).

    Raises:
      TypeError: no key, or an n that is no integer.
      ValueError: n below 1.

    Example:
      >>> import jax, jdrop
      >>> jdrop.mc.acquisition.random(jax.random.key(0), 5).shape
      (5,)

    Paper:
      Gal, Islam & Ghahramani 2017, "Deep Bayesian active learning with image data".
    """
    return jax.random.uniform(as_typed_key(key), (as_size("n", n, write=100),))


def top_k(scores: ArrayLike, k: int) -> jax.Array:
    """The examples with the k highest scores, best first; of equal ones the first.

    Args:
      scores: shape (n,).
      k: how many, in [1, n].

    Returns:
      Indices of shape (k,), integers in [0, n). All are n, which no example has, if a traced score is NaN or inf.

    Raises:
      TypeError: scores that are no array of real numbers, or a k that is no integer.
      ValueError: empty input, a score that is not finite, another number of axes, or k outside [1, n].

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.acquisition.top_k(jnp.array([0.1, 0.9, 0.5]), 2)
      Array([1, 2], dtype=int32)
    """
    scores = as_finite("scores", scores, "n")
    return _top_k(scores, as_batch_size(k, len(scores)))


@functools.partial(jax.jit, static_argnums=1)
def _top_k(scores, k):
    scores = jnp.where(scores == 0, 0, scores)  # top_k ranks 0 above -0
    return jnp.where(jnp.isnan(scores).any(), len(scores), jax.lax.top_k(scores, k)[1])


def as_batch_size(k, n):
    """How many examples of n to pick, checked."""
    k = as_size("k", k, write=min(10, n))
    if k > n:
        raise ValueError(f"k is {k}, but there are {n} examples to pick from: write k={n}, or score more of them.")
    return k

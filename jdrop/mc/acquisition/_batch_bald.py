"""A batch of examples, each for what its label adds to those of the others."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_size, is_concrete
from jdrop._keys import as_typed_key
from jdrop.mc._checks import as_probabilities
from jdrop.mc.acquisition._scores import as_batch_size
from jdrop.mc.uncertainty._classification import entropy_of


def batch_bald(
    key: jax.Array, probabilities: ArrayLike, k: int, num_configurations: int = 10_000
) -> tuple[jax.Array, jax.Array]:
    """Pick a batch of k examples, each for what its label adds to those of the examples before it.

    Greedily, ``pick[t] = argmax_i I(y[i]; w | y[pick[0]], ..., y[pick[t - 1]])``, which is the argmax of the joint
    mutual information with the parameters w of the S samples. The expectation over the labels of the picked examples is
    exact as long as these have at most `num_configurations` configurations, classes**t, and an average over that many
    random ones from there on.

    Sample s must be one function over the whole pool, or copies of one input would count as news: draw it by
    ``jdrop.mc.samples(..., consistent=True)``, since by default each example has masks of its own.

    Args:
      key: a PRNG key, shape (), for the random configurations.
      probabilities: shape (num_samples, n, classes), rows that sum to 1.
      k: how many, in [1, n].
      num_configurations: at least 1; the memory grows with num_samples * num_configurations.

    Returns:
      (indices, information): the picks, integers of shape (k,) without repetition, and in nats the joint mutual
      information of the first 1, 2, ..., k of them, of shape (k,), at most log num_samples but for sampling error.
      Under a trace invalid probabilities give NaN information.

    Raises:
      TypeError: no key, probabilities that are no array of numbers, or a size that is no integer.
      ValueError: empty input, not probabilities, another number of axes, k outside [1, n], or num_configurations
        below 1.

    Warns:
      UserWarning: the samples of different examples are as uncorrelated as those of masks of their own.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> pool, kernel = jax.random.normal(jax.random.key(0), (50, 8)), jax.random.normal(jax.random.key(1), (8, 3))
      >>> predict = lambda key, x: jax.nn.softmax(jdrop.dropout(key, x, 0.5) @ kernel)
      >>> probabilities = jdrop.mc.samples(predict, jax.random.key(2), pool, 20, consistent=True)
      >>> indices, information = jdrop.mc.acquisition.batch_bald(jax.random.key(1), probabilities, 4)
      >>> indices.shape, information.shape
      ((4,), (4,))

    Paper:
      Kirsch, van Amersfoort & Gal 2019, "BatchBALD: efficient and diverse batch acquisition for deep Bayesian active
      learning".
    """
    p = as_probabilities(probabilities, "num_samples", "n", "classes")
    k = as_batch_size(k, p.shape[1])
    if is_concrete(p) and _looks_independent(np.asarray(p, np.float64)):
        warnings.warn(
            "the samples of different examples are uncorrelated, as if each example had masks of its own, but "
            "BatchBALD needs samples that are one function of all: write jdrop.mc.samples(..., consistent=True).",
            stacklevel=2,
        )
    return _batch_bald(as_typed_key(key), p, k, as_size("num_configurations", num_configurations, write=10_000))


def _looks_independent(p) -> bool:
    """Whether the correlations between examples, over the samples, are no larger than chance makes them.

    Of independent examples the squared correlations have a mean of 1 / (S - 1). Up to 200 examples are looked at.
    """
    num_samples, n, _ = p.shape
    p = p[:, :: -(-n // 200)]
    varied = p.var(0)
    label = varied.argmax(-1)  # of each example the class whose probability varies most
    z = np.take_along_axis(p, label[None, :, None], -1)[..., 0]
    z = (z - z.mean(0))[:, z.std(0) > 1e-6]
    n = z.shape[1]
    if n < 2 or num_samples < 20:  # of few samples all correlations are large
        return False
    z = z / np.linalg.norm(z, axis=0)
    squares = (z.T @ z) ** 2
    return (squares.sum() - np.trace(squares)) / (n * (n - 1)) * (num_samples - 1) < 2


@functools.partial(jax.jit, static_argnums=(2, 3))
def _batch_bald(key, p, k, num_configurations):
    num_samples, n, classes = p.shape
    expected = entropy_of(p).mean(0)
    size = min(num_configurations, classes ** (k - 1))
    fits = jnp.array([classes ** (step + 1) <= size for step in range(k)])

    def predicted(posterior, i):
        return jnp.matmul(posterior.T, p[:, i], precision="highest")  # not a GPU's TensorFloat-32

    # A configuration of the picked examples' labels has a weight, its probability, and a posterior over the samples.
    def step(state, inputs):
        posterior, weight, free = state  # (num_samples, size), (size,), (n,)
        key, fits = inputs
        joint = jax.lax.map(lambda i: (weight * entropy_of(predicted(posterior, i))).sum(), jnp.arange(n))
        gain = joint - expected
        pick = jnp.argmax(jnp.where(free, gain, -jnp.inf))

        weight = (weight[:, None] * predicted(posterior, pick)).reshape(-1)  # (size * classes,): one more label
        # Stratified resampling keeps the expectation of each configuration's weight.
        points = (jnp.arange(size, dtype=p.dtype) + jax.random.uniform(key, (size,), p.dtype)) / size
        drawn = jnp.searchsorted(jnp.cumsum(weight / weight.sum()), points).clip(max=len(weight) - 1)
        chosen = jnp.where(fits, jnp.arange(size), drawn)
        weight = jnp.where(fits, weight[:size], 1 / size)
        configuration, label = jnp.divmod(chosen, classes)
        posterior = posterior[:, configuration] * p[:, pick][:, label]
        total = posterior.sum(0)
        posterior = posterior / jnp.where(total > 0, total, 1)[None]
        return (posterior, weight, free.at[pick].set(False)), (pick, gain[pick])

    posterior = jnp.full((num_samples, size), 1 / num_samples, p.dtype)
    weight = jnp.zeros(size, p.dtype).at[0].set(1)  # the one configuration of no labels; the rest is free room
    start = posterior, weight, jnp.ones(n, bool)
    _, (picks, gains) = jax.lax.scan(step, start, (jax.random.split(key, k), fits))
    return picks, jnp.cumsum(gains)

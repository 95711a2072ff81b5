"""Active learning: which unlabelled examples to have labelled next, scored from Monte Carlo samples.

Scores take class probabilities of shape (num_samples, ..., classes), such as `jdrop.mc.samples` draws of a model with a
softmax, and return (...): the higher, the more a label is wanted. They raise TypeError where an array of numbers is
needed and ValueError if the probabilities are none; under a trace a score is NaN where a value is wrong.
"""

import functools

import jax
import jax.numpy as jnp

from jdrop.keys import as_typed_key
from jdrop.masks.shape import as_size
from jdrop.mc import uncertainty
from jdrop.mc.checks import as_finite, as_probabilities


def bald(probabilities):
    """Mutual information of the label and the model's parameters, in nats: "Bayesian active learning by disagreement".

    It is `jdrop.mc.uncertainty.mutual_information`, ``H[p] - (1/S) sum_i H[p_i]`` with ``p = (1/S) sum_i p_i``.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Scores of shape (...), in [0, log classes].

    Raises:
      ValueError: no probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> unsure, torn = jnp.full((2, 1, 2), 0.5), jnp.eye(2)[:, None]
      >>> jdrop.mc.acquisition.bald(jnp.concatenate([unsure, torn], 1)).round(4)
      Array([0.    , 0.6931], dtype=float32)

    Papers:
      Houlsby et al. 2011, "Bayesian active learning for classification and preference learning"; Gal, Islam &
      Ghahramani 2017, "Deep Bayesian active learning with image data".
    """
    return uncertainty.mutual_information(probabilities)


def max_entropy(probabilities):
    """Entropy of the mean prediction, in nats.

    It is `jdrop.mc.uncertainty.predictive_entropy`, ``H[(1/S) sum_i p_i]``.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Scores of shape (...), in [0, log classes].

    Raises:
      ValueError: no probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.acquisition.max_entropy(jnp.full((2, 1, 2), 0.5)).round(4)
      Array([0.6931], dtype=float32)

    Paper:
      Gal, Islam & Ghahramani 2017, "Deep Bayesian active learning with image data".
    """
    return uncertainty.predictive_entropy(probabilities)


def least_confidence(probabilities):
    """Probability that the likeliest class of the mean prediction is wrong.

    It is 1 - `jdrop.mc.uncertainty.max_probability`, ``1 - max_c (1/S) sum_i p_ic``.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Scores of shape (...), in [0, 1 - 1 / classes].

    Raises:
      ValueError: no probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.acquisition.least_confidence(jnp.array([[[0.5, 0.5]], [[1.0, 0.0]]]))
      Array([0.25], dtype=float32)

    Paper:
      Lewis & Gale 1994, "A sequential algorithm for training text classifiers"; Gal, Islam & Ghahramani 2017, "Deep
      Bayesian active learning with image data", which calls it a variation ratio.
    """
    return 1 - uncertainty.max_probability(probabilities)


def variation_ratio(probabilities):
    """The share of samples that vote against the modal class.

    It is `jdrop.mc.uncertainty.variation_ratio`, ``1 - max_c n_c / S`` with n_c votes for class c.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Scores of shape (...), in [0, 1 - 1 / classes].

    Raises:
      ValueError: no probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.acquisition.variation_ratio(jnp.array([[[0.6, 0.4]], [[1.0, 0.0]]]))
      Array([0.], dtype=float32)

    Paper:
      Freeman 1965, "Elementary applied statistics"; Gal 2016, "Uncertainty in deep learning", section 3.3.
    """
    return uncertainty.variation_ratio(probabilities)


def mean_std(probabilities):
    """Standard deviation over the samples, averaged over the classes.

    ``(1/C) sum_c sqrt((1/S) sum_i p_ic**2 - ((1/S) sum_i p_ic)**2)`` with C classes.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Scores of shape (...), in [0, 0.5].

    Raises:
      ValueError: no probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.acquisition.mean_std(jnp.eye(2)[:, None])
      Array([0.5], dtype=float32)

    Paper:
      Gal, Islam & Ghahramani 2017, "Deep Bayesian active learning with image data".
    """
    return as_probabilities(probabilities, "num_samples", "...", "classes").std(0).mean(-1)


def random(key, n):
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
    return jax.random.uniform(as_typed_key(key), (as_size("n", n),))


def top_k(scores, k):
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
    return _top_k(scores, _batch_size(k, len(scores)))


@functools.partial(jax.jit, static_argnums=1)
def _top_k(scores, k):
    scores = jnp.where(scores == 0, 0, scores)  # top_k ranks 0 above -0
    return jnp.where(jnp.isnan(scores).any(), len(scores), jax.lax.top_k(scores, k)[1])


def batch_bald(key, probabilities, k, num_configurations=10_000):
    """Pick a batch of k examples, each for what its label adds to those of the examples before it.

    Greedily, ``pick[t] = argmax_i I(y[i]; w | y[pick[0]], ..., y[pick[t - 1]])``, which is the argmax of the joint
    mutual information with the parameters w of the S samples. The expectation over the labels of the picked examples is
    exact as long as these have at most `num_configurations` configurations, classes**t, and an average over that many
    random ones from there on.

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
      ValueError: empty input, no probabilities, another number of axes, k outside [1, n], or num_configurations
        below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> probabilities = jax.nn.softmax(jax.random.normal(jax.random.key(0), (20, 50, 3)))
      >>> indices, information = jdrop.mc.acquisition.batch_bald(jax.random.key(1), probabilities, 4)
      >>> indices.shape, information.shape
      ((4,), (4,))

    Paper:
      Kirsch, van Amersfoort & Gal 2019, "BatchBALD: efficient and diverse batch acquisition for deep Bayesian active
      learning".
    """
    p = as_probabilities(probabilities, "num_samples", "n", "classes")
    k = _batch_size(k, p.shape[1])
    return _batch_bald(as_typed_key(key), p, k, as_size("num_configurations", num_configurations))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _batch_bald(key, p, k, num_configurations):
    num_samples, n, classes = p.shape
    expected = uncertainty.entropy(p).mean(0)
    size = min(num_configurations, classes ** (k - 1))
    fits = jnp.array([classes ** (step + 1) <= size for step in range(k)])

    def predicted(posterior, i):
        return jnp.matmul(posterior.T, p[:, i], precision="highest")  # not a GPU's TensorFloat-32

    # A configuration of the picked examples' labels has a weight, its probability, and a posterior over the samples.
    def step(state, inputs):
        posterior, weight, free = state  # (num_samples, size), (size,), (n,)
        key, fits = inputs
        joint = jax.lax.map(lambda i: (weight * uncertainty.entropy(predicted(posterior, i))).sum(), jnp.arange(n))
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
        posterior = posterior / jnp.where(total > 0, total, 1)
        return (posterior, weight, free.at[pick].set(False)), (pick, gain[pick])

    posterior = jnp.full((num_samples, size), 1 / num_samples, p.dtype)
    weight = jnp.zeros(size, p.dtype).at[0].set(1)  # the one configuration of no labels; the rest is free room
    start = posterior, weight, jnp.ones(n, bool)
    _, (picks, gains) = jax.lax.scan(step, start, (jax.random.split(key, k), fits))
    return picks, jnp.cumsum(gains)


def _batch_size(k, n):
    k = as_size("k", k)
    if k > n:
        raise ValueError(f"k is {k}, but there are {n} examples to pick from: write k={n}, or score more of them.")
    return k

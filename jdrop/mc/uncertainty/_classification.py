"""Uncertainty of a class, from S samples of its probabilities p_i; their mean is ``p = (1/S) sum_i p_i``.

Every function raises TypeError where an array of numbers or of integers is needed, and ValueError if the probabilities
are empty, negative or NaN, or don't sum to 1. Under a trace the result is NaN where a value is wrong.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop.mc._checks import as_array, as_probabilities


def entropy(probabilities: ArrayLike) -> jax.Array:
    """Shannon entropy ``-sum_c p_c log p_c`` of a distribution, with 0 log 0 = 0.

    Args:
      probabilities: class probabilities, shape (..., classes). That they sum to 1 is not checked.

    Returns:
      Nats, shape (...); NaN where a probability is negative.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> round(float(jdrop.mc.uncertainty.entropy(jnp.array([0.5, 0.5]))), 3)
      0.693
    """
    return entropy_of(as_array("probabilities", probabilities, "...", "classes"))


def entropy_of(probabilities) -> jax.Array:
    positive = jnp.where(probabilities == 0, 1, probabilities)  # whose logarithm has a gradient: at 0 it is taken as 0
    return -(probabilities * jnp.log(positive)).sum(-1)


def predictive_entropy(probabilities: ArrayLike) -> jax.Array:
    """Total uncertainty ``H[p]``, the entropy of the mean.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Nats in [0, log classes], shape (...).

    Raises:
      ValueError: not probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> probabilities = jnp.array([[0.9, 0.1], [0.1, 0.9]])
      >>> round(float(jdrop.mc.uncertainty.predictive_entropy(probabilities)), 3)
      0.693

    Paper:
      Gal 2016, "Uncertainty in deep learning", section 3.3.
    """
    return entropy_of(_samples(probabilities).mean(0))


def expected_entropy(probabilities: ArrayLike) -> jax.Array:
    """Aleatoric uncertainty ``(1/S) sum_i H[p_i]``, the mean of the entropies.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Nats in [0, log classes], shape (...).

    Raises:
      ValueError: not probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> probabilities = jnp.array([[0.9, 0.1], [0.1, 0.9]])
      >>> round(float(jdrop.mc.uncertainty.expected_entropy(probabilities)), 3)
      0.325

    Paper:
      Gal 2016, "Uncertainty in deep learning", section 3.3.
    """
    return entropy_of(_samples(probabilities)).mean(0)


def mutual_information(probabilities: ArrayLike) -> jax.Array:
    """Epistemic uncertainty ``H[p] - (1/S) sum_i H[p_i]`` (BALD): the information of the label about the mask.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Nats in [0, log classes], shape (...).

    Raises:
      ValueError: not probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> probabilities = jnp.array([[0.9, 0.1], [0.1, 0.9]])
      >>> round(float(jdrop.mc.uncertainty.mutual_information(probabilities)), 3)
      0.368

    Paper:
      Houlsby et al. 2011, "Bayesian active learning for classification and preference learning".
    """
    samples = _samples(probabilities)
    return relative_entropy(samples, samples.mean(0)[None]).mean(0)


def relative_entropy(p, q) -> jax.Array:
    """``sum_c p_c log(p_c / q_c) - p_c + q_c``, each term at least 0 and exact also where p is close to q.

    Its mean over the samples p of a mean q is their mutual information, which as the difference of two entropies
    would have an absolute error of theirs.
    """
    gap = (p - q) / jnp.where(q > 0, q, 1)
    near = jnp.abs(gap) < 0.25
    small, large = jnp.where(near, gap, 0), jnp.where(near, 0, gap)
    series = jnp.zeros_like(gap)
    for k in reversed(range(2, 13)):  # (1 + d) log(1 + d) - d = sum_(k >= 2) (-d)**k / (k (k - 1))
        series = 1 / (k * (k - 1)) - small * series
    terms = jnp.where(near, small**2 * series, jax.scipy.special.xlogy(1 + large, 1 + large) - large)
    return (q * terms).sum(-1)


def variation_ratio(probabilities: ArrayLike) -> jax.Array:
    """The share of samples that vote against the modal class, ``1 - max_c n_c / S``.

    Sample i votes for ``argmax_c p_ic``, the first of equals; n_c samples vote for class c.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Shares in [0, 1 - 1/classes], shape (...).

    Raises:
      ValueError: not probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> probabilities = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
      >>> jdrop.mc.uncertainty.variation_ratio(probabilities)
      Array(0.25, dtype=float32)

    Paper:
      Freeman 1965, "Elementary applied statistics"; Gal 2016, "Uncertainty in deep learning", section 3.3.
    """
    return 1 - _vote_shares(_samples(probabilities)).max(-1)


def vote_disagreement(probabilities: ArrayLike) -> jax.Array:
    """The probability that two different samples vote differently, ``1 - sum_c n_c (n_c - 1) / (S (S - 1))``.

    Sample i votes for ``argmax_c p_ic``, the first of equals; n_c samples vote for class c.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes), of at least 2 samples.

    Returns:
      Probabilities in [0, 1], shape (...).

    Raises:
      ValueError: not probabilities, or a single sample.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> probabilities = jnp.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
      >>> jdrop.mc.uncertainty.vote_disagreement(probabilities)
      Array(0.5, dtype=float32)

    Paper:
      Melville & Mooney 2005, "Diversity measures for query by committee"; Gini 1912 without replacement.
    """
    samples = _samples(probabilities)
    count = len(samples)
    if count < 2:
        raise ValueError("probabilities has 1 sample, but two are needed to disagree: write num_samples=100.")
    return (1 - (_vote_shares(samples) ** 2).sum(-1)) * (count / (count - 1))


def max_probability(probabilities: ArrayLike) -> jax.Array:
    """Confidence ``max_c p_c`` of the mean.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Probabilities in [1/classes, 1], shape (...): the lower, the less certain.

    Raises:
      ValueError: not probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.max_probability(jnp.array([[0.75, 0.25], [0.5, 0.5]]))
      Array(0.625, dtype=float32)

    Paper:
      Hendrycks & Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution examples".
    """
    return _samples(probabilities).mean(0).max(-1)


def margin(probabilities: ArrayLike) -> jax.Array:
    """The lead ``p_(1) - p_(2)`` of the most probable class of the mean over the next.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).

    Returns:
      Differences in [0, 1], shape (...): the lower, the less certain.

    Raises:
      ValueError: not probabilities.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.margin(jnp.array([[0.75, 0.25], [0.5, 0.5]]))
      Array(0.25, dtype=float32)

    Paper:
      Scheffer et al. 2001, "Active hidden Markov models for information extraction".
    """
    largest, _ = jax.lax.top_k(_samples(probabilities).mean(0), 2)
    return largest[..., 0] - largest[..., 1]


def _samples(probabilities):
    return as_probabilities(probabilities, "num_samples", "...", "classes")


def _vote_shares(samples):
    """The share of votes of each class, (..., classes); NaN where a sample is."""
    votes = jax.nn.one_hot(samples.argmax(-1), samples.shape[-1], dtype=samples.dtype)
    return jnp.where(jnp.isnan(samples), jnp.nan, votes).mean(0)

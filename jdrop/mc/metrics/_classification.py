"""Scores of class probabilities p_n, such as the mean over Monte Carlo samples, given the labels y_n of N examples.

Every function raises TypeError for labels that are no integers, and ValueError for probabilities that are empty,
negative or NaN or don't sum to 1, and for labels of another shape or out of range. Under a trace the result is NaN
where a value is wrong.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_size
from jdrop.mc._checks import as_labelled, as_probabilities, with_labels


def nll(probabilities: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Negative log-likelihood ``-(1/N) sum_n log p_n[y_n]``.

    Args:
      probabilities: class probabilities in [0, 1], shape (..., classes).
      labels: integers in [0, classes), shape (...).

    Returns:
      Nats, at least 0, shape (); inf where a label has probability 0.

    Raises:
      TypeError: labels that are no integers.
      ValueError: not probabilities, or labels of another shape or out of range.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> round(float(jdrop.mc.metrics.nll(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([0, 0]))), 3)
      0.347

    Paper:
      Good 1952, "Rational decisions".
    """
    probabilities, labels = as_labelled(probabilities, labels)
    return -jnp.log(jnp.take_along_axis(probabilities, labels[..., None], -1)).mean()


def label_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Log-likelihood ``log (1/S) sum_i p_i[label]`` of the labels under the mean.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes).
      labels: integers in [0, classes), shape (...).

    Returns:
      Nats, at most 0, shape (...); -inf where every sample excludes the label.

    Raises:
      TypeError: labels that are no integers.
      ValueError: not probabilities, or labels of another shape or out of range.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> probabilities = jnp.array([[0.75, 0.25], [0.25, 0.75]])
      >>> round(float(jdrop.mc.metrics.label_log_likelihood(probabilities, jnp.array(1))), 3)
      -0.693

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    samples = as_probabilities(probabilities, "num_samples", "...", "classes")
    samples, labels = with_labels(samples, labels, samples.shape[1:-1])
    return jnp.log(jnp.take_along_axis(samples.mean(0), labels[..., None], -1)[..., 0])


def brier(probabilities: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Brier score ``(1/N) sum_n sum_c (p_nc - [y_n = c])**2``.

    Args:
      probabilities: class probabilities in [0, 1], shape (..., classes).
      labels: integers in [0, classes), shape (...).

    Returns:
      A number in [0, 2], shape ().

    Raises:
      TypeError: labels that are no integers.
      ValueError: not probabilities, or labels of another shape or out of range.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.brier(jnp.array([[0.5, 0.5], [1.0, 0.0]]), jnp.array([0, 0]))
      Array(0.25, dtype=float32)

    Paper:
      Brier 1950, "Verification of forecasts expressed in terms of probability".
    """
    probabilities, labels = as_labelled(probabilities, labels)
    one_hot = jax.nn.one_hot(labels, probabilities.shape[-1], dtype=probabilities.dtype)
    return ((probabilities - one_hot) ** 2).sum(-1).mean()


def reliability(
    probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What a reliability diagram shows: the mean confidence and the accuracy in bins of equal width.

    Bin b holds the n_b examples whose confidence ``max_c p_nc`` lies in ((b - 1) / num_bins, b / num_bins].

    Args:
      probabilities: class probabilities in [0, 1], shape (..., classes).
      labels: integers in [0, classes), shape (...).
      num_bins: how many bins, at least 1.

    Returns:
      (confidence, accuracy, count), each of shape (num_bins,): the first two in [0, 1], and 0 where the count n_b is.

    Raises:
      TypeError: labels or a number of bins that are no integers.
      ValueError: not probabilities, labels of another shape or out of range, or no bins.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> probabilities, labels = jnp.array([[0.75, 0.25], [1.0, 0.0]]), jnp.array([0, 0])
      >>> confidence, accuracy, count = jdrop.mc.metrics.reliability(probabilities, labels, num_bins=2)
      >>> confidence, accuracy, count
      (Array([0.   , 0.875], dtype=float32), Array([0., 1.], dtype=float32), Array([0., 2.], dtype=float32))

    Paper:
      Guo et al. 2017, "On calibration of modern neural networks", section 2.
    """
    confidences, correct = _top(probabilities, labels)
    return _bins(confidences, correct, _equal_width(num_bins, confidences.dtype))


def ece(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> jax.Array:
    """Expected calibration error ``sum_b (n_b / N) |accuracy_b - confidence_b|`` over the bins of `reliability`.

    Args:
      probabilities: class probabilities in [0, 1], shape (..., classes).
      labels: integers in [0, classes), shape (...).
      num_bins: how many bins, at least 1.

    Returns:
      A number in [0, 1], shape ().

    Raises:
      TypeError: labels or a number of bins that are no integers.
      ValueError: not probabilities, labels of another shape or out of range, or no bins.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.ece(jnp.array([[0.75, 0.25], [1.0, 0.0]]), jnp.array([0, 0]))
      Array(0.125, dtype=float32)

    Paper:
      Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    return _error(*reliability(probabilities, labels, num_bins))


def mce(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> jax.Array:
    """Maximum calibration error ``max_b |accuracy_b - confidence_b|`` over the filled bins of `reliability`.

    Args:
      probabilities: class probabilities in [0, 1], shape (..., classes).
      labels: integers in [0, classes), shape (...).
      num_bins: how many bins, at least 1.

    Returns:
      A number in [0, 1], shape ().

    Raises:
      TypeError: labels or a number of bins that are no integers.
      ValueError: not probabilities, labels of another shape or out of range, or no bins.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.mce(jnp.array([[0.75, 0.25], [1.0, 0.0]]), jnp.array([0, 0]))
      Array(0.25, dtype=float32)

    Paper:
      Guo et al. 2017, "On calibration of modern neural networks", equation 5.
    """
    confidence, accuracy, _ = reliability(probabilities, labels, num_bins)
    return jnp.abs(accuracy - confidence).max()


def adaptive_ece(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> jax.Array:
    """Expected calibration error as `ece`, over bins of equal mass.

    Bin b holds the confidences between those of rank ``ceil((b - 1) N / num_bins)``, exclusive, and
    ``ceil(b N / num_bins)``; equal confidences share a bin, so the order of the examples is of no consequence.

    Args:
      probabilities: class probabilities in [0, 1], shape (..., classes).
      labels: integers in [0, classes), shape (...).
      num_bins: how many bins, at least 1.

    Returns:
      A number in [0, 1], shape ().

    Raises:
      TypeError: labels or a number of bins that are no integers.
      ValueError: not probabilities, labels of another shape or out of range, or no bins.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.adaptive_ece(jnp.array([[0.75, 0.25], [1.0, 0.0]]), jnp.array([0, 0]), num_bins=2)
      Array(0.125, dtype=float32)

    Paper:
      Nguyen & O'Connor 2015, "Posterior calibration and exploratory analysis for natural language processing models";
      Nixon et al. 2019, "Measuring calibration in deep learning".
    """
    confidences, correct = _top(probabilities, labels)
    num_bins = _as_bins(num_bins)
    last = -(-np.arange(1, num_bins) * confidences.size // num_bins) - 1
    return _error(*_bins(confidences, correct, jnp.sort(confidences)[last]))


def classwise_ece(probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> jax.Array:
    """Mean over the K classes ``(1/K) sum_c sum_b (n_bc / N) |frequency_bc - probability_bc|``.

    Bin b of class c holds the n_bc examples with p_nc in ((b - 1) / num_bins, b / num_bins]; the frequency is that of
    the label c among them, the probability their mean p_nc.

    Args:
      probabilities: class probabilities in [0, 1], shape (..., classes).
      labels: integers in [0, classes), shape (...).
      num_bins: how many bins, at least 1.

    Returns:
      A number in [0, 1], shape ().

    Raises:
      TypeError: labels or a number of bins that are no integers.
      ValueError: not probabilities, labels of another shape or out of range, or no bins.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.classwise_ece(jnp.array([[0.75, 0.25], [1.0, 0.0]]), jnp.array([0, 0]))
      Array(0.125, dtype=float32)

    Paper:
      Kull et al. 2019, "Beyond temperature scaling", equation 2.
    """
    probabilities, labels = as_labelled(probabilities, labels)
    classes = probabilities.shape[-1]
    edges = _equal_width(num_bins, probabilities.dtype)

    def one_class(column, label):
        return _error(*_bins(column, labels.ravel() == label, edges))

    return jax.vmap(one_class)(probabilities.reshape(-1, classes).T, jnp.arange(classes)).mean()


def _top(probabilities, labels):
    """The confidence of each example, and whether its most probable class is its label."""
    probabilities, labels = as_labelled(probabilities, labels)
    return probabilities.max(-1).ravel(), (probabilities.argmax(-1) == labels).ravel()


def _as_bins(num_bins):
    num_bins = as_size("num_bins", num_bins, write=15)
    if num_bins > 2**24:
        raise ValueError(f"num_bins is {num_bins}, but float32 tells at most 2**24 apart: write num_bins=15.")
    return num_bins


def _equal_width(num_bins, dtype):
    """The inner edges of bins of equal width."""
    num_bins = _as_bins(num_bins)
    return jnp.asarray(np.arange(1, num_bins) / num_bins, dtype)


def _bins(confidences, hits, edges):
    """Mean confidence, share of hits and count of bins that are closed on the right; a NaN makes its bin NaN.

    Counts are integers. Confidences are summed as what they are short of the bin's upper edge, and sums of 1024 of them
    after each other: adding whole ones one by one would lose percents of a million in float32.
    """
    bins, num_bins = jnp.searchsorted(edges, confidences), len(edges) + 1
    upper = jnp.append(edges, jnp.ones(1, edges.dtype))
    count, hit = (jax.ops.segment_sum(flags.astype(int), bins, num_bins) for flags in (bins >= 0, hits))
    # Buckets have sums of their own for every bin: for few bins only, or their memory would be the product.
    bucket_size = 1024 if num_bins <= 1024 else None
    missing = jax.ops.segment_sum(upper[bins] - confidences, bins, num_bins, bucket_size=bucket_size)
    count, hit = count.astype(confidences.dtype), hit.astype(confidences.dtype)
    filled = jnp.maximum(count, 1)
    return jnp.where(count > 0, upper - missing / filled, 0), hit / filled, count


def _error(confidence, accuracy, count):
    """The mean gap of bins, weighted by their counts."""
    return (count * jnp.abs(accuracy - confidence)).sum() / count.sum()

"""How well an uncertainty tells the examples apart that should not be trusted: wrong ones, or out of distribution."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import is_concrete, to_array
from jdrop.mc._checks import as_finite, as_fraction, decimal_of


def auroc(uncertainty: ArrayLike, positive: ArrayLike) -> jax.Array:
    """Area under the ROC curve: ``P(u > v) + P(u = v) / 2`` of a positive's uncertainty u and a negative's v.

    Positive are the examples to detect: those that the model gets wrong, or those out of distribution.

    Args:
      uncertainty: finite real numbers, higher for examples less to be trusted, shape (n,).
      positive: booleans, shape (n,), of which some are True and some False.

    Returns:
      A number in [0, 1], shape (); 0.5 is chance.

    Raises:
      TypeError: values of a wrong type.
      ValueError: shapes that differ, uncertainties that are not finite, or positives or negatives only (NaN under a
        trace).

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> inside, outside = jnp.array([0.1, 0.3]), jnp.array([0.2, 0.9])
      >>> jdrop.mc.metrics.auroc(jnp.concatenate([inside, outside]), jnp.arange(4) >= len(inside))
      Array(0.75, dtype=float32)

    Paper:
      Hendrycks & Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution examples".
    """
    ranked, positive, count = _detected("auroc", uncertainty, positive)
    before, through, *_ = _counts(ranked, ~positive)
    pairs = jnp.where(positive, before + through, 0).sum()  # with a negative below, twice, and with an equal one, once
    return pairs / (2 * (len(ranked) - count) * count)


def average_precision(uncertainty: ArrayLike, positive: ArrayLike) -> jax.Array:
    """Area under the precision-recall curve, ``sum_k (recall_k - recall_(k-1)) precision_k`` (average precision).

    k runs over the thresholds from the highest uncertainty down. Positive are the examples to detect, as in `auroc`.

    Args:
      uncertainty: finite real numbers, higher for examples less to be trusted, shape (n,).
      positive: booleans, shape (n,), of which some are True and some False.

    Returns:
      A number in (0, 1], shape (); the share of positives is chance.

    Raises:
      TypeError: values of a wrong type.
      ValueError: shapes that differ, uncertainties that are not finite, or positives or negatives only (NaN under a
        trace).

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.average_precision(jnp.array([0.1, 0.3, 0.9]), jnp.array([False, True, True]))
      Array(1., dtype=float32)

    Paper:
      Davis & Goadrich 2006, "The relationship between precision-recall and ROC curves"; Hendrycks & Gimpel 2017,
      "A baseline for detecting misclassified and out-of-distribution examples".
    """
    ranked, positive, count = _detected("average_precision", uncertainty, positive)
    before, _, first, _ = _counts(ranked, positive)
    precision = (count - before) / (len(ranked) - first)  # of the threshold at each example
    return jnp.where(positive, precision, 0).sum() / count


def risk_coverage(uncertainty: ArrayLike, correct: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Risk-coverage curve: the error rate of the k most certain examples, for every k.

    ``coverage_k = k / n``, ``risk_k = (1/k) sum_(i<=k) [example i is wrong]``, sorted by uncertainty. Among equally
    uncertain examples it is the expectation over their order.

    Args:
      uncertainty: finite real numbers, higher for examples less to be trusted, shape (n,).
      correct: booleans, shape (n,).

    Returns:
      (coverage, risk), both in [0, 1] and of shape (n,).

    Raises:
      TypeError: values of a wrong type.
      ValueError: shapes that differ, or uncertainties that are not finite (a risk of NaN under a trace).

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> coverage, risk = jdrop.mc.metrics.risk_coverage(jnp.array([0.9, 0.1]), jnp.array([False, True]))
      >>> coverage, risk
      (Array([0.5, 1. ], dtype=float32), Array([0. , 0.5], dtype=float32))

    Paper:
      Geifman & El-Yaniv 2017, "Selective classification for deep neural networks".
    """
    ranked, correct = _sorted(*_pair(uncertainty, correct, "correct"))
    before, through, first, last = _counts(ranked, ~correct)
    k = jnp.arange(1, len(ranked) + 1, dtype=ranked.dtype)
    risk = (before + (through - before) * (k - first) / (last - first)) / k
    return k / len(ranked), jnp.where(jnp.isnan(ranked).any(), jnp.nan, risk)


def aurc(uncertainty: ArrayLike, correct: ArrayLike) -> jax.Array:
    """Area under the risk-coverage curve, ``(1/n) sum_k risk_k``.

    Args:
      uncertainty: finite real numbers, higher for examples less to be trusted, shape (n,).
      correct: booleans, shape (n,).

    Returns:
      A number in [0, 1], lower is better, shape ().

    Raises:
      TypeError: values of a wrong type.
      ValueError: shapes that differ, or uncertainties that are not finite (NaN under a trace).

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.aurc(jnp.array([0.9, 0.1]), jnp.array([False, True]))
      Array(0.25, dtype=float32)

    Paper:
      Geifman et al. 2019, "Bias-reduced uncertainty estimation for deep neural classifiers".
    """
    return risk_coverage(uncertainty, correct)[1].mean()


def selective_accuracy(uncertainty: ArrayLike, correct: ArrayLike, coverage: ArrayLike) -> jax.Array:
    """Accuracy ``1 - risk_k`` of the most certain examples, the smallest k of them with ``k / n >= coverage``.

    Args:
      uncertainty: finite real numbers, higher for examples less to be trusted, shape (n,).
      correct: booleans, shape (n,).
      coverage: the share of examples to answer, in (0, 1].

    Returns:
      A number in [0, 1] of the shape of coverage.

    Raises:
      TypeError: values of a wrong type.
      ValueError: a coverage outside (0, 1], shapes that differ, or uncertainties that are not finite (NaN under a
        trace).

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.selective_accuracy(jnp.array([0.9, 0.1]), jnp.array([False, True]), coverage=0.5)
      Array(1., dtype=float32)

    Paper:
      Geifman & El-Yaniv 2017, "Selective classification for deep neural networks".
    """
    level = as_fraction("coverage", coverage, zero=False)
    _, risk = risk_coverage(uncertainty, correct)
    if is_concrete(level):
        written = to_array("coverage", coverage)
        counts = [math.ceil(decimal_of(each) * len(risk)) for each in written.reshape(-1)]
        return 1 - risk[np.reshape(counts, written.shape) - 1]
    n = jnp.asarray(len(risk), level.dtype)
    whole = jnp.round(level * n)  # which rounding must not raise to the next
    count = jnp.where(jnp.abs(level * n - whole) <= 4 * jnp.finfo(level.dtype).eps * n, whole, jnp.ceil(level * n))
    accuracy = 1 - risk[jnp.clip(count, 1, n).astype(int) - 1]
    return jnp.where(jnp.isnan(level), jnp.nan, accuracy)


def _pair(uncertainty, flags, name) -> tuple[jax.Array, jax.Array]:
    """An uncertainty and a boolean for each example."""
    uncertainty = as_finite("uncertainty", uncertainty)
    flags = to_array(name, flags)
    if flags.dtype != bool:
        raise TypeError(f"{name} has dtype {flags.dtype}, but booleans are needed: write {name} == 1.")
    if uncertainty.ndim != 1 or flags.shape != uncertainty.shape:
        raise ValueError(
            f"uncertainty has shape {uncertainty.shape} and {name} {flags.shape}, but both must be (n,): ravel them."
        )
    return uncertainty, jnp.asarray(flags)


def _sorted(uncertainty, flags) -> tuple[jax.Array, jax.Array]:
    order = jnp.argsort(uncertainty)
    return uncertainty[order], flags[order]


def _counts(ranked, flags):
    """For each example: the flagged ones that are more certain, those with the equally certain; and all of both."""
    counts = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(flags, dtype=int)])
    first, last = (jnp.searchsorted(ranked, ranked, side) for side in ("left", "right"))
    return tuple(count.astype(ranked.dtype) for count in (counts[first], counts[last], first, last))


def _detected(name, uncertainty, positive) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Uncertainties in their order, which of them are positive, and how many; NaN where that is none or all."""
    ranked, positive = _sorted(*_pair(uncertainty, positive, "positive"))
    count = positive.sum()
    if is_concrete(count) and count in (0, len(ranked)):
        raise ValueError(f"positive is {positive[0]} everywhere, but {name} compares True with False: give both.")
    valid = (count > 0) & (count < len(ranked)) & ~jnp.isnan(ranked).any()
    return ranked, positive, jnp.where(valid, count.astype(ranked.dtype), jnp.nan)

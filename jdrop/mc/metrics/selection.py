"""How well an uncertainty tells the examples apart that should not be trusted: wrong ones, or out of distribution."""

import jax
import jax.numpy as jnp
import numpy as np

from jdrop.mc.checks import as_finite, as_fraction, is_concrete


def auroc(uncertainty, positive):
    """Area under the ROC curve: ``P(u > v) + P(u = v) / 2`` of a positive's uncertainty u and a negative's v.

    Positive are the examples to detect: those that the model gets wrong, or those out of distribution.

    Args:
      uncertainty: finite real numbers, higher for examples less to be trusted, shape (n,).
      positive: booleans, shape (n,), of which some are True and some False.

    Returns:
      A Python float in [0, 1]; 0.5 is chance.

    Raises:
      ImportError: scikit-learn is missing.
      TypeError: values of a wrong type, or under a trace: it runs on the host.
      ValueError: shapes that differ, uncertainties that are not finite, or positives or negatives only.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> inside, outside = jnp.array([0.1, 0.3]), jnp.array([0.2, 0.9])
      >>> jdrop.mc.metrics.auroc(jnp.concatenate([inside, outside]), jnp.arange(4) >= len(inside))
      0.75

    Paper:
      Hendrycks & Gimpel 2017, "A baseline for detecting misclassified and out-of-distribution examples".
    """
    return _on_host("auroc", "roc_auc_score", uncertainty, positive)


def aupr(uncertainty, positive):
    """Area under the precision-recall curve, ``sum_k (recall_k - recall_(k-1)) precision_k`` (average precision).

    k runs over the thresholds from the highest uncertainty down. Positive are the examples to detect, as in `auroc`.

    Args:
      uncertainty: finite real numbers, higher for examples less to be trusted, shape (n,).
      positive: booleans, shape (n,), of which some are True and some False.

    Returns:
      A Python float in (0, 1]; the share of positives is chance.

    Raises:
      ImportError: scikit-learn is missing.
      TypeError: values of a wrong type, or under a trace: it runs on the host.
      ValueError: shapes that differ, uncertainties that are not finite, or positives or negatives only.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.aupr(jnp.array([0.1, 0.3, 0.9]), jnp.array([False, True, True]))
      1.0

    Paper:
      Davis & Goadrich 2006, "The relationship between precision-recall and ROC curves"; Hendrycks & Gimpel 2017,
      "A baseline for detecting misclassified and out-of-distribution examples".
    """
    return _on_host("aupr", "average_precision_score", uncertainty, positive)


def risk_coverage(uncertainty, correct):
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
    uncertainty, correct = _pair(uncertainty, correct, "correct")
    order = jnp.argsort(uncertainty)
    ranked = uncertainty[order]
    errors = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(~correct[order], dtype=int)])
    first, last = (jnp.searchsorted(ranked, ranked, side) for side in ("left", "right"))  # of the equally uncertain
    k, first, last, before, through = (
        count.astype(ranked.dtype)
        for count in (jnp.arange(1, len(ranked) + 1), first, last, errors[first], errors[last])
    )
    risk = (before + (through - before) * (k - first) / (last - first)) / k
    return k / len(ranked), jnp.where(jnp.isnan(uncertainty).any(), jnp.nan, risk)


def aurc(uncertainty, correct):
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


def selective_accuracy(uncertainty, correct, coverage):
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
    coverage = as_fraction("coverage", coverage, zero=False)
    coverages, risk = risk_coverage(uncertainty, correct)
    accuracy = 1 - risk[jnp.searchsorted(coverages, coverage.astype(coverages.dtype))]
    return jnp.where(jnp.isnan(coverage), jnp.nan, accuracy)


def _pair(uncertainty, flags, name):
    """An uncertainty and a boolean for each example."""
    uncertainty = as_finite("uncertainty", uncertainty)
    flags = flags if isinstance(flags, jax.Array) else np.asarray(flags)
    if flags.dtype != bool:
        raise TypeError(f"{name} has dtype {flags.dtype}, but booleans are needed: write {name} == 1.")
    if uncertainty.ndim != 1 or flags.shape != uncertainty.shape:
        raise ValueError(
            f"uncertainty has shape {uncertainty.shape} and {name} {flags.shape}, but both must be (n,): ravel them."
        )
    return uncertainty, jnp.asarray(flags)


def _on_host(name, score, uncertainty, positive):
    """A score of scikit-learn."""
    uncertainty, positive = _pair(uncertainty, positive, "positive")
    if not (is_concrete(uncertainty) and is_concrete(positive)):
        raise TypeError(f"{name} got a traced array, but it runs on the host: call it outside of jax.jit.")
    positive = np.asarray(positive)
    if positive.all() or not positive.any():
        raise ValueError(f"positive is {positive[0]} everywhere, but {name} compares True with False: give both.")
    try:
        from sklearn import metrics
    except ImportError:
        raise ImportError(f"{name} needs scikit-learn: pip install 'jdrop[experiments]'.") from None
    return float(getattr(metrics, score)(positive, np.asarray(uncertainty)))

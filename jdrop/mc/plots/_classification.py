"""Figures of a classifier's uncertainty."""

from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from jdrop.mc import metrics
from jdrop.mc._checks import as_finite
from jdrop.mc.plots._axes import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DIAGONAL = "perfect calibration"


def reliability_diagram(
    probabilities: ArrayLike, labels: ArrayLike, num_bins: int = 15, ax: "Axes | None" = None, label: str | None = None
) -> "Axes":
    """Accuracy against confidence in bins, `jdrop.mc.metrics.reliability`, with `jdrop.mc.metrics.ece` in the legend.

    Empty bins are left out.

    Args:
      probabilities: such as `MCPrediction.mean`, shape (..., classes), rows that sum to 1.
      labels: integers in [0, classes), shape (...).
      num_bins: how many bins, at least 1.
      ax: matplotlib axes, which may hold other reliability diagrams; new ones if None.
      label: a name for the legend.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, not probabilities, a label out of range, shapes that don't match, or num_bins below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> ax = jdrop.mc.plots.reliability_diagram(jax.nn.softmax(jnp.eye(3)), jnp.arange(3))

    Paper:
      Guo et al. 2017, "On calibration of modern neural networks".
    """
    confidence, accuracy, count = (np.asarray(x) for x in metrics.reliability(probabilities, labels, num_bins))
    error, filled = float(metrics.ece(probabilities, labels, num_bins)), count > 0
    ax = ax or new_axes()

    if _DIAGONAL not in ax.get_legend_handles_labels()[1]:
        ax.plot([0, 1], [0, 1], ":", color="black", label=_DIAGONAL)
    ax.plot(confidence[filled], accuracy[filled], "o-", markersize=4, label=f"{label or 'model'} (ECE {error:.3f})")
    ax.set(xlabel="mean confidence in bin (probability)", ylabel="accuracy in bin (fraction)")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend()
    return ax


def risk_coverage(
    uncertainty: ArrayLike, correct: ArrayLike, ax: "Axes | None" = None, label: str | None = None
) -> "Axes":
    """Error rate of the most certain examples against their share, `jdrop.mc.metrics.risk_coverage`.

    Args:
      uncertainty: finite, shape (n,), in any unit: the higher, the sooner a prediction is rejected.
      correct: booleans of shape (n,).
      ax: matplotlib axes, which may hold other curves; new ones if None.
      label: a name for the legend.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, an uncertainty that is not finite, or shapes that don't match.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> ax = jdrop.mc.plots.risk_coverage(jnp.array([0.1, 0.9, 0.5]), jnp.array([True, False, True]))

    Paper:
      Geifman & El-Yaniv 2017, "Selective classification for deep neural networks".
    """
    coverage, risk = metrics.risk_coverage(uncertainty, correct)
    ax = ax or new_axes()

    ax.plot(coverage, risk, label=f"{label or 'model'} (all kept: {risk[-1]:.3f})")
    ax.set(xlabel="coverage (fraction kept, most certain first)", ylabel="risk (error rate of what is kept)")
    ax.set(xlim=(0, 1.02))
    ax.legend()
    return ax


def uncertainty_histogram(
    in_distribution: ArrayLike,
    out_of_distribution: ArrayLike,
    ax: "Axes | None" = None,
    xlabel: str = "uncertainty (nats)",
) -> "Axes":
    """Histograms of an uncertainty on familiar and on foreign inputs, over the same 30 bins.

    Each bar is the fraction of its own inputs.

    Args:
      in_distribution: finite, shape (n,).
      out_of_distribution: finite, shape (m,), in the same unit.
      ax: matplotlib axes; new ones if None.
      xlabel: the name of the uncertainty, with its unit.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: not an array of floats.
      ValueError: empty input, a number that is not finite, or another number of axes.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> ax = jdrop.mc.plots.uncertainty_histogram(jnp.array([0.1, 0.2, 0.2]), jnp.array([0.5, 0.9]))
    """
    values = {"in distribution": in_distribution, "out of distribution": out_of_distribution}
    values = {name: np.asarray(as_finite(name.replace(" ", "_"), x, "n"), np.float64) for name, x in values.items()}
    ax = ax or new_axes()

    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), 30).tolist()
    for name, x in values.items():
        ax.hist(x, edges, weights=np.full(len(x), 1 / len(x)), alpha=0.5, label=f"{name} (n = {len(x)})")
    ax.set(xlabel=xlabel, ylabel="fraction of inputs in bin")
    ax.legend()
    return ax


def rate_curve(rates: ArrayLike, scores: ArrayLike, ax: "Axes | None" = None, label: str | None = None) -> "Axes":
    """A score on held-out data against the rate of dropout, and the best one.

    Args:
      rates: in [0, 1], shape (n,), such as those of `jdrop.mc.calibration.select_rate`.
      scores: finite, of the same shape, in any unit: the lower, the better.
      ax: matplotlib axes, which may hold other curves; new ones if None.
      label: a name for the legend.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, a number that is not finite, or shapes that don't match.

    Example:
      >>> import jdrop
      >>> ax = jdrop.mc.plots.rate_curve([0.1, 0.3, 0.5], [0.32, 0.28, 0.35])
    """
    rates, scores = np.asarray(as_finite("rates", rates)), np.asarray(as_finite("scores", scores))
    if rates.ndim != 1 or not rates.size or rates.shape != scores.shape:
        raise ValueError(f"rates has shape {rates.shape} and scores {scores.shape}, but both need the same, (n,).")
    ax, order, best = ax or new_axes(), np.argsort(rates), int(scores.argmin())
    (line,) = ax.plot(rates[order], scores[order], "o-", markersize=4)
    line.set_label(f"{label or 'model'} (best rate {rates[best]:.3g}, score {scores[best]:.3g})")
    ax.plot(rates[best], scores[best], "o", markersize=10, fillstyle="none", color=line.get_color())
    ax.set(xlabel="rate of dropout (probability)", ylabel="score on held-out data (the lower, the better)")
    ax.legend()
    return ax

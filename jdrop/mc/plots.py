"""Figures of uncertainty, each drawn on axes that are passed in and returned. They need matplotlib."""

import numpy as np

from jdrop.masks.shape import as_size
from jdrop.mc import metrics
from jdrop.mc.checks import as_finite, as_sampled
from jdrop.mc.uncertainty import epistemic_variance, predictive_mean, total_variance

_DIAGONAL = "perfect calibration"


def reliability_diagram(probabilities, labels, num_bins=15, ax=None, label=None):
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
      ValueError: empty input, no probabilities, a label out of range, shapes that don't match, or num_bins below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> ax = jdrop.mc.plots.reliability_diagram(jax.nn.softmax(jnp.eye(3)), jnp.arange(3))

    Paper:
      Guo et al. 2017, "On calibration of modern neural networks".
    """
    confidence, accuracy, count = (np.asarray(x) for x in metrics.reliability(probabilities, labels, num_bins))
    error, filled = float(metrics.ece(probabilities, labels, num_bins)), count > 0
    ax = _axes() if ax is None else ax

    if _DIAGONAL not in ax.get_legend_handles_labels()[1]:
        ax.plot([0, 1], [0, 1], ":", color="black", label=_DIAGONAL)
    ax.plot(confidence[filled], accuracy[filled], "o-", markersize=4, label=f"{label or 'model'} (ECE {error:.3f})")
    ax.set(xlabel="mean confidence in bin (probability)", ylabel="accuracy in bin (fraction)")
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    ax.legend()
    return ax


def risk_coverage(uncertainty, correct, ax=None, label=None):
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
    ax = _axes() if ax is None else ax

    ax.plot(coverage, risk, label=f"{label or 'model'} (all kept: {risk[-1]:.3f})")
    ax.set(xlabel="coverage (fraction kept, most certain first)", ylabel="risk (error rate of what is kept)")
    ax.set(xlim=(0, 1.02))
    ax.legend()
    return ax


def uncertainty_histogram(in_distribution, out_of_distribution, ax=None, xlabel="uncertainty (nats)"):
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
    ax = _axes() if ax is None else ax

    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), 30)
    for name, x in values.items():
        ax.hist(x, edges, weights=np.full(len(x), 1 / len(x)), alpha=0.5, label=f"{name} (n = {len(x)})")
    ax.set(xlabel=xlabel, ylabel="fraction of inputs in bin")
    ax.legend()
    return ax


def regression_band(x, outputs, ax=None, tau=None, xlabel="x", ylabel="y"):
    """The Monte Carlo mean of a regression, a band of two standard deviations, and up to 20 of the samples as lines.

    The variance is `jdrop.mc.uncertainty.epistemic_variance`, and `total_variance` in a second, wider band.

    Args:
      x: finite, shape (n,), in any order.
      outputs: such as `jdrop.mc.samples` draws, finite, shape (num_samples, n).
      ax: matplotlib axes, to which data can be added; new ones if None.
      tau: precision of the noise, positive, of a shape that broadcasts to (n,), in the inverse squared unit of y, as
        `jdrop.mc.calibration.fit_tau` fits it; no second band if None.
      xlabel, ylabel: the names of x and y, with their units.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: not an array of floats.
      ValueError: empty input, a number that is not finite, a tau that is not above 0, or shapes that don't match.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> outputs = jax.random.normal(jax.random.key(0), (50, 9))
      >>> ax = jdrop.mc.plots.regression_band(jnp.linspace(0, 1, 9), outputs, tau=4.0)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    outputs, x = as_sampled(outputs, as_finite("x", x, "n"), "x")
    bands = [("± 2 std of the samples", epistemic_variance(outputs), 0.3)]
    if tau is not None:
        bands.append(("± 2 std with noise", total_variance(outputs, tau=tau), 0.15))
    ax = _axes() if ax is None else ax

    order = np.argsort(x)
    x, mean, outputs = x[order], predictive_mean(outputs)[order], outputs[:, order]
    color = ax.plot(x, mean, label="mean", zorder=3)[0].get_color()
    for name, variance, alpha in bands:
        width = 2 * np.sqrt(variance[order])
        ax.fill_between(x, mean - width, mean + width, color=color, alpha=alpha, linewidth=0, label=name)
    lines = ax.plot(x, outputs[:20].T, color="gray", linewidth=0.5, alpha=0.6)
    lines[0].set_label(f"{len(lines)} of {len(outputs)} samples")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def most_least_certain(images, uncertainty, n=8, axes=None, unit="nats"):
    """The n images of the highest uncertainty above the n of the lowest, each with its value.

    Args:
      images: finite, shape (count, height, width), or (count, height, width, 3) in [0, 1].
      uncertainty: finite, shape (count,).
      n: how many of each, in [1, count].
      axes: matplotlib axes in an array of shape (2, n); new ones if None.
      unit: the unit of the uncertainty.

    Returns:
      The axes, shape (2, n).

    Raises:
      ImportError: matplotlib is not installed.
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, a number that is not finite, shapes that don't match, or n outside [1, count].

    Example:
      >>> import jax, jdrop
      >>> images = jax.random.uniform(jax.random.key(0), (9, 8, 8))
      >>> axes = jdrop.mc.plots.most_least_certain(images, images.std((1, 2)), 3, unit="std")
    """
    colors = ("3",) * (np.shape(images)[3:] == (3,))
    images = np.asarray(as_finite("images", images, "count", "height", "width", *colors))
    uncertainty = np.asarray(as_finite("uncertainty", uncertainty, "count"))
    if len(uncertainty) != len(images):
        raise ValueError(f"there are {len(images)} images, but {len(uncertainty)} uncertainties: give one for each.")
    n = as_size("n", n)
    if n > len(images):
        raise ValueError(f"n is {n}, but there are {len(images)} images: write n={len(images)}.")
    axes = _axes(2, n, figsize=(1.2 * n + 0.6, 3.4)) if axes is None else axes
    if np.shape(axes) != (2, n):
        raise ValueError(f"axes has shape {np.shape(axes)}, but (2, {n}) is needed: write plt.subplots(2, {n})[1].")

    order = np.argsort(uncertainty, kind="stable")
    for row, name, chosen in zip(axes, ("least certain", "most certain"), (order[::-1][:n], order[:n])):
        for ax, i in zip(row, chosen):
            ax.imshow(images[i], cmap="gray_r", vmin=images.min(), vmax=images.max())
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{uncertainty[i]:.3g} {unit}", fontsize=8)
        row[0].set_ylabel(name)
    return axes


def _axes(rows=1, columns=1, **options):
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("jdrop.mc.plots draws with matplotlib: write pip install 'jdrop[plots]'.") from error
    axes = plt.subplots(rows, columns, squeeze=False, layout="constrained", **options)[1]
    return axes if rows > 1 else axes[0, 0]

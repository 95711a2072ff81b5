"""Figures of a regression's uncertainty."""

from typing import TYPE_CHECKING

import numpy as np
from jax.typing import ArrayLike

from jdrop.mc._checks import as_finite, as_sampled
from jdrop.mc.plots._axes import new_axes
from jdrop.mc.uncertainty import epistemic_variance, predictive_mean, total_variance

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def regression_band(
    x: ArrayLike,
    outputs: ArrayLike,
    ax: "Axes | None" = None,
    tau: ArrayLike | None = None,
    xlabel: str = "x",
    ylabel: str = "y",
) -> "Axes":
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
    ax = ax or new_axes()

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

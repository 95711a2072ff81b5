"""Uncertainty of a real value, from S samples f_i of it and the noise of the data around them.

The noise is Gaussian, either of one precision tau (inverse variance), or of a variance that the network predicts
beside each sample as its logarithm. Every function raises TypeError where real numbers are needed, and ValueError if
values are empty or not finite. Under a trace the result is NaN where a value is wrong.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop.mc._checks import as_finite, as_fraction, one_dtype
from jdrop.mc._noise import as_noise


def predictive_mean(outputs: ArrayLike) -> jax.Array:
    """Predictive mean ``f = (1/S) sum_i f_i``.

    Args:
      outputs: finite real numbers, shape (num_samples, ...).

    Returns:
      Means in the unit of the outputs, shape (...).

    Raises:
      ValueError: outputs that are not finite, or none.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.predictive_mean(jnp.array([[1.0, 2.0], [3.0, 2.0]]))
      Array([2., 2.], dtype=float32)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation", equation 6.
    """
    return as_finite("outputs", outputs, "num_samples", "...").mean(0)


def epistemic_variance(outputs: ArrayLike) -> jax.Array:
    """Epistemic uncertainty ``(1/S) sum_i (f_i - f)**2``, the variance over the samples.

    Args:
      outputs: finite real numbers, shape (num_samples, ...).

    Returns:
      Variances in the squared unit of the outputs, shape (...).

    Raises:
      ValueError: outputs that are not finite, or none.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.epistemic_variance(jnp.array([[1.0, 2.0], [3.0, 2.0]]))
      Array([1., 0.], dtype=float32)

    Paper:
      Kendall & Gal 2017, "What uncertainties do we need in Bayesian deep learning for computer vision?", equation 9.
    """
    return as_finite("outputs", outputs, "num_samples", "...").var(0)


def aleatoric_variance(*, tau: ArrayLike | None = None, log_variance: ArrayLike | None = None) -> jax.Array:
    """Aleatoric uncertainty ``1 / tau`` or ``(1/S) sum_i exp(log_variance_i)``, the variance of the noise.

    Args:
      tau: precision of the noise in the inverse squared unit of the outputs, positive, any shape.
      log_variance: or its log-variances as the network predicts them, shape (num_samples, ...).

    Returns:
      Variances in the squared unit of the outputs, of the shape of tau or (...).

    Raises:
      TypeError: both or neither of them.
      ValueError: a precision that is not positive, or values that are not finite.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.aleatoric_variance(tau=4.0)
      Array(0.25, dtype=float32)
      >>> jdrop.mc.uncertainty.aleatoric_variance(log_variance=jnp.zeros((10, 2)))
      Array([1., 1.], dtype=float32)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation"; Kendall & Gal 2017, "What uncertainties do we need
      in Bayesian deep learning for computer vision?", equation 9.
    """
    precisions, _ = as_noise(tau, log_variance)
    return (1 / precisions).mean(0)


def total_variance(
    outputs: ArrayLike, *, tau: ArrayLike | None = None, log_variance: ArrayLike | None = None
) -> jax.Array:
    """Total uncertainty, `epistemic_variance` + `aleatoric_variance`.

    Args:
      outputs: finite real numbers, shape (num_samples, ...).
      tau: precision of the noise, positive, of a shape that broadcasts to (...).
      log_variance: or its log-variances as the network predicts them, shape (num_samples, ...).

    Returns:
      Variances in the squared unit of the outputs, shape (...).

    Raises:
      TypeError: both or neither of the descriptions of the noise.
      ValueError: a precision that is not positive, values that are not finite, or shapes that do not match.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.total_variance(jnp.array([[1.0, 2.0], [3.0, 2.0]]), tau=4.0)
      Array([1.25, 0.25], dtype=float32)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation", equation 7; Kendall & Gal 2017, "What uncertainties
      do we need in Bayesian deep learning for computer vision?", equation 9.
    """
    outputs = as_finite("outputs", outputs, "num_samples", "...")
    precisions, _ = as_noise(tau, log_variance, outputs.shape)
    outputs, precisions = one_dtype(outputs, precisions)
    return outputs.var(0) + (1 / precisions).mean(0)


def quantiles(outputs: ArrayLike, q: ArrayLike) -> jax.Array:
    """Quantiles of the samples, linear between neighbours.

    Args:
      outputs: finite real numbers, shape (num_samples, ...).
      q: probabilities in [0, 1], a number or shape (k,).

    Returns:
      Quantiles in the unit of the outputs, shape (...) or (k, ...).

    Raises:
      ValueError: a probability outside [0, 1], or outputs that are not finite.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.quantiles(jnp.arange(5.0), jnp.array([0.25, 0.5]))
      Array([1., 2.], dtype=float32)

    Paper:
      Hyndman & Fan 1996, "Sample quantiles in statistical packages", definition 7.
    """
    outputs, q = one_dtype(as_finite("outputs", outputs, "num_samples", "..."), as_fraction("q", q, zero=True))
    return jnp.quantile(outputs, q, axis=0)


def central_interval(outputs: ArrayLike, coverage: ArrayLike = 0.95) -> tuple[jax.Array, jax.Array]:
    """The interval between the quantiles ``(1 - coverage) / 2`` and ``(1 + coverage) / 2`` of the samples.

    Args:
      outputs: finite real numbers, shape (num_samples, ...), such as draws from the predictive distribution; without
        the noise of the data in them the interval is one of the mean only.
      coverage: the share of samples in it, in (0, 1].

    Returns:
      (lower, upper) in the unit of the outputs, each of shape (...).

    Raises:
      ValueError: a coverage outside (0, 1], or outputs that are not finite.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.uncertainty.central_interval(jnp.arange(5.0), 0.5)
      (Array(1., dtype=float32), Array(3., dtype=float32))

    Paper:
      Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", section 6.2.
    """
    coverage = as_fraction("coverage", coverage, zero=False)
    if coverage.ndim > 1:
        raise ValueError(f"coverage has shape {coverage.shape}, but one number is needed, or a row of them.")
    return quantiles(outputs, (1 - coverage) / 2), quantiles(outputs, (1 + coverage) / 2)

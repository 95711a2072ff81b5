"""Scores of predicted real values and distributions, given the targets y_n of N examples.

Every function raises TypeError where real numbers are needed, and ValueError if values are empty or not finite, a
variance is not positive, or shapes differ. Under a trace the result is NaN where a value is wrong.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop.mc._checks import as_finite, as_positive, as_sampled, matching, one_dtype
from jdrop.mc._noise import as_noise


def rmse(mean: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Root mean squared error ``sqrt((1/N) sum_n (m_n - y_n)**2)``.

    Args:
      mean: predicted means, finite, any shape.
      targets: finite real numbers of that shape.

    Returns:
      A number in the unit of the targets, at least 0, shape ().

    Raises:
      ValueError: values that are not finite, or shapes that differ.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> round(float(jdrop.mc.metrics.rmse(jnp.array([1.0, 2.0]), jnp.array([4.0, 6.0]))), 3)
      3.536

    Paper:
      Hyndman & Koehler 2006, "Another look at measures of forecast accuracy".
    """
    mean, targets = matching(mean=as_finite("mean", mean), targets=as_finite("targets", targets))
    error = mean - targets
    largest = jax.lax.stop_gradient(jnp.abs(error).max())
    unit = jnp.where(largest > 0, largest, 1)  # whose squares neither overflow nor vanish
    return unit * jnp.sqrt(((error / unit) ** 2).mean())


def gaussian_log_likelihood(mean: ArrayLike, variance: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Mean Gaussian log-density ``(1/N) sum_n log N(y_n; m_n, v_n)``.

    Args:
      mean: predicted means, finite, any shape.
      variance: predicted variances, positive, of that shape.
      targets: finite real numbers of that shape.

    Returns:
      Nats, higher is better, shape ().

    Raises:
      ValueError: values that are not finite, a variance that is not positive, or shapes that differ.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> round(float(jdrop.mc.metrics.gaussian_log_likelihood(jnp.zeros(2), jnp.ones(2), jnp.array([0.0, 1.0]))), 3)
      -1.169

    Paper:
      Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", section 4.1.
    """
    z, variance = _standardized(mean, variance, targets)
    return (-(z**2) - jnp.log(variance) - np.log(2 * np.pi).item()).mean() / 2


def mixture_log_likelihood(
    outputs: ArrayLike, targets: ArrayLike, *, tau: ArrayLike | None = None, log_variance: ArrayLike | None = None
) -> jax.Array:
    """Log-likelihood ``log (1/S) sum_i N(y; f_i, v_i)`` of each target, with ``v_i = 1/tau`` or exp(log_variance_i).

    Args:
      outputs: finite real numbers, shape (num_samples, ...).
      targets: finite real numbers y, shape (...), each a target by itself.
      tau: precision of the noise, positive, of a shape that broadcasts to (...).
      log_variance: or its log-variances as the network predicts them, shape (num_samples, ...).

    Returns:
      Log-densities in nats, shape (...).

    Raises:
      TypeError: both or neither of the descriptions of the noise.
      ValueError: a precision that is not positive, values that are not finite, or shapes that do not match.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> outputs = jnp.array([0.0, 2.0])
      >>> round(float(jdrop.mc.metrics.mixture_log_likelihood(outputs, jnp.array(1.0), tau=1.0)), 3)
      -1.419

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation", equation 8.
    """
    outputs, targets = as_sampled(outputs, targets)
    precisions, log_precisions = as_noise(tau, log_variance, outputs.shape)
    outputs, targets, precisions, log_precisions = one_dtype(outputs, targets, precisions, log_precisions)
    densities = (log_precisions - np.log(2 * np.pi).item() - precisions * (targets[None] - outputs) ** 2) / 2
    return jax.scipy.special.logsumexp(densities, axis=0) - np.log(len(outputs)).item()


def crps_gaussian(mean: ArrayLike, variance: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Continuous ranked probability score of Gaussians, ``(1/N) sum_n s (z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi))``.

    Here ``s = sqrt(v_n)`` and ``z = (y_n - m_n) / s``, with Phi and phi of the standard Gaussian.

    Args:
      mean: predicted means, finite, any shape.
      variance: predicted variances, positive, of that shape.
      targets: finite real numbers of that shape.

    Returns:
      A number in the unit of the targets, at least 0, lower is better, shape ().

    Raises:
      ValueError: values that are not finite, a variance that is not positive, or shapes that differ.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> round(float(jdrop.mc.metrics.crps_gaussian(jnp.zeros(1), jnp.ones(1), jnp.zeros(1))), 3)
      0.234

    Paper:
      Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", equation 21.
    """
    z, variance = _standardized(mean, variance, targets)
    inner = z * jax.lax.erf(z / np.sqrt(2).item()) + 2 * jax.scipy.stats.norm.pdf(z) - 1 / np.sqrt(np.pi).item()
    return (jnp.sqrt(variance) * inner).mean()


def crps_ensemble(outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Continuous ranked probability score of samples, ``(1/N) sum_n (E|X - y_n| - E|X - X'| / 2)``.

    X and X' are drawn with replacement from the S samples of example n. It is computed from the sorted samples as
    ``(2/S) sum_i (x_(i) - y) ([y < x_(i)] - (i - 1/2) / S)``.

    Args:
      outputs: finite samples of the predictive distribution, shape (num_samples, ...).
      targets: finite real numbers, shape (...).

    Returns:
      A number in the unit of the targets, at least 0, lower is better, shape ().

    Raises:
      ValueError: values that are not finite, or shapes that do not match.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.crps_ensemble(jnp.array([[0.0], [2.0]]), jnp.array([1.0]))
      Array(0.5, dtype=float32)

    Paper:
      Gneiting & Raftery 2007, "Strictly proper scoring rules, prediction, and estimation", equation 21; Laio & Tamea
      2007, "Verification tools for probabilistic forecasts of continuous hydrological variables".
    """
    outputs, targets = as_sampled(outputs, targets)
    gaps = jnp.sort(outputs - targets[None], axis=0)
    count = len(gaps)
    levels = (jnp.arange(count, dtype=gaps.dtype) + 0.5).reshape(-1, *[1] * targets.ndim) / count
    return (2 * gaps * ((gaps > 0).astype(gaps.dtype) - levels)).mean()


def pit_gaussian(mean: ArrayLike, variance: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Probability integral transforms ``Phi((y_n - m_n) / sqrt(v_n))``, uniform on [0, 1] if calibrated.

    Args:
      mean: predicted means, finite, any shape.
      variance: predicted variances, positive, of that shape.
      targets: finite real numbers of that shape.

    Returns:
      Probabilities of the shape of targets.

    Raises:
      ValueError: values that are not finite, a variance that is not positive, or shapes that differ.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.pit_gaussian(jnp.zeros(2), jnp.ones(2), jnp.array([0.0, 40.0]))
      Array([0.5, 1. ], dtype=float32)

    Paper:
      Gneiting, Balabdaoui & Raftery 2007, "Probabilistic forecasts, calibration and sharpness".
    """
    z, _ = _standardized(mean, variance, targets)
    return jax.scipy.stats.norm.cdf(z)


def pit_ensemble(outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Probability integral transforms ``(1/S) sum_i ([x_i < y] + [x_i = y] / 2)``, uniform on [0, 1] if calibrated.

    Args:
      outputs: finite samples of the predictive distribution, shape (num_samples, ...).
      targets: finite real numbers, shape (...).

    Returns:
      Probabilities of the shape of targets.

    Raises:
      ValueError: values that are not finite, or shapes that do not match.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.pit_ensemble(jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([2.0]))
      Array([0.625], dtype=float32)

    Paper:
      Gneiting, Balabdaoui & Raftery 2007, "Probabilistic forecasts, calibration and sharpness".
    """
    outputs, targets = as_sampled(outputs, targets)
    return ((jnp.sign(targets[None] - outputs) + 1) / 2).mean(0)


def sharpness(variance: ArrayLike) -> jax.Array:
    """Sharpness ``sqrt((1/N) sum_n v_n)``, the root mean variance: how narrow predictions are, right or wrong.

    Args:
      variance: predicted variances, positive, any shape.

    Returns:
      A standard deviation, positive, shape (): lower is sharper.

    Raises:
      ValueError: a variance that is not positive and finite.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.sharpness(jnp.array([1.0, 7.0]))
      Array(2., dtype=float32)

    Paper:
      Kuleshov et al. 2018, "Accurate uncertainties for deep learning using calibrated regression"; the root as in
      Tran et al. 2020, "Methods for comparing uncertainty quantifications for material property predictions".
    """
    return jnp.sqrt(_variance(variance).mean())


def _variance(variance):
    return as_positive("variance", variance, "variance + 1 / tau, with the noise of the data")


def _standardized(mean, variance, targets):
    """(y - m) / sqrt(v), and v."""
    mean, targets = as_finite("mean", mean), as_finite("targets", targets)
    mean, variance, targets = matching(mean=mean, variance=_variance(variance), targets=targets)
    return (targets - mean) / jnp.sqrt(variance), variance

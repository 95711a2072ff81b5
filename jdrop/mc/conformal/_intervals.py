"""Intervals that cover a real value."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import is_concrete
from jdrop.mc._checks import as_finite, as_positive, matching
from jdrop.mc.conformal._quantile import as_quantile, quantile_of


def residual_quantile(
    mean: ArrayLike, targets: ArrayLike, alpha: float, variance: ArrayLike | None = None
) -> jax.Array:
    """The quantile of absolute residuals, for `residual_intervals`.

    ``quantile = the ceil((n + 1) (1 - alpha))-th smallest of |targets[i] - mean[i]| / sqrt(variance[i])``.

    Args:
      mean: such as `MCPrediction.mean`, of held-out examples, shape (n,), in the target's unit.
      targets: shape (n,).
      alpha: the probability that an interval misses the target, a concrete number in (0, 1).
      variance: above 0, such as `MCPrediction.variance`, shape (n,), so that intervals are wide where the model is
        uncertain; all 1 if None, for intervals of one width.

    Returns:
      The quantile, shape (), at least 0; inf where n is too small for alpha. NaN under a trace where it would raise.

    Raises:
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, a number that is not finite, a variance that is not above 0, shapes that don't match, or
        alpha outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> targets = jax.random.normal(jax.random.key(0), (99,))
      >>> quantile = jdrop.mc.conformal.residual_quantile(jnp.zeros(99), targets, 0.1)
      >>> lower, upper = jdrop.mc.conformal.residual_intervals(jnp.array([5.0]), quantile)

    Papers:
      Papadopoulos et al. 2002, "Inductive confidence machines for regression"; Lei et al. 2018, "Distribution-free
      predictive inference for regression".
    """
    mean, std, targets = _regressed(mean, variance, targets=as_finite("targets", targets))
    return quantile_of(jnp.abs(targets - mean) / std, alpha)


def residual_intervals(
    mean: ArrayLike, quantile: ArrayLike, variance: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
    """The prediction intervals ``mean[i] ± quantile * sqrt(variance[i])``.

    Args:
      mean: of new examples, shape (n,), in the target's unit.
      quantile: what `residual_quantile` returned, shape ().
      variance: above 0, shape (n,), if `residual_quantile` had one.

    Returns:
      (lower, upper), each of shape (n,), in the target's unit. NaN under a trace where it would raise.

    Raises:
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, a number that is not finite, a variance that is not above 0, shapes that don't match, or
        a quantile that is negative, NaN or not one number.

    Example: see `residual_quantile`.

    Paper:
      Lei et al. 2018, "Distribution-free predictive inference for regression".
    """
    mean, std = _regressed(mean, variance)
    quantile = as_quantile(quantile, mean.dtype)
    if is_concrete(quantile) and quantile < 0:
        raise ValueError(f"quantile is {quantile}, but a residual is at least 0: pass what residual_quantile returned.")
    width = jnp.where(quantile < 0, jnp.nan, quantile) * std
    return mean - width, mean + width


def _regressed(mean, variance, **others):
    """The mean, its standard deviation, and others like it."""
    mean = as_finite("mean", mean, "n")
    variance = jnp.ones_like(mean) if variance is None else as_positive("variance", variance, "variance + 1e-6")
    mean, variance, *rest = matching(mean=mean, variance=variance, **others)
    return mean, jnp.sqrt(variance), *rest

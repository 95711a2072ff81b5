"""Scores of intervals, given the targets y_n of N examples."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop.mc._checks import as_array, as_finite, matching, require


def interval_coverage(lower: ArrayLike, upper: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Share of the targets in their interval, ``(1/N) sum_n [l_n <= y_n <= u_n]``.

    Args:
      lower: lower ends, any shape; -inf has none.
      upper: upper ends, not below them, of that shape; inf has none.
      targets: finite real numbers of that shape.

    Returns:
      A number in [0, 1], shape (): that of a calibrated interval is its nominal coverage.

    Raises:
      ValueError: ends that are NaN, targets that are not finite, an upper end below the lower one, or shapes that
        differ.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.interval_coverage(jnp.zeros(2), jnp.ones(2), jnp.array([0.5, 2.0]))
      Array(0.5, dtype=float32)

    Paper:
      Khosravi et al. 2011, "Comprehensive review of neural network-based prediction intervals".
    """
    lower, upper = _interval(lower, upper)
    lower, upper, targets = matching(lower=lower, upper=upper, targets=as_finite("targets", targets))
    inside = ((lower <= targets) & (targets <= upper)).astype(targets.dtype)
    unknown = jnp.isnan(lower) | jnp.isnan(upper) | jnp.isnan(targets)
    return jnp.where(unknown, jnp.nan, inside).mean()


def interval_width(lower: ArrayLike, upper: ArrayLike) -> jax.Array:
    """Mean width of intervals, ``(1/N) sum_n (u_n - l_n)``.

    Args:
      lower: lower ends, any shape; -inf has none.
      upper: upper ends, not below them, of that shape; inf has none.

    Returns:
      A number in the unit of the ends, at least 0, shape ().

    Raises:
      ValueError: ends that are NaN, targets that are not finite, an upper end below the lower one, or shapes that
        differ.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.mc.metrics.interval_width(jnp.zeros(2), jnp.array([1.0, 2.0]))
      Array(1.5, dtype=float32)

    Paper:
      Khosravi et al. 2011, "Comprehensive review of neural network-based prediction intervals".
    """
    lower, upper = _interval(lower, upper)
    return (upper - lower).mean()


def _interval(lower, upper):
    lower, upper = _end("lower", lower, jnp.inf), _end("upper", upper, -jnp.inf)
    with jax.ensure_compile_time_eval():
        lower, upper = matching(lower=lower, upper=upper)
        upper = require(
            upper, lower <= upper, lambda bad, at: f"upper is {bad} at {at}, below lower: write (lower, upper)."
        )
    return lower, upper


def _end(name, value, never):
    """The ends on one side, which may be infinite there alone."""
    with jax.ensure_compile_time_eval():
        array = as_array(name, value)
        return require(
            array,
            ~jnp.isnan(array) & (array != never),
            lambda bad, at: f"{name} is {bad} at {at}, but an interval must end where numbers do, or at {-never}.",
        )

"""Dropout as an ensemble of all the networks that its masks leave: every mask, and means over them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_size
from jdrop.masks._rate import as_rate
from jdrop.mc._checks import as_finite, as_probabilities, one_dtype, require

_WIDEST = 20


def all_masks(width: int, rate: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Every mask of a few units, and its probability.

    ``P(m) = prod_i (1 - rate_i)**m_i * rate_i**(1 - m_i)``

    Args:
      width: how many units n, from 1 to 20.
      rate: the probability that a unit is dropped, in [0, 1]; a number, or an array of shape (n,) or (1,).

    Returns:
      (masks, weights): booleans of shape (2**n, n), True where a unit is kept, in the order of counting in binary; and
      the probability of each mask, shape (2**n,). They are NaN where a traced rate is out of range.

    Raises:
      TypeError: a width that is no integer, a rate that is no number.
      ValueError: a width out of range, a concrete rate outside [0, 1], rates of another shape.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> x, kernel = jnp.array([1.0, 2.0, 3.0]), jnp.array([[0.1, 0.2], [0.3, 0.5], [0.7, 0.4]])
      >>> masks, weights = jdrop.mc.all_masks(3, 0.5)
      >>> probabilities = jax.vmap(lambda mask: jax.nn.softmax(jnp.where(mask, x, 0) @ kernel))(masks)
      >>> scaled = jax.nn.softmax(x @ (0.5 * kernel))
      >>> bool(jnp.allclose(jdrop.mc.geometric_mean(probabilities, weights), scaled))
      True

    Paper:
      Baldi & Sadowski 2013, "Understanding dropout".
    """
    width = as_size("width", width, write=10)
    if width > _WIDEST:
        raise ValueError(
            f"width is {width}, and 2**{width} masks are too many: it must be at most {_WIDEST}. Draw some instead: "
            "write jdrop.mc.samples(predict, key, x)."
        )
    rate = as_rate(rate)
    if rate.shape not in ((), (1,), (width,)):
        raise ValueError(f"rate has shape {rate.shape}, but one number, or one for each of {width} units is needed.")
    masks = (np.arange(2**width)[:, None] >> np.arange(width)[::-1]) % 2 == 1
    if isinstance(rate, jax.Array):
        rate = jnp.where((rate >= 0) & (rate <= 1), rate, jnp.nan)
        return jnp.asarray(masks), jnp.where(masks, 1 - rate, rate).prod(1)
    weights = np.where(masks, 1 - rate.astype(np.float64), rate).prod(1)
    return jnp.asarray(masks), jnp.asarray(weights.astype(rate.dtype))


def geometric_mean(probabilities: ArrayLike, weights: ArrayLike | None = None) -> jax.Array:
    """The geometric mean of an ensemble's class probabilities, renormalised over the classes.

    ``p_c = prod_s p_sc**w_s / sum_k prod_s p_sk**w_s``, with weights that sum to 1. Over all masks of the input of one
    softmax layer it is what the layer with its weights scaled by ``1 - rate`` predicts.

    Args:
      probabilities: class probabilities in [0, 1], shape (num_samples, ..., classes): one for each of `all_masks`, or
        Monte Carlo samples.
      weights: those of `all_masks`, or any that are not negative, shape (num_samples,); None for equal ones.

    Returns:
      Class probabilities, shape (..., classes); 0 where one sample is, and NaN if that holds for every class.

    Raises:
      TypeError: not real numbers.
      ValueError: not probabilities; negative weights, only zeros, or of another shape.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> [round(float(p), 3) for p in jdrop.mc.geometric_mean(jnp.array([[0.5, 0.5], [0.9, 0.1]]))]
      [0.75, 0.25]

    Paper:
      Baldi & Sadowski 2013, "Understanding dropout".
    """
    probabilities, weights = _weighted(as_probabilities(probabilities, "num_samples", "...", "classes"), weights)
    return jax.nn.softmax(jax.scipy.special.xlogy(weights, probabilities).sum(0), axis=-1)


def _weighted(outputs, weights):
    """Checked outputs, and weights that sum to 1 and broadcast to them."""
    if weights is None:
        return outputs, jnp.full((len(outputs),) + (1,) * (outputs.ndim - 1), 1 / len(outputs), outputs.dtype)
    with jax.ensure_compile_time_eval():
        weights = as_finite("weights", weights)
        if weights.shape != outputs.shape[:1]:
            raise ValueError(
                f"weights has shape {weights.shape}, but outputs of shape {outputs.shape} need {outputs.shape[:1]}: "
                "one for each sample."
            )
        weights = require(
            weights,
            (weights >= 0) & (weights > 0).any(),
            lambda bad, at: (
                f"weights is {bad} at {at}, but they must not be negative nor all 0: write those of "
                "jdrop.mc.all_masks(width, rate)."
            ),
        )
    outputs, weights = one_dtype(outputs, weights)
    # Powers of two, so that the sum neither overflows nor vanishes, and has an inverse, by which XLA divides.
    weights = weights * jnp.where(weights.max() > 1, 2.0**-64, 2.0**64).astype(weights.dtype)
    return outputs, (weights / weights.sum()).reshape(-1, *(1,) * (outputs.ndim - 1))

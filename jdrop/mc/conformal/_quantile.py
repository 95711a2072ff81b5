"""The quantile of the scores of held-out examples."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdrop._checks import is_concrete, to_array
from jdrop.mc._checks import decimal_of


def quantile_of(scores, alpha: Any) -> jax.Array:
    """The ceil((n + 1) (1 - alpha))-th smallest score."""
    if alpha is None or isinstance(alpha, str) or not is_concrete(alpha):
        raise TypeError(f"alpha is {alpha!r}, but a concrete number in (0, 1) is needed: write alpha=0.1.")
    try:
        number = to_array("alpha", float(alpha) if isinstance(alpha, numbers.Rational) else alpha)
    except OverflowError:
        raise ValueError(
            "alpha is far above 1, but the probability of a miss lies in (0, 1): write alpha=0.1."
        ) from None
    if number.shape or jnp.iscomplexobj(number):
        raise TypeError(f"alpha is {alpha!r}, but a concrete number in (0, 1) is needed: write alpha=0.1.")
    if not 0 < float(number) < 1:
        raise ValueError(f"alpha is {alpha}, but the probability of a miss lies in (0, 1): write alpha=0.1.")
    rank = math.ceil((len(scores) + 1) * (1 - decimal_of(number)))
    return _ranked(scores, rank)


@jax.jit
def _ranked(scores, rank):
    """The score of a rank from 1 to n, and inf of rank n + 1; NaN if a score is."""
    ranked = jnp.append(jnp.sort(scores), jnp.full(1, jnp.inf, scores.dtype))
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, ranked[rank - 1])


def as_quantile(quantile, dtype):
    quantile = to_array("quantile", quantile)
    if quantile.dtype == bool or jnp.iscomplexobj(quantile):
        raise TypeError(f"quantile has dtype {quantile.dtype}, but a real number is needed, a score.")
    if quantile.shape != ():
        raise ValueError(f"quantile has shape {quantile.shape}, but one number is needed: see jax.vmap for more.")
    if is_concrete(quantile) and np.isnan(quantile):
        raise ValueError("quantile is NaN, but a score of held-out examples is needed: what went into its calibration?")
    return jnp.asarray(quantile.astype(dtype))

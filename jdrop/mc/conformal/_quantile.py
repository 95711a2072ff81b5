"""The quantile of the scores of held-out examples."""

import math
import numbers
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdrop._checks import is_concrete


def quantile_of(scores, alpha: Any) -> jax.Array:
    """The ceil((n + 1) (1 - alpha))-th smallest score, with alpha as the decimal that is written."""
    real = isinstance(alpha, (numbers.Real, np.ndarray, jax.Array))
    if not real or not is_concrete(alpha) or getattr(alpha, "shape", ()):
        raise TypeError(f"alpha is {alpha!r}, but a concrete number in (0, 1) is needed: write alpha=0.1.")
    if not 0 < float(alpha) < 1:
        raise ValueError(f"alpha is {alpha}, but the probability of a miss lies in (0, 1): write alpha=0.1.")
    rank = math.ceil((len(scores) + 1) * (1 - Fraction(str(alpha))))
    return _ranked(scores, rank)


@jax.jit
def _ranked(scores, rank):
    """The score of a rank from 1 to n, and inf of rank n + 1; NaN if a score is."""
    ranked = jnp.append(jnp.sort(scores), jnp.full(1, jnp.inf, scores.dtype))
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, ranked[rank - 1])


def as_quantile(quantile, dtype):
    if np.shape(quantile) != ():
        raise ValueError(f"quantile has shape {np.shape(quantile)}, but one number is needed: see jax.vmap for more.")
    if is_concrete(quantile) and np.isnan(quantile):
        raise ValueError("quantile is NaN, but a score of held-out examples is needed: what went into its calibration?")
    return jnp.asarray(quantile, dtype)

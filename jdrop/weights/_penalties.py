"""Penalties on weights, to be added to a loss."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_bool, as_scalar, at_least_float32
from jdrop._types import PyTree
from jdrop.weights._parameters import NOT_KERNELS, kernels, square, wide


def l1(params: PyTree, strength: ArrayLike, *, kernels_only: bool = True) -> jax.Array:
    """The sum of the absolute values of weights, to be added to a loss.

    ``R(theta) = strength * sum |theta|``, with the subgradient 0 at 0.

    Args:
      params: a tree of floating-point or complex arrays: of Linen, an NNX state, or any other.
      strength: the factor lambda, at least 0; a number or a scalar, traced or not. A traced one that is negative or
        not finite makes the penalty NaN.
      kernels_only: True leaves out biases and the parameters of normalisation layers: arrays of fewer than two
        axes, and those named "bias" or "scale". Embeddings count as kernels.

    Returns:
      A scalar in float32, or in float64 if a weight is.

    Raises:
      TypeError: a parameter or a strength that is not numbers of these kinds.
      ValueError: a concrete strength that is negative or not finite; nothing to sum.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> float(jdrop.l1({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([5.0])}, 0.5))
      1.5

    Paper:
      Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    return _penalty(params, strength, kernels_only, _absolute)


def l2(params: PyTree, strength: ArrayLike, *, kernels_only: bool = True) -> jax.Array:
    """The sum of the squares of weights, to be added to a loss.

    ``R(theta) = strength * sum |theta|**2``: not halved, so under plain SGD it is a weight decay of ``2 * strength``.

    Args:
      params: a tree of floating-point or complex arrays: of Linen, an NNX state, or any other.
      strength: the factor lambda, at least 0; a number or a scalar, traced or not. A traced one that is negative or
        not finite makes the penalty NaN.
      kernels_only: True leaves out biases and the parameters of normalisation layers: arrays of fewer than two
        axes, and those named "bias" or "scale". Embeddings count as kernels.

    Returns:
      A scalar in float32, or in float64 if a weight is.

    Raises:
      TypeError: a parameter or a strength that is not numbers of these kinds.
      ValueError: a concrete strength that is negative or not finite; nothing to sum.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> float(jdrop.l2({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([5.0])}, 0.5))
      2.5

    Paper:
      Hoerl & Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems".
    """
    return _penalty(params, strength, kernels_only, square)


def _penalty(params, strength, kernels_only, measure):
    strength = as_scalar("strength", strength, lambda s: (s >= 0) & (s < jnp.inf), "in [0, inf)", "strength=1e-4")
    kernels_only = as_bool("kernels_only", kernels_only)
    leaves = [leaf for *_, leaf in kernels(params, NOT_KERNELS if kernels_only else None, "kernels_only=False")]
    dtype = jnp.float64 if any(at_least_float32(leaf.dtype) == jnp.float64 for leaf in leaves) else jnp.float32
    total = sum(jnp.sum(measure(wide(leaf)), dtype=dtype) for leaf in leaves)
    return strength.astype(dtype) * total


def _absolute(x):
    # Not jnp.abs, whose derivative at 0 is 1.
    return (x * jnp.sign(jax.lax.stop_gradient(x)).conj()).real

"""Penalties and constraints on weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

__all__ = ["l1", "l2", "max_norm"]

_NOT_KERNELS = ("bias", "scale")


def l1(params, strength, *, kernels_only=True):
    """The sum of the absolute values of weights, to be added to a loss.

    ``R(theta) = strength * sum |theta|``

    Args:
      params: a tree of arrays.
      strength: the factor lambda, at least 0; a number or a traced scalar.
      kernels_only: True leaves out biases and the parameters of normalisation layers: arrays of fewer than two
        axes, and those named "bias" or "scale".

    Returns:
      A scalar, in at least float32.

    Raises:
      TypeError: a parameter that is not an array of floating-point or complex numbers.
      ValueError: a concrete strength that is negative or not finite; no kernel among the parameters.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> float(jdrop.l1({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([5.0])}, 0.5))
      1.5

    Paper:
      Tibshirani 1996, "Regression shrinkage and selection via the lasso".
    """
    return _penalty(params, strength, kernels_only, jnp.abs)


def l2(params, strength, *, kernels_only=True):
    """The sum of the squares of weights, to be added to a loss.

    ``R(theta) = strength * sum |theta|**2``: not halved, and under plain SGD a weight decay of ``2 * strength``.

    Args:
      params: a tree of arrays.
      strength: the factor lambda, at least 0; a number or a traced scalar.
      kernels_only: True leaves out biases and the parameters of normalisation layers: arrays of fewer than two
        axes, and those named "bias" or "scale".

    Returns:
      A scalar, in at least float32.

    Raises:
      TypeError: a parameter that is not an array of floating-point or complex numbers.
      ValueError: a concrete strength that is negative or not finite; no kernel among the parameters.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> float(jdrop.l2({"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([5.0])}, 0.5))
      2.5

    Paper:
      Hoerl & Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems".
    """
    return _penalty(params, strength, kernels_only, lambda x: x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x**2)


def max_norm(limit):
    """Keep the norm of each unit's incoming weights at most `limit`, as an optax transformation.

    After the update ``w <- w * min(1, limit / ||w||)`` for every unit, where w are the weights that lead to it: all axes
    of a kernel but the last. Biases and the parameters of normalisation layers are left alone. It constrains the sum of
    the parameter and its update, so it comes last in a chain.

    Args:
      limit: the largest norm, above 0; 3 or 4 with dropout in the paper.

    Returns:
      An `optax.GradientTransformation`.

    Raises:
      ValueError: a limit that is not above 0; an update without parameters, or without a kernel among them.

    Example:
      >>> import optax, jdrop
      >>> tx = optax.chain(optax.sgd(0.1, momentum=0.95), jdrop.max_norm(3.0))

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    if not (isinstance(limit, (int, float, np.number)) and limit > 0):
        raise ValueError(f"limit is {limit!r}, but the largest norm must be a number above 0: write max_norm(3.0).")

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("max_norm needs the parameters that it constrains: write tx.update(grads, state, params).")
        names = dict(_kernels(params))

        def constrained(path, update, param):
            if jax.tree_util.keystr(path) not in names:
                return update
            dtype = jnp.promote_types(param.dtype, jnp.float32)
            kernel = param.astype(dtype) + update.astype(dtype)
            square = jnp.sum(jnp.abs(kernel) ** 2, tuple(range(kernel.ndim - 1)), keepdims=True)
            # One over the larger: no division by the norm of a unit without weights, nor a gradient of its root.
            kernel = kernel * (limit / jnp.sqrt(jnp.maximum(square, limit**2)))
            return (kernel - param.astype(dtype)).astype(update.dtype)

        return jax.tree_util.tree_map_with_path(constrained, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


def _penalty(params, strength, kernels_only, measure):
    if not isinstance(strength, jax.core.Tracer) and not 0 <= strength < float("inf"):
        raise ValueError(f"strength is {strength}, but it must be finite and at least 0: write strength=1e-4.")
    leaves = [leaf for _, leaf in _kernels(params)] if kernels_only else jax.tree.leaves(params)
    total = sum(jnp.sum(measure(leaf.astype(_at_least_float32(leaf)))) for leaf in leaves)
    return jnp.asarray(strength, total.dtype) * total


def _at_least_float32(leaf):
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"a parameter has dtype {leaf.dtype}, but a penalty needs floating-point weights: give it the trained "
            "parameters only."
        )
    return jnp.promote_types(leaf.dtype, jnp.float32)


def _kernels(params):
    """(name, array) of the parameters that are neither biases nor those of a normalisation."""
    kernels = [
        (jax.tree_util.keystr(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if jnp.ndim(leaf) > 1 and not any(_part(part) in _NOT_KERNELS for part in path)
    ]
    if not kernels:
        names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise ValueError(
            f"there is no kernel among the parameters {names}: those have two axes or more and are not named 'bias' or "
            "'scale'."
        )
    return kernels


def _part(part):
    return getattr(part, "key", getattr(part, "name", None))

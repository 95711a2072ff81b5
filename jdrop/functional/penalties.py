"""Penalties and constraints on weights."""

import operator

import jax
import jax.numpy as jnp
import optax

from jdrop.functional.parameters import as_scalar, check_inexact, last, named, wide
from jdrop.masks.rate import at_least_float32

__all__ = ["l1", "l2", "max_norm"]

_NOT_KERNELS = ("bias", "scale")


def l1(params, strength, *, kernels_only=True):
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


def l2(params, strength, *, kernels_only=True):
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
    return _penalty(params, strength, kernels_only, _square)


def max_norm(limit, *, axes=None):
    """Keep the norm of each unit's incoming weights at most `limit`, as an optax transformation.

    ``w <- w * min(1, limit / ||w||)`` after the update, for the weights w of one kernel that lead to one unit. It
    constrains the sum of a parameter and its update, so it comes last in a chain. Units below the limit get their
    update as it is; biases, the parameters of normalisation layers and embeddings are left alone.

    Args:
      limit: the largest norm, above 0; 3 or 4 with dropout in the paper. A traced one out of range makes weights NaN.
      axes: the axes of a kernel along which a unit's weights lie, such as 0, -2 or (0, 1). None takes all axes but
        those of the "bias" beside a "kernel" (two for a `DenseGeneral` that has two axes of features), or all
        but the last where there is none. A stack of layers as `nn.scan` makes it needs them.

    Returns:
      An `optax.GradientTransformation`, without a state. In 16 bits the norm is `limit` to the rounding of the sum.

    Raises:
      TypeError: a limit that is no number, axes that are no integers.
      ValueError: a limit that is not above 0; from `update`: no parameters, no kernel, axes that a kernel doesn't have.

    Example:
      >>> import jax.numpy as jnp, optax, jdrop
      >>> tx = optax.chain(optax.sgd(0.1, momentum=0.95), jdrop.max_norm(3.0))
      >>> params = {"kernel": jnp.array([[4.0, 0.0], [3.0, 1.0]])}
      >>> updates, _ = tx.update({"kernel": jnp.zeros((2, 2))}, tx.init(params), params)
      >>> (jnp.linalg.norm((params["kernel"] + updates["kernel"]), axis=0) * 100).round().tolist()
      [300.0, 100.0]

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 5.1.
    """
    limit = as_scalar("limit", limit, lambda limit: limit > 0, "above 0, the largest norm", "max_norm(3.0)")
    axes = None if axes is None else _as_axes(axes)

    def update_fn(updates, state, params=None):
        if params is None:
            raise ValueError("max_norm needs the parameters that it constrains: write tx.update(grads, state, params).")
        arrays = {name: leaf for _, name, leaf in named(params)}
        kernels = {
            path: _incoming(name, leaf, arrays, axes)
            for path, name, leaf in _kernels(params, (*_NOT_KERNELS, "embedding"), "leave max_norm out")
        }

        def constrain(path, update, param):
            return _constrain(update, param, kernels[path], limit) if path in kernels else update

        return jax.tree_util.tree_map_with_path(constrain, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


def _penalty(params, strength, kernels_only, measure):
    strength = as_scalar("strength", strength, lambda s: (s >= 0) & (s < jnp.inf), "in [0, inf)", "strength=1e-4")
    leaves = [leaf for *_, leaf in _kernels(params, _NOT_KERNELS if kernels_only else None, "kernels_only=False")]
    dtype = jnp.float64 if any(at_least_float32(leaf.dtype) == jnp.float64 for leaf in leaves) else jnp.float32
    total = sum(jnp.sum(measure(wide(leaf)), dtype=dtype) for leaf in leaves)
    return strength.astype(dtype) * total


def _kernels(params, excluded, write):
    """[(path, name, array)] of the arrays of two axes or more with no excluded name; of all arrays if that is None."""
    arrays = named(params)
    kernels = [
        (path, name, leaf)
        for path, name, leaf in arrays
        if excluded is None or (leaf.ndim > 1 and last(name) not in excluded)
    ]
    if not kernels:
        raise ValueError(
            f"the parameters are {[name for _, name, _ in arrays]}, and none is a kernel, which has two axes or more "
            f"and is not named {', '.join(map(repr, excluded or _NOT_KERNELS))}: give all parameters, or write {write}."
        )
    for _, name, leaf in kernels:
        check_inexact(name, leaf)
    return kernels


def _as_axes(axes):
    try:
        return tuple(operator.index(axis) for axis in (axes if isinstance(axes, (tuple, list)) else (axes,)))
    except TypeError:
        raise TypeError(f"axes is {axes!r}, but None, an integer or a tuple of them is needed: write axes=0.") from None


def _incoming(name, kernel, arrays, axes):
    """The axes of a kernel along which one unit's incoming weights lie."""
    every = range(kernel.ndim)
    if axes is not None:
        if not all(-kernel.ndim <= axis < kernel.ndim for axis in axes):
            raise ValueError(
                f"axes is {axes}, but the kernel {name!r} of shape {kernel.shape} has axes {-kernel.ndim} to "
                f"{kernel.ndim - 1}: name some of these, and divide the kernels by optax.multi_transform."
            )
        return tuple({axis % kernel.ndim for axis in axes})
    # Only the bias tells a projection to heads, (inputs, heads, size), from one of them, (heads, size, outputs).
    bias = arrays.get(name[: -len("kernel")] + "bias") if last(name) == "kernel" else None
    if bias is None:
        return tuple(every[:-1])
    if not 0 < bias.ndim < kernel.ndim or kernel.shape[-bias.ndim :] != bias.shape:
        raise ValueError(
            f"the kernel {name!r} has shape {kernel.shape}, which does not end with the {bias.shape} of its bias, so "
            "its units are unknown: write axes=-2 for a stack of dense layers, or name the axes of its inputs."
        )
    return tuple(every[: -bias.ndim])


def _constrain(update, param, axes, limit):
    """The update after which the norm over these axes is at most `limit`."""
    old = wide(param)
    kernel = old + update.astype(old.dtype)
    # In units of the limit, so that its own square neither overflows nor vanishes.
    square = jnp.sum(_square(kernel / limit.astype(old.dtype)), axes, keepdims=True)
    # The root of at least 1: no division by the norm of a unit without weights, nor the derivative of its root.
    shrunk = (kernel / jnp.sqrt(jnp.maximum(square, 1)).astype(old.dtype) - old).astype(update.dtype)
    return jnp.where(square <= 1, update, shrunk)


def _absolute(x):
    # Not jnp.abs, whose derivative at 0 is 1.
    return (x * jnp.sign(jax.lax.stop_gradient(x)).conj()).real


def _square(x):
    return x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x**2

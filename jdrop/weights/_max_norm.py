"""Constraints on weights, as optax transformations."""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jdrop._checks import as_scalar
from jdrop.weights._parameters import NOT_KERNELS, kernels, last, named, square, wide


def max_norm(limit: ArrayLike, *, axes: int | Sequence[int] | None = None) -> optax.GradientTransformation:
    """Keep the norm of each unit's incoming weights at most `limit`, as an optax transformation.

    ``w <- w * min(1, limit / ||w||)`` after the update, for the weights w of one kernel that lead to one unit. It
    constrains the sum of a parameter and its update, so it comes last in a chain. Units below the limit get their
    update as it is; biases, the parameters of normalisation layers and embeddings are left alone.

    Args:
      limit: the largest norm, above 0; 3 or 4 with dropout in the paper. A traced one out of range makes weights NaN.
      axes: the axes of a kernel along which a unit's weights lie, such as 0, -2 or (0, 1). None is for the weights of
        Flax and Haiku, by their names "kernel" and "w": it takes all axes but those of the "bias" beside a "kernel"
        (two for a `DenseGeneral` that has two axes of features), or all but the last where there is none. A stack of
        layers as `nn.scan` makes it needs them, and so do weights of another library.

    Returns:
      An `optax.GradientTransformation`, without a state. In 16 bits the norm is `limit` to the rounding of the sum.

    Raises:
      TypeError: a limit that is no number, axes that are no integers.
      ValueError: a limit that is not above 0; from `update`: no parameters, no kernel, axes that a kernel doesn't have,
        or none for weights that are called otherwise.

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
        incoming = {
            path: _incoming(name, leaf, arrays, axes)
            for path, name, leaf in kernels(params, (*NOT_KERNELS, "embedding"), "leave max_norm out")
        }

        def constrain(path, update, param):
            return _constrain(update, param, incoming[path], limit) if path in incoming else update

        return jax.tree_util.tree_map_with_path(constrain, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update_fn)


def _as_axes(axes):
    try:
        return tuple(operator.index(axis) for axis in (np.ravel(axes).tolist() if np.ndim(axes) == 1 else (axes,)))
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
    if last(name) not in ("kernel", "w"):
        raise ValueError(
            f"the weights {name!r} of shape {kernel.shape} are called neither 'kernel' nor 'w', so where a unit's "
            "incoming weights lie is unknown: write axes=0 where they are laid out (inputs, outputs), and "
            "axes=1, or (1, 2, 3) of a convolution, where they are (outputs, inputs), as in Equinox and PyTorch."
        )
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
    squares = jnp.sum(square(kernel / limit.astype(old.dtype)), axes, keepdims=True)
    # The root of at least 1: no division by the norm of a unit without weights, nor the derivative of its root.
    shrunk = (kernel / jnp.sqrt(jnp.maximum(squares, 1)).astype(old.dtype) - old).astype(update.dtype)
    return jnp.where(squares <= 1, update, shrunk)

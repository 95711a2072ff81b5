"""Weights of a network trained with one scaling of dropout, for another."""

from collections.abc import Mapping

import jax
from jax.typing import ArrayLike

from jdrop._checks import as_bool, as_scalar
from jdrop._types import PyTree
from jdrop.weights._parameters import check_inexact, last, named, wide


def scale_weights(params: PyTree, rates: Mapping[str, ArrayLike], *, inverse: bool = False) -> PyTree:
    """Scale the weights of the layers whose inputs were dropped.

    ``W <- (1 - rate) * W``, or ``W / (1 - rate)`` with `inverse`; biases stay. With m the bare mask of a linear layer's
    input x:

    * a network trained with the bare mask, ``W (m * x)``, predicts with ``(1 - rate) * W``, since
      ``((1 - rate) * W) x = E[W (m * x)]``. Nowhere are weights divided at prediction;
    * a classic network is that one. The inverted network, trained with ``W (m * x / (1 - rate))``, that is the same
      function in training and in prediction has the weights ``(1 - rate) * W``: this leads from classic to inverted,
      `inverse` back.

    Args:
      params: a tree of arrays, not changed: of Linen, an NNX state, or any other.
      rates: a dict from each layer whose input was dropped to the probability that an input was dropped, in [0, 1);
        numbers or scalars, traced or not. A layer is named by its place in the tree, such as "Dense_1" or
        "block/Dense_0", and its array called "kernel" is scaled; a name may also lead to an array itself. Nothing but a
        ReLU or a pooling may lie between the dropout and the layer.
      inverse: True divides.

    Returns:
      The tree with these kernels scaled, each rounded once to its own dtype. A traced rate out of range makes its
      kernel NaN.

    Raises:
      TypeError: `rates` is not a dict of numbers; a kernel that is not of floating-point or complex numbers.
      ValueError: a rate outside [0, 1); a name that leads to no kernel, or two that lead to the same.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> params = {"Dense_0": {"kernel": jnp.ones((1, 2))}, "Dense_1": {"kernel": jnp.ones((2, 2))}}
      >>> jdrop.scale_weights(params, {"Dense_1": 0.5})
      {'Dense_0': {'kernel': Array([[1., 1.]], dtype=float32)}, 'Dense_1': {'kernel': Array([[0.5, 0.5],
             [0.5, 0.5]], dtype=float32)}}

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    arrays = {name: (path, leaf) for path, name, leaf in named(params) if last(name) not in ("bias", "scale")}
    layers = [name.removesuffix("/kernel") for name in arrays]
    if not isinstance(rates, dict):
        raise TypeError(
            f"rates is {rates!r}, but a dict from the layers whose inputs were dropped to their rates is needed: write "
            f"{{{(layers or ['Dense_1'])[-1]!r}: 0.5}}. The layers are {layers}."
        )
    factors, inverse = {}, as_bool("inverse", inverse)
    for layer, value in rates.items():
        name = next((name for name in (layer, f"{layer}/kernel") if name in arrays), None)
        if name is None:
            raise ValueError(
                f"rates names the layer {layer!r}, which has no kernel: write one of {layers}, the layers of params."
            )
        path, leaf = arrays[name]
        if path in factors:
            raise ValueError(f"rates names the kernel {name!r} twice, as {layer!r} too: leave one out.")
        check_inexact(name, leaf)
        rate = as_scalar(f"rates[{layer!r}]", value, lambda rate: (rate >= 0) & (rate < 1), "in [0, 1)", "rate=0.5")
        factors[path] = 1 - rate

    def scale(path, leaf):
        if path not in factors:
            return leaf
        weights = wide(leaf)
        factor = factors[path].astype(weights.dtype)
        return (weights / factor if inverse else weights * factor).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(scale, params)

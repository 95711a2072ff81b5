"""Weights of a network trained with one scaling of dropout, for another."""

import jax
import numpy as np

__all__ = ["scale_weights"]


def scale_weights(params, keep, layers, *, inverse=False):
    """Scale the weights of the layers whose inputs were dropped.

    ``W <- keep * W``, or ``W / keep`` with `inverse`; biases stay. With m the bare mask of the layer's input x:

    * a network trained with the bare mask (classic, W) predicts with ``keep * W``: ``(keep * W) x = E[W (m * x)]``;
    * an inverted network, trained with ``W (m * x / keep)``, is the classic one whose weights are ``W / keep``, and
      predicts with W itself: from classic to inverted by ``keep * W``, and back with ``inverse=True``.

    Args:
      params: a tree of arrays, not changed.
      keep: the probability that an input was **kept**, 1 - rate, in (0, 1]; a number, or a dict with one for each layer.
      layers: names of the layers whose inputs were dropped, such as ["Dense_1", "block/Dense_0"]: where they are in the
        tree, with "/" between the levels. Such a layer's array named "kernel" is scaled; a name may also lead to the
        array itself.
      inverse: divide instead.

    Returns:
      The tree with these kernels scaled, each in its own dtype.

    Raises:
      ValueError: a keep probability outside (0, 1], a name that leads to no kernel, or a name without a probability.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> params = {"Dense_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "Dense_1": {"kernel": jnp.ones((3, 1))}}
      >>> float(jdrop.scale_weights(params, 0.5, ["Dense_1"])["Dense_1"]["kernel"][0, 0])
      0.5

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    layers = [layers] if isinstance(layers, str) else list(layers)
    keeps = keep if isinstance(keep, dict) else dict.fromkeys(layers, keep)
    if sorted(keeps) != sorted(layers):
        raise ValueError(f"keep names the layers {sorted(keeps)}, but layers are {sorted(layers)}: give one for each.")
    for value in keeps.values():
        if not 0 < value <= 1:
            raise ValueError(
                f"keep is {value}, but the probability that an input was kept must lie in (0, 1]: write 1 - rate."
            )
    unused = set(layers)

    def scaled(path, leaf):
        parts = [str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in path]
        parts = [part for part in parts if part not in ("params", "value")]
        name = "/".join(parts)
        layer = next((layer for layer in layers if name in (layer, f"{layer}/kernel")), None)
        if layer is None:
            return leaf
        unused.discard(layer)
        return (leaf / keeps[layer] if inverse else leaf * keeps[layer]).astype(leaf.dtype)

    result = jax.tree_util.tree_map_with_path(scaled, params)
    if unused:
        raise ValueError(f"the layers {sorted(unused)} have no kernel among the parameters: write ...")
    return result

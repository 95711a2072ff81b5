"""Dropout of weights: DropConnect, and mixout."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_bool, as_flag, as_real, at_least_float32, check_choice
from jdrop._keys import fold_in
from jdrop._types import Flag, PyTree, Save, Scaling
from jdrop.functional._dropout import drawn, draws, dropout
from jdrop.masks._drop import chosen
from jdrop.masks._rate import as_rate, scales, threshold
from jdrop.weights._parameters import NOT_KERNELS, check_inexact, kernels, named, wide


def drop_connect(
    key: jax.Array | None,
    params: PyTree,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    kernels_only: bool = True,
    scaling: Scaling = "inverted",
    save: Save = "key",
) -> PyTree:
    """Set each weight of a network to zero with probability `rate`.

    ``W = keep * W / (1 - rate)`` for each array of a tree, drawn from ``fold_in(key, "block/Dense_0/kernel")``, the
    name of its place; the same tree at evaluation. All examples of a batch share the weights that are left. For
    `jdrop.mc_dropout` a `predict` is ``lambda key, x: model.apply({"params": drop_connect(key, params, 0.5)}, x)``.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      params: a tree of arrays: of Linen, an NNX state, or any other.
      rate: the probability that a weight is dropped, in [0, 1]; a number, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      kernels_only: True leaves all that have fewer than two axes, or are named "bias" or "scale", as they are.
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`; the paper's is "classic".
      save: "key" or "mask", as in `jdrop.dropout`.

    Returns:
      A tree of the same arrays, some of their weights zero.

    Raises:
      TypeError: weights that are not of floating-point or complex numbers, no key where one is needed, a rate or flag
        of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, or an array of rates; a tree without kernels.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> params = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones(3)}
      >>> jdrop.drop_connect(jax.random.key(0), params, 0.5)["bias"].tolist()
      [1.0, 1.0, 1.0]

    Paper:
      Wan et al. 2013, "Regularization of neural networks using DropConnect".
    """
    return _dropped(
        key,
        params,
        rate,
        deterministic,
        kernels_only,
        lambda k, name, w: dropout(k, w, rate, deterministic, scaling=scaling, save=save),
    )


def mixout(
    key: jax.Array | None,
    params: PyTree,
    pretrained: PyTree,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    kernels_only: bool = True,
) -> PyTree:
    """Set each weight of a network back to its value before fine-tuning with probability `rate`.

    ``W = U + keep * (W - U) / (1 - rate)`` with the weights U before, so that ``E[W] = W``: dropout of what fine-tuning
    has changed. The same tree at evaluation. Drawn as by `drop_connect`.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      params: a tree of arrays, the weights W.
      pretrained: the tree of the weights U, of the same shapes and dtypes.
      rate: the probability that a weight is set back, in [0, 1]; a number, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      kernels_only: True leaves all that have fewer than two axes, or are named "bias" or "scale", as they are.

    Returns:
      A tree of arrays like `params`.

    Raises:
      TypeError: weights that are not of floating-point or complex numbers, no key where one is needed, a rate or flag
        of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, or an array of rates; trees that differ, or have no kernels.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> before = {"kernel": jnp.zeros((4, 3))}
      >>> mixed = jdrop.mixout(jax.random.key(0), {"kernel": jnp.ones((4, 3))}, before, 0.5)
      >>> set(mixed["kernel"].ravel().tolist()) <= {0.0, 2.0}
      True

    Paper:
      Lee, Cho & Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained language models".
    """
    of_name = {name: leaf for _, name, leaf in named(pretrained, "pretrained")}
    for _, name, leaf in named(params):
        before = of_name.get(name)
        if before is None or before.shape != leaf.shape or before.dtype != leaf.dtype:
            came = "none of its name" if before is None else f"{before.dtype}{list(before.shape)}"
            raise ValueError(
                f"params has the parameter {name!r}, {leaf.dtype}{list(leaf.shape)}, and pretrained has {came}: give "
                "the tree of parameters that fine-tuning began with."
            )

    def mixed(k, name, w):
        mask, before = drawn(k, w.shape, rate, deterministic), jnp.asarray(of_name[name])
        if mask is None:
            return w
        train, _ = scales(mask.limit, w.dtype, "inverted")
        changed = (before + (wide(w) - wide(before)) * train).astype(w.dtype)
        return chosen(mask, jnp.where(as_flag(deterministic), w, changed), before)

    return _dropped(key, params, rate, deterministic, kernels_only, mixed)


def drop_connect_moments(
    x: ArrayLike, kernel: ArrayLike, rate: ArrayLike, *, scaling: Scaling = "inverted"
) -> tuple[jax.Array, jax.Array]:
    """The mean and the variance of a dense layer's outputs under DropConnect, without sampling.

    ``mean = x @ W`` and ``variance = rate / (1 - rate) * x**2 @ W**2``; with classic scaling ``(1 - rate) * x @ W`` and
    ``rate * (1 - rate) * x**2 @ W**2``. The paper predicts with the mean of the layers above over normal numbers of
    these moments, for each example and output: ``mean + variance**0.5 * jax.random.normal(key, mean.shape)``.

    Args:
      x: a real floating-point array of shape (..., inputs).
      kernel: W, of shape (inputs, outputs).
      rate: the probability that a weight is dropped, in [0, 1); a number, traced or not.
      scaling: "inverted", or "classic", the paper's.

    Returns:
      (mean, variance), of shape (..., outputs); the variance in at least float32. Add a bias to the mean.

    Raises:
      TypeError: arrays that are not of real floating-point numbers, a rate of a wrong type.
      ValueError: shapes that do not fit, a concrete rate outside [0, 1], an unknown `scaling`.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> mean, variance = jdrop.drop_connect_moments(jnp.ones((1, 2)), jnp.ones((2, 1)), 0.5)
      >>> mean.tolist(), variance.tolist()
      ([[2.0]], [[2.0]])

    Paper:
      Wan et al. 2013, "Regularization of neural networks using DropConnect".
    """
    check_choice("scaling", scaling, ("inverted", "classic"))
    x, kernel = as_real("x", x), as_real("kernel", kernel)
    if kernel.ndim != 2 or not x.ndim or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"x has shape {x.shape} and kernel {kernel.shape}, but (..., inputs) and (inputs, outputs) fit."
        )
    limit = threshold(as_rate(rate))
    dtype = at_least_float32(x.dtype)
    _, keep = (jnp.asarray(factor, dtype) for factor in scales(limit, dtype, "classic"))
    mean = x @ kernel
    square = (x.astype(dtype) ** 2) @ (kernel.astype(dtype) ** 2)
    if scaling == "classic":
        return (keep * mean.astype(dtype)).astype(mean.dtype), keep * (1 - keep) * square
    # All is dropped at rate 1, where the inverted outputs are 0 and do not vary.
    return jnp.where(keep == 0, 0, mean), jnp.where(keep == 0, 0, (1 - keep) / jnp.where(keep == 0, 1, keep)) * square


def _dropped(key: Any, params, rate, deterministic, kernels_only, function):
    """The tree with `function(key, name, weights)` of each array that is dropped."""
    if as_rate(rate).ndim:
        raise ValueError(f"rate has shape {as_rate(rate).shape}, but weights share one rate: give a number.")
    excluded = NOT_KERNELS if as_bool("kernels_only", kernels_only) else None
    names = {path: name for path, name, _ in kernels(params, excluded, "kernels_only=False")}

    def of_leaf(path, leaf):
        if path not in names:
            return leaf
        check_inexact(names[path], leaf)
        draw = fold_in(key, names[path]) if draws(rate, deterministic) else key
        return function(draw, names[path], leaf)

    return jax.tree_util.tree_map_with_path(of_leaf, params)

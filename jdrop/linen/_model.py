"""Linen models as `predict(key, x)`."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from jdrop._flax.modes import evaluation_arguments
from jdrop._types import Predict, PyTree
from jdrop.linen._recurrent import RecurrentDropout, Zoneout


def predictor(
    model: nn.Module, variables: Mapping[str, PyTree], *, rng_collection: str = "dropout", **kwargs: Any
) -> Predict:
    """Turn a Linen model into `predict(key, x)`, in which only dropout is stochastic.

    Every `Dropout` (jdrop's and Flax's), attention dropout, `RecurrentDropout` and `Zoneout` draws, whatever
    `deterministic` the model passes it; every `BatchNorm` uses its running statistics; everything else is in
    evaluation mode.

    Args:
      model: a `flax.linen.Module`.
      variables: its variables, {"params": ..., ...}.
      rng_collection: name of the stream that the dropout layers draw from.
      **kwargs: further arguments of the model's call. Those named `train`, `training` or `is_training` are False and
        `deterministic` is True unless given.

    Returns:
      A function of a key and an input batch, for `jdrop.mc_dropout`.

    Raises:
      TypeError: `model` is not a Linen module.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> model = jdrop.linen.Dropout(0.5, deterministic=True)
      >>> predict = jdrop.linen.predictor(model, {})
      >>> jdrop.mc_dropout(predict, jax.random.key(0), jnp.ones((4, 3)), 10).mean.shape
      (4, 3)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, but a flax.linen.Module is needed: write MyModel(...).")
    settings, arrays = evaluation_arguments(type(model).__call__, kwargs)
    return jax.tree_util.Partial(_Apply(model, rng_collection, settings), variables, arrays)


@dataclasses.dataclass(frozen=True)
class _Apply:
    """A model's stochastic call; equal models compare equal, so that each is compiled once."""

    model: nn.Module
    rng_collection: str
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, variables, arrays, key, x):
        with nn.intercept_methods(_only_dropout_stochastic):
            return self.model.apply(variables, x, rngs={self.rng_collection: key}, **dict(self.settings), **arrays)


_FORCED = (
    (nn.Dropout, "deterministic", False),
    (RecurrentDropout, "deterministic", False),
    (Zoneout, "deterministic", False),
    (nn.MultiHeadDotProductAttention, "deterministic", False),
    (nn.BatchNorm, "use_running_average", True),
)


def _only_dropout_stochastic(next_fun, args, kwargs, context):
    """Call a layer in the mode of `_FORCED`, whatever its constructor or its caller said."""
    module = context.module
    for kind, name, mode in _FORCED:
        if isinstance(module, kind) and context.method_name == "__call__":
            bound = inspect.signature(context.orig_method).bind(*args, **kwargs)
            is_argument = name in bound.signature.parameters
            if is_argument:
                bound.arguments[name] = mode
            attribute = getattr(module, name)
            # Flax refuses a mode that is given in both places.
            object.__setattr__(module, name, None if is_argument else mode)
            try:
                return next_fun(*bound.args, **bound.kwargs)
            finally:
                object.__setattr__(module, name, attribute)
    return next_fun(*args, **kwargs)

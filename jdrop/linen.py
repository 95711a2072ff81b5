"""Dropout for Flax Linen, and Linen models as `predict(key, x)`."""

import dataclasses
import inspect
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import errors

from jdrop.functional.elementwise import draws, dropout

__all__ = ["Dropout", "MissingStreamError", "predictor"]


class MissingStreamError(errors.InvalidRngError, ValueError):
    """A module needs a random stream that `apply` or `init` was not given."""

    def __init__(self, message):
        Exception.__init__(self, message)  # Flax's own adds a link to its page of this class, which it has not


class Dropout(nn.Dropout):
    """`jdrop.dropout` as a Linen module, in the place of `flax.linen.Dropout`.

    ``y = keep * x / (1 - rate)`` with a key from the module's stream; ``y = x`` where deterministic.

    Attributes:
      rate: the probability that an element is dropped, in [0, 1].
      broadcast_dims: axes along which one decision is shared.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.
      save: "key" or "mask": what the backward pass keeps, as in `jdrop.dropout`.

    Raises:
      ValueError: `deterministic` missing or given twice.
      MissingStreamError: the stream was not passed. There is no fall-back to "params".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.Dropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 3)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    scaling: str = "inverted"
    save: str = "key"

    @nn.compact
    def __call__(self, inputs, deterministic=None, rng=None, rate=None):
        """Apply dropout.

        Args:
          inputs: a floating-point or complex array.
          deterministic: True at evaluation; a boolean, traced or not.
          rng: a key to use instead of the module's stream.
          rate: a rate, traced or not, to use instead of the module's own.
        """
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        rate = self.rate if rate is None else rate
        if rng is None and draws(rate, deterministic):
            rng = self._stream_key()
        return dropout(
            rng,
            inputs,
            rate,
            deterministic,
            broadcast_dims=self.broadcast_dims,
            scaling=self.scaling,
            save=self.save,
        )

    @nn.nowrap
    def _stream_key(self):
        if not self.has_rng(self.rng_collection):
            raise MissingStreamError(
                f"{type(self).__name__} at {'/'.join(self.path) or 'the top'} draws from the random stream "
                f"{self.rng_collection!r}, which was not given: pass rngs={{{self.rng_collection!r}: key}} to apply "
                "(to init: as a dict beside 'params'), or deterministic=True."
            )
        return self.make_rng(self.rng_collection)


def predictor(model, variables, *, rng_collection="dropout", **kwargs):
    """Turn a Linen model into `predict(key, x)`, in which only dropout is stochastic.

    Every `Dropout` (jdrop's and Flax's) and attention dropout draws, whatever `deterministic` the model passes
    it; every `BatchNorm` uses its running statistics; everything else is in evaluation mode.

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
    modes = {"train": False, "training": False, "is_training": False, "deterministic": True}
    parameters = inspect.signature(type(model).__call__).parameters
    kwargs = {name: mode for name, mode in modes.items() if name in parameters} | kwargs
    arrays = {name: value for name, value in kwargs.items() if isinstance(value, (jax.Array, np.ndarray))}
    settings = tuple((name, value) for name, value in kwargs.items() if name not in arrays)
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

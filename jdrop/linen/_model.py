"""Linen models as `predict(key, x)`."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from jdrop._compat import add_stream
from jdrop._flax.modes import Sites, as_inputs, as_sites, evaluation_arguments, with_first
from jdrop._keys import fold_in
from jdrop._types import Predict, PyTree
from jdrop.functional._dropout import dropout
from jdrop.linen._layer import Drawing
from jdrop.linen._recurrent import RecurrentDropout, Zoneout


def predictor(
    model: nn.Module,
    variables: Mapping[str, PyTree],
    *,
    only: str | Sequence[str] | None = None,
    inject: Mapping[str, float] | None = None,
    rng_collection: str | Sequence[str] = "dropout",
    **kwargs: Any,
) -> Predict:
    """Turn a Linen model into `predict(key, x)`, in which only dropout is stochastic.

    Every dropout layer (jdrop's and Flax's `Dropout`) and Flax's attention modules draw, whatever `deterministic` the
    model passes them; every `BatchNorm` uses its running statistics; everything else is in
    evaluation mode. Dropout that is no such module can't be found: that of attention which a model computes itself (by
    `flax.linen.dot_product_attention`, say) follows the model's own arguments. Give them here, ``deterministic=False``,
    or name places with `inject`.

    The input `x` may be a tree of several: a dict whose names are all arguments of the model's call is given by name, a
    tuple to a call that requires as many positional arguments.

    Args:
      model: a `flax.linen.Module`.
      variables: its variables, {"params": ..., ...}.
      only: the places of the layers that draw, such as "head/**" or ["block_3/Dropout_0", "head/*"]; all others with
        dropout are then deterministic. ``*`` is a part of a name, ``**`` any number of names.
      inject: a dict from places to rates: the input of these layers is dropped, as in a model that has no dropout. With
        ``{"head": 0.5}`` all that comes before the head is computed once for all samples.
      rng_collection: name of the stream that the model draws from, or names, if layers of its own draw from others.
      **kwargs: further arguments of the model's call. Those named `train`, `training` or `is_training` are False and
        `deterministic` is True unless given.

    Returns:
      A function of a key and an input batch, for `jdrop.mc_dropout`.

    Raises:
      TypeError: `model` is not a Linen module; places that are no strings, rates that are no numbers.
      ValueError: a rate outside [0, 1]; from the function: a place where no layer is.

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
    if not isinstance(variables, Mapping) or not all(isinstance(each, Mapping) for each in variables.values()):
        raise TypeError(
            f"variables is a {type(variables).__name__}, but a dict of collections is needed: write model.init(key, x)."
        )
    streams = [rng_collection] if isinstance(rng_collection, str) else rng_collection
    if not isinstance(streams, (list, tuple)) or not streams or not all(isinstance(each, str) for each in streams):
        raise TypeError(
            f"rng_collection is {rng_collection!r}, but the name of a stream is needed, or a list of names."
        )
    settings, arrays = evaluation_arguments(type(model).__call__, kwargs)
    return jax.tree_util.Partial(_Apply(model, tuple(streams), as_sites(only, inject), settings), variables, arrays)


@dataclasses.dataclass(frozen=True)
class _Apply:
    """A model's stochastic call; equal models compare equal, so that each is compiled once."""

    model: nn.Module
    streams: tuple[str, ...]
    sites: Sites
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, variables, arrays, key, x):
        keys = {name: fold_in(key, name) if i else key for i, name in enumerate(self.streams)}
        given = dict(self.settings) | arrays
        inputs, named = as_inputs(type(self.model).__call__, given, x)
        layers = _Layers(self.sites, key, self.streams[0])
        with nn.intercept_methods(layers):
            outputs = self.model.apply(variables, *inputs, rngs=keys, **named, **given)
        self.sites.check(layers.drawing, layers.seen)
        return outputs


_DRAWING = (nn.Dropout, Drawing, RecurrentDropout, Zoneout, nn.MultiHeadDotProductAttention)


class _Layers:
    """Call each layer in the mode of a prediction, whatever its maker or its caller said, its input dropped."""

    def __init__(self, sites, key, stream):
        self.sites, self.key, self.stream, self.drawing, self.seen = sites, key, stream, [], []

    def __call__(self, next_fun, args, kwargs, context):
        module, path = context.module, "/".join(context.module.path)
        if context.method_name != "__call__":
            return next_fun(*args, **kwargs)
        rate = self.sites.rate(path)
        if rate is not None:
            has_stream = module.has_rng(self.stream)  # whose keys differ from layer to layer of a scan over them
            source = module.make_rng(self.stream) if has_stream else fold_in(self.key, path, self.seen.count(path))
            key = fold_in(source, "inject")
            args, kwargs = with_first(lambda x: dropout(key, x, rate), args, kwargs)
        self.seen.append(path)
        if isinstance(module, _DRAWING):
            self.drawing.append(path)
            return self._forced(next_fun, args, kwargs, context, "deterministic", not self.sites.draws(path))
        if isinstance(module, nn.BatchNorm):
            return self._forced(next_fun, args, kwargs, context, "use_running_average", True)
        return next_fun(*args, **kwargs)

    def _forced(self, next_fun, args, kwargs, context, name, mode):
        module = context.module
        if hasattr(module, "rng_collection"):
            add_stream(module.scope, module.rng_collection, self.stream)
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

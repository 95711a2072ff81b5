"""NNX models as `predict(key, x)`, and in `jdrop.training`."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from jdrop._flax.modes import Sites, as_inputs, as_sites, evaluation_arguments, with_first
from jdrop._keys import fold_in
from jdrop._types import Predict
from jdrop.functional._dropout import dropout
from jdrop.nnx._layer import Drawing
from jdrop.nnx._recurrent import RecurrentDropout, Zoneout


def predictor(
    model: nnx.Module,
    *,
    only: str | Sequence[str] | None = None,
    inject: Mapping[str, float] | None = None,
    **kwargs: Any,
) -> Predict:
    """Turn an NNX model into `predict(key, x)`, in which only dropout is stochastic.

    Every dropout layer (jdrop's and Flax's `Dropout`) and Flax's attention module draw, whatever `deterministic` the
    model passes them; every `BatchNorm` uses its running statistics; everything else is in
    evaluation mode. Each random stream of the model gets its own key, derived from `key` and the stream's path. The
    model itself is left as it is. Dropout that is no such module can't be found: that of attention which a model
    computes itself (by `flax.nnx.dot_product_attention`, say) follows the model's own arguments. Give them here,
    ``deterministic=False``, or name places with `inject`.

    The input `x` may be a tree of several: a dict whose names are all arguments of the model's call is given by name, a
    tuple to a call that requires as many positional arguments.

    Args:
      model: a `flax.nnx.Module`.
      only: the places of the layers that draw, such as "head/**" or ["blocks/3/drop", "head/*"]; all others with
        dropout are then deterministic. ``*`` is a part of a name, ``**`` any number of names.
      inject: a dict from places to rates: the input of these layers is dropped, as in a model that has no dropout. With
        ``{"head": 0.5}`` all that comes before the head is computed once for all samples.
      **kwargs: further arguments of the model's call. Those named `train`, `training` or `is_training` are False and
        `deterministic` is True unless given.

    Returns:
      A function of a key and an input batch, for `jdrop.mc_dropout`.

    Raises:
      TypeError: `model` is not an NNX module; places that are no strings, rates that are no numbers.
      ValueError: a rate outside [0, 1]; a place where no layer is.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> predict = jdrop.nnx.predictor(jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
      >>> jdrop.mc_dropout(predict, jax.random.key(0), jnp.ones((4, 3)), 10).mean.shape
      (4, 3)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    _check_model(model)
    sites, layers = as_sites(only, inject), dict(_layers(model))
    sites.check([path for path, layer in layers.items() if isinstance(layer, _DRAWING)], layers)
    graphdef, state = nnx.split(model)
    settings, arrays = evaluation_arguments(type(model).__call__, kwargs)
    return jax.tree_util.Partial(_Apply(graphdef, sites, settings), state, arrays)


def train_parts(model: nnx.Module) -> dict[str, Any]:
    """What `jdrop.training.TrainState.create` needs of an NNX model.

    Args:
      model: a `flax.nnx.Module`. Its random streams are left out: every step derives its own keys.

    Returns:
      A dict of `params` (the `nnx.Param` variables) and `collections` (all others).

    Example:
      >>> import jax, optax, jdrop
      >>> from flax import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> state = jdrop.training.TrainState.create(
      ...     **jdrop.nnx.train_parts(model), tx=optax.sgd(0.1), key=jax.random.key(0))
    """
    _check_model(model)
    _, params, _, rest = _split(nnx.clone(model))
    return {"params": params, "collections": {"variables": rest}}


def model_loss(
    model: nnx.Module, loss_fn: Callable[[Any, Any], Any]
) -> Callable[..., tuple[jax.Array, dict[str, Any], dict[str, Any]]]:
    """Turn a loss of an NNX model into the pure `loss_fn(params, batch, key)` of `make_train_step`.

    With a key the model is in training mode and each of its random streams starts from a key derived from `key` and
    the stream's path; with ``key=None`` it is in evaluation mode. Updated variables (batch statistics) are returned.

    Args:
      model: a `flax.nnx.Module`; only its structure is used.
      loss_fn: `(model, batch) -> loss` or `(loss, metrics)`.

    Returns:
      `(params, batch, key, variables) -> (loss, metrics, collections)`.

    Example:
      >>> from flax import nnx
      >>> import jdrop
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> loss = jdrop.nnx.model_loss(model, lambda model, batch: ((model(batch) ** 2).mean(), {}))
      >>> step = jdrop.training.make_train_step(loss)
    """
    _check_model(model)
    graphdef, _, random_state, variables = _split(nnx.clone(model))
    graphdefs = {jax.tree.structure(variables): graphdef}  # by the variables that there are

    def pure_loss(params, batch, key, variables):
        graphdef = graphdefs.get(jax.tree.structure(variables))
        if graphdef is None:
            raise ValueError(f"the state's variables are not those of the model. {_CALL_ONCE}")
        running = _merge(graphdef, params, random_state, variables)
        if key is None:
            running.eval()
        else:
            running.train()
            _reseed(running, key)
        result = loss_fn(running, batch)
        graphdef, *after, variables = _split(running)
        if jax.tree.structure(after) != jax.tree.structure([params, random_state]):
            raise ValueError(f"the model made parameters, or random streams, when it was called. {_CALL_ONCE}")
        graphdefs.setdefault(jax.tree.structure(variables), graphdef)
        loss, *metrics = result if isinstance(result, tuple) else (result,)
        return loss, *(metrics or [{}]), {"variables": variables}

    return pure_loss


def update_model(model: nnx.Module, state: Any) -> None:
    """Write a `TrainState`'s parameters and other variables back into the NNX model that it came from.

    Args:
      model: the model that `train_parts` took apart; changed in place.
      state: the trained state.

    Example:
      >>> import jax, optax, jdrop
      >>> from flax import nnx
      >>> model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
      >>> state = jdrop.training.TrainState.create(
      ...     **jdrop.nnx.train_parts(model), tx=optax.sgd(0.1), key=jax.random.key(0))
      >>> jdrop.nnx.update_model(model, state)
    """
    nnx.update(model, state.params, state.collections["variables"])


_CALL_ONCE = "Call it once, model(x), before train_parts and model_loss, so that all of them are there."


def _split(model):
    """(graphdef, parameters, random state, other variables) of a model, but for what it sows, which is taken out."""
    nnx.pop(model, nnx.Intermediate)
    return nnx.split(model, nnx.Param, nnx.RngState, ...)


def _check_model(model):
    if not isinstance(model, nnx.Module):
        raise TypeError(f"model is a {type(model).__name__}, but a flax.nnx.Module is needed: write MyModel(...).")


@dataclasses.dataclass(frozen=True)
class _Apply:
    """A model's stochastic call; equal models compare equal, so that each is compiled once."""

    graphdef: nnx.GraphDef
    sites: Sites
    settings: tuple[tuple[str, Any], ...]

    def __call__(self, state, arrays, key, x):
        model = _merge(self.graphdef, state)
        given = dict(self.settings) | arrays
        inputs, named = as_inputs(type(model).__call__, given, x)
        model.eval()
        for path, layer in _layers(model):
            if isinstance(layer, _DRAWING):
                _force(layer, "deterministic", not self.sites.draws(path))
            elif isinstance(layer, nnx.BatchNorm):
                _force(layer, "use_running_average", True)
            if (rate := self.sites.rate(path)) is not None:
                layer.__class__ = _injected(type(layer), fold_in(key, "inject", path), rate)
        _reseed(model, key)
        return model(*inputs, **named, **given)


_DRAWING = (nnx.Dropout, Drawing, RecurrentDropout, Zoneout, nnx.MultiHeadAttention)


def _layers(model):
    """(place, layer) of all the layers of a model, itself too."""
    return [("/".join(map(str, path)), layer) for path, layer in nnx.iter_modules(model)]


def _force(layer, name, mode):
    setattr(layer, name, mode)
    layer.__class__ = _forced(type(layer), name, mode)


def _merge(graphdef, *states):
    """`nnx.merge` with variables of the current trace, which alone may be changed in it."""
    return nnx.merge(graphdef, *jax.tree.map(lambda array: array, states))


@functools.cache
def _forced(kind, name, mode):
    """The layer class `kind` with one argument of its call fixed, whatever its constructor or its caller says."""
    call = inspect.signature(kind.__call__)

    def __call__(self, *args, **kwargs):
        bound = call.bind(self, *args, **kwargs)
        if name in call.parameters:
            bound.arguments[name] = mode
        return kind.__call__(*bound.args, **bound.kwargs)

    return type(kind.__name__, (kind,), {"__call__": __call__})


def _injected(kind, key, rate):
    """The layer class `kind` with its input dropped, by another mask at each call."""
    calls = itertools.count()

    def __call__(self, *args, **kwargs):
        args, kwargs = with_first(lambda x: dropout(fold_in(key, next(calls)), x, rate), args, kwargs)
        return kind.__call__(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": __call__})


def _reseed(model, key):
    """Start every random stream of `model` from a key of its own."""
    for path, node in nnx.iter_graph(model):
        if isinstance(node, nnx.RngStream):
            stream_key = fold_in(key, *(part if isinstance(part, int) else str(part) for part in path))
            shape = node.key.shape
            node.key.set_value(jax.random.split(stream_key, shape) if shape else stream_key)
            node.count.set_value(jax.numpy.zeros(shape, jax.numpy.uint32))

"""How a model of any framework is called for a prediction: its modes, its inputs, and which layers draw."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdrop._checks import as_known
from jdrop.masks._rate import as_rate

_EVALUATION = {"train": False, "training": False, "is_training": False, "deterministic": True}


def logit(rate) -> jax.Array:
    """Where the logit of a rate that is learned starts."""
    rate = jnp.float32(as_known("rate", rate, 1e-6, 1 - 1e-6, "rate=0.1"))
    return jnp.log(rate) - jnp.log1p(-rate)


def evaluation_arguments(call, given):
    """(settings, arrays): the arguments `given` for `call`, and the modes of evaluation that it has a name for.

    The settings are a hashable tuple of (name, value), the arrays a dict.
    """
    parameters = inspect.signature(call).parameters
    given = {name: mode for name, mode in _EVALUATION.items() if name in parameters} | given
    arrays = {name: value for name, value in given.items() if isinstance(value, (jax.Array, np.ndarray))}
    return tuple((name, value) for name, value in given.items() if name not in arrays), arrays


def as_inputs(call, taken, x):
    """The inputs of `call` as (positional, by name): `x` itself, or its parts where it is several inputs.

    A dict whose names are all names of arguments is given by name. A tuple or list goes to a call that requires as many
    positional arguments, but for the bound object and for those that are `taken`. A call that takes none, but requires
    one by name, gets it by name.
    """
    parameters = [p for p in list(inspect.signature(call).parameters.values())[1:] if p.name not in taken]
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if isinstance(x, Mapping) and x and named >= x.keys():
        return (), dict(x)
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty]
    if isinstance(x, (tuple, list)) and len(x) == len(places) > 1:
        return tuple(x), {}
    by_name = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.default is p.empty]
    if len(by_name) == 1 and all(p.kind in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters):
        return (), {by_name[0]: x}
    return (x,), {}


def with_first(function, args, kwargs):
    """The arguments of a call with a function of the first, given by place or by name."""
    if args:
        return (function(args[0]), *args[1:]), kwargs
    first, *_ = kwargs
    return args, kwargs | {first: function(kwargs[first])}


@dataclasses.dataclass(frozen=True)
class Sites:
    """Which layers of a model draw, by their places in it, such as "head/Dropout_0"."""

    only: tuple[str, ...] | None  # patterns of the layers with dropout that draw; None for all
    inject: tuple[tuple[str, Any], ...]  # (pattern, rate) of the layers whose input is dropped

    def draws(self, path) -> bool:
        """Whether a layer with dropout draws."""
        return self.only is None or any(_matches(pattern, path) for pattern in self.only)

    def rate(self, path):
        """The rate at which the input of a layer is dropped, or None."""
        return next((rate for pattern, rate in self.inject if _matches(pattern, path)), None)

    def check(self, drawing, layers):
        """Raise a ValueError for a pattern that is no layer's, of those with dropout and of all."""
        for name, patterns, paths in (
            ("only", self.only or (), drawing), ("inject", [pattern for pattern, _ in self.inject], layers)
        ):  # fmt: skip
            for pattern in patterns:
                if not any(_matches(pattern, path) for path in paths):
                    raise ValueError(f"{name} names {pattern!r}, which is none of the layers {sorted(set(paths))}.")


def as_sites(only, inject) -> Sites:
    """The sites that a predictor's arguments name, checked."""
    only = (only,) if isinstance(only, str) else only
    if only is not None and not (isinstance(only, Sequence) and all(isinstance(each, str) for each in only)):
        raise TypeError(f'only is {only!r}, but names of layers are needed: write only="head/**".')
    inject = {} if inject is None else inject
    if not isinstance(inject, Mapping) or not all(isinstance(each, str) for each in inject):
        raise TypeError(f'inject is {inject!r}, but a dict of layers and rates is needed: write {{"head": 0.5}}.')
    for place, rate in inject.items():
        try:
            as_rate(rate)
        except (TypeError, ValueError) as error:
            raise type(error)(f"inject[{place!r}]: {error}") from None
    return Sites(None if only is None else tuple(only), tuple(inject.items()))


def _matches(pattern, path) -> bool:
    """Whether a path fits a pattern: * stands for a part of a name, ** for any number of names."""

    def fits(patterns, names):
        if not patterns:
            return not names
        if patterns[0] == "**":
            return any(fits(patterns[1:], names[i:]) for i in range(len(names) + 1))
        return bool(names) and fnmatchcase(names[0], patterns[0]) and fits(patterns[1:], names[1:])

    return fits(pattern.split("/"), path.split("/") if path else [])

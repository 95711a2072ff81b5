"""Dropout of jdrop and of its peers, each as `make(rate)`, which gives a function of (key, x)."""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
from flax import nnx

import jdrop


def dropout(rate, **options):
    return lambda key, x: jdrop.dropout(key, x, rate, **options)


def jdrop_linen(rate):
    return _linen(jdrop.linen.Dropout(rate, deterministic=False))


def jdrop_nnx(rate):
    return _nnx(jdrop.nnx.Dropout(rate))


def flax_linen(rate, broadcast_dims=()):
    return _linen(nn.Dropout(rate, broadcast_dims, deterministic=False))


def flax_nnx(rate):
    return _nnx(nnx.Dropout(rate))


def equinox(rate):
    from equinox.nn import Dropout

    layer = Dropout(rate)
    return lambda key, x: layer(x, key=key)


def haiku(rate):
    from haiku import dropout

    return lambda key, x: dropout(key, rate, x)


def torch(rate):
    from torch.nn import functional

    return lambda key, x: functional.dropout(x, rate)


def _linen(layer):
    return lambda key, x: layer.apply({}, x, rng=key)


def _nnx(layer):
    return lambda key, x: layer(x, rngs=key)


class Peer(NamedTuple):
    """A library's dropout, and the one of jdrop's that is called in the same way."""

    name: str
    module: str
    make: Callable
    ours: str
    traced: bool = False  # whether it takes a traced rate

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.module) is not None


OURS = {"jdrop.dropout": dropout, "jdrop.linen": jdrop_linen, "jdrop.nnx": jdrop_nnx}
PEERS = (
    Peer("flax.linen", "flax", flax_linen, "jdrop.linen"),
    Peer("flax.nnx", "flax", flax_nnx, "jdrop.nnx"),
    Peer("equinox", "equinox", equinox, "jdrop.dropout", traced=True),
    Peer("haiku", "haiku", haiku, "jdrop.dropout", traced=True),
    Peer("torch", "torch", torch, "jdrop.dropout"),
)

"""The family's members in other libraries, each a pair of passes as it is used there."""

import functools
import os
from importlib.util import find_spec

import jax
import jax.numpy as jnp

from experiments.common.timing import Case
from experiments.common.transformer import RATE


def cases(shape, image) -> dict:
    """{(library, member): case} of the libraries that are installed, for (batch, places, channels) and images."""
    makers = {"torch": of_torch, "timm": of_timm, "keras": of_keras}
    installed = [name for name in makers if find_spec(name)]
    return {(name, member): case for name in installed for member, case in makers[name](shape, image).items()}


def eager(function, shape) -> Case:
    """Both passes of a function of PyTorch, which is not compiled there."""
    import torch

    x = torch.ones(shape, requires_grad=True)
    g = torch.ones_like(function(x))
    return Case(lambda: torch.autograd.grad(function(x), x, g))


def of_torch(shape, image) -> dict:
    """Channels are its second axis; the shape is taken so."""
    import torch
    from torch.nn import functional

    kinds = {
        "dropout": lambda x: functional.dropout(x, RATE),
        "channel_dropout": lambda x: functional.dropout1d(x, RATE),
        "alpha_dropout": lambda x: functional.alpha_dropout(x, RATE, training=True),
        "feature_alpha_dropout": lambda x: functional.feature_alpha_dropout(x, RATE, training=True),
        "gaussian_noise": lambda x: x + RATE * torch.randn_like(x),
    }
    return {name: eager(function, shape) for name, function in kinds.items()}


def of_timm(shape, image) -> dict:
    """Its layers for PyTorch; blocks are those of each channel, as ours and the paper's are."""
    from timm import layers

    patches = layers.PatchDropout(RATE, num_prefix_tokens=0).train()
    blocks = functools.partial(layers.drop_block_2d, drop_prob=RATE, block_size=7, couple_channels=False)
    batch, *sides, channels = image
    return {
        "drop_path": eager(lambda x: layers.drop_path(x, RATE, True), shape),
        "patch_dropout": eager(patches, shape),
        "drop_block of images": eager(blocks, (batch, channels, *sides)),
    }


def of_keras(shape, image) -> dict:
    """Its layers for JAX, both passes jitted, with the state of their seeds as an argument."""
    os.environ["KERAS_BACKEND"] = "jax"
    from keras import layers

    kinds = {
        "dropout": layers.Dropout,
        "channel_dropout": layers.SpatialDropout1D,
        "alpha_dropout": layers.AlphaDropout,
        "gaussian_dropout": layers.GaussianDropout,
        "gaussian_noise": layers.GaussianNoise,
    }

    def case(layer):
        def both(state, x, g):
            y, pullback, state = jax.vjp(lambda x: layer.stateless_call([], state, x, training=True), x, has_aux=True)
            return y, *pullback(g), state

        layer.build(shape)
        x = jnp.ones(shape)
        return Case(jax.jit(both), ([each.value for each in layer.non_trainable_variables], x, x))

    return {name: case(make(RATE)) for name, make in kinds.items()}

"""What each kind of dropout costs, beside plain dropout and PyTorch's: time, and memory for the backward pass."""

import functools
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np

import jdrop
from experiments.common.ratios import at_least, record
from experiments.common.timing import Case, measure
from experiments.common.transformer import RATE

MEMBERS = {
    "dropout": jdrop.dropout,
    "drop_path": jdrop.drop_path,
    "channel_dropout": jdrop.channel_dropout,
    "token_dropout": jdrop.token_dropout,
    "embedding_dropout": jdrop.embedding_dropout,
    "alpha_dropout": jdrop.alpha_dropout,
    "feature_alpha_dropout": jdrop.feature_alpha_dropout,
    "gaussian_dropout": jdrop.gaussian_dropout,
    "gaussian_noise": jdrop.gaussian_noise,
    "drop_block": functools.partial(jdrop.drop_block, block_size=7),
    "concrete_dropout": jdrop.concrete_dropout,
    "patch_dropout": lambda *given: jdrop.patch_dropout(*given)[0],
}


def family(quick):
    """Forward and backward passes of (batch, places, channels), times those of `dropout`; and what is kept."""
    shape = (2, 8, 16) if quick else (64, 256, 256)
    x, key = jnp.ones(shape), jax.random.key(0)
    tokens = np.random.default_rng(0).integers(0, 1000, shape[:2])
    members = MEMBERS | {"embedding_dropout": functools.partial(jdrop.embedding_dropout, tokens=jnp.asarray(tokens))}

    def both(function, g, key, x):
        y, pullback = jax.vjp(lambda x: function(key, x, RATE), x)
        return y, *pullback(jnp.broadcast_to(g[:, :1], y.shape) if y.shape != g.shape else g)

    cases = {name: Case(jax.jit(functools.partial(both, f)), (x, key, x)) for name, f in members.items()}
    if find_spec("torch"):
        cases |= {("torch", name): Case(function) for name, function in of_torch(shape).items()}
    times = measure(cases, blocks=1 if quick else 7, seconds=0.001 if quick else 0.1)
    about = {"shape": shape, "dtype": "float32", "rate": RATE, "key": "threefry2x32", "mode": "jitted"}
    for name in members:
        seconds = times[name]
        if ("torch", name) in times:
            theirs = times["torch", name]
            yield record(
                f"family: {name}, times faster than PyTorch",
                theirs / seconds,
                at_least(1),
                **about,
                ours=(name, seconds),
                theirs=("torch", theirs),
            )
        pullback = jax.eval_shape(lambda k, x, f=members[name]: jax.vjp(lambda x: f(k, x, RATE), x)[1], key, x)
        kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))
        yield record(
            f"family: {name}, times dropout",
            seconds / times["dropout"],
            **about,
            ours=(name, seconds),
            theirs=("dropout", times["dropout"]),
        )
        yield record(f"family: {name}, bytes an element kept for the backward pass", kept / x.size, **about)


def of_torch(shape) -> dict:
    """PyTorch's own, eager as it is used, where it has them; channels are its second axis."""
    import torch
    from torch.nn import functional

    x, g = torch.ones(shape, requires_grad=True), torch.ones(shape)

    def both(function):
        return torch.autograd.grad(function(x), x, g)

    kinds = {
        "dropout": lambda x: functional.dropout(x, RATE),
        "channel_dropout": lambda x: functional.dropout1d(x, RATE),
        "alpha_dropout": lambda x: functional.alpha_dropout(x, RATE, training=True),
        "feature_alpha_dropout": lambda x: functional.feature_alpha_dropout(x, RATE, training=True),
        "gaussian_noise": lambda x: x + RATE * torch.randn_like(x),
    }
    return {name: functools.partial(both, function) for name, function in kinds.items()}

"""What each kind of dropout costs, beside plain dropout and other libraries: time, and memory for the backward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jdrop
from experiments.common.ratios import at_least, record
from experiments.common.timing import Case, measure
from experiments.common.transformer import RATE
from experiments.speed import relatives

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
    "drop_block of images": functools.partial(jdrop.drop_block, block_size=7),
    "concrete_dropout": jdrop.concrete_dropout,
    "patch_dropout": lambda *given: jdrop.patch_dropout(*given)[0],
}


def family(quick):
    """Forward and backward passes of (batch, places, channels), times those of `dropout`; and what is kept."""
    shape, image = ((2, 8, 16), (2, 8, 8, 4)) if quick else ((64, 256, 256), (64, 16, 16, 256))
    key = jax.random.key(0)
    tokens = np.random.default_rng(0).integers(0, 1000, shape[:2])
    members = MEMBERS | {"embedding_dropout": functools.partial(jdrop.embedding_dropout, tokens=jnp.asarray(tokens))}
    inputs = {name: jnp.ones(image if name.endswith("images") else shape) for name in members}

    def both(function, g, key, x):
        y, pullback = jax.vjp(lambda x: function(key, x, RATE), x)
        return y, *pullback(g[:, : y.shape[1]])

    cases = {
        name: Case(jax.jit(functools.partial(both, f)), (inputs[name], key, inputs[name]))
        for name, f in members.items()
    }
    theirs = relatives.cases(shape, image)
    times = measure(cases | theirs, blocks=1 if quick else 25, seconds=0.001 if quick else 0.1)
    for name, x in inputs.items():
        about = {"shape": x.shape, "dtype": "float32", "rate": RATE, "key": "threefry2x32", "mode": "jitted"}
        ours = (name, times[name])
        for library, _ in (each for each in theirs if each[1] == name):
            yield record(
                f"family: {name}, times faster than {library}",
                times[library, name] / times[name],
                at_least(1),
                **about,
                ours=ours,
                theirs=(library, times[library, name]),
            )
        pullback = jax.eval_shape(lambda k, x, f=members[name]: jax.vjp(lambda x: f(k, x, RATE), x)[1], key, x)
        kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))
        yield record(
            f"family: {name}, times dropout",
            times[name] / times["dropout"],
            **about,
            ours=ours,
            theirs=("dropout", times["dropout"]),
        )
        yield record(f"family: {name}, bytes an element kept for the backward pass", kept / x.size, **about)

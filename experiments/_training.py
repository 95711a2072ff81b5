"""Train steps of `jdrop.training`: what keys for single examples, and micro-batches, cost."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jdrop
from experiments._figures import at_most, record
from experiments._steps import RATE, Block
from experiments._timing import Case, measure

SETTINGS = {
    "whole batch": {},
    "per_example": {"per_example": True},
    "accumulate=4": {"accumulate": 4},
    "both": {"accumulate": 4, "per_example": True},
}


class Classifier(nn.Module):
    """Dense layers of 512 units with ReLU and dropout, to ten classes."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = jdrop.linen.Dropout(0.5, deterministic=False)(nn.relu(nn.Dense(512)(x)))
        return nn.Dense(10)(x)


def classification(out, batch):
    return optax.softmax_cross_entropy_with_integer_labels(out, batch[1]).mean()


def regression(out, batch):
    return jnp.mean((out - batch[1]) ** 2)


def microbatches(quick):
    """Steps of single examples and of micro-batches, beside the step of the whole batch."""
    images, sequences = ((8, 784), (8, 16, 32)) if quick else ((128, 784), (32, 128, 256))
    x, y = (jax.random.normal(jax.random.key(seed), shape) for seed, shape in enumerate((images, sequences)))
    labels = jnp.arange(len(x)) % 10
    yield from _of_model("dense network", 0.5, Classifier(), classification, (x, labels), quick)
    yield from _of_model("transformer block", RATE, Block(jdrop.linen.Dropout), regression, (y, y), quick)


def _of_model(name, rate, model, loss, batch, quick):
    params = jax.jit(model.init)({"params": jax.random.key(0), "dropout": jax.random.key(1)}, batch[0])["params"]

    def loss_fn(params, batch, key):
        return loss(model.apply({"params": params}, batch[0], rngs={"dropout": key}), batch), {}

    cases = {setting: _case(loss_fn, params, batch, arguments) for setting, arguments in SETTINGS.items()}
    times = measure(cases, blocks=2 if quick else 9, seconds=0.01 if quick else 0.5)
    about = {"shape": batch[0].shape, "dtype": "float32", "rate": rate, "key": "threefry2x32", "mode": "jitted"}
    for setting, beside, target in (
        ("per_example", "whole batch", at_most(1.5, 1.1)),
        ("accumulate=4", "whole batch", None),
        ("both", "accumulate=4", at_most(1.5, 1.1)),
    ):
        sides = {"ours": (setting, times[setting]), "theirs": (beside, times[beside])}
        yield record(
            f"step of a {name}, {setting}: times {beside}", times[setting] / times[beside], target, **about, **sides
        )


def _case(loss_fn, params, batch, settings):
    step = jdrop.training.make_train_step(loss_fn, **settings)
    state = jdrop.training.TrainState.create(apply_fn=None, params=params, tx=optax.sgd(1e-3), key=jax.random.key(0))

    def call():
        nonlocal state  # a step donates it
        state, metrics = step(state, batch)
        return state, metrics

    return Case(call)

"""Train steps with dropout: what it adds to a transformer block's time, and to compile time."""

import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.common.ratios import at_most, record
from experiments.common.timing import Case, compiled, measure
from experiments.common.transformer import LAYERS, RATE, Block


class Dense(nn.Module):
    """Dense layers, each with ReLU and dropout."""

    layer: type | None
    depth: int

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = nn.relu(nn.Dense(x.shape[-1])(x))
            x = x if self.layer is None else self.layer(RATE, deterministic=False)(x)
        return x


def train_step(model, params, x):
    """A fresh SGD step on a squared error, and its arguments."""
    optimizer, key = optax.sgd(1e-3), jax.random.key(0)
    state = optimizer.init(params)

    def step(params, state, x, key):
        def loss_fn(params):
            return jnp.mean((model.apply(params, x, rngs={"dropout": key}) - x) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    return step, (params, state, x, key)


def block(quick):
    """What three dropouts add to a train step of a transformer block."""
    shape = (2, 16, 32) if quick else (32, 128, 256)
    x = jax.random.normal(jax.random.key(0), shape)
    params = jax.jit(Block(None).init)(jax.random.key(0), x)
    cases = {}
    for name, layer in LAYERS.items():
        step, arguments = train_step(Block(layer), params, x)
        cases[name] = Case(jax.jit(step), arguments)
    times = measure(cases, blocks=2 if quick else 15, seconds=0.01 if quick else 0.5)
    none, flax, ours = (times[name] for name in LAYERS)
    sides = {"shape": shape, "dtype": "float32", "rate": RATE, "key": "threefry2x32", "mode": "jitted"}
    sides |= {"ours": ("jdrop.linen", ours), "theirs": ("flax.linen", flax)}
    yield record(
        "transformer block: share of Flax's added time", (ours - none) / (flax - none), at_most(1 / 5, 1 / 10), **sides
    )
    for name, seconds in (("flax.linen", flax), ("jdrop.linen", ours)):
        yield record(
            f"transformer block: step with {name}, times the step without dropout",
            seconds / none,
            **sides | {"ours": (name, seconds), "theirs": ("no dropout", none)},
        )


def compilation(quick, clock=time.perf_counter):
    """The time to compile a train step with many dropouts."""
    depth, repeats = (2, 1) if quick else (24, 5)
    x = jnp.ones((32, 64))
    params = jax.jit(Dense(None, depth).init)(jax.random.key(0), x)
    seconds = {name: [] for name in LAYERS}
    for _ in range(repeats):
        for name, layer in LAYERS.items():
            step, arguments = train_step(Dense(layer, depth), params, x)
            seconds[name].append(compiled(jax.jit(step), arguments, clock)[1])
    none, flax, ours = (statistics.median(seconds[name]) for name in LAYERS)
    sides = {"shape": x.shape, "dtype": "float32", "rate": RATE, "key": "threefry2x32", "mode": f"{depth} dropouts"}
    sides |= {"ours": ("jdrop.linen", ours), "theirs": ("flax.linen", flax)}
    yield record("compile time of a train step: times Flax's", ours / flax, at_most(1), **sides)
    yield record(
        "compile time of a train step: times that without dropout",
        ours / none,
        **sides | {"theirs": ("no dropout", none)},
    )

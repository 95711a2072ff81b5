"""Train steps with dropout: what it adds to a transformer block's time, and to compile time."""

import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jdrop
from experiments._figures import at_most, record
from experiments._timing import Case, measure

RATE = 0.1
LAYERS = {"none": None, "flax.linen": nn.Dropout, "jdrop.linen": jdrop.linen.Dropout}


class Block(nn.Module):
    """A transformer block with dropout on the attention weights, the attention's output and the MLP's output."""

    layer: type | None
    heads: int = 4

    @nn.compact
    def __call__(self, x):
        width = x.shape[-1]
        y = nn.DenseGeneral((3, self.heads, width // self.heads))(nn.LayerNorm()(x))
        query, key, value = (y[:, :, i] for i in range(3))
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * (width // self.heads) ** -0.5
        weights = self.drop(nn.softmax(scores))
        y = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        x = x + self.drop(nn.DenseGeneral(width, axis=(-2, -1))(y))
        y = nn.Dense(width)(nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x))))
        return x + self.drop(y)

    def drop(self, x):
        return x if self.layer is None else self.layer(RATE, deterministic=False)(x)


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
            jax.clear_caches()
            start = clock()
            jax.jit(step).trace(*arguments).lower().compile()
            seconds[name].append(clock() - start)
    none, flax, ours = (statistics.median(seconds[name]) for name in LAYERS)
    sides = {"shape": x.shape, "dtype": "float32", "rate": RATE, "key": "threefry2x32", "mode": f"{depth} dropouts"}
    sides |= {"ours": ("jdrop.linen", ours), "theirs": ("flax.linen", flax)}
    yield record("compile time of a train step: times Flax's", ours / flax, at_most(1), **sides)
    yield record(
        "compile time of a train step: times that without dropout",
        ours / none,
        **sides | {"theirs": ("no dropout", none)},
    )

"""Train steps and the loop of `jdrop.training`: what single examples' keys, micro-batches and `fit` cost."""

import contextlib
import io

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jdrop
from experiments.common.ratios import at_most, record
from experiments.common.timing import Case, measure
from experiments.common.transformer import RATE, Block

SETTINGS = {
    "whole batch": {},
    "per_example": {"per_example": True},
    "accumulate=4": {"accumulate": 4},
    "both": {"accumulate": 4, "per_example": True},
}


class Classifier(nn.Module):
    """Two dense layers with ReLU and dropout, to ten classes."""

    width: int = 512

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = jdrop.linen.Dropout(0.5, deterministic=False)(nn.relu(nn.Dense(self.width)(x)))
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
    state = jdrop.training.TrainState.create(params=params, tx=optax.sgd(1e-3), key=jax.random.key(0))

    def call():
        nonlocal state  # a step donates it
        state, metrics = step(state, batch)
        return state, metrics

    return Case(call)


def loop(quick):
    """`fit` beside a loop over the jitted step with its batch at hand, and seeds beside runs one after another."""
    steps = 4 if quick else 200
    for name, width, batch_size in (("wide", 1280, 128), ("narrow", 64, 32)):
        runs = _Runs(Classifier(width), steps, batch_size)
        cases = {
            "bare loop": Case(runs.bare),
            "fit": Case(runs.fit),
            "fit(scan=True)": Case(lambda runs=runs: runs.fit(scan=True)),
        }
        if name == "narrow":
            cases |= {
                "5 runs": Case(lambda runs=runs: [runs.bare() for _ in range(5)]),
                "vmap_seeds": Case(runs.seeds),
            }
        times = {case: seconds / steps for case, seconds in measure(cases, 1 if quick else 7, 0.01).items()}
        about = {"shape": (batch_size, 784), "dtype": "float32", "rate": 0.5, "key": "threefry2x32", "mode": "jitted"}
        for ours in [case for case in cases if case not in ("bare loop", "5 runs")]:
            theirs, target = ("5 runs", None) if "seeds" in ours else ("bare loop", at_most(1.03))
            yield record(
                f"step of a {name} dense network, {ours}: times {theirs}",
                times[ours] / times[theirs],
                target if name == "wide" else None,
                **about,
                ours=(ours, times[ours]),
                theirs=(theirs, times[theirs]),
            )


class _Runs:
    """The same steps trained in different ways, from the same state."""

    def __init__(self, model, steps, batch_size):
        x = jax.random.normal(jax.random.key(0), (steps * batch_size, 784))
        self.model, self.batch_size = model, batch_size
        self.data = jax.device_get((x, jnp.arange(len(x)) % 10))
        self.batches = [
            jax.tree.map(lambda array, i=i: jnp.asarray(array[i * batch_size :][:batch_size]), self.data)
            for i in range(steps)
        ]
        self.params = jax.jit(model.init)({"params": jax.random.key(0), "dropout": jax.random.key(1)}, x[:1])["params"]
        self.tx = optax.sgd(1e-3)
        self.step = jdrop.training.make_train_step(self.loss)
        self.of_seeds = jdrop.training.vmap_seeds(self.step)

    def loss(self, params, batch, key):
        return classification(self.model.apply({"params": params}, batch[0], rngs={"dropout": key}), batch), {}

    def state(self, key):
        return jdrop.training.TrainState.create(params=self.params, tx=self.tx, key=key)

    def bare(self):
        state = self.state(jax.random.key(0))
        for batch in self.batches:
            state, _ = self.step(state, batch)
        return state

    def fit(self, **settings):
        return self._fit(self.state(jax.random.key(0)), self.step, **settings)

    def seeds(self):
        return self._fit(jax.vmap(self.state)(jax.random.split(jax.random.key(0), 5)), self.of_seeds)

    def _fit(self, state, step, **settings):
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar is on, as for users
            return jdrop.training.fit(state, step, self.data, epochs=1, batch_size=self.batch_size, **settings)[0]

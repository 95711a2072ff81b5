"""The dense and convolutional networks of the source articles, and how they are trained."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdrop
from experiments.common.fitting import fresh_states

RATE, LEARNING_RATE = 0.5, 1e-3


class Dense(nn.Module):
    """One hidden layer, and dropout before the last one."""

    width: int
    layer: Callable = jdrop.linen.Dropout

    @nn.compact
    def __call__(self, x, deterministic, **options):
        x = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
        return nn.Dense(10)(self.layer(RATE)(x, deterministic, **options))


class Convolutional(nn.Module):
    """Two convolutions with max-pooling, then `Dense`."""

    layer: Callable = jdrop.linen.Dropout

    @nn.compact
    def __call__(self, x, deterministic, **options):
        for channels in (32, 64):
            # The ReLU commutes with max-pooling, after which it has a quarter of the work.
            x = nn.relu(max_pool(nn.Conv(channels, (3, 3))(x)))
        return Dense(128, self.layer)(x, deterministic, **options)


def max_pool(x):
    """2x2 max-pooling, the gradient going to the first maximum."""
    # Not `nn.max_pool`, whose gradient is slower on a CPU than the convolutions'. In this order of comparisons a step
    # needs less than 32 MiB of scratch memory, beyond which glibc maps new pages at every step.
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    top, bottom = (larger(x[:, :, row, :, 0], x[:, :, row, :, 1]) for row in range(2))
    return larger(top, bottom)


def larger(a, b):
    return jnp.where(a < b, b, a)


class Deep(nn.Module):
    """Hidden layers of ReLU, with dropout after each, and on the inputs at a share of its rate."""

    widths: tuple
    input_share: float = 0.0
    layer: Callable = jdrop.linen.Dropout

    @nn.compact
    def __call__(self, x, deterministic, rate=None):
        rate = RATE if rate is None else rate
        x = x.reshape(len(x), -1)
        if self.input_share:
            x = self.layer(RATE)(x, deterministic, rate=self.input_share * rate)
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
            self.sow("intermediates", "activities", x)
            x = self.layer(RATE)(x, deterministic, rate=rate)
        return nn.Dense(10)(x)


class Setting(NamedTuple):
    """A network, and how it is trained, with Adam."""

    model: nn.Module
    epochs: int
    batch_size: int
    validation: float = 0.0  # fraction of the training images, the last ones
    l2: float = 0.0
    learning_rate: optax.ScalarOrSchedule = LEARNING_RATE


NETWORKS = {
    "dense64": Setting(Dense(64), epochs=5, batch_size=32, validation=0.2),
    "dense64_l2": Setting(Dense(64), epochs=5, batch_size=32, validation=0.2, l2=1e-4),
    "dense128": Setting(Dense(128), epochs=5, batch_size=64),
    "conv": Setting(Convolutional(), epochs=8, batch_size=128),
}


def make_loss(model, augment=None):
    """The loss of a train step, with the penalties and the rate of dropout that it is given."""

    def loss_fn(params, batch, key, rate=None, l1=None, l2=None, kl=None):
        images, labels = batch
        rngs = None if key is None else {"dropout": key}
        if augment is not None and key is not None:
            images = augment(jdrop.fold_in(key, "augment"), images)
        mutable = ["intermediates"] if kl is not None else []
        logits, seen = model.apply({"params": params}, images, key is None, rate=rate, rngs=rngs, mutable=mutable)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        if kl is not None:
            loss += kl * sum(sparsity(activities) for activities in jax.tree.leaves(seen))
        for penalty, strength in ((jdrop.l1, l1), (jdrop.l2, l2)):
            loss += 0.0 if strength is None else penalty(params, strength)
        return loss, {"error": jnp.mean(logits.argmax(-1) != labels)}

    return loss_fn


def sparsity(activities):
    """The divergence of the units' mean activities from 0.1, as of the rates of Poisson processes, over units.

    ReLUs are not bounded by 1, as the units of a Bernoulli's divergence are.
    """
    mean = activities.mean(0) + 1e-6
    return jnp.sum(0.1 * jnp.log(0.1 / mean) - 0.1 + mean)


def train(setting, data, keys, *, max_norm=None, validation=None, patience=None, augment=None, callbacks=(), **options):
    """The parameters of a network for each of the keys, all trained in one program, convolutional ones in turn.

    `options` have a number a network: `rate`, `l1`, `l2` (else the setting's) and `kl`, the strength of `sparsity`; so
    has `max_norm`. With `patience` the parameters are those of the epoch with the lowest loss on `validation`.
    """
    if setting.l2:
        options.setdefault("l2", jnp.full(len(keys), setting.l2))
    tx = optax.adam(setting.learning_rate)
    if max_norm is not None:
        tx = optax.chain(tx, optax.inject_hyperparams(jdrop.max_norm)(limit=1.0))
    states = fresh_states(setting.model, data[0][:1], tx, keys, **options)
    if max_norm is not None:
        states = states.replace(opt_state=optax.tree.set(states.opt_state, limit=max_norm))
    step = jdrop.training.make_train_step(make_loss(setting.model, augment))

    def evaluate(state):
        return {"loss": make_loss(setting.model)(state.params, validation, None)[0]}

    fit = functools.partial(
        jdrop.training.fit,
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        patience=patience,
        keep_best=patience is not None,
        callbacks=callbacks,
    )
    evaluates = patience is not None
    if isinstance(setting.model, Convolutional):  # which in a batch of networks are slow on a CPU
        alone = jax.jit(evaluate) if evaluates else None
        runs = (fit(of_network(states, i), step, data, eval_fn=alone) for i in range(len(keys)))
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(state.params for state, _ in runs))
    every = jax.jit(lambda states: jax.lax.map(evaluate, states)) if evaluates else None
    return fit(states, jdrop.training.vmap_seeds(step), data, eval_fn=every, scan=True)[0].params


class Outcome(NamedTuple):
    """Of each network on each image, shape (networks, images): the negative log-likelihood, and whether it errs."""

    nll: np.ndarray
    wrong: np.ndarray


@functools.partial(jax.jit, static_argnums=0)
def _outcome(model, params, images, labels):
    logits = model.apply({"params": params}, images, True)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels), logits.argmax(-1) != labels


def outcome(model, params, data, batch=1000) -> Outcome:
    """The deterministic predictions of a stack of networks."""
    count, examples = len(jax.tree.leaves(params)[0]), len(data[1])
    starts = range(0, examples, batch)
    parts = [
        [_outcome(model, of_network(params, i), *(a[start : start + batch] for a in data)) for start in starts]
        for i in range(count)
    ]
    return Outcome(*(np.stack([np.concatenate([part[j] for part in row]) for row in parts]) for j in range(2)))


def of_network(params, index):
    """The parameters of one network, or of some, of a stack."""
    return jax.tree.map(lambda leaf: leaf[index], params)

"""A small network with dropout and batch norm, and what it takes to train it and to compare two runs."""

import os
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from cases import array, key

import jdrop
from jdrop.training import TrainState, make_eval_step, make_train_step

X = np.asarray(array((40, 6)))
Y = (X[:, 0] > 0).astype(np.int32)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(16)(x))
        x = jdrop.linen.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(2)(x)


MODEL = Net()
TX = optax.sgd(0.1, momentum=0.9)  # optax.adam does not run under strict promotion
LINEAR_TX = optax.sgd(0.1)


def loss_fn(params, batch, key, batch_stats):
    variables, train = {"params": params, "batch_stats": batch_stats}, key is not None
    rngs = {"dropout": key} if train else None
    logits, updates = MODEL.apply(variables, batch[0], train, rngs=rngs, mutable=["batch_stats"])
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()
    return loss, {"accuracy": (logits.argmax(-1) == batch[1]).mean()}, updates


def make_state(root, tx=None):
    variables = MODEL.init(jdrop.fold_in(root, "init"), X, False)
    return TrainState.create(
        apply_fn=MODEL.apply,
        params=variables["params"],
        tx=tx or TX,
        key=root,
        collections={"batch_stats": variables["batch_stats"]},
    )


def linen_state(seed=0, impl=None):
    return make_state(key(seed, impl) if impl else key(seed))


STEP, EVALUATE = make_train_step(loss_fn), make_eval_step(loss_fn)


def evaluate(state):
    return EVALUATE(state, (X, Y))


def linear_loss(params, batch, key):
    return jnp.mean((jdrop.dropout(key, batch, 0.5, key is None) @ params["w"] - 1.0) ** 2), {}


def linear_state(seed=0, tx=None):
    return TrainState.create(params={"w": jnp.zeros(6)}, tx=tx or LINEAR_TX, key=key(seed))


def interrupting(at):
    """A train step that is interrupted as by Ctrl-C."""
    count = 0

    def step(state, batch):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGINT)
        return STEP(state, batch)

    return step


def equal(a, b):
    """Assert that two trees are equal to the bit."""

    def same(a, b):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)

    jax.tree.map(same, a, b)


def same(one, other):
    """Assert that two runs, of a state and a history, are equal to the bit."""
    equal(one[0], other[0])
    assert one[1] == other[1]

"""Seeds that train as one program: each has the masks and the data that it would have had alone.

Its numbers are those of the run alone to rounding, `alike`: a batch of products need not be rounded as one of them.
"""

import functools
import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import array, key
from runs import LINEAR_TX, STEP, TX, X, Y, equal, evaluate, linear_state, loss_fn, make_state
from tiers import some

import jdrop
from jdrop.training import TrainState, fit, make_train_step, vmap_seeds

SETTING = {"epochs": 6, "batch_size": 8, "progress": False}
SEEDS = 3
KEYS = jax.random.split(key(9), SEEDS)
EVALUATE = vmap_seeds(evaluate)


def stack(make=make_state):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(make(k) for k in KEYS))


def one(tree, seed):
    return jax.tree.map(operator.itemgetter(seed), tree)


def history_of(history, seed):
    """One seed's numbers, up to where it stopped."""
    of_seed = {name: [value[seed] for value in values] for name, values in history.items()}
    return {name: [value for value in values if not np.isnan(value)] for name, values in of_seed.items()}


def alike(state, alone, history=None, history_alone=None):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    jax.tree.map(close, state.params, alone.params)
    jax.tree.map(close, history, history_alone)


@some("scan", [False, True], 1)
def test_every_seed_is_its_own_run(scan):
    options = {"eval_every": 4, "scan": scan} | SETTING
    states, history = fit(stack(), vmap_seeds(STEP), (X, Y), eval_fn=EVALUATE, **options)
    for seed, root in enumerate(KEYS):
        state, alone = fit(make_state(root), STEP, (X, Y), eval_fn=evaluate, **options)
        alike(one(states, seed), state, history_of(history, seed), alone)
    assert len(set(history["loss"][0])) == SEEDS


@pytest.mark.slow
def test_convolutions_too():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            x = nn.relu(nn.Conv(4, (3, 3))(x)).reshape(len(x), -1)
            return nn.Dense(3)(jdrop.linen.Dropout(0.5, deterministic=not train)(x))

    model, images, labels = Net(), np.asarray(array((32, 8, 8, 1))), np.arange(32) % 3

    def loss(params, batch, key):
        logits = model.apply({"params": params}, batch[0], True, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), {}

    def make(root):
        params = model.init(root, images[:1], False)["params"]
        return TrainState.create(params=params, tx=TX, key=root)

    step = make_train_step(loss)
    states, _ = fit(stack(make), vmap_seeds(step), (images, labels), **SETTING)
    for seed, root in enumerate(KEYS):
        alike(one(states, seed), fit(make(root), step, (images, labels), **SETTING)[0])


def test_seeds_have_the_same_masks_and_batches():
    def loss(params, batch, key, batch_stats):
        digest = jnp.where(jdrop.keep_mask(key, (8, 16), 0.5), jnp.arange(128.0).reshape(8, 16), 0.0).sum()
        value, metrics, update = loss_fn(params, batch, key, batch_stats)
        return value, metrics | {"mask": digest, "batch": (batch[0][:, 0] * jnp.arange(8.0)).max()}, update

    step = make_train_step(loss)
    states, history = fit(stack(), vmap_seeds(step), (X, Y), **SETTING)
    for seed, root in enumerate(KEYS):
        state, alone = fit(make_state(root), step, (X, Y), **SETTING)
        mine = history_of(history, seed)
        np.testing.assert_allclose([mine["mask"], mine["batch"]], [alone["mask"], alone["batch"]], rtol=1e-6)
        alike(one(states, seed), state)


def test_every_seed_stops_early_on_its_own():
    options = {"eval_every": 2, "patience": 2} | SETTING | {"epochs": 30}
    states, history = fit(stack(), vmap_seeds(STEP), (X, Y), eval_fn=EVALUATE, **options)
    ends = []
    for seed, root in enumerate(KEYS):
        state, alone = fit(make_state(root), STEP, (X, Y), eval_fn=evaluate, **options)
        alike(one(states, seed), state, history_of(history, seed), alone)
        ends.append(len(alone["eval_loss"]))
    assert len(set(ends)) > 1
    assert max(ends) < 75


@pytest.mark.slow
def test_seeds_are_resumed_from_their_checkpoint(tmp_path):
    options = {"eval_fn": EVALUATE, "eval_every": 3, "patience": 4} | SETTING
    step = vmap_seeds(STEP)
    whole = fit(stack(), step, (X, Y), **options)
    fit(stack(), step, (X, Y), checkpoint_dir=tmp_path, save_every=4, **options | {"epochs": 3})
    states, history = fit(stack(), step, (X, Y), checkpoint_dir=tmp_path, **options)
    equal(states, whole[0])
    np.testing.assert_equal(history, whole[1])
    with pytest.raises(ValueError, match="'patience': 4, .* but here it is .*'patience': 6, "):
        fit(stack(), step, (X, Y), checkpoint_dir=tmp_path, **options | {"patience": 6})
    with pytest.raises(ValueError, match=r"seeds \[3\], but here it is \[\]"):
        fit(make_state(KEYS[0]), STEP, (X, Y), checkpoint_dir=tmp_path, **SETTING)


@some("scan", [False, True])
def test_key_reuse_is_clean(scan):
    with jax.debug_key_reuse(True):
        step = vmap_seeds(make_train_step(loss_fn, accumulate=2))
        fit(stack(), step, (X, Y), eval_fn=EVALUATE, patience=3, scan=scan, **SETTING | {"epochs": 2})


def test_seeds_are_one_program():
    traces = []

    def loss(params, batch, key):
        traces.append(0)
        return ((jdrop.dropout(key, batch, 0.5) @ params["w"]) ** 2).mean(), {}

    step = vmap_seeds(make_train_step(loss))
    fit(stack(linear), step, X, **SETTING)
    assert len(traces) == 1


def linear(root):
    return TrainState.create(params={"w": jnp.ones(6)}, tx=LINEAR_TX, key=root)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_mistakes_are_named():
    def fit_states(states, **changes):
        fit(states, vmap_seeds(STEP), (X, Y), **SETTING | changes)

    with pytest.raises(ValueError, match=r"'loss' of shape \(\), but \(3,\) is needed.*vmap_seeds\(eval_fn"):
        fit_states(stack(), eval_fn=lambda state: {"loss": 0.0})
    donating = vmap_seeds(lambda s: {"same": s.params["Dense_0"]["bias"].sum(), "all": s.params}, donate_argnums=0)
    with pytest.raises(ValueError, match="donated the state .* jit it without donate_argnums"):
        fit_states(stack(), eval_fn=donating)
    with pytest.raises(ValueError, match=r"keys of shape \(3,\) and steps \[0, 5\]"):
        fit_states(stack().replace(step=jnp.array([0, 5, 0])))
    with pytest.raises(ValueError, match=r"make it by jax.vmap\(make_state\)\(keys\)"):
        fit_states(linear_state().replace(key=KEYS))

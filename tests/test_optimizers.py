"""Optimizers whose update takes more than a gradient, against optax called by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import array, key
from runs import equal
from tiers import some

import jdrop
from jdrop.training import NonFiniteLossError, TrainState, fit, make_train_step, vmap_seeds

X = np.asarray(array((40, 6)))
Y = X @ np.arange(6, dtype=np.float32) + 1


def loss_fn(params, batch, key):
    return jnp.mean((batch[0] @ params["w"] - batch[1]) ** 2), {}


def state_of(tx, seed=0):
    return TrainState.create(params={"w": jnp.zeros(6)}, tx=tx, key=key(seed))


OPTIMIZERS = {
    "lbfgs": lambda: optax.lbfgs(),
    "backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=9)
    ),
    "polyak_sgd": lambda: optax.polyak_sgd(max_learning_rate=0.3),
    "reduce_on_plateau": lambda: optax.chain(optax.sgd(0.05), optax.contrib.reduce_on_plateau(patience=2, cooldown=0)),
    "sgd": lambda: optax.sgd(0.05),
}


@pytest.fixture(autouse=True)
def standard_promotion():
    """Some of optax's do not run under strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@some("name", OPTIMIZERS, 0)
def test_a_step_is_optax_s(name):
    """The same parameters after ten whole batches, to float32's rounding."""
    tx, batch = OPTIMIZERS[name](), (jnp.asarray(X), jnp.asarray(Y))
    params = {"w": jnp.zeros(6)}
    opt_state, extra = tx.init(params), optax.with_extra_args_support(tx)

    def value_fn(params):
        return loss_fn(params, batch, None)[0]

    @jax.jit
    def update(params, opt_state):
        value, grad = jax.value_and_grad(value_fn)(params)
        updates, opt_state = extra.update(grad, opt_state, params, value=value, grad=grad, value_fn=value_fn)
        return optax.apply_updates(params, updates), opt_state

    state, step = state_of(tx), make_train_step(loss_fn)
    for _ in range(10):
        params, opt_state = update(params, opt_state)
        state, _ = step(state, batch)
    assert float(value_fn(params)) < float(value_fn({"w": jnp.zeros(6)}))
    np.testing.assert_allclose(state.params["w"], params["w"], rtol=2e-4, atol=2e-4)


@some("name", ["lbfgs", "polyak_sgd", "reduce_on_plateau"], 2)
def test_they_train_and_are_resumed_in_fit(tmp_path, name):
    tx, step, setting = OPTIMIZERS[name](), make_train_step(loss_fn), {"batch_size": 8, "progress": False}
    whole = fit(state_of(tx), step, (X, Y), epochs=4, **setting)
    fit(state_of(tx), step, (X, Y), epochs=2, checkpoint_dir=tmp_path, **setting)
    resumed = fit(state_of(tx), step, (X, Y), epochs=4, checkpoint_dir=tmp_path, **setting)
    equal(resumed[0], whole[0])
    assert resumed[1] == whole[1]


def finite_or_not(bad):
    """A loss that is NaN for batches that hold a certain row."""

    def loss(params, batch, key):
        return jnp.where((batch == bad).any(), jnp.nan, 1.0) * jnp.mean((batch @ params["w"] - 1.0) ** 2), {}

    return loss


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_apply_if_finite_leaves_out_the_steps_of_a_loss_that_is_not(tmp_path, scan):
    """The parameters are those of the other steps alone, whose batches follow from the order of the epoch."""
    bad = float(X[17, 3])

    def train(tx, **options):
        step = make_train_step(finite_or_not(bad))
        return fit(state_of(tx), step, X, epochs=3, batch_size=8, progress=False, scan=scan, **options)

    with pytest.raises(NonFiniteLossError):
        train(optax.sgd(0.1))
    state, history = train(optax.apply_if_finite(optax.sgd(0.1), 3), checkpoint_dir=tmp_path, save_every=1)
    rows = [
        batch
        for epoch in range(3)
        for batch in np.asarray(jax.random.permutation(jdrop.fold_in(key(), "shuffle", epoch), 40)).reshape(5, 8)
        if 17 not in batch
    ]
    assert len(rows) == 12
    w = np.zeros(6)
    for batch in rows:
        x = X[batch].astype(float)
        w = w - 0.1 * 2 / 8 * x.T @ (x @ w - 1.0)
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5, atol=1e-6)
    assert np.isnan(history["loss"]).all()
    assert int(state.opt_state.total_notfinite) == 3


def test_apply_if_finite_ends_where_it_gives_up():
    """After more errors in a row than it takes, its parameters are not finite, and the run is over."""

    def loss(params, batch, key):
        return jnp.nan * params["w"].sum(), {}

    with pytest.raises(NonFiniteLossError, match="the loss of step"):
        fit(
            state_of(optax.apply_if_finite(optax.sgd(0.1), 3)), make_train_step(loss), X, epochs=3, batch_size=8,
            progress=False,
        )  # fmt: skip


def test_apply_if_finite_for_each_seed():
    """Only the seed whose parameters are lost is named."""

    def loss(params, batch, key):
        return jnp.where(params["w"][0] > 0.5, jnp.nan, 1.0) * jnp.mean(batch @ params["w"]) ** 2, {}

    tx = optax.apply_if_finite(optax.sgd(0.01), 100)
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[state_of(tx, seed) for seed in range(2)])
    stack = stack.replace(params={"w": jnp.stack([jnp.ones(6), jnp.zeros(6)])})
    state, history = fit(stack, vmap_seeds(make_train_step(loss)), X, epochs=1, batch_size=8, progress=False)
    np.testing.assert_array_equal(state.params["w"][0], np.ones(6))
    assert np.isnan(history["loss"][0][0])
    assert np.isfinite(history["loss"][0][1])

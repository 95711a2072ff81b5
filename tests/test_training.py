"""Training is (seed, code, data): steps thread keys, and the loop says what goes wrong."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import key
from flax import nnx
from runs import MODEL, X, Y, equal, linear_loss, linear_state, linen_state, loss_fn

import jdrop
from jdrop.training import NonFiniteLossError, TrainState, fit, make_eval_step, make_train_step


def test_a_step_is_the_gradient_step_with_the_key_of_its_number():
    state, step = linear_state(), make_train_step(linear_loss)
    params = np.zeros(6)
    for number in range(3):
        k = jdrop.fold_in(key(0), "dropout", number)
        dropped = np.asarray(jdrop.dropout(k, X, 0.5), np.float64)
        residual = dropped @ params - 1
        state, metrics = step(state, X)
        np.testing.assert_allclose(metrics["loss"], np.mean(residual**2), rtol=1e-5)
        params -= 0.1 * 2 * dropped.T @ residual / len(X)
        np.testing.assert_allclose(state.params["w"], params, rtol=1e-4)
    assert int(state.step) == 3


def test_a_step_donates_the_state_and_traces_once():
    traces = []

    def counting(params, batch, key):
        traces.append(0)
        return linear_loss(params, batch, key)

    state, step = linear_state(), make_train_step(counting)
    first = state
    for _ in range(4):
        state, _ = step(state, X)
    assert len(traces) == 1
    assert first.params["w"].is_deleted()


def test_batch_statistics_travel_with_the_state():
    state = linen_state()
    before = state.collections["batch_stats"]["BatchNorm_0"]["mean"].copy()
    hidden = np.asarray(nn.Dense(16).apply({"params": state.params["Dense_0"]}, X))
    state, metrics = make_train_step(loss_fn)(state, (X, Y))
    after = state.collections["batch_stats"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(after, 0.99 * before + 0.01 * hidden.mean(0), rtol=1e-4, atol=1e-6)
    assert set(metrics) == {"loss", "accuracy"}


def test_evaluation_is_deterministic_and_changes_nothing():
    state, evaluate = linen_state(), make_eval_step(loss_fn)
    first, second = evaluate(state, (X, Y)), evaluate(state, (X, Y))
    equal(first, second)
    logits = MODEL.apply({"params": state.params, **state.collections}, X, False)
    wanted = optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()
    np.testing.assert_allclose(first["loss"], wanted, rtol=1e-6)


@pytest.mark.slow
def test_a_vmapped_step_is_each_seed_s_own():
    step = make_train_step(linear_loss)

    def run(seed_key):
        state = TrainState.create(params={"w": jnp.zeros(6)}, tx=optax.sgd(0.1), key=seed_key)
        return jax.lax.scan(lambda s, _: step(s, X), state, None, length=5)[0].params["w"]

    keys = jax.random.split(key(3), 3)
    together = jax.jit(jax.vmap(run))(keys)
    for i in range(3):
        np.testing.assert_allclose(together[i], run(keys[i]), rtol=1e-5)


def test_fit_is_the_loop_it_says_it_is():
    """Written out: the permutations, the whole batches, the steps and the averages."""
    data = {"x": X, "y": Y}

    def loss(params, batch, key):
        return linear_loss(params, batch["x"], key)[0], {"positive": jnp.mean(batch["y"].astype(jnp.float32))}

    step = make_train_step(loss)
    state, history = fit(linear_state(), step, data, epochs=3, batch_size=12, progress=False)
    other, losses, positives = linear_state(), [], []
    for epoch in range(3):
        order = np.asarray(jax.random.permutation(jdrop.fold_in(key(0), "shuffle", epoch), 40))
        for batch in order[:36].reshape(3, 12):
            other, metrics = step(other, {"x": X[batch], "y": Y[batch]})
            losses.append(float(metrics["loss"]))
            positives.append(float(metrics["positive"]))
    equal(state.params, other.params)
    np.testing.assert_allclose(history["loss"], np.reshape(losses, (3, 3)).mean(1), rtol=1e-6)
    np.testing.assert_allclose(history["positive"], np.reshape(positives, (3, 3)).mean(1), rtol=1e-6)


def test_a_run_is_its_seed_and_leaves_the_caller_s_state_usable():
    start, step = linen_state(), make_train_step(loss_fn)
    runs = [fit(start, step, (X, Y), epochs=2, batch_size=8, progress=False) for _ in range(2)]
    equal(*(state for state, _ in runs))
    assert runs[0][1] == runs[1][1]
    other, _ = fit(linen_state(5), step, (X, Y), epochs=2, batch_size=8, progress=False)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(other.params), jax.tree.leaves(runs[0][0].params)))


def test_training_learns():
    state, history = fit(linen_state(), make_train_step(loss_fn), (X, Y), epochs=40, batch_size=20, progress=False)
    assert history["loss"][-1] < history["loss"][0] / 2
    assert float(make_eval_step(loss_fn)(state, (X, Y))["accuracy"]) == 1.0


@pytest.mark.parametrize("keep_best", [False, True])
def test_early_stopping_returns_the_best_state_or_the_last(keep_best):
    losses = iter([3.0, 4.0, 1.0, 2.0, 1.5, 0.1])  # the third begins the waiting anew
    states = []

    def eval_fn(state):
        states.append(np.asarray(state.params["w"]))
        return {"loss": next(losses)}

    state, history = fit(
        linear_state(),
        make_train_step(linear_loss),
        X,
        epochs=6,
        batch_size=8,
        eval_fn=eval_fn,
        patience=2,
        keep_best=keep_best,
        progress=False,
    )
    assert history["eval_loss"] == [3.0, 4.0, 1.0, 2.0, 1.5]
    np.testing.assert_array_equal(state.params["w"], states[2 if keep_best else 4])
    assert int(state.step) == (15 if keep_best else 25)
    assert len(history["loss"]) == 5


def test_a_loss_that_is_not_finite_is_named_by_its_step():
    data = X.copy()
    order = np.asarray(jax.random.permutation(jdrop.fold_in(key(0), "shuffle", 0), 40))
    data[order[17]] = np.nan  # in the batch of step 2

    def loss(params, batch, key):
        return jnp.mean(batch @ params["w"]), {}

    with pytest.raises(NonFiniteLossError, match="the loss of step 2 is nan.*lower the learning rate"):
        fit(linear_state(), make_train_step(loss), data, epochs=2, batch_size=8, progress=False)


def test_the_progress_bar_shows_the_epoch_and_the_loss(capsys):
    fit(linear_state(), make_train_step(linear_loss), X, epochs=2, batch_size=20)
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown
    assert "loss" in shown
    assert "4/4" in shown
    fit(linear_state(), make_train_step(linear_loss), X, epochs=2, batch_size=20, progress=False)
    assert capsys.readouterr() == ("", "")


def test_an_nnx_model_trains_through_the_same_fit():
    class NNXNet(nnx.Module):
        def __init__(self, rngs):
            self.inner, self.norm = nnx.Linear(6, 16, rngs=rngs), nnx.BatchNorm(16, rngs=rngs)
            self.drop, self.outer = jdrop.nnx.Dropout(0.5, rngs=rngs), nnx.Linear(16, 2, rngs=rngs)

        def __call__(self, x):
            return self.outer(self.drop(nnx.relu(self.norm(self.inner(x)))))

    def model_loss(model, batch):
        logits = model(batch[0])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()
        return loss, {"accuracy": (logits.argmax(-1) == batch[1]).mean()}

    model = NNXNet(nnx.Rngs(0))
    start = np.asarray(model.inner.kernel[...])
    state = TrainState.create(**jdrop.nnx.train_parts(model), tx=optax.sgd(0.1, momentum=0.9), key=key())
    loss = jdrop.nnx.model_loss(model, model_loss)
    evaluate = make_eval_step(loss)
    state, history = fit(
        state,
        make_train_step(loss),
        (X, Y),
        epochs=30,
        batch_size=20,
        eval_fn=lambda s: evaluate(s, (X, Y)),
        progress=False,
    )
    assert history["eval_accuracy"][-1] > 0.95
    np.testing.assert_array_equal(model.inner.kernel[...], start)
    jdrop.nnx.update_model(model, state)
    model.eval()
    equal(model_loss(model, (jnp.asarray(X), jnp.asarray(Y)))[1]["accuracy"], evaluate(state, (X, Y))["accuracy"])
    assert (np.asarray(model.norm.mean[...]) != 0).any()


def test_a_second_fit_goes_on_where_the_first_one_stopped():
    step = make_train_step(loss_fn)
    whole, history = fit(linen_state(), step, (X, Y), epochs=4, batch_size=8, progress=False)
    half, first = fit(linen_state(), step, (X, Y), epochs=2, batch_size=8, progress=False)
    half, second = fit(half, step, (X, Y), epochs=2, batch_size=8, progress=False)
    equal((half.params, half.opt_state, half.collections), (whole.params, whole.opt_state, whole.collections))
    assert first["loss"] + second["loss"] == history["loss"]


def test_donation_leaves_what_the_caller_gave_alone():
    root, params = key(), {"w": jnp.zeros(6)}
    for _ in range(2):
        state = TrainState.create(params=params, tx=optax.sgd(0.1), key=root)
        make_train_step(linear_loss)(state, X)
    assert not params["w"].is_deleted()
    jax.random.split(root)


def test_a_field_that_shares_the_parameters_is_a_copy():
    class Averaged(TrainState):
        average: dict | None = None

    params = {"w": jnp.zeros(6)}
    state = Averaged.create(params=params, tx=optax.sgd(0.1), key=key(), average=params)
    make_train_step(linear_loss)(state, X)
    assert not params["w"].is_deleted()


def test_an_evaluation_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteLossError, match="after step 5 is nan"):
        fit(
            linear_state(), make_train_step(linear_loss), X, epochs=2, batch_size=8, patience=1, progress=False,
            eval_fn=lambda state: {"loss": float("nan")},
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["philox4x32", "rbg"])
def test_every_implementation_of_keys_trains_an_nnx_model(impl):
    model = jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    class Scale(nnx.Module):
        def __init__(self):
            self.scale, self.drop = nnx.Param(jnp.ones(6)), model

        def __call__(self, x):
            return self.drop(x) * self.scale[...]

    scale = Scale()
    loss = jdrop.nnx.model_loss(scale, lambda m, batch: ((m(batch) - 1.0).mean() ** 2, {}))
    state = TrainState.create(**jdrop.nnx.train_parts(scale), tx=optax.sgd(0.1), key=key(0, impl))
    state, _ = make_train_step(loss)(state, X)
    predicted = jdrop.nnx.predictor(scale)(key(0, impl), jnp.ones(300).reshape(50, 6))
    assert 0 < float((predicted == 0).mean()) < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 41}, r"batch_size is 41, but there are only 40 examples"),
        ({"batch_size": 0}, r"batch_size is 0"),
        ({"epochs": -1}, "epochs is -1"),
        ({"patience": 1}, "patience needs an evaluation: pass an eval_fn"),
        ({"keep_best": True}, "keep_best needs an evaluation: pass an eval_fn"),
        ({"patience": 0, "eval_fn": lambda state: {"loss": 0.0}}, "patience is 0"),
        (
            {"patience": 1, "eval_fn": lambda state: {"error": 0.0}},
            r"returned \['error'\], but a dict of metrics, with patience or keep_best one that has a 'loss'",
        ),
        ({"data": (X, Y[:3])}, r"first axes of \[3, 40\]"),
        ({"data": X[:0]}, r"of at least 1"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    arguments = {"data": X, "epochs": 1, "batch_size": 8, "progress": False} | change
    with pytest.raises(ValueError, match=message):
        fit(linear_state(), make_train_step(linear_loss), **arguments)


def test_a_loss_function_of_a_wrong_form():
    with pytest.raises(TypeError, match=r"returned a tuple of 1, but loss, \(loss, metrics\)"):
        make_train_step(lambda params, batch, key: (jnp.sum(params["w"]),))(linear_state(), X)
    with pytest.raises(TypeError, match=r"the loss as an array of shape \(6,\), but one number .*return loss.mean\(\)"):
        make_train_step(lambda params, batch, key: params["w"])(linear_state(), X)
    with pytest.raises(TypeError, match="the loss as a dict"):
        make_train_step(lambda params, batch, key: {"loss": jnp.sum(params["w"])})(linear_state(), X)
    with pytest.raises(ValueError, match=r"collections \['stats'\], but the state carries \[\]"):
        make_train_step(lambda params, batch, key: (jnp.sum(params["w"]), {}, {"stats": 0}))(linear_state(), X)
    for metrics in (None, {"loss": 0.0}):
        with pytest.raises(TypeError, match="a dict without the name 'loss' is needed"):
            make_train_step(lambda params, batch, key, m=metrics: (jnp.sum(params["w"]), m))(linear_state(), X)
    for size in ("32", 1.5, None):
        with pytest.raises(TypeError, match="batch_size is .*an integer of at least 1"):
            fit(linear_state(), make_train_step(linear_loss), X, epochs=1, batch_size=size)
    with pytest.raises(TypeError, match="model is a int"):
        jdrop.nnx.train_parts(3)
    with pytest.raises(TypeError, match=r"write key=jax.random.key\(0\)"):
        TrainState.create(params={}, tx=optax.sgd(0.1), key=None)

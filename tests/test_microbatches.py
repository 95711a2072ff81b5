"""A step over micro-batches, or over single examples, is the step of the whole batch, written out."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import IMPLEMENTATIONS, array, key
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tiers import diagonal, some

import jdrop
from jdrop.training import TrainState, make_eval_step, make_train_step

ACCUMULATE = (1, 2, 4, 8)
MODES = [(1, False), (4, False), (1, True), (4, True)]
COUNT, WIDTH = 64, 40
X = np.asarray(array((COUNT, WIDTH)))
Y = np.asarray(array((COUNT,), seed=5))
MESHES = [*((accumulate, AxisType.Auto) for accumulate in ACCUMULATE), (1, AxisType.Explicit), (8, AxisType.Explicit)]
MOVES = re.compile(r"all-gather|all-to-all|collective-permute|reduce-scatter")


def linear_loss(params, batch, key):
    x, y = batch
    residual = jdrop.dropout(key, x, 0.5) @ params["w"] - y
    return jnp.mean(residual**2), {"largest": jnp.max(y), "positive": jnp.sum((y > 0).astype(jnp.int32))}


def state_of(params, collections=None, impl="threefry2x32"):
    tx = optax.sgd(0.1, momentum=0.9)  # optax.adam does not run under strict promotion
    return TrainState.create(params=params, tx=tx, key=key(0, impl), collections=collections)


def linear_state(impl="threefry2x32"):
    return state_of({"w": jnp.zeros(WIDTH)}, impl=impl)


def pieces(step_key, accumulate, per_example):
    """The rows that one key serves, and that key, as the docstring says."""
    if per_example:
        return [([j], jdrop.fold_in(step_key, j)) for j in range(COUNT)]
    if accumulate == 1:
        return [(np.arange(COUNT), step_key)]
    return [(np.arange(i, COUNT, accumulate), jdrop.fold_in(step_key, i)) for i in range(accumulate)]


def assert_three_steps_in_numpy(accumulate, per_example, impl):
    state, step = linear_state(impl), make_train_step(linear_loss, accumulate=accumulate, per_example=per_example)
    w, momentum = np.zeros(WIDTH), np.zeros(WIDTH)
    for number in range(3):
        dropped = np.full(X.shape, np.nan)
        means = {"largest": [], "positive": []}
        step_key = jdrop.fold_in(key(0, impl), "dropout", number)
        for rows, k in pieces(step_key, accumulate, per_example):
            dropped[rows] = jdrop.dropout(k, X[rows], 0.5)
        for rows, _ in pieces(step_key, accumulate, per_example):
            means["largest"].append(Y[rows].max())
            means["positive"].append((Y[rows] > 0).sum())
        residual = dropped @ w - Y
        state, metrics = step(state, (X, Y))
        np.testing.assert_allclose(metrics["loss"], np.mean(residual**2), rtol=1e-5)
        for name, values in means.items():
            np.testing.assert_allclose(metrics[name], np.mean(values), rtol=1e-6)
        momentum = 0.9 * momentum + 2 * dropped.T @ residual / COUNT
        w -= 0.1 * momentum
        np.testing.assert_allclose(state.params["w"], w, rtol=1e-4, atol=1e-6)
    assert int(state.step) == 3


@some("accumulate", ACCUMULATE, 0, 2)
@pytest.mark.parametrize("per_example", [False, True])
def test_a_step_is_the_whole_batch_s_in_numpy(accumulate, per_example):
    assert_three_steps_in_numpy(accumulate, per_example, "threefry2x32")


@some("impl", IMPLEMENTATIONS[1:], 1)
@some("per_example", [False, True], 1)
def test_with_every_implementation_of_keys(impl, per_example):
    assert_three_steps_in_numpy(2, per_example, impl)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = jdrop.linen.Dropout(0.3, deterministic=False)(nn.gelu(nn.LayerNorm()(nn.Dense(24)(x))))
        return nn.Dense(1)(x)[..., 0]


def net_loss(params, batch, key):
    out = Net().apply({"params": params}, batch["x"], rngs={"dropout": key})
    return jnp.mean((out - batch["y"]) ** 2), {"out": out.mean()}


@some("accumulate", [1, 4], 1)
def test_per_example_is_a_python_loop_over_examples(accumulate):
    params = jax.jit(Net().init)({"params": key(1), "dropout": key(1)}, X[:1])["params"]
    step_key, gradients, losses, outs = jdrop.fold_in(key(0), "dropout", 0), [], [], []
    one_example = jax.jit(jax.value_and_grad(net_loss, has_aux=True))
    for j in range(COUNT):
        batch = {"x": X[j : j + 1], "y": Y[j : j + 1]}
        (value, metrics), gradient = one_example(params, batch, jdrop.fold_in(step_key, j))
        gradients.append(gradient)
        losses.append(value)
        outs.append(metrics["out"])
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *gradients)
    state, metrics = make_train_step(net_loss, accumulate=accumulate, per_example=True)(
        state_of(params), {"x": X, "y": Y}
    )
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(metrics["out"], np.mean(outs), rtol=1e-4)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - 0.1 * g, rtol=1e-4, atol=1e-6),
        state.params,
        params,
        mean,
    )


def mask_loss(params, batch, key):
    """The mask of each example, as a metric: its row of a table that is zero elsewhere."""
    kept = jdrop.keep_mask(key, batch["x"].shape, 0.3).astype(jnp.float32)
    own = (batch["row"][:, None] == jnp.arange(COUNT)).astype(jnp.float32)
    return jnp.mean(kept * batch["x"] * params["w"]), {"kept": own.T @ kept}


def placing(shape, kind):
    """A function that puts a tree on a mesh, its first axis split over all devices or none."""
    names = ("a", "b")[: len(shape)]
    mesh = Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), names, axis_types=(kind,) * len(shape))
    return lambda tree, split: jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*[names] * split)))


def masks(step, rows, place=lambda tree, split: tree):
    x = np.resize(X, (rows, WIDTH))
    state = place(state_of({"w": jnp.ones(WIDTH)}), False)
    batch = place({"x": x, "row": np.arange(rows)}, True)
    compiled = step.lower(state, batch).compile()
    return np.asarray(compiled(state, batch)[1]["kept"]) > 0, compiled.as_text()


@pytest.fixture(scope="module")
def documented():
    step_key = jdrop.fold_in(key(0), "dropout", 0)
    return np.concatenate(
        [np.asarray(jdrop.keep_mask(jdrop.fold_in(step_key, j), (1, WIDTH), 0.3)) for j in range(COUNT)]
    )


@some(("accumulate", "rows"), diagonal(ACCUMULATE, [COUNT, 2 * COUNT, COUNT + 8]), 2)
def test_an_example_s_masks_depend_neither_on_micro_batches_nor_on_padding(accumulate, rows, documented):
    step = make_train_step(mask_loss, accumulate=accumulate, per_example=True)
    np.testing.assert_array_equal(masks(step, rows)[0], documented)


@some(("mode", "shape"), diagonal(MESHES, [(1,), (8,), (2, 4)]), 2, 4)
def test_an_example_s_masks_do_not_depend_on_the_mesh_and_no_example_moves(mode, shape, documented):
    accumulate, kind = mode
    place = placing(shape, kind)
    step = make_train_step(mask_loss, accumulate=accumulate, per_example=True)
    found, program = masks(step, COUNT, place)
    np.testing.assert_array_equal(found, documented)
    assert not MOVES.search(program)


@some(("mode", "shape"), diagonal(MESHES, [(8,), (2, 4)]), 3, 4)
def test_only_gradients_and_metrics_cross_the_mesh(mode, shape):
    accumulate, kind = mode
    place = placing(shape, kind)
    step = make_train_step(linear_loss, accumulate=accumulate)
    state, batch = place(linear_state(), False), place((X, Y), True)
    assert not MOVES.search(step.lower(state, batch).compile().as_text())
    many, many_metrics = step(state, batch)
    one, one_metrics = step(linear_state(), (X, Y))
    np.testing.assert_allclose(np.asarray(many.params["w"]), one.params["w"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.asarray(many_metrics["loss"]), one_metrics["loss"], rtol=1e-6)


def test_batch_statistics_go_from_one_micro_batch_to_the_next():
    norm = nn.BatchNorm(use_running_average=False, momentum=0.6)
    variables = norm.init(key(1), X)

    def loss(params, batch, key, batch_stats):
        out, update = norm.apply({"params": params, "batch_stats": batch_stats}, batch, mutable=["batch_stats"])
        return jnp.mean(out**2), {}, update

    state = state_of(variables["params"], {"batch_stats": variables["batch_stats"]})
    state, _ = make_train_step(loss, accumulate=4)(state, X)
    mean, var = np.zeros(WIDTH), np.ones(WIDTH)
    for i in range(4):
        mean = 0.6 * mean + 0.4 * X[i::4].mean(0)
        var = 0.6 * var + 0.4 * X[i::4].var(0)
    np.testing.assert_allclose(state.collections["batch_stats"]["mean"], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.collections["batch_stats"]["var"], var, rtol=1e-5)


def test_many_small_gradients_of_16_bits_are_not_lost():
    x = np.full((64, 1), 2.0**-9, np.float32)
    x[0] = 1
    step = make_train_step(lambda params, batch, key: (jnp.mean(batch @ params["w"]), {}), accumulate=64)
    x = jnp.asarray(x, jnp.bfloat16)
    state, _ = step(state_of({"w": jnp.zeros(1, jnp.bfloat16)}), x)
    wanted = -0.1 * np.asarray(x, np.float64).mean()  # 1 + 63 / 512 over 64; a sum of bfloat16 would stay at 1
    assert state.params["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(state.params["w"], np.float64), wanted, rtol=2**-7)


@some(("accumulate", "per_example"), MODES, 3)
def test_one_trace_whatever_the_types_of_the_initial_state(accumulate, per_example):
    traces = []

    def loss(params, batch, key, scale):
        traces.append(0)
        return jnp.mean(jdrop.dropout(key, batch, 0.5) * params["w"] * scale), {}

    def forgetful(updates, state, params=None):
        return updates, jnp.asarray(1.0)

    tx = optax.chain(optax.sgd(0.1), optax.GradientTransformation(lambda params: 1.0, forgetful))
    weak = {"w": jnp.asarray(1.0)}
    assert weak["w"].weak_type
    state = TrainState.create(params=weak, tx=tx, key=key(), collections={"scale": jnp.asarray(2.0)})
    types = jax.tree.map(jax.typeof, state)
    step = make_train_step(loss, accumulate=accumulate, per_example=per_example)
    state, _ = step(state, X)
    first = len(traces)
    for _ in range(3):
        state, _ = step(state, X)
    assert len(traces) == first
    assert jax.tree.map(jax.typeof, state) == types
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.float32)
    assert state.step.dtype == jnp.int32
    assert not state.step.weak_type
    assert step._cache_size() == 1


@some(("accumulate", "per_example"), MODES, 3)
def test_no_key_is_used_twice(accumulate, per_example):
    def loss(params, batch, key):
        k, other = jax.random.split(key)
        noise = jax.random.normal(other, batch[0].shape)
        return linear_loss(params, (batch[0] + noise, batch[1]), k)

    with jax.debug_key_reuse(True):
        make_train_step(loss, accumulate=accumulate, per_example=per_example)(linear_state(), (X, Y))


@some(("accumulate", "per_example"), MODES, 3)
def test_a_vmapped_step_is_each_seed_s_own(accumulate, per_example):
    step = make_train_step(linear_loss, accumulate=accumulate, per_example=per_example)
    keys = jax.random.split(key(3), 2)
    together = jax.jit(jax.vmap(lambda k: step(linear_state().replace(key=k), (X, Y))[0].params["w"]))(keys)
    for i in range(2):
        alone = step(linear_state().replace(key=keys[i]), (X, Y))[0].params["w"]
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-7)


class NNXNet(nnx.Module):
    def __init__(self, norm):
        rngs = nnx.Rngs(0)
        self.norm, self.drop = norm(WIDTH, rngs=rngs), jdrop.nnx.Dropout(0.5, rngs=rngs)
        self.outer, self.scale = nnx.Linear(WIDTH, 1, rngs=rngs), nnx.Variable(jnp.ones(()))

    def __call__(self, x):
        return self.outer(self.drop(self.norm(x)))[:, 0] * self.scale[...]


def nnx_loss(model, batch):
    assert batch[0].shape[0] in (1, COUNT)
    return jnp.mean((model(batch[0]) - batch[1]) ** 2), {}


def test_an_nnx_model_whose_variables_are_only_read_trains_per_example():
    model = NNXNet(nnx.LayerNorm)
    loss = jdrop.nnx.model_loss(model, nnx_loss)
    state = TrainState.create(**jdrop.nnx.train_parts(model), tx=optax.sgd(0.05), key=key())
    evaluate, step = make_eval_step(loss), make_train_step(loss, accumulate=4, per_example=True)
    before = float(evaluate(state, (X, Y))["loss"])
    for _ in range(20):
        state, _ = step(state, (X, Y))
    assert float(evaluate(state, (X, Y))["loss"]) < before / 2
    assert len(jax.tree.leaves(state.collections)) == 1


def test_batch_statistics_and_single_examples_exclude_each_other():
    model = NNXNet(nnx.BatchNorm)
    step = make_train_step(jdrop.nnx.model_loss(model, nnx_loss), per_example=True)
    state = TrainState.create(**jdrop.nnx.train_parts(model), tx=optax.sgd(0.1), key=key())
    message = (
        r"update of the collections \['variables'\], but with per_example=True .* write per_example=False.*LayerNorm"
    )
    with pytest.raises(ValueError, match=message):
        step(state, (X, Y))

    def loss(params, batch, key, batch_stats, other):
        return jnp.mean(batch), {}, {"batch_stats": {"mean": batch[0]}, "other": {}}

    state = state_of({"w": jnp.zeros(3)}, {"batch_stats": {"mean": jnp.zeros(WIDTH)}, "other": {}})
    with pytest.raises(ValueError, match=r"update of the collections \['batch_stats'\], but"):
        make_train_step(loss, per_example=True)(state, X)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_collections_that_are_only_read_serve_single_examples(accumulate):
    def loss(params, batch, key, constants, empty):
        return jnp.mean((batch - constants["mean"]) * params["w"]), {}, {"constants": constants, "empty": {}}

    state = state_of({"w": jnp.zeros(WIDTH)}, {"constants": {"mean": X.mean(0)}, "empty": {}})
    state, _ = make_train_step(loss, accumulate=accumulate, per_example=True)(state, X + 1)
    np.testing.assert_allclose(state.params["w"], np.full(WIDTH, -0.1 / WIDTH), rtol=1e-4)
    np.testing.assert_array_equal(state.collections["constants"]["mean"], X.mean(0))


@pytest.mark.parametrize(
    ("settings", "batch", "message"),
    [
        ({"accumulate": 6}, (X, Y), r"64 examples, which accumulate=6 does not .*write accumulate=2, or .* of 66 exam"),
        (
            {"accumulate": 128},
            (X, Y),
            r"64 examples, which accumulate=128 .*write accumulate=64, or .* of 128 examples",
        ),
        ({"accumulate": 6, "per_example": True}, (X, Y), r"64 examples, which accumulate=6 does not"),
        ({"accumulate": 2}, (X, Y[:32]), r"first axes of \[32, 64\], but .* need one and the same"),
        ({"per_example": True}, (X, Y[:32]), r"first axes of \[32, 64\], but .* need one and the same"),
        ({"per_example": True}, (X, 1.0), r"first axes of \[0, 64\]"),
        ({"accumulate": 2}, (X[:0], Y[:0]), r"first axes of \[0\], but .*at least 1"),
    ],
)
def test_batches_that_cannot_be_cut(settings, batch, message):
    with pytest.raises(ValueError, match=message):
        make_train_step(linear_loss, **settings)(linear_state(), batch)


def test_accumulate_is_a_size():
    with pytest.raises(ValueError, match="accumulate is 0, but it must be at least 1"):
        make_train_step(linear_loss, accumulate=0)
    with pytest.raises(TypeError, match="accumulate is 2.0, but an integer"):
        make_train_step(linear_loss, accumulate=2.0)


@some(("accumulate", "per_example"), MODES, 0, 3)
def test_a_loss_function_of_a_wrong_form(accumulate, per_example):
    settings = {"accumulate": accumulate, "per_example": per_example}
    with pytest.raises(TypeError, match=r"returned a tuple of 4, but loss, \(loss, metrics\)"):
        make_train_step(lambda params, batch, key: (jnp.sum(params["w"]), {}, {}, {}), **settings)(
            linear_state(), (X, Y)
        )
    alone = make_train_step(lambda params, batch, key: jnp.sum(params["w"] ** 2), **settings)
    _, metrics = alone(linear_state(), (X, Y))
    assert metrics.keys() == {"loss"}
    for update in (jnp.zeros(2), {}):
        with pytest.raises(ValueError, match=r"collections \['stats'\], but the state carries \[\]"):
            make_train_step(lambda params, batch, key: (jnp.sum(params["w"]), {}, {"stats": update}), **settings)(
                linear_state(), (X, Y)
            )

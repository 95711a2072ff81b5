"""Penalties against NumPy, and weights that stay inside their ball whatever the optimizer does."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import array
from flax import nnx
from tiers import some

import jdrop


class Everything(nn.Module):
    """One of each kind of layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(6, (3, 3), name="scale")(x))
        x = nn.LayerNorm()(nn.DenseGeneral((2, 3))(x.reshape(2, -1)))
        x = nn.MultiHeadDotProductAttention(2, qkv_features=8)(x) + nn.Embed(5, 3)(jnp.zeros((2, 2), int))
        return nn.RNN(nn.LSTMCell(4))(x)


class Model(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.LinearGeneral(3, (2, 2), rngs=rngs)])
        self.norm, self.cell = nnx.BatchNorm(3, rngs=rngs), nnx.LSTMCell(2, 3, rngs=rngs)


def linen_params():
    """Parameters without a zero, so that a bias that is counted shows."""
    params = jax.jit(Everything().init)(jax.random.key(0), jnp.ones((2, 4, 4, 1)))["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf) + np.float32(0.1)), params)


def nnx_params():
    params = jdrop.nnx.train_parts(Model(nnx.Rngs(0)))["params"]
    return jax.tree.map(lambda leaf: leaf + jnp.float32(0.1), params)


def weights(params, names):
    """The arrays with one of these names, by walking dicts."""
    params = nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params
    for name, value in params.items():
        if isinstance(value, dict):
            yield from weights(value, names)
        elif name in names:
            yield np.asarray(value, np.float64)


@some("params", [linen_params, nnx_params], 0, ids=["linen", "nnx"])
@some("names", [("kernel", "embedding"), ("kernel", "embedding", "bias", "scale")], 0)
def test_the_penalties_of_kernels_and_of_everything(params, names):
    params, only = params(), "bias" not in names
    absolute = sum(np.abs(leaf).sum() for leaf in weights(params, names))
    squares = sum((leaf**2).sum() for leaf in weights(params, names))
    both = jax.jit(lambda params, strength: [f(params, strength, kernels_only=only) for f in (jdrop.l1, jdrop.l2)])
    l1, l2 = both(params, 1e-2)
    assert l1.dtype == l2.dtype == jnp.float32
    np.testing.assert_allclose([l1, l2], [1e-2 * absolute, 1e-2 * squares], rtol=1e-5)


def test_a_bare_dict_a_model_and_partitioned_parameters():
    kernel, bias = array((3, 4)), array((4,))
    wanted = (np.asarray(kernel, np.float64) ** 2).sum()
    boxed = {"kernel": nn.Partitioned(kernel, ("a", "b")), "scale": nn.Partitioned(kernel, ("a", "b"))}
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    model.kernel.set_value(kernel)
    for params in ({"w": kernel, "b": bias}, [(kernel, bias)], boxed, model, nnx.state(model), kernel):
        np.testing.assert_allclose(jdrop.l2(params, 1.0), wanted, rtol=1e-6)


@some("dtype", [jnp.float16, jnp.bfloat16, jnp.complex64, jnp.float64, jnp.complex128], 1, 2)
def test_the_penalty_in_every_precision(dtype):
    with jax.enable_x64(dtype in (jnp.float64, jnp.complex128)):
        kernel = array((64, 200)).astype(dtype)
        if jnp.iscomplexobj(kernel):
            kernel = kernel * jnp.asarray(1 - 2j, dtype)
        wide = np.asarray(kernel.astype(jnp.complex64) if jnp.finfo(dtype).bits == 16 else kernel).astype(complex)
        params = {"a": kernel, "b": jnp.ones((2, 2), jnp.float32)}
        for penalty, power in ((jdrop.l1, 1), (jdrop.l2, 2)):
            value = penalty(params, 0.5)
            double = dtype in (jnp.float64, jnp.complex128)
            assert value.dtype == (jnp.float64 if double else jnp.float32)
            # In 16 bits a running sum would stop growing at a few hundred.
            wanted = 0.5 * ((np.abs(wide) ** power).sum() + 4)
            np.testing.assert_allclose(value, wanted, rtol=1e-14 if double else 1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_gradients_of_the_penalties(dtype):
    kernel = jnp.array([[1.0, -2.0], [0.0, 3.0]], dtype)
    params = {"kernel": kernel, "bias": jnp.ones(2, dtype)}
    for penalty, wanted in ((jdrop.l1, np.sign(kernel)), (jdrop.l2, 2 * np.asarray(kernel, np.float32))):
        gradient = jax.jit(jax.grad(penalty))(params, 0.5)
        np.testing.assert_array_equal(gradient["kernel"].astype(jnp.float32), 0.5 * wanted.astype(np.float32))
        np.testing.assert_array_equal(gradient["bias"].astype(jnp.float32), 0)
        assert gradient["kernel"].dtype == dtype


@pytest.mark.slow
def test_the_gradients_of_complex_weights():
    z = array((3, 4), jnp.complex64) * jnp.complex64(1 - 2j)
    z = z.at[0].set(0)
    wide = np.asarray(z, np.complex128)
    with np.errstate(invalid="ignore"):
        sign = np.where(wide == 0, 0, wide / np.abs(wide))
    for penalty, wanted in ((jdrop.l1, sign), (jdrop.l2, 2 * wide)):
        gradient = jax.grad(penalty)({"w": z}, 1.0)["w"]  # the conjugate of the direction of ascent
        np.testing.assert_allclose(gradient, wanted.conj(), rtol=1e-6)


def test_a_stack_of_seeds_and_of_strengths():
    stack = {"w": array((5, 3, 4)), "bias": array((5, 4))}
    strengths = jnp.linspace(0, 1, 5)
    wanted = np.asarray(strengths, np.float64) * (np.asarray(stack["w"], np.float64) ** 2).sum((1, 2))
    np.testing.assert_allclose(jax.vmap(jdrop.l2)(stack, strengths), wanted, rtol=1e-6)
    gradient = jax.grad(lambda s: jdrop.l2(stack, s))(0.5)
    np.testing.assert_allclose(gradient, (np.asarray(stack["w"], np.float64) ** 2).sum(), rtol=1e-6)


def test_l2_is_weight_decay_of_twice_the_strength():
    params = {"w": array((3, 4))}
    plain = params["w"] - 0.1 * jax.grad(jdrop.l2)(params, 0.05)["w"]
    tx = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1))
    decayed, _ = tx.update({"w": jnp.zeros((3, 4))}, tx.init(params), params)
    np.testing.assert_allclose(plain, params["w"] + decayed["w"], rtol=1e-6)


@pytest.mark.parametrize("penalty", [jdrop.l1, jdrop.l2])
def test_what_the_penalties_refuse(penalty):
    kernel = jnp.ones((2, 2))
    for bad in (-1.0, float("nan"), float("inf"), np.float32(-1)):
        with pytest.raises(ValueError, match=r"strength is .*must be a number in \[0, inf\): write strength=1e-4"):
            penalty({"w": kernel}, bad)
        with pytest.raises(ValueError, match="strength is"):
            jax.jit(lambda: penalty({"w": kernel}, bad))()
        assert np.isnan(jax.jit(penalty)({"w": kernel}, bad))
    for bad in ("much", True, jnp.ones(3), None):
        with pytest.raises(TypeError, match="strength is"):
            penalty({"w": kernel}, bad)
    with pytest.raises(ValueError, match=r"\['a/bias'\], and none is a kernel.*write kernels_only=False"):
        penalty({"a": {"bias": jnp.ones((2, 2))}}, 0.1)
    with pytest.raises(ValueError, match="and none is a kernel"):
        penalty({}, 0.1, kernels_only=False)
    with pytest.raises(TypeError, match="'a/w' has dtype int32.*give the trained parameters only"):
        penalty({"a": {"w": jnp.ones((2, 2), int)}}, 0.1)
    with pytest.raises(TypeError, match="'a' is a str"):
        penalty({"a": "b"}, 0.1)


def norms(kernel, axes):
    return np.sqrt((np.abs(np.asarray(kernel, np.complex128)) ** 2).sum(axes, keepdims=True))


def constrained(params, limit, **options):
    """The parameters after an update of zeros."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jdrop.max_norm(limit, **options).update(zeros, optax.EmptyState(), params)
    return optax.apply_updates(params, updates)


AXES = {  # of the inputs of each kernel
    ("scale", "kernel"): (0, 1, 2),
    ("DenseGeneral_0", "kernel"): (0,),
    ("MultiHeadDotProductAttention_0", "query", "kernel"): (0,),
    ("MultiHeadDotProductAttention_0", "value", "kernel"): (0,),
    ("MultiHeadDotProductAttention_0", "out", "kernel"): (0, 1),
    ("LSTMCell_0", "hf", "kernel"): (0,),
    ("LSTMCell_0", "if", "kernel"): (0,),
}


def test_the_norm_of_each_unit_of_each_kind_of_layer():
    params = linen_params()
    results = jax.jit(lambda params: constrained(params, 0.6))(params)
    met = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        keys = tuple(part.key for part in path)
        result = results
        for part in keys:
            result = result[part]
        if keys[-1] != "kernel":
            np.testing.assert_array_equal(result, leaf)
            continue
        axes = AXES.get(keys, AXES.get((*keys[:-2], "hf", "kernel")) if "LSTMCell_0" in keys else None)
        axes = axes or AXES[(keys[0], "query", "kernel")]
        wide = np.asarray(leaf, np.float64)
        np.testing.assert_allclose(result, wide * np.minimum(1, 0.6 / norms(leaf, axes)), rtol=1e-6)
        met += (norms(leaf, axes) > 0.6).any() and (norms(leaf, axes) < 0.6).any()
    assert met  # both sides of the limit were tried


@pytest.mark.slow
def test_nnx_parameters_and_a_two_dimensional_bias():
    params = nnx_params()
    result = nnx.to_pure_dict(constrained(params, 0.5))
    params = nnx.to_pure_dict(params)
    for i in range(2):
        kernel = np.asarray(params["layers"][i]["kernel"], np.float64)
        wanted = kernel * np.minimum(1, 0.5 / norms(kernel, 0))
        np.testing.assert_allclose(result["layers"][i]["kernel"], wanted, rtol=1e-6)
        np.testing.assert_array_equal(result["layers"][i]["bias"], params["layers"][i]["bias"])
    np.testing.assert_array_equal(result["norm"]["scale"], params["norm"]["scale"])


def test_axes_of_a_stack_of_layers():
    stack = {"kernel": array((5, 3, 4)), "bias": array((5, 4))}
    wide = np.asarray(stack["kernel"], np.float64)
    wanted = wide * np.minimum(1, 1 / norms(wide, 1))
    np.testing.assert_allclose(constrained(stack, 1.0, axes=-2)["kernel"], wanted, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(lambda params: constrained(params, 1.0))(stack)["kernel"], wanted, rtol=1e-6)
    both = wide * np.minimum(1, 1 / norms(wide, (0, 1)))
    np.testing.assert_allclose(constrained({"w": stack["kernel"]}, 1.0)["w"], both, rtol=1e-6)
    np.testing.assert_allclose(constrained(stack, 1.0, axes=(0, -2))["kernel"], both, rtol=1e-6)
    with pytest.raises(ValueError, match=r"'kernel' has shape \(5, 3, 4\), which does not end with the \(5, 4\)"):
        constrained(stack, 1.0)
    with pytest.raises(
        ValueError, match=r"axes is \(3,\), but the kernel 'kernel' of shape \(5, 3, 4\) has axes -3 to 2"
    ):
        constrained(stack, 1.0, axes=3)


@some("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64], 1)
def test_the_limit_holds_in_every_precision(dtype):
    """The parameter and its update are each rounded once, relative to the larger of the old and the new weight."""
    kernel = (array((300, 50)) * jnp.linspace(0, 0.2, 50)).astype(dtype)
    update = (0.1 * array((300, 50), seed=3)).astype(dtype)
    params = {"kernel": kernel}
    updates, _ = jdrop.max_norm(1.0).update({"kernel": update}, optax.EmptyState(), params)
    result = optax.apply_updates(params, updates)["kernel"]
    assert updates["kernel"].dtype == result.dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    before = norms(kernel.astype(jnp.complex64), 0)
    assert (before > 3).any()
    slack = eps * (np.maximum(before, 1) + 1) + 1e-6
    assert (norms(result.astype(jnp.complex64), 0) <= 1 + slack).all()
    again = constrained({"kernel": result}, 1.0)["kernel"]
    assert (norms(again.astype(jnp.complex64), 0) <= 1 + 2 * eps + 1e-6).all()


def test_squares_that_float16_cannot_hold():
    np.testing.assert_array_equal(constrained({"w": jnp.full((4, 2), 300, jnp.float16)}, 1.0)["w"], 0.5)


def test_units_below_the_limit_get_their_update_to_the_bit():
    params, updates = {"w": array((30, 40))}, {"w": 1e-3 * array((30, 40), seed=5)}
    for limit in (100.0, float("inf"), 3e38):
        result, _ = jdrop.max_norm(limit).update(updates, optax.EmptyState(), params)
        np.testing.assert_array_equal(result["w"], updates["w"])


def test_no_nan_from_units_without_weights():
    params = {"w": jnp.zeros((3, 4)).at[0, 0].set(2.0)}
    with jax.debug_nans(True):
        for limit in (1.0, 1e-30, 1e30, float("inf")):
            result = constrained(params, limit)["w"]
            np.testing.assert_allclose(result[0, 0], min(2.0, limit), rtol=1e-6, atol=1e-6)
            np.testing.assert_array_equal(result[1:], 0)
        gradient = jax.grad(lambda w: constrained({"w": w}, 1.0)["w"].sum())(params["w"])
    np.testing.assert_array_equal(gradient[:, 1:], 1)


DATA = (array((64, 6)), jnp.arange(64) % 4)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        x = jdrop.linen.Dropout(0.5)(nn.relu(nn.Dense(16)(x)), deterministic)
        return nn.Dense(4)(x)


def train(tx, step=lambda step: step, states=lambda make: make(jax.random.key(0))):
    """The parameters after a run of `fit`."""

    def loss_fn(params, batch, key):
        logits = Net().apply({"params": params}, batch[0], False, rngs={"dropout": key})
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean(), {}

    def make(key):
        params = Net().init(key, DATA[0], True)["params"]
        return jdrop.training.TrainState.create(params=params, tx=tx, key=key)

    step = step(jdrop.training.make_train_step(loss_fn))
    with jax.numpy_dtype_promotion("standard"):  # which optax.adam needs
        state, _ = jdrop.training.fit(states(make), step, DATA, epochs=4, batch_size=16, progress=False)
    return state.params


OPTIMIZERS = {"momentum": lambda: optax.sgd(0.3, momentum=0.95), "adam": lambda: optax.adam(0.1)}


@pytest.mark.slow
@some("name", OPTIMIZERS, 0)
def test_the_limit_holds_after_training(name):
    free = train(OPTIMIZERS[name]())
    held = train(optax.chain(OPTIMIZERS[name](), jdrop.max_norm(0.8)))
    for layer in ("Dense_0", "Dense_1"):
        assert (norms(free[layer]["kernel"], 0) > 1).any()
        assert (norms(held[layer]["kernel"], 0) <= 0.8 * (1 + 1e-6)).all()
        assert np.abs(held[layer]["bias"]).max() > 0


@pytest.mark.slow
def test_a_mask_and_a_transformation_for_each_group():
    kernels_of = lambda layer: (
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: path[0].key == layer, params)
    )
    masked = train(optax.chain(optax.adam(0.1), optax.masked(jdrop.max_norm(0.8), kernels_of("Dense_0"))))
    groups = {"held": optax.chain(optax.adam(0.1), jdrop.max_norm(0.8)), "free": optax.adam(0.1)}
    labels = lambda params: jax.tree.map(lambda held: "held" if held else "free", kernels_of("Dense_0")(params))
    divided = train(optax.multi_transform(groups, labels))
    for params in (masked, divided):
        assert (norms(params["Dense_0"]["kernel"], 0) <= 0.8 * (1 + 1e-6)).all()
        assert (norms(params["Dense_1"]["kernel"], 0) > 1).any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), masked, divided)


@pytest.mark.slow
def test_seeds_as_one_program():
    tx, keys = optax.chain(optax.adam(0.1), jdrop.max_norm(0.8)), jax.random.split(jax.random.key(0), 2)
    stack = train(tx, jdrop.training.vmap_seeds, lambda make: jax.vmap(make)(keys))
    alone = train(tx, states=lambda make: jax.tree.map(lambda leaf: leaf[1], jax.vmap(make)(keys)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6), stack, alone)


def test_a_traced_limit():
    params = {"w": array((30, 4))}
    tx = optax.inject_hyperparams(jdrop.max_norm)(limit=lambda count: 3 - count.astype(jnp.float32))
    state, zeros = tx.init(params), {"w": jnp.zeros((30, 4))}
    for wanted in (3.0, 2.0, 1.0):
        updates, state = jax.jit(tx.update)(zeros, state, params)
        np.testing.assert_allclose(norms(params["w"] + updates["w"], 0), wanted, rtol=1e-6)
    updates, state = jax.jit(tx.update)(zeros, state, params)
    assert np.isnan(updates["w"]).all()


def test_what_max_norm_refuses():
    for bad in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"limit is .*must be a number above 0.*write max_norm\(3.0\)"):
            jdrop.max_norm(bad)
    for bad in ("3", None, jnp.ones(2), True):
        with pytest.raises(TypeError, match="limit is"):
            jdrop.max_norm(bad)
    for bad in ("all", 0.5, [None]):
        with pytest.raises(TypeError, match="axes is .* write axes=0"):
            jdrop.max_norm(3.0, axes=bad)
    tx, zeros = jdrop.max_norm(3.0), {"w": jnp.zeros((2, 2))}
    with pytest.raises(ValueError, match=r"write tx.update\(grads, state, params\)"):
        tx.update(zeros, tx.init(zeros))
    with pytest.raises(ValueError, match=r"\['bias', 'embedding'\], and none is a kernel"):
        constrained({"bias": jnp.ones((2, 2)), "embedding": jnp.ones((2, 2))}, 1.0)
    with pytest.raises(TypeError, match="'w' has dtype int32"):
        constrained({"w": jnp.ones((2, 2), int)}, 1.0)

"""Scaled weights: the same function, in training and in prediction, as the network they came from."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import nnx
from tiers import some

import jdrop


class Net(nn.Module):
    """Dropout before a convolution and before two dense layers; a pooling and a ReLU after one change nothing."""

    rate: float
    scaling: str

    @nn.compact
    def __call__(self, x, deterministic):
        drop = lambda: jdrop.linen.Dropout(self.rate, scaling=self.scaling, deterministic=deterministic)
        x = nn.Conv(5, (3, 3))(drop()(x))
        x = nn.max_pool(nn.relu(drop()(x)), (2, 2), (2, 2)).reshape(len(x), -1)
        x = nn.relu(nn.Dense(6)(x))
        return nn.Dense(3)(drop()(x))


X = array((4, 4, 4, 2))
LAYERS = ("Conv_0", "Dense_0", "Dense_1")


def parameters(dtype=jnp.float32):
    params = Net(0.5, "none").init(key(0), X, True)["params"]
    return jax.tree.map(lambda leaf: (leaf + jnp.float32(0.1)).astype(dtype), params)


def outputs(params, rate, scaling, deterministic=False):
    rngs = {"dropout": key(7)}
    return np.asarray(Net(rate, scaling).apply({"params": params}, X, deterministic, rngs=rngs), np.float64)


@some("rate", [0.0, 0.3, 0.75], 1)
def test_classic_inverted_and_bare_networks(rate):
    rates = dict.fromkeys(LAYERS, rate)
    params = parameters()
    inverted = jdrop.scale_weights(params, rates)
    classic = jdrop.scale_weights(params, rates, inverse=True)
    power_of_two = rate in (0.0, 0.75)

    def same(actual, wanted):
        np.testing.assert_allclose(actual, wanted, rtol=0 if power_of_two else 2e-6, atol=0 if power_of_two else 1e-6)

    # What was trained with the bare mask predicts with (1 - rate) * W.
    same(outputs(inverted, rate, "none", True), outputs(params, rate, "classic", True))
    for deterministic in (False, True):
        same(outputs(inverted, rate, "inverted", deterministic), outputs(params, rate, "classic", deterministic))
        same(outputs(classic, rate, "classic", deterministic), outputs(params, rate, "inverted", deterministic))
    same(outputs(classic, rate, "none"), outputs(params, rate, "inverted"))
    back = jdrop.scale_weights(inverted, rates, inverse=True)
    jax.tree.map(same, back, params)
    for layer in LAYERS:
        np.testing.assert_array_equal(inverted[layer]["bias"], params[layer]["bias"])


@pytest.mark.parametrize("keep", [0.5, 0.7])
def test_all_masks_of_a_linear_layer_refute_a_division(keep):
    """Multiplying a bare-mask network's prediction by 1 / keep, as one reads at times, is wrong by 1 / keep**2."""
    x, kernel = np.asarray(array((6,)), np.float64), np.asarray(array((6, 3), seed=4), np.float64)
    masks = np.array(list(itertools.product([0, 1], repeat=6)))
    probabilities = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    expectation = probabilities @ ((masks * x) @ kernel)
    params = {"Dense_0": {"kernel": jnp.asarray(kernel, jnp.float32)}}
    right = x @ np.asarray(jdrop.scale_weights(params, {"Dense_0": 1 - keep})["Dense_0"]["kernel"])
    divided = x @ np.asarray(jdrop.scale_weights(params, {"Dense_0": 1 - keep}, inverse=True)["Dense_0"]["kernel"])
    np.testing.assert_allclose(right, expectation, rtol=1e-5)
    np.testing.assert_allclose(divided, expectation / keep**2, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.complex64])
def test_one_rounding_in_every_precision(dtype):
    kernel = array((20, 30)).astype(dtype)
    wide = np.asarray(kernel.astype(jnp.complex64)).astype(np.complex64)
    for inverse in (False, True):
        result = jdrop.scale_weights({"w": kernel}, {"w": 0.3}, inverse=inverse)["w"]
        exact = wide / (1 - np.float32(0.3)) if inverse else wide * (1 - np.float32(0.3))
        exact = exact if dtype == jnp.complex64 else exact.real
        assert result.dtype == dtype
        if dtype == jnp.complex64:
            np.testing.assert_allclose(result, exact, rtol=1e-6)
        else:
            np.testing.assert_array_equal(result, jnp.asarray(exact).astype(dtype))


def test_double_precision():
    with jax.enable_x64(True):
        result = jdrop.scale_weights({"w": jnp.ones((2, 2))}, {"w": 0.3})["w"]
        assert (result == 1 - 0.3).all()


def test_nnx_layers_in_a_list_and_recurrent_cells():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 3, rngs=rngs)])
            self.cell, self.attention = nnx.SimpleCell(3, 3, rngs=rngs), nnx.MultiHeadAttention(2, 4, rngs=rngs)

    model = Model(nnx.Rngs(0))
    params = jdrop.nnx.train_parts(model)["params"]
    rates = {"layers/1": 0.5, "cell/dense_h/kernel": 0.75, "attention/value": 0.5}
    result = jdrop.scale_weights(params, rates)
    assert jax.tree.structure(result) == jax.tree.structure(params)
    before, after = nnx.to_pure_dict(params), nnx.to_pure_dict(result)
    factors = {("layers", 1): 0.5, ("cell", "dense_h"): 0.25, ("attention", "value"): 0.5}

    def check(path, old, new):
        keys = tuple(part.key for part in path)
        factor = factors.get(keys[:-1], 1.0) if keys[-1] == "kernel" else 1.0
        np.testing.assert_array_equal(new, old * factor)

    jax.tree_util.tree_map_with_path(check, before, after)
    nnx.update(model, result)


def test_bare_trees_variables_stacks_and_traces():
    kernel = array((3, 4))
    np.testing.assert_array_equal(jdrop.scale_weights([(kernel, kernel[0])], {"0/0": 0.5})[0][0], kernel * 0.5)
    variables = {"params": {"Dense_0": {"kernel": kernel}}, "batch_stats": {"mean": kernel}}
    result = jdrop.scale_weights(variables, {"params/Dense_0": 0.5})
    np.testing.assert_array_equal(result["params"]["Dense_0"]["kernel"], kernel * 0.5)
    np.testing.assert_array_equal(result["batch_stats"]["mean"], kernel)
    np.testing.assert_array_equal(jdrop.scale_weights({"w": kernel[0]}, {"w": 0.5})["w"], kernel[0] * 0.5)
    rates = jnp.array([0.25, 0.5, 0.0])
    stack = jax.vmap(lambda params, rate: jdrop.scale_weights(params, {"w": rate}))({"w": array((3, 2, 2))}, rates)
    np.testing.assert_array_equal(stack["w"], array((3, 2, 2)) * np.array([0.75, 0.5, 1.0], np.float32)[:, None, None])
    traced = jax.jit(lambda rate: jdrop.scale_weights({"w": kernel}, {"w": rate})["w"])
    np.testing.assert_array_equal(traced(0.75), kernel * 0.25)
    for bad in (1.0, -0.5, float("nan")):
        assert np.isnan(traced(bad)).all()


def test_what_is_refused():
    params = parameters()
    layers = r"\['Conv_0', 'Dense_0', 'Dense_1'\]"
    with pytest.raises(ValueError, match=f"the layer 'Dense_2', which has no kernel: write one of {layers}"):
        jdrop.scale_weights(params, {"Dense_2": 0.5})
    with pytest.raises(ValueError, match="the layer 'Dense_1/bias', which has no kernel"):
        jdrop.scale_weights(params, {"Dense_1/bias": 0.5})
    with pytest.raises(ValueError, match="names the kernel 'Dense_1/kernel' twice"):
        jdrop.scale_weights(params, {"Dense_1": 0.5, "Dense_1/kernel": 0.5})
    with pytest.raises(TypeError, match=f"rates is 0.5, but a dict.*write {{'Dense_1': 0.5}}. The layers are {layers}"):
        jdrop.scale_weights(params, 0.5)
    for bad in (1.0, -0.5, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"rates\['Dense_1'\] is .* in \[0, 1\).*write rate=0.5"):
            jdrop.scale_weights(params, {"Dense_1": bad})
    for bad in ("half", [0.5], True):
        with pytest.raises(TypeError, match=r"rates\['Dense_1'\] is"):
            jdrop.scale_weights(params, {"Dense_1": bad})
    with pytest.raises(TypeError, match="'w' has dtype int32"):
        jdrop.scale_weights({"w": jnp.ones((2, 2), int)}, {"w": 0.5})

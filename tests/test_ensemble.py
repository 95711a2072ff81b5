"""Dropout as an ensemble: means over all masks, against enumeration in NumPy and against weight scaling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RATES, array, assert_in_both_precisions, key

import jdrop

X, KERNEL, BIAS = array((5,)), array((5, 3), seed=5), array((3,), seed=9)


def enumerate_masks(width, rate):
    """[(mask, probability)] in double precision."""
    rates = np.broadcast_to(np.asarray(rate, np.float64), width)
    for mask in itertools.product([False, True], repeat=width):
        yield np.array(mask), np.prod([1 - r if kept else r for kept, r in zip(mask, rates)])


def softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def predict(mask):
    """One softmax layer, whose inputs are dropped by the bare mask."""
    return jax.nn.softmax(jnp.where(mask, X, 0) @ KERNEL + BIAS)


@pytest.mark.parametrize("rate", [*RATES, (0.0, 0.1, 0.5, 0.9, 1.0)])
def test_every_mask_once_with_its_probability(rate):
    wanted = list(enumerate_masks(5, np.float32(rate)))
    for given in (rate if isinstance(rate, float) else np.float32(rate), jnp.float32(rate)):
        for call in (jdrop.mc.all_masks, jax.jit(jdrop.mc.all_masks, static_argnums=0)):
            masks, weights = call(5, given)
            assert masks.dtype == bool
            np.testing.assert_array_equal(masks, [mask for mask, _ in wanted])
            np.testing.assert_allclose(weights, [probability for _, probability in wanted], rtol=1e-6, atol=1e-30)


def test_a_wide_enumeration_sums_to_one():
    masks, weights = jdrop.mc.all_masks(16, 0.1)
    assert masks.shape == (2**16, 16)
    assert abs(float(weights.sum()) - 1) < 1e-6


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9, (0.0, 0.1, 0.5, 0.9, 1.0)])
def test_the_geometric_mean_of_a_softmax_layer_is_weight_scaling(rate):
    rate = np.float32(rate)
    masks, weights = jdrop.mc.all_masks(5, rate)
    geometric = jdrop.mc.geometric_mean(jax.vmap(predict)(masks), weights)
    scaled = jax.nn.softmax(jdrop.dropout(None, X, rate, True, scaling="classic") @ KERNEL + BIAS)
    np.testing.assert_allclose(geometric, scaled, rtol=1e-5)
    if rate.ndim == 0:
        kernel = jdrop.scale_weights({"w": KERNEL}, {"w": rate})["w"]
        np.testing.assert_allclose(geometric, jax.nn.softmax(X @ kernel + BIAS), rtol=1e-5)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_both_means_of_a_deep_network(rate):
    """Against enumeration in NumPy. Weight scaling is neither of them here: it is an approximation."""
    inner = np.asarray(array((2, 5), seed=11), np.float64)
    kernel, bias = np.asarray(KERNEL, np.float64), np.asarray(BIAS, np.float64)
    inputs = np.asarray(array((4, 2)), np.float64)

    def numpy_predict(mask):
        return softmax(mask * np.tanh(inputs @ inner) @ kernel @ kernel.T @ np.tanh(kernel) + bias)

    pairs = list(enumerate_masks(5, np.float32(rate)))
    all_outputs = np.stack([numpy_predict(mask) for mask, _ in pairs])
    probabilities = np.array([probability for _, probability in pairs])
    arithmetic = np.tensordot(probabilities, all_outputs, 1)
    geometric = np.exp(np.tensordot(probabilities, np.log(all_outputs), 1))
    geometric /= geometric.sum(-1, keepdims=True)

    @jax.jit
    def means(outputs, weights):
        return {"geometric": jdrop.mc.geometric_mean(outputs, weights)}

    wanted = {"geometric": geometric}
    assert_in_both_precisions(means, (all_outputs, probabilities), wanted)
    assert_in_both_precisions(means, (all_outputs, 7 * probabilities), wanted)
    assert np.abs(arithmetic - geometric).max() > 1e-3


def test_a_hidden_layer_is_only_approximated():
    masks, weights = jdrop.mc.all_masks(5, 0.5)
    deep = lambda kept: jax.nn.softmax(jnp.tanh(kept @ KERNEL) @ KERNEL.T)
    outputs = jax.vmap(lambda mask: deep(jnp.where(mask, X, 0)))(masks)
    assert np.abs(jdrop.mc.geometric_mean(outputs, weights) - deep(0.5 * X)).max() > 1e-3


@pytest.mark.slow
def test_monte_carlo_samples_approach_the_exact_means():
    masks, weights = jdrop.mc.all_masks(5, 0.3)
    exact = jax.vmap(predict)(masks)
    stochastic = lambda key, x: jax.nn.softmax(jdrop.dropout(key, x, 0.3, scaling="none") @ KERNEL + BIAS)
    samples = jdrop.mc.samples(stochastic, key(3), X, 4000)
    arithmetic, geometric = samples.mean(0), jdrop.mc.geometric_mean(samples)
    mean = jdrop.mc_dropout(stochastic, key(3), X, 4000).mean
    np.testing.assert_allclose(arithmetic, mean, rtol=1e-5)
    # A fixed key; the bound is five standard errors of the probabilities, or of their logarithms.
    wanted = np.asarray(jnp.average(exact, axis=0, weights=weights))
    assert (np.abs(arithmetic - wanted) < 5 * np.std(samples, 0) / 4000**0.5).all()
    wanted = np.asarray(jdrop.mc.geometric_mean(exact, weights))
    logs = np.log(samples)
    error = np.log(geometric / geometric[0]) - np.log(wanted / wanted[0])
    assert (np.abs(error) <= 5 * np.std(logs - logs[:, :1], 0) / 4000**0.5 + 1e-6).all()
    equal = jnp.full(4000, 0.25)
    np.testing.assert_allclose(jdrop.mc.geometric_mean(samples, equal), geometric, rtol=1e-5)


def test_excluded_classes():
    outputs = jnp.array([[0.5, 0.5, 0.0], [0.8, 0.1, 0.1]])
    result = np.asarray(jdrop.mc.geometric_mean(outputs))
    wanted = np.sqrt([0.5 * 0.8, 0.5 * 0.1, 0])
    np.testing.assert_allclose(result, wanted / wanted.sum(), rtol=1e-6)
    # A mask that never comes excludes nothing.
    np.testing.assert_allclose(jdrop.mc.geometric_mean(outputs, jnp.array([0.0, 1.0])), outputs[1], rtol=1e-6)
    assert np.isnan(jdrop.mc.geometric_mean(jnp.eye(2))).all()


def test_bfloat16_samples():
    outputs = jax.vmap(predict)(jdrop.mc.all_masks(5, 0.5)[0])
    result = jdrop.mc.geometric_mean(outputs.astype(jnp.bfloat16))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, jdrop.mc.geometric_mean(outputs), rtol=0.01)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"width is 21, and 2\*\*21 masks are too many.*jdrop.mc.samples"):
        jdrop.mc.all_masks(21, 0.5)
    with pytest.raises(ValueError, match="width is 0"):
        jdrop.mc.all_masks(0, 0.5)
    with pytest.raises(ValueError, match="rate is 1.5"):
        jdrop.mc.all_masks(3, 1.5)
    with pytest.raises(ValueError, match=r"rate has shape \(2,\), but one number, or one for each of 3 units"):
        jdrop.mc.all_masks(3, jnp.array([0.5, 0.5]))
    assert np.isnan(jax.jit(lambda rate: jdrop.mc.all_masks(3, rate)[1])(1.5)).all()
    outputs = jnp.full((4, 2), 0.5)
    mean = jdrop.mc.geometric_mean
    with pytest.raises(ValueError, match=r"weights has shape \(3,\), but outputs of shape \(4, 2\) need \(4,\)"):
        mean(outputs, jnp.ones(3))
    for bad in ([1.0, 1.0, 1.0, -1.0], [0.0, 0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="weights is .* must not be negative nor all 0"):
            mean(outputs, jnp.array(bad))
        assert np.isnan(jax.jit(mean)(outputs, jnp.array(bad))).any()
    with pytest.raises(ValueError, match="must sum to 1"):
        jdrop.mc.geometric_mean(outputs * 3)


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1.0, 1e20, 1e37, 1e38, 3e38])
def test_weights_of_any_size_have_a_sum(scale):
    """Also where the sum would overflow, or the largest weight has no inverse that is a normal number."""
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    shares = np.array([1.0, 0.5, 0.25])
    mean = np.exp((shares[:, None] / shares.sum() * np.log(probabilities)).sum(0))
    found = jdrop.mc.geometric_mean(probabilities, np.float32(scale) * shares.astype(np.float32))
    np.testing.assert_allclose(found, mean / mean.sum(), rtol=1e-5)

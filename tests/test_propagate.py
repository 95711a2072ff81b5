"""Moments without sampling: exact where that is promised, and against 100,000 samples."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import nnx
from scipy import stats

import jdrop

X = array((3, 6))


class Net(nn.Module):
    """Convolution, pooling, dense layers, batch normalisation; dropout of jdrop and of Flax."""

    pool: str = "avg"

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3))(jdrop.linen.Dropout(0.2, deterministic=False)(x)))
        x = getattr(nn, f"{self.pool}_pool")(x, (2, 2), strides=(2, 2))
        x = nn.BatchNorm(use_running_average=True)(x).reshape(len(x), -1)
        x = nn.Dropout(0.3, deterministic=False)(x)
        return nn.Dense(3)(nn.relu(nn.Dense(32)(x)))


def sampled(predict, x, n=100_000):
    answer = jdrop.mc_dropout(predict, key(9), x, n)
    return np.asarray(answer.mean, np.float64), np.asarray(answer.variance, np.float64)


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_one_layer_of_dropout_is_exact(rate):
    """By enumeration: all 64 masks of six units."""
    kernel = array((6, 4), seed=2)
    masks, weights = jdrop.mc.all_masks(6, rate)
    scale = 1 / (1 - np.float64(np.float32(rate))) if rate < 1 else 0
    y = (np.asarray(X, np.float64)[None] * np.asarray(masks)[:, None] * scale) @ np.asarray(kernel, np.float64) + 1
    w = np.asarray(weights, np.float64)[:, None, None]
    mean = (w * y).sum(0)
    for dropout in (jdrop.dropout, lambda k, x, r: jdrop.dropout(k, x, jnp.float32(r) + 0 * x[0, 0])):
        found = jdrop.mc.propagate(lambda k, x, d=dropout: {"y": d(k, x, rate) @ kernel + 1}, X)["y"]
        np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.variance, (w * (y - mean) ** 2).sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_rectified_normal_number():
    """Against SciPy's quadrature; a known number stays what it is."""
    kernel = jnp.full((400, 1), 0.05)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 400)), jnp.float32)
    before = jdrop.mc.propagate(lambda k, x: jdrop.dropout(k, x, 0.5) @ kernel, x)
    after = jdrop.mc.propagate(lambda k, x: nn.relu(jdrop.dropout(k, x, 0.5) @ kernel), x)
    for m, v, mean, variance in zip(*(np.ravel(each) for each in (*before, *after))):
        of = lambda power, m=m, v=v: stats.norm(m, v**0.5).expect(lambda z: np.maximum(z, 0) ** power)
        np.testing.assert_allclose(mean, of(1), rtol=1e-4)
        np.testing.assert_allclose(variance, of(2) - of(1) ** 2, rtol=1e-3)
    known = jdrop.mc.propagate(lambda k, x: nn.relu(x) - jdrop.dropout(k, x, 0.0), X)
    np.testing.assert_allclose(known.mean, nn.relu(X) - X, rtol=1e-6)
    assert not known.variance.any()


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["avg", "max"])
@jax.numpy_dtype_promotion("standard")  # which Flax's pooling needs
def test_a_convolutional_network_against_samples(pool):
    """Its error is stated: means within a tenth of a standard deviation, deviations within a quarter."""
    model, x = Net(pool), array((2, 8, 8, 1))
    variables = model.init({"params": key(0), "dropout": key(1)}, x)
    predict = jdrop.linen.predictor(model, variables)
    mean, variance = sampled(predict, x)
    found = jdrop.mc.propagate(predict, x)
    deviation = np.sqrt(variance)
    assert (np.abs(found.mean - mean) < 0.1 * deviation).all() if pool == "avg" else True
    assert (np.abs(np.sqrt(found.variance) / deviation - 1) < (0.25 if pool == "avg" else 0.4)).all()
    jitted = jax.jit(lambda x: jdrop.mc.propagate(predict, x))(x)
    np.testing.assert_allclose(jitted.mean, found.mean, rtol=1e-4, atol=1e-5)


def test_nnx_and_dropout_of_jax():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 2, rngs=rngs)
            self.dropout = nnx.Dropout(0.4, rngs=rngs)

        def __call__(self, x):
            return self.second(self.dropout(nnx.relu(self.first(x))))

    model = Two(nnx.Rngs(0))
    found = jdrop.mc.propagate(jdrop.nnx.predictor(model), X)
    hidden = np.asarray(nnx.relu(model.first(X)), np.float64)
    kernel = np.asarray(model.second.kernel[...], np.float64)
    p = 1 - np.float64(np.float32(0.6))
    np.testing.assert_allclose(found.mean, hidden @ kernel, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.variance, p / (1 - p) * hidden**2 @ kernel**2, rtol=1e-4)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (jnp.tanh, "tanh"),
        (jax.nn.softmax, "max|exp"),
        (lambda x: x * x, "mul of two random arrays|integer_pow|square"),
        (lambda x: x + nn.relu(x), "add of two random arrays"),
        (lambda x: 1 / x, "div by a random array|integer_pow"),
        (lambda x: jax.lax.scan(lambda c, _: (c + 1, None), x, None, 2)[0], "scan"),
    ],
)
def test_what_is_not_covered_is_refused_by_its_name(function, name):
    with pytest.raises(NotImplementedError, match=name):
        jdrop.mc.propagate(lambda k, x: function(jdrop.dropout(k, x, 0.5)), X)


def test_one_mask_for_several_elements_is_refused():
    with pytest.raises(NotImplementedError, match="one mask for several elements"):
        jdrop.mc.propagate(lambda k, x: jdrop.dropout(k, x, 0.5, broadcast_dims=(1,)), X)
    with pytest.raises(NotImplementedError, match="one mask for several elements"):
        jdrop.mc.propagate(lambda k, x: nn.Dropout(0.5, (1,), False).apply({}, x, rngs={"dropout": k}), X)

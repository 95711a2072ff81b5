"""A mask depends on the key, the shape and the rate, and on nothing else."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import IMPLEMENTATIONS, RATES, SHAPES, key
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import some

import jdrop
from jdrop.masks._rate import as_rate, threshold


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@some("impl", [*IMPLEMENTATIONS, "rbg"], 0)
@some("rate", [*RATES, 15 / 16, 3 / 32, 129 / 256, 2**-12, 1 - 2**-20], 0, 2, 6, 7, 11)
def test_static_and_traced_eager_and_jitted_are_the_same(impl, rate):
    root = key(3, impl)
    static = jdrop.keep_mask(root, (5, 200), rate)
    same(static, jax.jit(lambda k: jdrop.keep_mask(k, (5, 200), rate))(root))
    same(static, jax.jit(lambda k, r: jdrop.keep_mask(k, (5, 200), r))(root, rate))
    same(static, jdrop.keep_mask(root, (5, 200), jnp.float32(rate)))


@given(st.floats(0, 1, width=32), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_static_and_traced_rates_are_the_same_for_any_float(rate, seed):
    same(jdrop.keep_mask(key(seed), (257,), rate), traced_mask(key(seed), rate))


traced_mask = jax.jit(lambda k, rate: jdrop.keep_mask(k, (257,), rate))


@some("impl", [*IMPLEMENTATIONS, "rbg"], 0, 3)
def test_masks_are_nested_in_the_rate(impl):
    previous = np.ones((40, 1000), bool)
    for rate in (0.0, 1e-7, 0.005, 0.1, 0.3, 1 / 3, 0.5, 0.75, 0.9, 0.999, 1.0):
        kept = np.asarray(jdrop.keep_mask(key(1, impl), (40, 1000), rate))
        assert not (kept & ~previous).any()
        previous = kept
    assert not previous.any()


@some("impl", IMPLEMENTATIONS, 2)
def test_a_vmapped_draw_is_the_draw_of_each_key(impl):
    keys = jax.random.split(key(5, impl), 4)
    together = jax.vmap(lambda k: jdrop.keep_mask(k, (3, 70), 0.3))(keys)
    for i in range(4):
        same(together[i], jdrop.keep_mask(keys[i], (3, 70), 0.3))


def test_a_scanned_draw_is_the_draw_of_each_key():
    keys = jax.random.split(key(5), 4)
    _, together = jax.lax.scan(lambda c, k: (c, jdrop.keep_mask(k, (3, 70), 0.3)), 0, keys)
    for i in range(4):
        same(together[i], jdrop.keep_mask(keys[i], (3, 70), 0.3))


@some("rate_shape", [(1,), (200,), (5, 1), (5, 200), (2, 1, 1), (2, 5, 200), (1, 1, 200)], 2, 5)
def test_an_array_of_rates_is_each_rate_in_its_place(rate_shape):
    rates = jax.random.uniform(key(9), rate_shape).at[..., 0].set(0.25)
    shape = (2, 5, 200)
    drawn = np.asarray(jdrop.keep_mask(key(2), shape, rates))
    same(drawn, jax.jit(lambda r: jdrop.keep_mask(key(2), shape, r))(rates))
    for rate in np.unique(np.asarray(rates))[:5]:
        where = np.broadcast_to(np.asarray(rates) == rate, shape)
        same(drawn[where], np.asarray(jdrop.keep_mask(key(2), shape, float(rate)))[where])


def test_a_rate_may_vary_along_a_shared_axis():
    """One uniform along the axis: the mask is nested along rising rates."""
    rates = jnp.linspace(0, 1, 11)
    drawn = np.asarray(jdrop.keep_mask(key(2), (64, 11), rates, broadcast_dims=(1,)))
    assert (np.diff(drawn.astype(int), axis=1) <= 0).all()
    assert drawn[:, 0].all()
    assert not drawn[:, -1].any()


@pytest.mark.parametrize("axes", [(0,), (1,), (-1,), (0, 2), (-2, 0), (0, 1, 2), (2, -1)])
def test_one_decision_is_shared_along_broadcast_dims(axes):
    drawn = np.asarray(jdrop.keep_mask(key(4), (6, 5, 33), 0.5, broadcast_dims=axes))
    assert drawn.shape == (6, 5, 33)
    for axis in range(3):
        shared = (drawn == np.take(drawn, [0], axis)).all()
        assert shared == (axis in {a % 3 for a in axes})


def test_shapes_and_types():
    for shape in SHAPES:
        drawn = jdrop.keep_mask(key(), shape, 0.5)
        assert drawn.shape == shape
        assert drawn.dtype == jnp.bool_
    assert jdrop.keep_mask(key(), 7, 0.5).shape == (7,)


def test_a_traced_rate_out_of_range_keeps_nothing():
    for rate in (-0.1, 1.1, float("nan")):
        assert not np.asarray(traced_mask(key(), rate)).any()


def test_a_new_rate_neither_traces_nor_compiles_again():
    traces = []
    step = jax.jit(lambda k, rate: (traces.append(0), jdrop.keep_mask(k, (64,), rate))[1])
    for rate in np.linspace(0, 1, 7):
        step(key(), rate)
    assert len(traces) == 1


LEGACY = [jax.random.PRNGKey(11), np.asarray(jax.random.PRNGKey(11))]


@pytest.mark.parametrize("legacy", LEGACY)
def test_a_legacy_key_draws_the_mask_of_its_typed_key(legacy):
    same(jdrop.keep_mask(legacy, (50,), 0.5), jdrop.keep_mask(key(11), (50,), 0.5))


@pytest.mark.parametrize("rate", [0.0007, 1e-5, 3.1e-8, 2**-33, 3 * 2**-34, 1 - 2**-24])
def test_a_threshold_is_the_nearest_whole_number(rate):
    """Of rates below 2**-8, float32 has digits beyond a threshold's last; ties go to even."""
    wanted = round(Fraction(float(np.float32(rate))) * 2**32)
    assert int(threshold(as_rate(rate)).low) == wanted
    assert int(jax.jit(lambda rate: threshold(as_rate(rate)).low)(rate)) == wanted


@pytest.mark.parametrize("rate", [np.float64(0.9), np.float64(1 / 3), np.full((1,), 0.9)])
def test_double_precision_rates_are_rounded_as_jax_rounds_them(rate):
    """Bits of a threshold that float32 doesn't have decide about one element in 2**25 or so: compare thresholds."""
    low = threshold(as_rate(rate)).low
    np.testing.assert_array_equal(low, np.round(np.float32(rate).astype(np.float64) * 2**32).astype(np.uint32))

"""What `dropout` computes: the oracle's mask, the scaling asked for, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import DTYPES, IMPLEMENTATIONS, RATES, SAVES, SCALINGS, SHAPES, array, key
from tiers import some

import jdrop


def expected(x, kept, rate, scaling, deterministic=False):
    """Dropout in NumPy, in double precision."""
    keep = 1 - np.round(np.float64(np.float32(rate)) * 2**32) / 2**32
    x = np.asarray(x, np.complex128 if np.iscomplexobj(x) else np.float64)
    if deterministic:
        return x * keep if scaling == "classic" else x
    return np.where(kept, x / keep if scaling == "inverted" and keep else x, 0)


def close(actual, wanted):
    actual = jnp.asarray(actual)
    precision = float(jnp.finfo(actual.dtype).eps)
    wide = np.asarray(actual.astype(jnp.complex64 if jnp.iscomplexobj(actual) else jnp.float32))
    np.testing.assert_allclose(wide, wanted, rtol=precision)


@pytest.mark.parametrize("scaling", SCALINGS)
@some("rate", RATES, 0, 2, 6)
def test_the_equation(rate, scaling):
    x = array((4, 100))
    data = np.asarray(jax.random.key_data(key(1)))
    kept = oracle.mask("threefry2x32", data, x.shape, rate)
    for save in SAVES:
        for given in (rate, jnp.float32(rate)):
            for deterministic in (False, True, jnp.array(False), jnp.array(True)):
                for call in (jdrop.dropout, jitted):
                    y = call(key(1), x, given, deterministic, scaling=scaling, save=save)
                    close(y, expected(x, kept, rate, scaling, bool(deterministic)))


jitted = jax.jit(jdrop.dropout, static_argnames=("scaling", "save"))


@some("impl", IMPLEMENTATIONS, 0)
@some("shape", SHAPES, 0, 1, 5, 9, 10)
def test_every_shape(impl, shape):
    x = array(shape)
    y = jdrop.dropout(key(2, impl), x, 0.4)
    assert y.shape == shape
    kept = oracle.mask(impl, np.asarray(jax.random.key_data(key(2, impl))), shape, 0.4)
    close(y, expected(x, kept, 0.4, "inverted"))


@some("dtype", DTYPES, 1, 3, 4)
def test_every_dtype_has_the_same_mask_and_keeps_its_type(dtype):
    x = array((3, 77), dtype)
    kept = np.asarray(jdrop.keep_mask(key(3), x.shape, 0.3))
    for rate in (0.3, jnp.float32(0.3)):
        y = jdrop.dropout(key(3), x, rate)
        assert y.dtype == x.dtype
        wide = x.astype(jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32)
        close(y, expected(wide, kept, 0.3, "inverted"))
        np.testing.assert_array_equal(np.asarray(y != jnp.zeros((), dtype)), kept)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.complex128])
def test_double_precision(dtype):
    with jax.enable_x64(True):
        x = array((300,)).astype(dtype)
        y = np.asarray(jdrop.dropout(key(3), x, 0.3))
        kept = np.asarray(jdrop.keep_mask(key(3), x.shape, 0.3))
        keep = 1 - np.round(0.3 * 2**32) / 2**32
        np.testing.assert_allclose(y, np.where(kept, np.asarray(x) / keep, 0), rtol=1e-15)


def test_python_scalars_and_numpy_arrays_are_arrays():
    assert float(jdrop.dropout(key(), 2.0, 0.0)) == 2.0
    assert jdrop.dropout(key(), np.ones(3, np.float32), 0.5).dtype == jnp.float32
    assert float(jdrop.dropout(key(), 2.0, 1)) == 0.0


@some("rate_shape", [(1,), (7,), (4, 1), (4, 7)], 1, 2)
def test_an_array_of_rates(rate_shape):
    rates = jax.random.uniform(key(4), rate_shape).at[..., 0].set(1.0)
    x = array((4, 7))
    kept = np.asarray(jdrop.keep_mask(key(5), x.shape, rates))
    for given in (rates, np.asarray(rates)):
        y = np.asarray(jdrop.dropout(key(5), x, given))
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.where(kept, np.asarray(x, np.float64) / (1 - np.asarray(rates, np.float64)), 0)
        np.testing.assert_allclose(y, wanted, rtol=1e-6)


def test_broadcast_dims_share_one_decision():
    x = jnp.ones((8, 5, 64))
    y = np.asarray(jdrop.dropout(key(6), x, 0.5, broadcast_dims=(-2,)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert 0 < (y == 0).mean() < 1


@some("bad", [jnp.nan, jnp.inf, -jnp.inf, complex(jnp.nan, 1), complex(1, jnp.inf)], 3)
@pytest.mark.parametrize("save", SAVES)
def test_nothing_leaks_out_of_a_dropped_slot(bad, save):
    dtype = jnp.complex64 if isinstance(bad, complex) else jnp.float32
    kept = jdrop.keep_mask(key(7), (200,), 0.5)
    clean = array((200,), dtype)
    poisoned = jnp.where(kept, clean, jnp.array(bad, dtype))

    def f(x):
        return jdrop.dropout(key(7), x, 0.5, save=save)

    y, pullback = jax.vjp(f, poisoned)
    np.testing.assert_array_equal(np.asarray(y), np.asarray(f(clean)))
    (gradient,) = pullback(poisoned)
    np.testing.assert_array_equal(np.asarray(gradient), np.asarray(pullback(clean)[0]))
    _, tangent = jax.jvp(f, (poisoned,), (poisoned,))
    np.testing.assert_array_equal(np.asarray(tangent), np.asarray(f(clean)))


def test_a_kept_nan_stays_where_it_is():
    kept = np.asarray(jdrop.keep_mask(key(7), (200,), 0.5))
    y = np.asarray(jdrop.dropout(key(7), jnp.full(200, jnp.nan), 0.5))
    np.testing.assert_array_equal(np.isnan(y), kept)


def test_the_parts_of_a_complex_number_stay_apart():
    y = np.asarray(jdrop.dropout(key(7), jnp.full(200, complex(1, np.inf), jnp.complex64), 0.5))
    assert set(y.real.tolist()) == {0.0, 2.0}
    assert set(y.imag.tolist()) == {0.0, np.inf}


@some("rate", [-0.1, 1.1, float("nan"), float("inf")], 1, 2)
@some("scaling", SCALINGS, 0)
def test_a_traced_rate_out_of_range_is_seen(rate, scaling):
    for deterministic in (False, True):
        f = jax.jit(lambda x, r, d=deterministic: jdrop.dropout(key(), x, r, d, scaling=scaling))
        for x in (jnp.ones(40), jnp.ones(40, jnp.bfloat16), jnp.ones(40, jnp.complex64)):
            assert np.isnan(np.asarray(f(x, rate).astype(jnp.complex64))).all()


def test_one_bad_rate_in_an_array_spoils_its_own_place_only():
    y = np.asarray(jax.jit(lambda r: jdrop.dropout(key(), jnp.ones((3, 40)), r))(jnp.array([[0.5], [2.0], [0.1]])))
    np.testing.assert_array_equal(np.isnan(y).all(1), [False, True, False])
    np.testing.assert_array_equal(np.isnan(y).any(1), [False, True, False])


def test_nothing_is_drawn_where_nothing_is_random():
    x = jnp.ones(3)
    for rate, deterministic in ((0.5, True), (0, False), (0.0, True)):
        np.testing.assert_array_equal(jdrop.dropout(None, x, rate, deterministic), x)
    np.testing.assert_array_equal(jdrop.dropout(None, x, 1), jnp.zeros(3))
    np.testing.assert_array_equal(jdrop.dropout(None, x, 0.25, True, scaling="classic"), x * jnp.float32(0.75))


def test_a_schedule_of_static_rates_compiles_a_few_programs_only():
    """Counted, since a program a rate would make an eager loop over rates unusable."""
    from jdrop.masks._drop import dropped

    x, before = jnp.ones((2, 41)), dropped._cache_size()  # of a shape that no other test has
    for rate in np.linspace(0, 1, 33):
        jdrop.dropout(key(), x, float(rate))
    assert 1 <= dropped._cache_size() - before <= 3


def test_without_jit_and_with_strict_ranks():
    x, rates = array((3, 70)), jnp.linspace(0, 1, 70)
    wanted = [jdrop.dropout(key(8), x, rate) for rate in (0.3, rates)]
    with jax.disable_jit():
        np.testing.assert_array_equal(jdrop.dropout(key(8), x, 0.3), wanted[0])
        np.testing.assert_array_equal(jdrop.dropout(key(8), x, rates), wanted[1])
    with jax.numpy_rank_promotion("raise"):
        np.testing.assert_array_equal(jdrop.dropout(key(8), x, rates), wanted[1])


def test_a_single_precision_rate_scales_double_precision_exactly():
    with jax.enable_x64(True):
        y = np.asarray(jdrop.dropout(key(), jnp.ones(100, jnp.float64), np.float32(0.1)))
        assert y.max() == 2**32 / (2**32 - 429496736)


def test_rates_next_to_one_keep_a_finite_scale():
    for rate in (np.float64(1 - 2**-26), np.float32(1 - 2**-24)):
        y = np.asarray(jdrop.dropout(key(), jnp.ones(4096), rate))
        assert np.isfinite(y).all()
    with jax.enable_x64(True):
        rate = np.float64(1 - 2**-30)  # a threshold that float32 would round to 2**32
        gradient = jax.grad(lambda x: jdrop.dropout(key(), x, rate).sum())(jnp.ones(4096, jnp.float32))
        assert np.isfinite(np.asarray(gradient)).all()

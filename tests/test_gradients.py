"""`dropout` differentiates every way a linear map does, and keeps what it was told to keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RATES, SAVES, SCALINGS, array, key
from tiers import some

import jdrop

CASES = [(save, scaling, rate) for save in SAVES for scaling in SCALINGS for rate in (0.3, 1.0)]


def linear(rate, scaling, save, n=70):
    """Dropout as the diagonal of the linear map that it is, from its values alone."""
    return np.asarray(jdrop.dropout(key(1), jnp.ones(n), rate, scaling=scaling, save=save))


@some(("save", "scaling", "rate"), CASES, 0, 7)
def test_first_derivatives(save, scaling, rate):
    diagonal = linear(rate, scaling, save)
    x, v = array((70,)), array((70,), seed=5)
    for given in (rate, jnp.float32(rate)):

        def f(x, rate=given):
            return jdrop.dropout(key(1), x, rate, scaling=scaling, save=save)

        np.testing.assert_array_equal(jax.vjp(f, x)[1](v)[0], diagonal * v)
        np.testing.assert_array_equal(jax.jvp(f, (x,), (v,))[1], diagonal * v)
        np.testing.assert_array_equal(jax.linearize(f, x)[1](v), diagonal * v)
        np.testing.assert_array_equal(jax.jit(jax.grad(lambda x: (f(x) * v).sum()))(x), diagonal * v)
        np.testing.assert_array_equal(jax.jacfwd(f)(x), np.diag(diagonal))
        np.testing.assert_array_equal(jax.jacrev(f)(x), np.diag(diagonal))


@pytest.mark.slow
@pytest.mark.parametrize("save", SAVES)
def test_second_derivatives(save):
    diagonal = linear(0.3, "inverted", save, 9)
    x = array((9,))

    def energy(x):
        return (jdrop.dropout(key(1), x, 0.3, save=save) ** 3).sum()

    np.testing.assert_allclose(jax.hessian(energy)(x), np.diag(6 * diagonal**3 * x), rtol=1e-6)
    np.testing.assert_allclose(jax.jacrev(jax.jacrev(energy))(x), np.diag(6 * diagonal**3 * x), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("save", SAVES)
def test_vmap_of_grad_and_grad_of_vmap(save):
    keys, x = jax.random.split(key(2), 5), array((5, 40))

    def loss(k, x):
        return (jdrop.dropout(k, x, 0.4, save=save) ** 2).sum()

    each = jnp.stack([jax.grad(loss, 1)(k, row) for k, row in zip(keys, x)])
    np.testing.assert_allclose(jax.vmap(jax.grad(loss, 1))(keys, x), each, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda x: jax.vmap(loss)(keys, x).sum())(x), each, rtol=1e-6)


@some("save", SAVES, 0)
def test_scan_and_remat_draw_the_forward_mask_again(save):
    """A chain of dropouts has gradient = the product of its masks; another mask on the way back would show."""
    keys, x = jax.random.split(key(3), 6), array((300,))

    def chain(x, wrap):
        body = wrap(lambda x, k: (jdrop.dropout(k, x, 0.1, save=save), None))
        return jax.lax.scan(body, x, keys)[0]

    product = np.prod([np.asarray(jdrop.dropout(k, jnp.ones(300), 0.1)) for k in keys], axis=0)
    for wrap in (lambda f: f, jax.checkpoint, lambda f: jax.checkpoint(f, prevent_cse=False)):
        gradient = jax.jit(jax.grad(lambda x, wrap=wrap: chain(x, wrap).sum()))(x)
        np.testing.assert_allclose(gradient, product, rtol=1e-6)


def test_rates_get_no_gradient():
    gradient = jax.grad(lambda rate: jdrop.dropout(key(), jnp.ones(40), rate).sum())(0.3)
    assert float(gradient) == 0.0


def test_gradients_with_a_traced_flag():
    for flag, diagonal in ((True, np.ones(70)), (False, linear(0.3, "inverted", "key"))):
        gradient = jax.jit(jax.grad(lambda x, flag: jdrop.dropout(key(1), x, 0.3, flag).sum()))(jnp.ones(70), flag)
        np.testing.assert_array_equal(gradient, diagonal)


@pytest.mark.parametrize(("save", "bits"), [("key", 0), ("mask", 1)])
@pytest.mark.parametrize("rate", [0.1, "traced", "array"])
def test_what_the_backward_pass_keeps(save, bits, rate):
    """Bits an element, counted over all that the pullback holds."""
    x = jnp.ones((128, 256))
    rate = {"traced": jnp.float32(0.1), "array": jnp.full((128, 1), 0.1)}.get(rate, rate)
    for transform in (lambda f: f, jax.jit):
        pullback = jax.vjp(transform(lambda x: jdrop.dropout(key(), x, rate, save=save)), x)[1]
        kept = sum(leaf.size * 32 for leaf in jax.tree.leaves(pullback) if leaf.dtype != key().dtype)
        small = 32 * (jnp.size(rate) + 8)
        assert bits * x.size <= kept <= bits * x.size + 4 * small


@some("rate", RATES, 0, 3, 6)
def test_gradients_are_finite_on_the_closed_interval(rate):
    for given in (rate, jnp.float32(rate), jnp.full((3, 1), rate)):
        gradient = np.asarray(jax.grad(lambda x, r=given: jdrop.dropout(key(), x, r).sum())(jnp.ones((3, 50))))
        assert np.isfinite(gradient).all()
        if rate == 1:
            assert not gradient.any()

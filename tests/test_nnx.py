"""`jdrop.nnx.Dropout` does what Flax's own does, under Flax's transformations."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import nnx

import jdrop

X = jnp.ones((4, 200))


def test_the_arguments_are_flax_s_and_more():
    for name in ("__init__", "__call__"):
        own = inspect.signature(getattr(jdrop.nnx.Dropout, name)).parameters
        flax = inspect.signature(getattr(nnx.Dropout, name)).parameters
        assert {n: (own[n].default, own[n].kind) for n in flax} == {n: (p.default, p.kind) for n, p in flax.items()}


def test_it_is_the_function_with_the_stream_s_key():
    layer = jdrop.nnx.Dropout(0.4, broadcast_dims=(1,), scaling="none", save="mask", rngs=nnx.Rngs(dropout=0))
    stream = nnx.Rngs(dropout=0).dropout.fork()
    x = array((6, 50))
    for _ in range(2):
        wanted = jdrop.dropout(stream(), x, 0.4, broadcast_dims=(1,), scaling="none")
        np.testing.assert_array_equal(layer(x), wanted)


def test_where_a_key_comes_from():
    layer = jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(X, rngs=key(7)), jdrop.dropout(key(7), X, 0.5))
    np.testing.assert_array_equal(layer(X, rngs=nnx.Rngs(dropout=3)), layer(X, rngs=nnx.Rngs(dropout=3).dropout))
    np.testing.assert_array_equal(layer(X, rngs=nnx.Rngs(3)), layer(X, rngs=nnx.Rngs(default=3)))
    with pytest.raises(TypeError, match="rngs must be"):
        jdrop.nnx.Dropout(0.5, rngs=3)
    with pytest.raises(TypeError, match="rngs must be"):
        layer(X, rngs=3)


def test_a_missing_stream_raises_and_is_named():
    message = r"random stream 'dropout'.*only \['params'\] and no default: write nnx.Rngs\(dropout=0\)"
    with pytest.raises(ValueError, match=message):
        jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(params=0))
    with pytest.raises(ValueError, match=message):
        jdrop.nnx.Dropout(0.5)(X, rngs=nnx.Rngs(params=0))


def test_train_eval_and_the_call_s_own_flag():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([jdrop.nnx.Dropout(0.5, rngs=rngs), nnx.Linear(200, 3, rngs=rngs)])

        def __call__(self, x, **kwargs):
            return self.layers[0](x, **kwargs)

    net = Net(nnx.Rngs(0))
    net.eval()
    np.testing.assert_array_equal(net(X), X)
    assert (net(X, deterministic=False) == 0).any()
    net.train()
    assert (net(X) == 0).any()
    np.testing.assert_array_equal(net(X, deterministic=True), X)


def test_a_rate_at_the_call_static_or_traced():
    a, b = (jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0)) for _ in range(2))
    np.testing.assert_array_equal(a(X, rate=0.2), nnx.jit(lambda m, rate: m(X, rate=rate))(b, 0.2))


def test_split_rngs_scan_and_vmap():
    layer = jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    @nnx.split_rngs(splits=4)
    @nnx.vmap(in_axes=(nnx.StateAxes({nnx.RngState: 0, ...: None}), 0))
    def rows(layer, x):
        return layer(x)

    masks = np.asarray(rows(layer, X))
    assert all((masks[i] != masks[j]).any() for i in range(4) for j in range(i))

    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def steps(layer, x):
        return layer, layer(x)

    _, masks = steps(layer, X)
    assert all((masks[i] != masks[j]).any() for i in range(4) for j in range(i))


def test_remat_and_grad():
    def gradient(wrap):
        layer = jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0))
        return nnx.grad(lambda m, x: (wrap(lambda m, x: m(x))(m, x) ** 2).sum(), argnums=1)(layer, X)

    np.testing.assert_array_equal(gradient(nnx.remat), gradient(lambda f: f))


def test_a_clone_keeps_the_stream():
    layer = jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    copies = [nnx.clone(layer), nnx.merge(*nnx.split(nnx.clone(layer)))]
    wanted = layer(X)
    for copy in copies:
        np.testing.assert_array_equal(copy(X), wanted)


# Flax's own tests of its layer (tests/nnx/nn/stochastic_test.py), retold.


def test_flax_internal_rngs():
    traces = []
    own = jdrop.nnx.Dropout(rate=0.5, deterministic=False, rngs=nnx.Rngs(dropout=0))
    bare = jdrop.nnx.Dropout(rate=0.5, deterministic=False)
    rngs = nnx.Rngs(dropout=0).fork()

    @nnx.jit
    def f(m, x, rngs=None):
        traces.append(0)
        return m(x, rngs=rngs)

    for count in (1, 2):
        a, b = f(own, X), f(bare, X, rngs=rngs)
        assert own.rngs.count[...] == rngs.dropout.count[...] == count
        np.testing.assert_array_equal(a, b)
    assert len(traces) == 2


def test_flax_argument_override():
    layer = jdrop.nnx.Dropout(rate=0.5, deterministic=False)
    layer(X, deterministic=True)
    layer.set_attributes(deterministic=True)
    assert (layer(X) != layer(X, deterministic=False, rngs=nnx.Rngs(dropout=0))).any()
    layer.set_attributes(deterministic=False)
    message = "`deterministic` is False, but no `rngs` argument was provided to Dropout"
    with pytest.raises(ValueError, match=message):
        layer(X)
    with pytest.raises(ValueError, match=message):
        nnx.view(layer, deterministic=False)(X)
    np.testing.assert_array_equal(nnx.view(layer, deterministic=True)(X), X)
    with pytest.raises(ValueError, match="No `deterministic` argument was provided to Dropout"):
        jdrop.nnx.Dropout(0.5, deterministic=None)(X)

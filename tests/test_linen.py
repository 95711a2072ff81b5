"""`jdrop.linen.Dropout` does what Flax's own does, under Flax's transformations."""

import inspect
import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import errors

import jdrop

RNGS = {"dropout": key(1)}


def test_the_arguments_are_flax_s_and_more():
    for ours, theirs in (
        (jdrop.linen.Dropout, nn.Dropout),
        (jdrop.linen.Dropout.__call__, nn.Dropout.__call__),
    ):
        own, flax = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        positional = [name for name in flax if name not in ("parent", "name")]
        assert list(own)[: len(positional)] == positional
        assert {name: own[name].default for name in flax} == {name: p.default for name, p in flax.items()}


def test_it_is_the_function_with_the_stream_s_key():
    class Keys(nn.Module):
        @nn.compact
        def __call__(self, x):
            return jdrop.linen.Dropout(0.4, (1,), False, scaling="none", save="mask")(x, rng=key(5))

    x = array((6, 50))
    wanted = jdrop.dropout(key(5), x, 0.4, broadcast_dims=(1,), scaling="none")
    np.testing.assert_array_equal(Keys().apply({}, x), wanted)


def test_the_stream_s_key_is_flax_s():
    """Flax's layer with the same key drops by its own mask, but both draw from the same key: the module's."""
    seen = []

    class Spy(nn.Module):
        @nn.compact
        def __call__(self, x):
            seen.append(self.make_rng("dropout"))
            return x

    class Net(nn.Module):
        layer: nn.Module

        @nn.compact
        def __call__(self, x):
            return self.layer(x)

    x = jnp.ones((4, 64))
    Net(Spy(name="it")).apply({}, x, rngs=RNGS)
    y = Net(jdrop.linen.Dropout(0.5, deterministic=False, name="it")).apply({}, x, rngs=RNGS)
    np.testing.assert_array_equal(y, jdrop.dropout(seen[0], x, 0.5))


@pytest.mark.parametrize("rng_collection", ["dropout", "noise"])
def test_a_missing_stream_raises_and_is_named(rng_collection):
    layer = jdrop.linen.Dropout(0.5, deterministic=False, rng_collection=rng_collection)
    message = rf"random stream '{rng_collection}'.*rngs=\{{'{rng_collection}': key\}}"
    for error in (ValueError, errors.InvalidRngError, jdrop.linen.MissingStreamError):
        with pytest.raises(error, match=message):
            layer.apply({}, jnp.ones(3), rngs={"params": key()})


def test_one_key_is_enough_for_init_as_in_flax_and_moves_no_parameter():
    class Net(nn.Module):
        layer: type

        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(self.layer(0.5, deterministic=False)(nn.Dense(4)(x)))

    ours, theirs = (Net(layer).init(key(), jnp.ones((2, 3))) for layer in (jdrop.linen.Dropout, nn.Dropout))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert "Dropout_0" in Net(jdrop.linen.Dropout).tabulate(key(), jnp.ones((2, 3)))
    for wrapper in (jdrop.linen.RecurrentDropout, jdrop.linen.Zoneout):
        rnn = nn.RNN(wrapper(nn.GRUCell(4), 0.5, deterministic=False))
        found = rnn.init(key(), jnp.ones((2, 3, 4)))
        jax.tree.map(np.testing.assert_array_equal, found, nn.RNN(nn.GRUCell(4)).init(key(), jnp.ones((2, 3, 4))))
        with pytest.raises(jdrop.linen.MissingStreamError):
            rnn.apply(found, jnp.ones((2, 3, 4)), rngs={"params": key()})


def test_deterministic_is_given_once():
    with pytest.raises(ValueError, match='"deterministic" must be passed'):
        jdrop.linen.Dropout(0.5).apply({}, jnp.ones(3), rngs=RNGS)
    with pytest.raises(ValueError, match='"deterministic" was passed to the constructor and at call time'):
        jdrop.linen.Dropout(0.5, deterministic=True).apply({}, jnp.ones(3), True, rngs=RNGS)


def test_no_stream_is_needed_where_nothing_is_drawn():
    x = jnp.ones(3)
    np.testing.assert_array_equal(jdrop.linen.Dropout(0.5).apply({}, x, True), x)
    np.testing.assert_array_equal(jdrop.linen.Dropout(0.0).apply({}, x, False), x)
    np.testing.assert_array_equal(jdrop.linen.Dropout(1.0).apply({}, x, False), 0 * x)


def test_a_rate_at_the_call_static_or_traced():
    layer, x = jdrop.linen.Dropout(0.5, deterministic=False), jnp.ones((40, 40))
    static = layer.apply({}, x, rate=0.2, rngs=RNGS)
    traced = jax.jit(lambda rate: layer.apply({}, x, rate=rate, rngs=RNGS))(0.2)
    np.testing.assert_array_equal(static, traced)
    np.testing.assert_array_equal(static, jdrop.linen.Dropout(0.2, deterministic=False).apply({}, x, rngs=RNGS))


def test_a_traced_deterministic():
    layer, x = jdrop.linen.Dropout(0.5), jnp.ones((40, 40))
    call = jax.jit(lambda flag: layer.apply({}, x, flag, rngs=RNGS))
    np.testing.assert_array_equal(call(True), x)
    np.testing.assert_array_equal(call(False), layer.apply({}, x, False, rngs=RNGS))


@pytest.mark.parametrize("split", [True, False])
def test_scan_splits_or_shares_the_stream(split):
    class Body(nn.Module):
        @nn.compact
        def __call__(self, carry, _):
            return carry, jdrop.linen.Dropout(0.5, deterministic=False)(carry)

    scan = nn.scan(Body, variable_broadcast="params", split_rngs={"dropout": split}, length=3)
    _, masks = scan().apply({}, jnp.ones(200), None, rngs=RNGS)
    assert bool((masks[0] == masks[1]).all()) != split


@pytest.mark.parametrize("split", [True, False])
def test_vmap_splits_or_shares_the_stream(split):
    layer = nn.vmap(jdrop.linen.Dropout, variable_axes={}, split_rngs={"dropout": split})
    masks = layer(0.5, deterministic=False).apply({}, jnp.ones((3, 200)), rngs=RNGS)
    assert bool((masks[0] == masks[1]).all()) != split


def test_remat_draws_the_same_mask_again():
    class Net(nn.Module):
        remat: bool

        @nn.compact
        def __call__(self, x):
            layer = nn.remat(jdrop.linen.Dropout) if self.remat else jdrop.linen.Dropout
            return layer(0.5, deterministic=False, name="it")(x) ** 2

    def gradient(remat):
        return jax.grad(lambda x: Net(remat).apply({}, x, rngs=RNGS).sum())(jnp.ones(200))

    np.testing.assert_array_equal(gradient(True), gradient(False))


def test_layers_and_steps_have_masks_of_their_own():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            shared = jdrop.linen.Dropout(0.5, deterministic=False)
            return jnp.stack([shared(x), shared(x), jdrop.linen.Dropout(0.5, deterministic=False)(x)])

    masks = np.asarray(Net().apply({}, jnp.ones(200), rngs=RNGS))
    for i in range(3):
        for j in range(i):
            assert (masks[i] != masks[j]).any()


def test_modules_are_hashable_picklable_and_named_like_flax_s():
    layer = jdrop.linen.Dropout(0.5, deterministic=True)
    assert hash(layer) == hash(jdrop.linen.Dropout(0.5, deterministic=True))
    assert pickle.loads(pickle.dumps(layer)) == layer
    assert isinstance(layer, nn.Dropout)


# Flax's own tests of its layer (tests/linen/linen_test.py), retold.


def test_flax_rate_statistics():
    """Within 3 standard deviations of the keep rate, as Flax asks of fixed seeds."""
    for rate in np.arange(0.1, 1.0, 0.1):
        layer = jdrop.linen.Dropout(rate=rate)
        keys = jax.random.split(key(int(rate * 10)), 10)
        kept = sum(
            int((layer.apply({}, jnp.ones((100, 100)), deterministic=False, rngs={"dropout": k}) > 0).sum())
            for k in keys
        )
        assert abs(kept / 1e5 - (1 - rate)) < 3 * np.sqrt(rate * (1 - rate) / 1e5)


@pytest.mark.parametrize("axes", [(1,), (0,), (0, 1), (-1,), (3,), (0, 1, 2)])
def test_flax_broadcast(axes):
    x = jnp.ones((10,) * 4)
    y = jdrop.linen.Dropout(0.5, broadcast_dims=axes, deterministic=False).apply({}, x, rngs=RNGS)
    sums = np.asarray(y.sum(axis=tuple(a % 4 for a in axes)))
    assert set(np.unique(sums)) <= {0, 2 * 10 ** len(axes)}


def test_flax_manual_rng():
    class Foo(nn.Module):
        @nn.compact
        def __call__(self, x):
            k = self.make_rng("dropout")
            first = jdrop.linen.Dropout(rate=0.5, deterministic=False)(x, rng=k)
            return first, jdrop.linen.Dropout(rate=0.5, deterministic=False)(x, rng=jax.random.clone(k))

    first, second = Foo().apply({}, jnp.ones((20, 20)), rngs=RNGS)
    np.testing.assert_array_equal(first, second)

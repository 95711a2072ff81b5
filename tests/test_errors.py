"""Bad input raises when the call is traced, and the message says what came, what is allowed and what to write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import key

import jdrop

X = jnp.ones((4, 3))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), float("inf"), np.float32(2), jnp.array([0.5, -1.0, 0.1])])
@pytest.mark.parametrize("call", [jdrop.dropout, lambda k, x, r: jdrop.keep_mask(k, x.shape, r)])
def test_a_rate_outside_the_interval(call, rate):
    with pytest.raises(ValueError, match=r"rate is .*\[0, 1\].*write rate=0.5"):
        call(key(), X, rate)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        jax.jit(lambda x: call(key(), x, rate))(X)
    if call is jdrop.dropout:
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            call(None, X, rate, True)


@pytest.mark.parametrize(
    "rate", ["0.5", None, True, 0.5j, [0.5], jnp.array(True), object(), jnp.array(1j), np.str_("0.5")]
)
def test_a_rate_of_a_wrong_type(rate):
    with pytest.raises(TypeError, match=r"rate is .*a number in \[0, 1\]"):
        jdrop.dropout(key(), X, rate)


@pytest.mark.parametrize("x", [jnp.ones(3, jnp.int32), np.ones(3, bool), 1, True, jnp.ones(3, jnp.uint8)])
def test_integers_are_refused(x):
    with pytest.raises(TypeError, match=r"x has dtype .*floating-point or complex.*astype\(jnp.float32\)"):
        jdrop.dropout(key(), x, 0.5)


def test_a_type_without_a_zero_is_refused():
    with pytest.raises(TypeError, match="float8_e8m0fnu, which has no zero"):
        jdrop.dropout(key(), jnp.ones(3, jnp.float8_e8m0fnu), 0.5)


@pytest.mark.parametrize("x", [[1.0, 2.0], None, "x"])
def test_not_an_array(x):
    with pytest.raises(TypeError, match="x is a .*an array is needed"):
        jdrop.dropout(key(), x, 0.5)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (None, TypeError, r"key=None.*write key=jax.random.key\(0\)"),
        (0, TypeError, r"key is a int.*write key=jax.random.key\(0\)"),
        ("key", TypeError, "key is a str"),
        (jnp.ones(2), TypeError, "key is an array of float32"),
        (jnp.zeros(3, jnp.uint32), ValueError, r"shape \(3,\).*'threefry2x32' has shape \(2,\)"),
        (jax.random.split(jax.random.key(0), 3), ValueError, r"key has shape \(3,\).*jax.vmap"),
    ],
)
def test_a_wrong_key(bad, error, message):
    for call in (
        lambda: jdrop.dropout(bad, X, 0.5),
        lambda: jdrop.keep_mask(bad, (3,), 0.5),
        lambda: jdrop.fold_in(bad, "a"),
        lambda: jdrop.mc_dropout(lambda k, x: x, bad, X),
        lambda: jax.jit(lambda x: jdrop.dropout(bad, x, 0.5))(X),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize("flag", [None, 1, "yes", jnp.ones(2, bool), jnp.array(1), 0.0])
def test_a_wrong_flag(flag):
    with pytest.raises(TypeError, match="deterministic is .*one boolean is needed"):
        jdrop.dropout(key(), X, 0.5, flag)


def test_unknown_choices():
    with pytest.raises(ValueError, match="scaling is 'outverted', .*'inverted', 'classic', 'none'"):
        jdrop.dropout(key(), X, 0.5, scaling="outverted")
    with pytest.raises(ValueError, match="save is 'all', .*'key', 'mask'"):
        jdrop.dropout(key(), X, 0.5, save="all")


@pytest.mark.parametrize("axes", [(2,), (-3,), (0, 5)])
def test_an_axis_out_of_range(axes):
    with pytest.raises(ValueError, match=r"broadcast_dims has axis .*shape \(4, 3\) has axes -2 to 1"):
        jdrop.dropout(key(), X, 0.5, broadcast_dims=axes)


@pytest.mark.parametrize("axes", [1, ("a",), (0.5,), None])
def test_axes_of_a_wrong_type(axes):
    with pytest.raises(TypeError, match=r"broadcast_dims is .*write broadcast_dims=\(1,\)"):
        jdrop.dropout(key(), X, 0.5, broadcast_dims=axes)


@pytest.mark.parametrize("shape", [(2, 3), (5, 4, 3), (4,)])
def test_a_rate_that_does_not_fit(shape):
    with pytest.raises(ValueError, match=r"rate has shape .*does not broadcast to the shape \(4, 3\)"):
        jdrop.dropout(key(), X, jnp.full(shape, 0.5))


@pytest.mark.parametrize(("shape", "error"), [((2, -1), ValueError), ((2.5,), TypeError), ("ab", TypeError)])
def test_a_wrong_shape(shape, error):
    with pytest.raises(error, match=r"shape is .*write shape=\(128, 64\)"):
        jdrop.keep_mask(key(), shape, 0.5)


def test_the_arguments_in_pytorch_s_order_are_told_the_right_one():
    with pytest.raises(TypeError, match=r"write jdrop.dropout\(key, x, rate\), the arguments in this order"):
        jdrop.dropout(jnp.ones(3), 0.5, jax.random.key(0))

"""The GPU kernel is the XLA path, bit for bit, and differentiates, batches and lowers as it does."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import IMPLEMENTATIONS, RATES, SHAPES, array, key
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jdrop

ROWS = (2, 33, 64)
fused = functools.partial(jdrop.dropout, implementation="pallas")


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def masks_at_all_rates(root, shape):
    return jax.jit(jax.vmap(lambda rate: fused(root, jnp.ones(shape), rate) != 0))(jnp.array(RATES, jnp.float32))


CASES = [("threefry2x32", shape) for shape in SHAPES] + [
    (impl, shape) for impl in IMPLEMENTATIONS for shape in ((3, 40, 64), (5, 1025), (4100,))
]


@pytest.mark.parametrize(("impl", "shape"), CASES)
def test_masks_are_those_of_the_specification(impl, shape):
    root = key(7, impl)
    data = np.asarray(jax.random.key_data(root))
    for drawn, rate in zip(masks_at_all_rates(root, shape), RATES):
        np.testing.assert_array_equal(drawn, oracle.mask(impl, data, shape, rate))


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@pytest.mark.parametrize("rate", [1 / 3, 0.5, 1.0])
def test_static_rates_are_the_same(impl, rate):
    x = array((3, 64))
    same_bits(fused(key(3, impl), x, rate), jdrop.dropout(key(3, impl), x, rate))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("scaling", ["inverted", "classic"])
def test_values_are_rounded_to_the_same_bits(dtype, scaling):
    bits = jax.random.bits(key(), (8, 4096), f"uint{8 * dtype(0).dtype.itemsize}")
    x = jax.lax.bitcast_convert_type(bits, dtype)  # every kind of number
    x = jnp.where(jnp.isnan(x), -jnp.inf, x)  # a NaN's payload is nobody's promise
    run = lambda f: f(key(), x, jnp.float32(0.1), scaling=scaling)
    same_bits(run(fused), run(jdrop.dropout))


def test_double_precision_is_the_same():
    with jax.enable_x64(True):
        x = jax.random.normal(key(), (3, 70))
        assert x.dtype == jnp.float64
        same_bits(fused(key(1, "philox4x32"), x, 1 / 3), jdrop.dropout(key(1, "philox4x32"), x, 1 / 3))


def test_a_nan_in_a_dropped_slot_leaks_nowhere():
    kept = jdrop.keep_mask(key(), ROWS, 0.5)
    x = jnp.where(kept, 1.0, jnp.nan)
    y, pull = jax.vjp(lambda x: fused(key(), x, 0.5), x)
    (gradient,) = pull(x)
    for drawn in (y, gradient):
        np.testing.assert_array_equal(drawn, 2.0 * kept)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_traced_rate_out_of_range_shows_as_nan(rate):
    assert np.isnan(jax.jit(lambda rate: fused(key(), jnp.ones((3, 64)), rate))(rate)).all()


def test_a_traced_flag_decides():
    run = jax.jit(lambda x, flag: fused(key(), x, 0.5, flag))
    x = array((3, 64))
    same_bits(run(x, True), x)
    same_bits(run(x, False), jdrop.dropout(key(), x, 0.5))


def test_differentiated_every_way_it_is_the_xla_path():
    x, t = array((2, 64)), array((2, 64), seed=5)
    loss = lambda drop, x: jnp.sum(jnp.tanh(drop(key(), jnp.sin(x), 0.3)))
    ways = (
        lambda f: jax.grad(f)(x),
        lambda f: jax.jvp(f, (x,), (t,))[1],
        lambda f: jax.jvp(jax.grad(f), (x,), (t,))[1],  # a row of the Hessian
        lambda f: jax.grad(lambda x: jnp.vdot(jax.grad(f)(x), t))(x),
        lambda f: jax.grad(jax.checkpoint(f))(x),
        lambda f: jax.vmap(jax.grad(f))(jnp.stack([x, t])),
        lambda f: jax.grad(lambda xs: jax.vmap(f)(xs).sum())(jnp.stack([x, t])),
        lambda f: jax.grad(lambda x: jax.lax.scan(lambda c, k: (c + f(x * k), None), 0.0, jnp.arange(1.0, 3.0))[0])(x),
    )
    for way in ways:
        got, want = (way(functools.partial(loss, drop)) for drop in (fused, jdrop.dropout))
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_it_is_linear_and_its_own_transpose():
    x, t = array(ROWS), array(ROWS, seed=5)
    f = jax.jit(lambda x: fused(key(), x, 0.3))
    y, push = jax.linearize(f, x)
    same_bits(y, jdrop.dropout(key(), x, 0.3))
    same_bits(push(t), jdrop.dropout(key(), t, 0.3))
    same_bits(jax.linear_transpose(f, x)(t)[0], jdrop.dropout(key(), t, 0.3))


def test_the_rate_gets_no_gradient():
    assert jax.grad(lambda rate: fused(key(), jnp.ones((64,)), rate).sum())(0.3) == 0


def test_the_backward_pass_keeps_nothing_of_the_size_of_x():
    x = jnp.ones((64, 64))
    _, pull = jax.vjp(lambda x: fused(key(), x, 0.3), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) < 64


@pytest.mark.parametrize("axes", [(0, None, None), (None, 1, None), (0, 2, None), (0, 0, 0)])
def test_a_batch_is_each_draw(axes):
    keys, xs = jax.random.split(key(), 3), array((3, 3, 3))
    rates = jnp.array([0.0, 0.5, 0.9])
    arguments = [a if axis is not None else a[0] for a, axis in zip((keys, xs, rates), axes)]
    run = lambda drop: jax.jit(jax.vmap(drop, axes))(*arguments)
    same_bits(run(fused), run(jdrop.dropout))


def test_a_batch_of_batches_is_each_draw():
    keys, xs = jax.random.split(key(), 2), array((4, 70))
    run = lambda drop: jax.vmap(jax.vmap(drop, (None, 0, None)), (0, None, None))(keys, xs, 0.3)
    same_bits(run(fused), run(jdrop.dropout))


def test_a_sharded_array_gives_the_same_bits():
    x = array((8, 64))
    sharded = jax.device_put(x, NamedSharding(jax.make_mesh((8,), ("d",)), P("d")))
    same_bits(jax.jit(lambda x: fused(key(), x, 0.3))(sharded), jdrop.dropout(key(), x, 0.3))


def test_what_the_kernel_does_not_serve_is_left_to_xla():
    x = array((4, 64))
    others = (
        dict(x=x.astype(jnp.complex64)),
        dict(x=x.astype(jnp.float8_e4m3fn)),
        dict(broadcast_dims=(0,)),
        dict(save="mask"),
        dict(key=key(0, "rbg")),
        dict(rate=jnp.linspace(0, 1, 64)),
    )
    for other in others:
        arguments = dict(key=key(), x=x, rate=0.3) | other
        assert "triton" not in lowered_for_cuda(lambda: fused(**arguments)), other
        same_bits(fused(**arguments), jdrop.dropout(**arguments))


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="implementation is 'cuda', but it must be one of None, 'xla', 'pallas'"):
        jdrop.dropout(key(), jnp.ones(3), 0.5, implementation="cuda")


def lowered_for_cuda(f):
    """What the GPU compiler is given, of which JAX 0.11 and later ask for which GPU."""
    target = contextlib.nullcontext()
    if hasattr(jax.sharding, "AbstractDevice"):
        h100 = jax.sharding.AbstractDevice("NVIDIA H100", None, platform="cuda")
        target = jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=h100))
    with target:
        return jax.jit(f).trace().lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_forward_and_backward_lower_to_one_gpu_kernel_each(impl):
    """Nor is a mask, or anything else of the size of x, computed outside of them."""
    x = jnp.ones((256, 64), jnp.bfloat16)
    both = lambda: jax.vjp(lambda x: fused(key(0, impl), x, 0.3), x)[1](x)
    text = lowered_for_cuda(both)
    assert text.count("xla.gpu.triton") == 1
    assert "256x64xi" not in text
    assert "256x64xf32" not in text
    assert lowered_for_cuda(lambda: (fused(key(0, impl), x, 0.3), both())).count("xla.gpu.triton") == 2


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("shape", [(), (5, 1025), (3, 40, 64)])
def test_every_shape_and_type_lowers(shape):
    for dtype in (jnp.float16, jnp.float32):
        assert "xla.gpu.triton" in lowered_for_cuda(lambda: fused(key(), jnp.ones(shape, dtype), 0.3))

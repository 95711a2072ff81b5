"""The GPU kernel is the XLA path, bit for bit, and differentiates, batches and lowers as it does."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import IMPLEMENTATIONS, RATES, array, key
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jdrop

ROWS = (2, 33, 64)
fused = functools.partial(jdrop.dropout, implementation="pallas")


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def expected(root, x, rate):
    """Dropout at a rate whose scale is exact, by NumPy alone."""
    kept = oracle.mask(str(jax.random.key_impl(root)), np.asarray(jax.random.key_data(root)), x.shape, rate)
    return np.where(kept, np.asarray(x) / (1 - np.float32(rate)), np.float32(0)) if rate < 1 else np.zeros_like(x)


# Rows that fill their words and rows that do not, in one tile of 128 positions and in more.
CASES = [("threefry2x32", shape) for shape in ((), (33,), (4, 64), (2, 3, 100), (70, 64), (5, 1025))] + [
    (impl, (5, 1025)) for impl in IMPLEMENTATIONS[1:]
]


@pytest.mark.parametrize(("impl", "shape"), CASES)
def test_masks_are_those_of_the_specification(impl, shape):
    root = key(7, impl)
    data = np.asarray(jax.random.key_data(root))
    draw = jax.jit(lambda rate: fused(root, jnp.ones(shape), rate) != 0)
    for drawn, rate in zip(map(draw, RATES), RATES):
        np.testing.assert_array_equal(drawn, oracle.mask(impl, data, shape, rate))


@pytest.mark.parametrize(("impl", "rate"), [*((impl, 15 / 16) for impl in IMPLEMENTATIONS), (IMPLEMENTATIONS[0], 1.0)])
def test_static_rates_are_the_same(impl, rate):
    x = array((3, 64))
    same_bits(fused(key(3, impl), x, rate), expected(key(3, impl), x, rate))


@pytest.mark.parametrize(
    ("dtype", "scaling"),
    [*((dtype, "inverted") for dtype in (jnp.float16, jnp.bfloat16, jnp.float32)), (jnp.bfloat16, "classic")],
)
def test_values_are_rounded_to_the_same_bits(dtype, scaling):
    bits = jax.random.bits(key(), (8, 4096), f"uint{8 * dtype(0).dtype.itemsize}")
    x = jax.lax.bitcast_convert_type(bits, dtype)  # every kind of number
    # But a NaN, whose payload is nobody's promise, and what XLA's CPU flushes to zero, where it does multiply.
    x = jnp.where(jnp.isnan(x), -jnp.inf, jnp.where(jnp.abs(x) < jnp.finfo(dtype).tiny, 0, x))
    run = lambda f: f(key(), x, jnp.float32(0.1), scaling=scaling)
    same_bits(run(fused), run(jdrop.dropout))


def test_double_precision_is_the_same():
    with jax.enable_x64(True):
        x = jax.random.normal(key(), (3, 70))
        assert x.dtype == jnp.float64
        same_bits(fused(key(), x, 1 / 3), jdrop.dropout(key(), x, 1 / 3))


def test_a_nan_in_a_dropped_slot_leaks_nowhere():
    twice = expected(key(), np.ones(ROWS, np.float32), 0.5)
    x = jnp.where(twice == 2, 1.0, jnp.nan)
    y, pull = jax.vjp(lambda x: fused(key(), x, 0.5), x)
    for drawn in (y, *pull(x)):
        same_bits(drawn, twice)


def test_a_traced_rate_out_of_range_shows_as_nan():
    run = jax.jit(lambda rate: fused(key(), jnp.ones((3, 64)), rate))
    for rate in (-0.1, 1.1, float("nan")):
        assert np.isnan(run(rate)).all()


def test_a_traced_flag_decides():
    run = jax.jit(lambda x, flag: fused(key(), x, 0.5, flag))
    x = array((3, 64))
    same_bits(run(x, True), x)
    same_bits(run(x, False), expected(key(), x, 0.5))


WAYS = {
    "gradient": lambda f, x, t: jax.grad(f)(x),
    "reverse over reverse": lambda f, x, t: jax.grad(lambda x: jnp.vdot(jax.grad(f)(x), t))(x),
    "Hessian": lambda f, x, t: jax.hessian(lambda y: f(x.at[0, :4].set(y)))(x[0, :4]),
    "rematerialised": lambda f, x, t: jax.grad(jax.checkpoint(f))(x),
    "batch of gradients": lambda f, x, t: jax.vmap(jax.grad(f))(jnp.stack([x, t])),
    "gradient of a batch": lambda f, x, t: jax.grad(lambda xs: jax.vmap(f)(xs).sum())(jnp.stack([x, t])),
    "scan": lambda f, x, t: jax.grad(lambda x: jax.lax.scan(lambda c, y: (c + f(x * y), None), 0.0, t)[0])(x),
}


@pytest.mark.parametrize("way", WAYS)
def test_differentiated_every_way_it_is_a_product_with_the_mask(way):
    x, t = array((2, 64)), array((2, 64), seed=5)
    scale = expected(key(), np.ones(x.shape, np.float32), 0.5)
    got, want = (
        jax.jit(lambda x, t: WAYS[way](lambda x: jnp.sum(jnp.tanh(drop(jnp.sin(x)))), x, t))(x, t)
        for drop in (lambda x: fused(key(), x, 0.5), lambda x: x * scale)
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_it_is_linear_and_its_own_transpose():
    x, t = array(ROWS), array(ROWS, seed=5)
    f = lambda x: fused(key(), x, 0.5)
    y, tangent = jax.jit(lambda x, t: jax.jvp(f, (x,), (t,)))(x, t)
    for drawn, of in ((y, x), (tangent, t), (jax.jit(jax.linear_transpose(f, x))(t)[0], t)):
        same_bits(drawn, expected(key(), of, 0.5))


def test_the_backward_pass_keeps_nothing_of_the_size_of_x():
    x = jnp.ones((64, 64))
    _, pull = jax.vjp(lambda x: fused(key(), x, 0.3), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) < 64


@pytest.mark.parametrize("axes", [(0, None, None), (None, 1, None), (0, 2, 0)])
def test_a_batch_is_each_draw(axes):
    keys, xs, rates = jax.random.split(key(), 3), np.asarray(array((3, 3, 3))), np.array([0, 0.5, 0.75], np.float32)
    arguments = [a if axis is not None else a[1] for a, axis in zip((keys, xs, rates), axes)]
    together = jax.jit(jax.vmap(fused, axes))(*arguments)
    for i in range(3):
        same_bits(together[i], expected(*(a if b is None else a.take(i, b) for a, b in zip(arguments, axes))))


def test_a_batch_of_batches_is_each_draw():
    keys, xs = jax.random.split(key(), 2), np.asarray(array((3, 70)))
    together = jax.jit(jax.vmap(jax.vmap(fused, (None, 0, None)), (0, None, None)), static_argnums=2)(keys, xs, 0.5)
    same_bits(together, np.stack([[expected(k, x, 0.5) for x in xs] for k in keys]))


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_sharded_array_gives_the_same_bits(kind):
    x = array((8, 64))
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    drawn = jax.jit(lambda x: fused(key(), x, 0.5))(jax.device_put(x, NamedSharding(mesh, P("d"))))
    same_bits(drawn, expected(key(), x, 0.5))


@pytest.mark.parametrize("partition", [P("d"), P()])
def test_in_shard_map_each_device_runs_its_own_kernel(partition):
    """Also on an x that all devices share: only the key differs."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    keys, x = jax.random.split(key(), 8), array((8 if partition else 1, 64))
    local = lambda keys, x: fused(keys[0], x, 0.5)
    each = jax.shard_map(local, mesh=mesh, in_specs=(P("d"), partition), out_specs=P("d"))
    gradient = jax.jit(jax.grad(lambda x: each(keys, x).sum()))(x)
    want = np.concatenate([expected(k, row[None], 0.5) for k, row in zip(keys, np.broadcast_to(x, (8, 64)))])
    same_bits(jax.jit(each)(keys, x), want)
    np.testing.assert_allclose(jnp.sum(gradient * x), want.sum(), rtol=1e-4)


def test_what_the_kernel_does_not_serve_is_left_to_xla():
    x = array((4, 64))
    others = (
        {"x": x.astype(jnp.complex64)},
        {"x": x.astype(jnp.float8_e4m3fn)},
        {"x": jnp.ones((0, 64))},
        {"broadcast_dims": (0,)},
        {"save": "mask"},
        {"key": key(0, "rbg")},
        {"rate": jnp.linspace(0, 1, 64)},
    )
    for other in others:
        arguments = {"key": key(), "x": x, "rate": 0.3} | other
        text, of_xla = (lowered_for_cuda(lambda: drop(**arguments)) for drop in (fused, jdrop.dropout))
        assert text == of_xla, other


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

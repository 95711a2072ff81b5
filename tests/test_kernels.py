"""The kernels are the XLA path, bit for bit, and differentiate, batch, shard and lower as it does.

On a CPU they are interpreted: "pallas" is the GPU's there, "pallas_tpu" the TPU's.
"""

import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import IMPLEMENTATIONS, RATES, array, key
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from lowering import lowered
from tiers import some

import jdrop
from jdrop.masks import _gpu as gpu
from jdrop.masks import _primitives as primitives
from jdrop.masks import _tpu as tpu
from jdrop.masks._mask import Spec
from jdrop.masks._rate import as_rate, threshold

ROWS = (2, 33, 64)


@pytest.fixture(params=["pallas", "pallas_tpu"])
def fused(request):
    return functools.partial(jdrop.dropout, implementation=request.param)


def same_bits(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))


def expected(root, x, rate):
    """Dropout at a rate whose scale is exact, by NumPy alone."""
    kept = oracle.mask(str(jax.random.key_impl(root)), np.asarray(jax.random.key_data(root)), x.shape, rate)
    return np.where(kept, np.asarray(x) / (1 - np.float32(rate)), np.float32(0)) if rate < 1 else np.zeros_like(x)


# Words of one plane and of several, at the edge of a tile and beyond; of few rows, which the TPU's leaves to XLA.
GPU = [("threefry2x32", shape) for shape in ((), (33,), (4, 64), (2, 3, 100), (70, 64), (5, 1025), (300, 17))]
GPU += [(impl, (5, 1025)) for impl in IMPLEMENTATIONS[1:]]
TPU = [
    *((64, 64), (217, 17), (40, 1100), (1000, 600)),  # one plane: of whole words and not; more than a tile
    *((2, 64, 33), (3, 3, 32, 8)),  # planes that fill their words, several to a tile
    *((3, 7, 7, 40),),  # planes that share words, as many to a tile as fill them
    *((3, 197, 20), (300, 1, 4)),  # planes that start at any lane
    *((8, 197, 20), (4, 300, 130)),  # whose first axis is sublanes
    *((8, 5000), (1, 4096), (32768,)),  # few rows, and a vector
]
CASES = [("pallas", *case) for case in GPU] + [("pallas_tpu", "threefry2x32", shape) for shape in TPU]
CASES += [("pallas_tpu", "threefry4x32", (3, 197, 20))]


@some(("implementation", "impl", "shape"), CASES, 3, 16)
def test_masks_are_those_of_the_specification(implementation, impl, shape):
    root = key(7, impl)
    data = np.asarray(jax.random.key_data(root))
    draw = jax.jit(lambda rate: jdrop.dropout(root, jnp.ones(shape), rate, implementation=implementation) != 0)
    for rate in RATES if implementation == "pallas" else (0.1, 1.0):
        np.testing.assert_array_equal(draw(rate), oracle.mask(impl, data, shape, rate))


# A shape, and into how many parts its axes are split.
PARTS = [
    ((64, 128), (2, 2)),
    ((600, 40), (3, 1)),
    ((300, 130), (10, 1)),
    ((4, 64, 33), (2, 2, 3)),
    ((2, 3, 197, 20), (2, 1, 1, 2)),
    ((2, 2, 600, 4), (1, 1, 2, 1)),
    ((16, 7, 7, 4), (2, 7, 1, 1)),
    ((16, 6, 7, 40), (2, 3, 1, 2)),
    ((8, 300, 6), (1, 4, 1)),
]


@pytest.mark.parametrize("kernel", [gpu, tpu])
@some(("shape", "parts"), PARTS, 3)
def test_a_shard_is_that_of_the_whole_mask(kernel, shape, parts):
    data = jax.random.key_data(key(7))
    whole = oracle.mask("threefry2x32", np.asarray(data), shape, 0.3)
    sizes = tuple(n // p for n, p in zip(shape, parts))
    draw = jax.jit(functools.partial(kernel.drop, Spec("threefry2x32", shape, 32), interpret=True))
    rate = np.array([threshold(as_rate(0.3)).low, 0, np.float32(2).view(np.uint32)])
    for place in ([0] * len(parts), [p - 1 for p in parts]):
        origin = np.array(place) * sizes
        drawn = draw(data[None], jnp.asarray(np.r_[rate, origin][None], jnp.uint32), jnp.ones((1, *sizes)))
        here = tuple(slice(start, start + size) for start, size in zip(origin, sizes))
        np.testing.assert_array_equal(drawn[0], 2.0 * whole[here])


@pytest.mark.slow
@pytest.mark.parametrize(("impl", "rate"), [*((impl, 15 / 16) for impl in IMPLEMENTATIONS), (IMPLEMENTATIONS[0], 1.0)])
def test_static_rates_are_the_same(fused, impl, rate):
    x = array((32, 64))
    same_bits(fused(key(3, impl), x, rate), expected(key(3, impl), x, rate))


@some(
    ("dtype", "scaling"),
    [*((dtype, "inverted") for dtype in (jnp.float16, jnp.bfloat16, jnp.float32)), (jnp.bfloat16, "classic")],
    1,
)
def test_values_are_rounded_to_the_same_bits(fused, dtype, scaling):
    bits = jax.random.bits(key(), (32, 1024), f"uint{8 * dtype(0).dtype.itemsize}")
    x = jax.lax.bitcast_convert_type(bits, dtype)  # every kind of number
    # But a NaN, whose payload is nobody's promise, and what XLA's CPU flushes to zero, where it does multiply.
    x = jnp.where(jnp.isnan(x), -jnp.inf, jnp.where(jnp.abs(x) < jnp.finfo(dtype).tiny, 0, x))
    run = lambda f: f(key(), x, jnp.float32(0.1), scaling=scaling)
    same_bits(run(fused), run(jdrop.dropout))


@pytest.mark.slow
def test_double_precision_is_the_same(fused):
    with jax.enable_x64(True):
        x = jax.random.normal(key(), (3, 70))
        assert x.dtype == jnp.float64
        same_bits(fused(key(), x, 1 / 3), jdrop.dropout(key(), x, 1 / 3))


def test_a_nan_in_a_dropped_slot_leaks_nowhere(fused):
    twice = expected(key(), np.ones(ROWS, np.float32), 0.5)
    x = jnp.where(twice == 2, 1.0, jnp.nan)
    y, pull = jax.vjp(lambda x: fused(key(), x, 0.5), x)
    for drawn in (y, *pull(x)):
        same_bits(drawn, twice)
    same_bits(jax.jit(fused)(key(), x * jnp.inf, jnp.float32(1)), np.zeros(ROWS, np.float32))


def test_a_traced_rate_out_of_range_shows_as_nan(fused):
    run = jax.jit(lambda rate: fused(key(), jnp.ones((32, 64)), rate))
    for rate in (-0.1, 1.1, float("nan")):
        assert np.isnan(run(rate)).all()


def test_a_traced_flag_decides(fused):
    run = jax.jit(lambda x, flag: fused(key(), x, 0.5, flag))
    x = array((32, 64))
    same_bits(run(x, True), x)
    same_bits(run(x, False), expected(key(), x, 0.5))


WAYS = {
    "gradient": lambda f, x, t: jax.grad(f)(x),
    "reverse over reverse": lambda f, x, t: jax.grad(lambda x: jnp.vdot(jax.grad(f)(x), t))(x),
    "Hessian": lambda f, x, t: jax.hessian(lambda y: f(x.at[0, :4].set(y)))(x[0, :4]),
    "rematerialised": lambda f, x, t: jax.grad(jax.checkpoint(f))(x),
    "batch of gradients": lambda f, x, t: jax.vmap(jax.grad(f))(jnp.stack([x, t])),
    "gradient of a batch": lambda f, x, t: jax.grad(lambda xs: jax.vmap(f)(xs).sum())(jnp.stack([x, t])),
    "scan": lambda f, x, t: jax.grad(lambda x: jax.lax.scan(lambda c, y: (c + f(x * y), None), 0.0, t[:, None])[0])(x),
}


@some("way", WAYS, 0)
def test_differentiated_every_way_it_is_a_product_with_the_mask(fused, way):
    x, t = array((32, 6)), array((32, 6), seed=5)
    scale = expected(key(), np.ones(x.shape, np.float32), 0.5)
    got, want = (
        jax.jit(lambda x, t: WAYS[way](lambda x: jnp.sum(jnp.tanh(drop(jnp.sin(x)))), x, t))(x, t)
        for drop in (lambda x: fused(key(), x, 0.5), lambda x: x * scale)
    )
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_it_is_linear_and_its_own_transpose(fused):
    x, t = array(ROWS), array(ROWS, seed=5)
    f = lambda x: fused(key(), x, 0.5)
    y, tangent = jax.jit(lambda x, t: jax.jvp(f, (x,), (t,)))(x, t)
    for drawn, of in ((y, x), (tangent, t), (jax.jit(jax.linear_transpose(f, x))(t)[0], t)):
        same_bits(drawn, expected(key(), of, 0.5))


def test_the_backward_pass_keeps_nothing_of_the_size_of_x(fused):
    x = jnp.ones((64, 64))
    _, pull = jax.vjp(lambda x: fused(key(), x, 0.3), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) < 64


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(0, None, None), (None, 1, None), (0, 0, 0)])
def test_a_batch_is_each_draw(fused, axes):
    keys, xs, rates = (
        jax.random.split(key(), 3),
        np.asarray(array((3, 32, 3) if axes[1] == 0 else (32, 3, 3))),
        np.array([0, 0.5, 0.75], np.float32),
    )
    arguments = [a if axis is not None else a[1] for a, axis in zip((keys, xs, rates), axes)]
    together = jax.jit(jax.vmap(fused, axes))(*arguments)
    for i in range(3):
        same_bits(together[i], expected(*(a if b is None else a.take(i, b) for a, b in zip(arguments, axes))))


def test_the_gradient_of_a_shared_x_is_summed_over_the_keys(fused):
    keys, x = jax.random.split(key(), 3), array((32, 6))
    gradient = jax.jit(jax.grad(lambda x: jax.vmap(lambda k: fused(k, x, 0.5))(keys).sum()))(x)
    same_bits(gradient, sum(expected(k, np.ones((32, 6), np.float32), 0.5) for k in keys))


@pytest.mark.slow
def test_a_batch_of_batches_is_each_draw(fused):
    keys, xs = jax.random.split(key(), 2), np.asarray(array((3, 32, 7)))
    together = jax.jit(jax.vmap(jax.vmap(fused, (None, 0, None)), (0, None, None)), static_argnums=2)(keys, xs, 0.5)
    same_bits(together, np.stack([[expected(k, x, 0.5) for x in xs] for k in keys]))


COLLECTIVES = re.compile(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter")
SHARDED = [
    ((4, 40, 24), P(None, "a", "b")),
    ((64, 128), P("b", "a")),
    ((64, 128), P(("a", "b"), None)),
    ((16, 8), P("b")),
]


@some("kind", [AxisType.Auto, AxisType.Explicit], 1)
@some(("shape", "spec"), SHARDED, 0)
def test_each_device_drops_its_own_shard(fused, kind, shape, spec):
    """With the bits of one device and without a collective, forward and backward."""
    mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(kind,) * 2)
    x = array(shape)
    both = lambda k, x: jax.value_and_grad(lambda x: (fused(k, x, 0.5) ** 2).sum(), has_aux=False)(x)[1]
    with jax.set_mesh(mesh):
        split = jax.device_put(x, NamedSharding(mesh, spec))
        for f, wanted in (
            (fused, expected(key(), x, 0.5)),
            (lambda k, x, _: both(k, x), 2 * expected(key(), expected(key(), x, 0.5), 0.5)),
        ):
            compiled = jax.jit(lambda k, x, f=f: f(k, x, 0.5)).lower(key(), split).compile()
            assert not COLLECTIVES.search(compiled.as_text())
            same_bits(compiled(key(), split), wanted)


def test_keys_over_devices_need_no_collective(fused):
    mesh = jax.make_mesh((8,), ("a",), axis_types=(AxisType.Auto,))
    keys, x = jax.random.split(key(), 16), array((32, 6))
    split = jax.device_put(keys, NamedSharding(mesh, P("a")))
    compiled = jax.jit(jax.vmap(lambda k: fused(k, x, 0.5))).lower(split).compile()
    assert not COLLECTIVES.search(compiled.as_text())
    same_bits(compiled(split), np.stack([expected(k, x, 0.5) for k in keys]))


@pytest.mark.parametrize("partition", [P("d"), P()])
def test_in_shard_map_each_device_runs_its_own_kernel(fused, partition):
    """Also on an x that all devices share: only the key differs."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    keys, x = jax.random.split(key(), 8), array((8 if partition else 1, 64))
    local = lambda keys, x: fused(keys[0], x, 0.5)
    each = jax.shard_map(local, mesh=mesh, in_specs=(P("d"), partition), out_specs=P("d"))
    gradient = jax.jit(jax.grad(lambda x: each(keys, x).sum()))(x)
    want = np.concatenate([expected(k, row[None], 0.5) for k, row in zip(keys, np.broadcast_to(x, (8, 64)))])
    same_bits(jax.jit(each)(keys, x), want)
    np.testing.assert_allclose(jnp.sum(gradient * x), want.sum(), rtol=1e-4)


@some("platform", ["cuda", "tpu"], 1)
def test_what_no_kernel_serves_is_left_to_xla(platform):
    x = array((64, 64))
    others = (
        {"x": x.astype(jnp.complex64)},
        {"x": jnp.ones((0, 64))},
        {"broadcast_dims": (0,)},
        {"save": "mask"},
        {"key": key(0, "rbg")},
        {"rate": jnp.linspace(0, 1, 64)},
        {"implementation": "xla"},
    )
    assert KERNEL[platform] in lowered(platform, lambda: jdrop.dropout(key(), x, 0.3))
    for other in others:
        arguments = {"key": key(), "x": x, "rate": 0.3} | other
        assert KERNEL[platform] not in lowered(platform, lambda arguments=arguments: jdrop.dropout(**arguments)), other


def test_a_kernel_that_does_not_compile_is_said_once(monkeypatch):
    """And XLA draws the same mask."""
    monkeypatch.setattr(gpu, "drop", lambda *_, **__: 1 / 0)
    primitives.say_once.cache_clear()
    x = array((32, 5))
    run = lambda rate: same_bits(jdrop.dropout(key(), x, rate, implementation="pallas"), expected(key(), x, rate))
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        run(0.5)
    run(0.75)  # where a warning would be an error


def test_an_unknown_implementation_is_refused():
    with pytest.raises(
        ValueError, match="implementation is 'cuda', but it must be one of None, 'xla', 'pallas', 'pallas_tpu'"
    ):
        jdrop.dropout(key(), jnp.ones(3), 0.5, implementation="cuda")


KERNEL = {"cuda": "xla.gpu.triton", "tpu": "tpu_custom_call"}


@some(("platform", "impl"), [("cuda", impl) for impl in IMPLEMENTATIONS] + [("tpu", "threefry2x32")], 0, 3)
def test_forward_and_backward_lower_to_one_kernel_each(platform, impl):
    """Nor is a mask, or anything else of the size of x, computed outside of them."""
    x = jnp.ones((256, 64), jnp.bfloat16)
    both = lambda: jax.vjp(lambda x: jdrop.dropout(key(0, impl), x, 0.3), x)[1](x)
    text = lowered(platform, both)
    assert text.count(f"@{KERNEL[platform]}") + text.count(f"@__gpu${KERNEL[platform]}") == 1
    assert "256x64xi" not in text
    assert "256x64xf32" not in text


def test_a_small_mask_has_no_loop_on_a_tpu():
    text = lambda shape: lowered("tpu", lambda: jdrop.keep_mask(key(), shape, 0.1))
    assert "while" not in text((4, 2**12))
    assert "while" in text((4, 2**12 + 1))
    batch = lambda n: lowered("tpu", jax.vmap(lambda k: jdrop.keep_mask(k, (2**12,), 0.1)), jax.random.split(key(), n))
    assert "while" not in batch(4)
    assert "while" in batch(5)


@pytest.mark.slow
def test_every_shape_and_type_lowers():
    shapes = {"cuda": ((), (5, 1025), (3, 40, 64)), "tpu": ((64, 40), (3, 197, 64), (8, 197, 64), (8, 5000), (8192,))}
    for platform, dtype in itertools.product(shapes, (jnp.bfloat16, jnp.float32, jnp.float8_e4m3fn, jnp.float8_e5m2)):
        for shape in shapes[platform]:
            assert KERNEL[platform] in lowered(platform, lambda: jdrop.dropout(key(), jnp.ones(shape, dtype), 0.3))


def test_one_artefact_serves_every_platform():
    x = array((64, 40))
    exported = jax.export.export(jax.jit(lambda k, x: jdrop.dropout(k, x, 0.5)), platforms=("cpu", "cuda", "tpu"))
    artefact = exported(key(), x)  # which refuses what may not be loaded again
    assert KERNEL["tpu"] in artefact.mlir_module()
    assert KERNEL["cuda"] not in artefact.mlir_module()
    same_bits(artefact.call(key(), x), expected(key(), x, 0.5))

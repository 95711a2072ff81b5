"""Attention with dropout is NumPy's, with the mask of NumPy's stream, whatever the tiles, transforms and devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import IMPLEMENTATIONS, key
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tiers import diagonal, some

import jdrop

BLOCKS = (None, 1000, 32, (64, 50), 7, (96, 128), (1, 64))
attend = jdrop.dot_product_attention


def arrays(shape=(2, 40, 33, 4, 2, 8), dtype=jnp.float32, seed=0):
    """Queries, keys, values and a direction for (B, T, S, N, K, H)."""
    B, T, S, N, K, H = shape
    draw = np.random.default_rng(seed)
    shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, H), (B, T, N, H))
    return [jnp.asarray(draw.normal(size=shape), dtype) for shape in shapes]


def dense(q, k, v, direction, kept, *, bias=None, seen=None, scale=None):
    """The output and the gradients of its product with a direction, in float64; `kept` has the scale in it."""
    q, k, v, direction = (np.asarray(x, np.float64) for x in (q, k, v, direction))
    groups, (B, _, N, H), S = k.shape[2], q.shape, k.shape[1]
    k, v = (np.repeat(x, N // groups, 2) for x in (k, v))
    scale = 1 / np.sqrt(H) if scale is None else scale
    logits = scale * np.einsum("btnh,bsnh->bnts", q, k) + (0 if bias is None else np.asarray(bias, np.float64))
    logits = np.where(np.broadcast_to(True if seen is None else seen, logits.shape), logits, -np.inf)
    p = np.exp(logits - np.maximum(logits.max(-1, keepdims=True), -1e30))
    p = p / np.maximum(p.sum(-1, keepdims=True), 1e-300)
    back = kept * np.einsum("btnh,bsnh->bnts", direction, v)
    d_logits = p * (back - (p * back).sum(-1, keepdims=True))
    d_k, d_v = (
        x.reshape(B, S, groups, N // groups, H).sum(3)
        for x in (
            scale * np.einsum("bnts,btnh->bsnh", d_logits, q),
            np.einsum("bnts,btnh->bsnh", p * kept, direction),
        )
    )
    d_bias = d_logits
    if bias is not None:
        shape = (1,) * (4 - np.ndim(bias)) + np.shape(bias)
        d_bias = d_logits.sum(tuple(a for a in range(4) if shape[a] == 1), keepdims=True).reshape(np.shape(bias))
    out = np.einsum("bnts,bsnh->btnh", p * kept, v)
    return out, (scale * np.einsum("bnts,bsnh->btnh", d_logits, k), d_k, d_v, d_bias)


def kept(key, shape, rate, broadcast_dims=()):
    words = np.asarray(jax.random.key_data(key))
    mask = oracle.mask(str(jax.random.key_impl(key)), words, shape, rate, broadcast_dims)
    return np.broadcast_to(mask, shape) / (1 - rate)


def agree(given, wanted, tolerance):
    for a, b in zip(given, wanted, strict=True):
        np.testing.assert_allclose(
            np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance * max(np.abs(b).max(), 1)
        )


def check(shape, block, tolerance=1e-5, dtype=jnp.float32, broadcast_dims=(), bias=None, seen=None, **form):
    B, T, S, N, *_ = shape
    *inputs, direction = arrays(shape, dtype)
    k, biased = key(3), () if bias is None else (bias,)

    def f(q, k_, v, *bias):
        bias = {"bias": bias[0]} if bias else {}
        return attend(k, q, k_, v, 0.3, broadcast_dims=broadcast_dims, block_size=block, **bias, **form)

    out, back = jax.vjp(f, *inputs, *biased)
    assert out.dtype == dtype
    wanted, gradients = dense(
        *inputs, direction, kept(k, (B, N, T, S), 0.3, broadcast_dims), bias=bias, seen=seen, scale=form.get("scale")
    )
    agree((out, *back(direction)), (wanted, *gradients[: 3 + len(biased)]), tolerance)


def places(T, S):
    return np.arange(T)[:, None], np.arange(S)


def forms(shape):
    """{name: (arguments, their meaning for the oracle)}."""
    B, T, S, N, *_ = shape
    (t, s), draw = places(T, S), np.random.default_rng(5)
    mask, per_head = draw.random((B, 1, T, S)) < 0.8, draw.random((N, T, S)) < 0.8
    biases = [jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in ((B, N, T, S), (1, N, 1, S), (T, 1))]
    queries, keys = draw.integers(0, T + 1, B), draw.integers(0, S + 1, B)
    first = {"seen": (t < queries[:, None, None, None]) & (s < keys[:, None, None, None])}
    lengths = {"query_seq_lengths": jnp.asarray(queries), "key_value_seq_lengths": jnp.asarray(keys)}
    return {
        "plain": ({}, {}),
        "scale": ({"scale": 0.7}, {}),
        "mask": ({"mask": jnp.asarray(mask)}, {"seen": mask}),
        "a mask of heads, without a batch": ({"mask": jnp.asarray(per_head)}, {"seen": per_head}),
        "bias": ({"bias": biases[0]}, {}),
        "a bias of heads and keys": ({"bias": biases[1]}, {}),
        "a bias of queries, causal": ({"bias": biases[2], "is_causal": True}, {"seen": s <= t}),
        "causal": ({"is_causal": True}, {"seen": s <= t}),
        "window": ({"local_window_size": 5}, {"seen": abs(s - t) <= 5}),
        "a causal window": (
            {"local_window_size": (9, 2), "is_causal": True, "bias": biases[0]},
            {"seen": (s <= t) & (s >= t - 9)},
        ),
        "a window ahead": ({"local_window_size": (0, 9)}, {"seen": (s >= t) & (s <= t + 9)}),
        "lengths": (lengths, first),
        "all at once": (
            {**lengths, "mask": jnp.asarray(mask), "bias": biases[1], "is_causal": True},
            {"seen": first["seen"] & mask & (s <= t)},
        ),
        "one mask for batch and heads": ({"broadcast_dims": (0, 1)}, {}),
        "one decision for all queries": ({"broadcast_dims": (2,)}, {}),
    }


SHAPES = [
    (2, 40, 33, 4, 2, 8),
    (1, 197, 197, 2, 1, 16),
    (2, 128, 96, 4, 4, 8),
    (1, 1, 65, 2, 2, 8),
    (2, 33, 1, 6, 2, 4),
]
FORMS = list(forms(SHAPES[0]))
# Every form with two shapes and two sizes of tiles: they meet in the tile alone.
MATRIX = [
    (shape, form, BLOCKS[(i + 2 * j) % len(BLOCKS)])
    for i, shape in enumerate(SHAPES)
    for j, form in enumerate(FORMS)
    if (i + j) % len(SHAPES) < 2
]


@some(("shape", "form", "block"), MATRIX, 0, 8, 15, 21, 29)
def test_output_and_gradients_are_those_of_the_whole(shape, form, block):
    arguments, meaning = forms(shape)[form]
    check(shape, block, **arguments, **meaning)


@some(("dtype", "block"), [(dtype, block) for dtype in (jnp.bfloat16, jnp.float16) for block in BLOCKS[:4]], 2)
def test_half_precision(dtype, block):
    check((2, 128, 96, 4, 2, 16), block, 2e-2, dtype)


def test_gradients_are_summed_over_tiles_in_float32():
    q, k, v, direction = arrays((1, 16, 2048, 1, 1, 8), jnp.bfloat16)
    _, back = jax.vjp(lambda q: attend(key(), q, k, v, 0.3, block_size=(16, 2)), q)
    _, (wanted, *_) = dense(q, k, v, direction, kept(key(), (1, 1, 16, 2048), 0.3))
    error = np.abs(np.asarray(back(direction)[0], np.float64) - wanted).max() / np.abs(wanted).max()
    assert error < 2e-2


@pytest.mark.slow
def test_a_long_sequence():
    check((1, 4097, 257, 1, 1, 4), None, is_causal=True, seen=np.less_equal(*places(4097, 257)[::-1]))


@some(
    ("shape", "block", "impl"), diagonal([(2, 40, 33, 4), (3, 64, 24, 1)], [*BLOCKS, *BLOCKS], IMPLEMENTATIONS), 2, 4, 9
)
def test_the_mask_is_that_of_keep_mask_bit_for_bit(shape, impl, block):
    """Values that are the rows of the identity bring the weights to light, and those that are kept are above 0."""
    B, T, S, N = shape
    q, k, v = jnp.ones((B, T, N, 4)), jnp.ones((B, S, N, 4)), jnp.broadcast_to(jnp.eye(S)[:, None], (B, S, N, S))
    weights = attend(key(7, impl), q, k, v, 0.3, block_size=block)
    mask = kept(key(7, impl), (B, N, T, S), 0.3) > 0
    np.testing.assert_array_equal(np.moveaxis(np.asarray(weights) > 0, 1, 2), mask)


def test_three_axes_are_one_sequence():
    q, k, v, _ = (x[0] for x in arrays())
    alone = attend(key(), q, k, v, 0.3, is_causal=True)
    np.testing.assert_array_equal(alone, attend(key(), q[None], k[None], v[None], 0.3, is_causal=True)[0])


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, 16])
def test_rates_and_flags_traced_or_not(block):
    q, k, v, direction = arrays()
    f = jax.jit(lambda rate, flag=False: attend(key(), q, k, v, rate, flag, block_size=block))
    whole, _ = dense(q, k, v, direction, 1)
    agree(
        [f(0.0), f(0.3, True), attend(None, q, k, v, 0, block_size=block), attend(None, q, k, v, 0.3, True)],
        [whole] * 4,
        1e-5,
    )
    agree([f(0.3)], [attend(key(), q, k, v, 0.3)], 1e-5)
    assert not f(1.0).any()
    assert not attend(None, q, k, v, 1, block_size=block).any()
    for rate in (-0.1, 1.5, float("nan")):
        assert jnp.isnan(f(rate)).all()
    gradient = jax.grad(lambda x, rate: attend(key(), x, k, v, rate, block_size=block).sum(), (0, 1))
    assert not any(part.any() for part in gradient(q, 1.0))
    assert gradient(q, 0.3)[1] == 0
    by_head = jnp.array([0, 0.3, 0.3, 1]).reshape(4, 1, 1)
    one = attend(key(), q, k, v, 0.3)
    agree([attend(key(), q, k, v, by_head, block_size=block)[:, :, 1:3]], [one[:, :, 1:3]], 1e-5)


@some("block", [None, 16], 1)
def test_a_query_that_sees_no_key_gives_zeros(block):
    q, k, v, direction = arrays()
    blind = jnp.arange(40)[:, None] % 3 == 0
    for form in ({"mask": ~blind}, {"bias": jnp.where(blind, -jnp.inf, 0)}):
        f = lambda q, k, v, form=form: attend(key(), q, k, v, 0.3, block_size=block, **form)
        with jax.debug_nans("bias" not in form):
            out, back = jax.vjp(f, q, k, v)
            gradients = back(direction)
        wanted, by_hand = dense(q, k, v, direction, kept(key(), (2, 4, 40, 33), 0.3), seen=~np.asarray(blind))
        assert not out[:, ::3].any()
        agree((out, *gradients), (wanted, *by_hand[:3]), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, 16])
def test_every_derivative(block):
    """Forwards it is the transpose of backwards; twice it is that of finite differences."""
    q, k, v, direction = arrays()
    f = lambda q, k, v: attend(key(), q, k, v, 0.3, is_causal=True, block_size=block)
    tangents = tuple(jnp.flip(x, 1) for x in (q, k, v))
    seen = np.less_equal(*places(40, 33)[::-1])
    _, gradients = dense(q, k, v, direction, kept(key(), (2, 4, 40, 33), 0.3), seen=seen)
    moved = jax.jvp(f, (q, k, v), tangents)[1]
    by_hand = sum((np.asarray(a, np.float64) * b).sum() for a, b in zip(tangents, gradients))
    np.testing.assert_allclose((moved * direction).sum(), by_hand, rtol=1e-4)
    slope = jax.grad(lambda q: (f(q, k, v) * direction).sum())
    for twice in (jax.jvp(slope, (q,), (tangents[0],))[1], jax.vjp(slope, q)[1](tangents[0])[0]):
        step = 1e-3
        ahead, behind = (
            dense(q + sign * step * tangents[0], k, v, direction, kept(key(), (2, 4, 40, 33), 0.3), seen=seen)[1][0]
            for sign in (1, -1)
        )
        np.testing.assert_allclose(twice, (ahead - behind) / (2 * step), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, 16])
def test_transforms_draw_the_same_mask(block):
    q, k, v, direction = arrays()
    keys = jax.random.split(key(), 3)
    f = lambda key, q: attend(key, q, k, v, 0.3, block_size=block)
    loss = lambda key, q: (f(key, q) * direction).sum()
    each = [f(k, q) for k in keys]
    agree(jax.vmap(f, (0, None))(keys, q), each, 1e-5)
    agree(jax.lax.map(lambda key: f(key, q), keys), each, 1e-5)
    slopes = [jax.grad(loss, 1)(k, q) for k in keys]
    agree(jax.vmap(jax.grad(jax.checkpoint(loss), 1), (0, None))(keys, q), slopes, 1e-5)
    agree(jax.vmap(jax.grad(loss, 1))(keys, jnp.stack([q] * 3)), slopes, 1e-5)
    agree([jax.vmap(f, (None, 0))(keys[0], jnp.stack([q, q]))[1]], each[:1], 1e-5)


def test_the_backward_pass_keeps_nothing_of_the_size_of_the_weights():
    q, k, v, _ = arrays((1, 256, 256, 4, 4, 8))
    _, back = jax.vjp(lambda q, k, v: attend(key(), q, k, v, 0.3, block_size=64, is_causal=True), q, k, v)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(back)) < 4 * 256 * 256  # a byte a weight


@some("form", [{}, {"is_causal": True, "block_size": (512, 128)}], 0)
def test_scratch_grows_no_faster_than_the_length(form):
    def scratch(length):
        x = jax.ShapeDtypeStruct((1, length, 4, 64), jnp.float32)
        f = lambda key, q, k, v: attend(key, q, k, v, 0.1, **form).sum()
        key = jax.eval_shape(lambda: jax.random.key(0))
        return jax.jit(jax.grad(f, (1, 2, 3))).lower(key, x, x, x).compile().memory_analysis().temp_size_in_bytes

    sizes = [scratch(length) for length in (1024, 2048, 4096)]
    assert sizes[1] <= 2.2 * sizes[0]
    assert sizes[2] <= 2.2 * sizes[1]
    assert sizes[2] <= 1816 * 2**20 / 8  # an eighth of what Flax's, which is dense, asks for


def test_tiles_that_no_query_sees_are_skipped():
    """A NaN in a key or value that lies in such tiles alone reaches nothing."""
    q, k, v, _ = arrays((1, 64, 64, 2, 2, 8))
    for form, clean in (({"is_causal": True}, slice(0, 32)), ({"local_window_size": (8, 0)}, slice(0, 32))):
        f = lambda q, k, v, form=form: attend(key(), q, k, v, 0.3, block_size=32, **form)
        bad = [x.at[:, 40].set(jnp.nan) for x in (k, v)]
        assert jnp.isfinite(f(q, *bad)[:, clean]).all()
        slope = jax.jit(jax.grad(lambda q, f=f, bad=bad: f(q, *bad)[:, clean].sum()))(q)
        assert jnp.isfinite(slope[:, clean]).all()


@some("shape", [(40, 24, 4), (300, 20, 2)], 0)
def test_exported_with_a_symbolic_batch(shape):
    T, S, N = shape
    (batch,) = export.symbolic_shape("b")
    f = jax.jit(lambda key, q, k, v: attend(key, q, k, v, 0.3, is_causal=True, block_size=(64, 16)))
    shapes = [jax.ShapeDtypeStruct((batch, n, N, 8), jnp.float32) for n in (T, S, S)]
    exported = export.export(f, platforms=("cpu", "cuda", "tpu"))(jax.eval_shape(lambda: jax.random.key(0)), *shapes)
    run = export.deserialize(exported.serialize()).call
    for B in (1, 3):
        *inputs, _ = arrays((B, T, S, N, N, 8))
        agree([run(key(), *inputs)], [f(key(), *inputs)], 1e-5)


@pytest.mark.slow
def test_exported_with_a_symbolic_length():
    (length,) = export.symbolic_shape("t")
    f = jax.jit(lambda key, q: attend(key, q, q, q, 0.3))
    shape = jax.ShapeDtypeStruct((2, length, 4, 8), jnp.float32)
    run = export.export(f)(jax.eval_shape(lambda: jax.random.key(0)), shape).call
    q = arrays()[0]
    agree([run(key(), q)], [f(key(), q)], 1e-5)


COLLECTIVES = re.compile(r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
SPLITS = [  # mesh, its axes, those of queries, those of keys and values, (B, T, S, N, K, H), whether gradients are sums
    ((8,), "b", ("b",), ("b",), (8, 64, 64, 2, 2, 8), 0),
    ((8,), "h", (None, None, "h"), (None, None, "h"), (2, 64, 64, 16, 8, 8), 0),
    ((8,), "t", (None, "t"), (), (2, 256, 64, 4, 2, 8), 1),
    ((8,), "t", (None, "t"), (), (2, 200, 40, 2, 1, 8), 1),  # whose shards end inside of words
    ((8,), "h", (None, None, "h"), (), (2, 64, 64, 8, 1, 8), 1),
    ((2, 2, 2), "bth", ("b", "t", "h"), ("b", None, "h"), (2, 128, 64, 4, 2, 8), 1),
]


@some(("kind", "split"), [(kind, split) for kind in (AxisType.Auto, AxisType.Explicit) for split in SPLITS], 3)
def test_devices_draw_their_part_and_ask_no_other(kind, split):
    """But for the gradients of keys and values, which queries on several devices share."""
    sizes, names, of_queries, of_keys, shape, sums = split
    mesh = jax.make_mesh(sizes, tuple(names), axis_types=(kind,) * len(names))
    *inputs, direction = arrays(shape)
    specs = [PartitionSpec(*axes) for axes in (of_queries, of_keys, of_keys, of_queries)]
    bias = jnp.asarray(np.random.default_rng(1).normal(size=(shape[3], shape[1], shape[2])), jnp.float32)
    form = {"bias": bias, "is_causal": True, "query_seq_lengths": jnp.full(shape[0], shape[1] - 3)}

    def f(q, k, v, direction):
        out, back = jax.vjp(lambda *x: attend(key(1), *x, 0.3, **form), q, k, v)
        return out, back(direction)

    want = jax.jit(f)(*inputs, direction)
    with jax.set_mesh(mesh):
        shardings = [NamedSharding(mesh, spec) for spec in specs]
        placed = [jax.device_put(x, sharding) for x, sharding in zip((*inputs, direction), shardings)]
        results = (shardings[0], tuple(shardings[:3])) if kind == AxisType.Auto else None
        both = jax.jit(f, out_shardings=results).lower(*placed).compile()
        alone = jax.jit(lambda *x: f(*x)[0], out_shardings=results and results[0]).lower(*placed).compile()
        given = both(*placed)
    assert not COLLECTIVES.findall(alone.as_text())
    found = set(COLLECTIVES.findall(both.as_text()))
    assert found == ({"all-reduce"} if sums else set())
    agree(map(np.asarray, jax.tree.leaves(given)), map(np.asarray, jax.tree.leaves(want)), 1e-5)


@pytest.mark.slow
def test_inside_of_shard_map():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    q, k, v, direction = arrays((8, 64, 64, 2, 2, 8))
    along, whole = PartitionSpec("d"), PartitionSpec()
    part = lambda key, q, k, v: attend(key, q, k, v, 0.3, is_causal=True, block_size=32)
    many = jax.shard_map(part, mesh=mesh, in_specs=(whole, along, along, along), out_specs=along)
    agree(many(key(), q, k, v), [part(key(), q[i : i + 1], k[i : i + 1], v[i : i + 1])[0] for i in range(8)], 1e-5)
    one = jax.shard_map(part, mesh=mesh, in_specs=(whole, along, whole, whole), out_specs=along)
    slope = jax.grad(lambda k_: (one(key(), q, k_, v[:1]) * direction).sum())(k[:1])
    alone = [
        jax.grad(lambda k_, i=i: (part(key(), q[i : i + 1], k_, v[:1]) * direction[i]).sum())(k[:1]) for i in range(8)
    ]
    agree([slope], [sum(alone)], 1e-5)


def test_a_traced_scale_has_a_gradient():
    q, k, v, direction = arrays()
    f = lambda scale: (attend(key(), q, k, v, 0.3, scale=scale) * direction).sum()
    outputs = [
        dense(q, k, v, direction, kept(key(), (2, 4, 40, 33), 0.3), scale=0.5 + step)[0] for step in (1e-4, -1e-4)
    ]
    difference = ((outputs[0] - outputs[1]) * np.asarray(direction)).sum() / 2e-4
    np.testing.assert_allclose(jax.jit(jax.grad(f))(0.5), difference, rtol=1e-3)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_a_key_of_another_implementation_is_a_threefry_key_of_its_bits(impl):
    q, k, v, _ = arrays()
    other = key(1, impl)
    same = jax.random.wrap_key_data(jax.random.bits(other, (2,), "uint32"), impl="threefry2x32")
    agree([attend(other, q, k, v, 0.3, block_size=16)], [attend(same, q, k, v, 0.3)], 1e-5)


def test_what_does_not_fit_is_refused():
    q, k, v, _ = arrays()
    for error, said, change in (
        (ValueError, "q, k and v have shapes .* but each needs the axes", {"q": q[0]}),
        (ValueError, "q, k and v have shapes", {"k": k[:1]}),
        (ValueError, "q, k and v have shapes", {"v": v[:, 1:]}),
        (ValueError, "q has 3 heads and k has 2", {"q": q[:, :, :3]}),
        (TypeError, "q, k and v have dtypes .* one dtype", {"k": k.astype(jnp.bfloat16)}),
        (TypeError, "floating-point", {"q": q.astype(jnp.int32)}),
        (TypeError, "mask has dtype float32", {"mask": jnp.ones((40, 33))}),
        (TypeError, "bias has dtype bool", {"bias": jnp.ones((40, 33), bool)}),
        (ValueError, r"mask has shape \(2, 40, 33\), which does not broadcast", {"mask": jnp.ones((2, 40, 33), bool)}),
        (ValueError, "query_seq_lengths has shape", {"query_seq_lengths": jnp.array([1, 2, 3])}),
        (TypeError, "key_value_seq_lengths has dtype", {"key_value_seq_lengths": jnp.array([1.0, 2.0])}),
        (ValueError, "local_window_size is -1", {"local_window_size": -1}),
        (ValueError, r"block_size is \(1, 2, 3\)", {"block_size": (1, 2, 3)}),
        (ValueError, "block_size is 0", {"block_size": 0}),
        (ValueError, "implementation is 'cudnn', but it must be one of None, 'xla'", {"implementation": "cudnn"}),
        (ValueError, "rate is 1.5", {"rate": 1.5}),
        (ValueError, "broadcast_dims has axis 4", {"broadcast_dims": (4,)}),
        (TypeError, "key=None", {"key": None}),
        (ValueError, "scale is nan", {"scale": float("nan")}),
    ):
        with pytest.raises(error, match=said):
            attend(**{"key": key(), "q": q, "k": k, "v": v, "rate": 0.3} | change)

"""Every kind of dropout: what holds for all of them, and each against its paper's formula on the same mask."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cases import IMPLEMENTATIONS, array, key
from flax import nnx
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from scipy import stats
from tiers import some

import jdrop
from jdrop.functional._inlined import inlined

TOKENS = np.random.default_rng(3).integers(2, 8, (8, 12))
PADDING = TOKENS == 2
COLLECTIVES = re.compile(r"all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter")


def by_tokens(k, x, rate, deterministic=False):
    tokens = jnp.asarray(np.resize(TOKENS, x.shape[:2]))
    return jdrop.embedding_dropout(k, x, rate, deterministic, tokens=tokens)


MEMBERS = {  # functions of (key, x, rate, deterministic), of an x of shape (batch, places, channels)
    "drop_path": jdrop.drop_path,
    "channel_dropout": jdrop.channel_dropout,
    "token_dropout": jdrop.token_dropout,
    "embedding_dropout": by_tokens,
    "alpha_dropout": jdrop.alpha_dropout,
    "feature_alpha_dropout": jdrop.feature_alpha_dropout,
    "gaussian_dropout": jdrop.gaussian_dropout,
    "gaussian_noise": jdrop.gaussian_noise,
    "drop_block": functools.partial(jdrop.drop_block, block_size=3),
    "concrete_dropout": jdrop.concrete_dropout,
}
NO_SELECTION = ("gaussian_dropout", "gaussian_noise", "concrete_dropout")  # no element is wholly dropped
X = array((8, 12, 16))
every = functools.partial(some, "name", MEMBERS)
close = functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=2e-6)
equal = np.testing.assert_array_equal
dense = lambda weights: X @ weights["kernel"] + weights["bias"]


@every(0, 3, 5, 7, 8)
def test_it_returns_x_where_nothing_is_drawn(name):
    f = MEMBERS[name]
    equal(f(None, X, 0.5, True), X)
    equal(f(None, X, 0.0), X)
    equal(jax.jit(f)(key(), X, 0.5, True), X)
    close(jax.jit(f)(key(), X, 0.0, False), X)
    with pytest.raises(TypeError, match="key"):
        f(None, X, 0.5)
    with pytest.raises((TypeError, ValueError), match=r"rate|std"):
        f(key(), X, 1.5 if name != "gaussian_noise" else -1.0)
    with pytest.raises(TypeError, match="deterministic"):
        f(key(), X, 0.5, 0)
    with pytest.raises(TypeError, match=r"dtype int32"):
        f(key(), jnp.ones(X.shape, jnp.int32), 0.5)


@every(2)
def test_jit_vmap_scan_and_checkpoint_draw_the_same(name):
    f = MEMBERS[name]
    slope = lambda k, x, rate: jax.grad(lambda x: (f(k, x, rate) ** 2).sum())(x)
    wanted, gradient = f(key(1), X, 0.3), slope(key(1), X, 0.3)
    close(jax.jit(f)(key(1), X, 0.3), wanted)
    close(jax.jit(lambda k, x: f(k, x, 0.3))(key(1), X), wanted)
    close(jax.jit(slope)(key(1), X, 0.3), gradient)
    close(jax.grad(lambda x: (jax.checkpoint(f)(key(1), x, 0.3) ** 2).sum())(X), gradient)
    keys = jax.random.split(key(2), 2)
    alone = jnp.stack([f(k, X, 0.3) for k in keys])
    close(jax.vmap(f, (0, None, None))(keys, X, 0.3), alone)
    close(jax.lax.scan(lambda _, k: (None, f(k, X, 0.3)), None, keys)[1], alone)
    assert not (alone[0] == alone[1]).all()


@every(4)
def test_dtypes_and_empty_batches(name):
    f = MEMBERS[name]
    for dtype in (jnp.bfloat16, jnp.float16):
        y = f(key(1), X.astype(dtype), 0.3)
        assert y.dtype == dtype
        np.testing.assert_allclose(
            y.astype(np.float32), f(key(1), X.astype(dtype).astype(jnp.float32), 0.3), rtol=8e-3, atol=1e-6
        )
    with jax.enable_x64(True):
        assert f(key(1), X.astype(jnp.float64), 0.3).dtype == jnp.float64
    assert f(key(1), X[:0], 0.3).shape == (0, 12, 16)
    assert f(key(1), X[:, :1, :1], 0.3).shape == (8, 1, 1)


@every(4)
def test_a_traced_rate_that_is_none_gives_nan(name):
    for rate in (-0.1, 1.5, jnp.nan):
        bad = name != "gaussian_noise" or rate != 1.5
        y = jax.jit(MEMBERS[name])(key(1), X, rate)
        assert jnp.isnan(y).all() if bad else jnp.isfinite(y).all()


@some("name", [name for name in MEMBERS if name not in NO_SELECTION], 3, 4, 6)
def test_a_nan_that_is_dropped_reaches_nothing(name):
    f = MEMBERS[name]
    y = f(key(1), X, 0.5)
    slope = jax.grad(lambda x: f(key(1), x, 0.5).sum())(X)
    dropped = slope == 0
    assert 0.02 < dropped.mean() < 0.9
    bad = jnp.where(dropped, jnp.nan, X)
    equal(f(key(1), bad, 0.5), y)
    equal(jax.grad(lambda x: f(key(1), x, 0.5).sum())(bad), slope)


@every(8)
def test_devices_need_no_collective(name):
    f = MEMBERS[name]
    sharding = NamedSharding(jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,)), PartitionSpec("d"))
    both = lambda k, x: (f(k, x, 0.3), jax.grad(lambda x: (f(k, x, 0.3) ** 2).sum())(x))
    compiled = jax.jit(both, in_shardings=(None, sharding), out_shardings=sharding).lower(key(1), X).compile()
    assert not COLLECTIVES.search(compiled.as_text())
    for one, many in zip(both(key(1), X), compiled(key(1), jax.device_put(X, sharding))):
        close(many, one)


@every(3)
def test_it_is_exported(name):
    exported = export.export(jax.jit(lambda k, x: MEMBERS[name](k, x, 0.3)), platforms=("cpu", "cuda", "tpu"))
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
    run = export.deserialize(exported(jax.eval_shape(key), shape).serialize()).call
    close(run(key(1), X), MEMBERS[name](key(1), X, 0.3))


@every(0, 6)
def test_the_backward_pass_keeps_no_mask(name):
    """Of the size of x it keeps x at most, where the derivative of what is dropped needs it."""
    pullback = jax.eval_shape(lambda k, x: jax.vjp(lambda x: MEMBERS[name](k, x, 0.3), x)[1], key(), X)
    kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback) if leaf.size >= X.size)
    assert kept <= X.nbytes


@every(0, 6)
def test_a_key_is_used_once(name):
    f = MEMBERS[name]
    with jax.debug_key_reuse(True):
        jax.jit(jax.grad(lambda x, k: f(k, x, 0.3).sum()))(X, key(1))
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(lambda k: f(k, X, 0.3) + f(k, X, 0.3))(key(1))


def test_whole_parts_are_dropped():
    k, x = key(4), array((4, 6, 5, 8))
    keep = lambda *shape: jdrop.keep_mask(k, shape, 0.3)
    scaled = lambda kept: jnp.where(kept, x / (1 - np.float32(0.3)), 0)
    close(jdrop.drop_path(k, x, 0.3), scaled(keep(4, 1, 1, 1)))
    close(jdrop.channel_dropout(k, x, 0.3), scaled(keep(4, 1, 1, 8)))
    close(jdrop.channel_dropout(k, x, 0.3, channel_axis=1), scaled(keep(4, 6, 1, 1)))
    close(jdrop.token_dropout(k, x, 0.3), scaled(keep(4, 6, 5, 1)))
    close(jdrop.drop_path(k, x, 0.3, scaling="none"), jnp.where(keep(4, 1, 1, 1), x, 0))
    close(jdrop.drop_path(k, x, 0.3, save="mask"), scaled(keep(4, 1, 1, 1)))
    assert not jdrop.drop_path(k, x, 1.0).any()
    for bad in (0, 4, -4):
        with pytest.raises(ValueError, match="channel_axis"):
            jdrop.channel_dropout(k, x, 0.3, channel_axis=bad)
    with pytest.raises(TypeError, match="channel_axis"):
        jdrop.channel_dropout(k, x, 0.3, channel_axis=1.0)
    for f in (jdrop.channel_dropout, jdrop.token_dropout):
        with pytest.raises(ValueError, match="shape"):
            f(k, x[0, 0, 0], 0.3)


def test_padding_stays():
    x, tokens = X, jnp.asarray(TOKENS)
    y = jdrop.token_dropout(key(1), x, 0.5, padding=PADDING)
    equal(y[PADDING], x[PADDING])
    equal(y[~PADDING], jdrop.token_dropout(key(1), x, 0.5)[~PADDING])
    words = jdrop.word_dropout(key(1), tokens, 0.5, replacement=1, padding=PADDING)
    equal(words[PADDING], 2)
    kept = np.asarray(jdrop.keep_mask(key(1), TOKENS.shape, 0.5))
    equal(words[~PADDING], np.where(kept, TOKENS, 1)[~PADDING])
    assert words.dtype == tokens.dtype
    equal(jdrop.word_dropout(None, tokens, 0.5, True, replacement=1), tokens)
    equal(jax.jit(lambda r: jdrop.word_dropout(key(), tokens, r, replacement=1))(jnp.nan), 1)
    with pytest.raises(ValueError, match="padding has shape"):
        jdrop.token_dropout(key(), x, 0.5, padding=PADDING[:1])
    with pytest.raises(TypeError, match="padding has dtype"):
        jdrop.word_dropout(key(), tokens, 0.5, replacement=1, padding=TOKENS)
    with pytest.raises(ValueError, match="replacement is 300"):
        jdrop.word_dropout(key(), tokens.astype(jnp.int8), 0.5, replacement=300)


def test_a_word_type_is_dropped_in_a_whole_sequence_and_independently():
    tokens = np.random.default_rng(0).integers(0, 5, (4000, 9))
    y = np.asarray(jdrop.embedding_dropout(key(1), jnp.ones((*tokens.shape, 2)), 0.3, tokens=tokens))[..., 0] != 0
    dropped, seen = np.zeros(5, int), np.zeros(5, int)
    pairs = []
    for row, kept in zip(tokens, y):
        decisions = {word: set(kept[row == word]) for word in set(row)}
        assert all(len(each) == 1 for each in decisions.values())
        values = {word: min(each) for word, each in decisions.items()}
        for word, value in values.items():
            seen[word] += 1
            dropped[word] += not value
        if 0 in values and 1 in values:
            pairs.append(values[0] == values[1])
    for n, k in zip(seen, dropped):  # six tests, each with an error of 1e-7
        assert stats.binomtest(int(k), int(n), 0.3).pvalue > 1e-7
    assert stats.binomtest(sum(pairs), len(pairs), 0.3**2 + 0.7**2).pvalue > 1e-7
    with pytest.raises(ValueError, match="tokens has shape"):
        jdrop.embedding_dropout(key(), X, 0.5, tokens=TOKENS[:2])
    with pytest.raises(TypeError, match="tokens has dtype"):
        jdrop.embedding_dropout(key(), X, 0.5, tokens=X[..., 0])
    with pytest.raises(ValueError, match="rate has shape"):
        jdrop.embedding_dropout(key(), X, jnp.full(16, 0.5), tokens=TOKENS)


def test_rates_rise_with_the_depth():
    close(jdrop.linear_depth_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    close(jdrop.linear_depth_rates(0.4, 4, first=0.1), 0.4 * np.arange(1, 5) / 4)  # the paper's rule
    close(jdrop.linear_depth_rates(0.3, 1), [0.3])
    assert jdrop.linear_depth_rates(0.3, 4).dtype == jnp.float32
    rates, keys = jdrop.linear_depth_rates(0.5, 3), jax.random.split(key(1), 3)
    y = jax.lax.scan(lambda x, at: (x + jdrop.drop_path(at[1], jnp.sin(x), at[0]), None), X, (rates, keys))[0]
    x = X
    for rate, k in zip(rates, keys):
        x = x + jdrop.drop_path(k, jnp.sin(x), float(rate))
    close(y, x)
    for bad in ((1.5, 3), (0.5, 0), (float("nan"), 2)):
        with pytest.raises(ValueError, match=r"rate|depth"):
            jdrop.linear_depth_rates(*bad)
    with pytest.raises(TypeError, match="rate"):
        jdrop.linear_depth_rates("0.5", 3)


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.95])
def test_alpha_dropout_is_pytorch_s_formula(rate):
    k, alpha = key(3), 1.7580993408473766
    p = float(np.float32(rate))
    a = ((alpha**2 * p + 1) * (1 - p)) ** -0.5
    kept = np.asarray(jdrop.keep_mask(k, X.shape, rate))
    wanted = lambda kept: np.where(kept, np.asarray(X, np.float64) * a, -alpha * a) + alpha * a * p
    np.testing.assert_allclose(jdrop.alpha_dropout(k, X, rate), wanted(kept), rtol=2e-5, atol=2e-6)
    kept = np.asarray(jdrop.keep_mask(k, (8, 1, 16), rate))
    np.testing.assert_allclose(jdrop.feature_alpha_dropout(k, X, rate), wanted(kept), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("rate", [0.005, 0.3, 0.9])
def test_alpha_dropout_keeps_mean_and_variance(rate):
    n = 2**20
    x = jax.random.normal(key(5), (n,))
    y = np.asarray(jdrop.alpha_dropout(key(6), x, rate), np.float64)
    # Five standard errors, of which the fourth moment is that of y: two in three million, twice for three rates.
    assert abs(y.mean()) < 5.2 / np.sqrt(n)
    assert abs(y.var() - 1) < 5.2 * np.sqrt((y**4).mean() / n)


def test_alpha_dropout_at_the_edges():
    equal(jdrop.alpha_dropout(key(), X, 1.0), 0)
    equal(jax.jit(jdrop.alpha_dropout)(key(), X, 1.0), 0)
    equal(jax.grad(lambda x: jdrop.alpha_dropout(key(), x, 1.0).sum())(X), 0)
    rates = jnp.linspace(0, 0.9, 16)
    y = jdrop.alpha_dropout(key(), X, rates)
    close(y[..., 5], jdrop.alpha_dropout(key(), X, float(rates[5]))[..., 5])
    with pytest.raises(TypeError, match="complex64"):
        jdrop.alpha_dropout(key(), X.astype(jnp.complex64), 0.5)


def test_gaussian_noise_is_that_of_the_specified_normals():
    e = np.asarray(jax.random.normal(key(2), X.shape), np.float64)
    np.testing.assert_allclose(jdrop.gaussian_dropout(key(2), X, 0.2), X * (1 + 0.5 * e), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jdrop.gaussian_noise(key(2), X, 0.1), X + 0.1 * e, rtol=1e-5, atol=1e-6)
    close(jax.grad(lambda x: jdrop.gaussian_dropout(key(2), x, 0.2).sum())(X), 1 + 0.5 * e, rtol=1e-5)
    close(jax.grad(lambda s: jdrop.gaussian_noise(key(2), X, s).sum())(0.1), e.sum(), rtol=1e-4)
    with pytest.raises(ValueError, match="rate is 1, where the variance"):
        jdrop.gaussian_dropout(key(), X, 1.0)
    assert jnp.isnan(jax.jit(jdrop.gaussian_dropout)(key(), X, 1.0)).all()
    for bad in (-1.0, jnp.inf, jnp.nan):
        with pytest.raises(ValueError, match="std is"):
            jdrop.gaussian_noise(key(), X, bad)
    with pytest.raises(ValueError, match=r"std has shape \(3,\)"):
        jdrop.gaussian_noise(key(), X, jnp.ones(3))


@some("partitionable", [True, False], 0)
@some("impl", IMPLEMENTATIONS, 0)
@some("shape", [(), (0,), (7,), (3, 1, 5), (2, 3, 4, 5)], 3, ids=str)
def test_the_numbers_that_are_inlined_are_those_of_jax(impl, partitionable, shape):
    root = key(5, impl)
    both = lambda draw, k: equal(*(np.asarray(draw(each)) for each in (inlined(k), k)))
    with jax.threefry_partitionable(partitionable), jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            both(lambda k, dtype=dtype: jax.random.normal(k, shape, dtype), root)
            both(lambda k, dtype=dtype: jax.random.uniform(k, shape, dtype, 1e-9), root)
        both(jax.vmap(lambda k: jax.random.bits(k, (6,), jnp.uint32)), jax.random.split(root, 3))


@some(
    ("shape", "size"),
    [((3, 9, 9, 4), 3), ((2, 7, 5, 2), 4), ((3, 20, 4), 5), ((2, 3, 3, 2), 7), ((2, 6, 6, 1), 1)],
    0,
    2,
)
def test_drop_block_drops_the_blocks_of_the_paper(shape, size):
    k, rate, x = key(7), 0.4, array(shape)
    sides, block = shape[1:-1], min(size, *shape[1:-1])
    starts = [side - block + 1 for side in sides]
    gamma = rate / block ** len(sides) * np.prod(sides) / np.prod(starts)
    begins = ~np.asarray(jdrop.keep_mask(k, (shape[0], *starts, shape[-1]), np.float32(gamma)))
    kept = np.ones(shape, bool)
    for place in np.argwhere(begins):
        kept[place[0], *(slice(at, at + block) for at in place[1:-1]), place[-1]] = False
    places = tuple(range(1, len(shape) - 1))
    scale = np.prod(sides) / np.maximum(kept.sum(places, keepdims=True), 1)
    y = jdrop.drop_block(k, x, rate, block_size=size)
    np.testing.assert_allclose(y, np.where(kept, x * scale, 0), rtol=1e-6)
    equal(jdrop.drop_block(k, x, rate, block_size=size, scaling="none"), np.where(kept, x, 0))


def test_the_share_that_drop_block_drops():
    """In the middle 1 - (1 - gamma)**(block**2), by examples that are independent."""
    rate, side, block, n = 0.2, 9, 3, 20000
    y = jdrop.drop_block(key(8), jnp.ones((n, side, side, 1)), rate, block_size=block)
    gamma = rate / block**2 * side**2 / (side - block + 1) ** 2
    dropped = int((y[:, 4, 4, 0] == 0).sum())
    assert stats.binomtest(dropped, n, 1 - (1 - gamma) ** (block**2)).pvalue > 1e-7
    for bad in ({"block_size": 0}, {"scaling": "classic"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            jdrop.drop_block(key(), X, 0.2, **bad)
    with pytest.raises(ValueError, match="rate has shape"):
        jdrop.drop_block(key(), X, jnp.full(16, 0.2))
    with pytest.raises(ValueError, match="x has shape"):
        jdrop.drop_block(key(), X[0, 0], 0.2)


def test_patches_are_left_out_and_an_exact_number_stays():
    x = array((5, 17, 3))
    y, places = jdrop.patch_dropout(key(1), x, 0.3)
    assert y.shape == (5, 1 + int(16 * 0.7), 3)
    equal(y, np.take_along_axis(np.asarray(x), np.asarray(places)[..., None], 1))
    assert (places[:, 0] == 0).all()
    assert (np.diff(places, axis=1) > 0).all()
    assert len({tuple(row) for row in places.tolist()}) > 1
    equal(jax.jit(lambda k, x: jdrop.patch_dropout(k, x, 0.3)[1])(key(1), x), places)
    for (y, places), count in (
        (jdrop.patch_dropout(None, x, 0.3, True), 17),
        (jdrop.patch_dropout(None, x, 0.0), 17),
        (jdrop.patch_dropout(key(), x, 1.0), 2),
        (jdrop.patch_dropout(key(), x, 0.5, prefix_tokens=0), 8),
        (jdrop.patch_dropout(key(), x[:, :11], 0.1), 10),
        (jdrop.patch_dropout(key(), x, 0.5, prefix_tokens=17), 17),
    ):
        assert y.shape[1] == places.shape[1] == count
    counts = np.bincount(np.ravel(jdrop.patch_dropout(key(2), jnp.zeros((4000, 10, 1)), 0.5, prefix_tokens=0)[1]))
    for count in counts:  # ten tests
        assert stats.binomtest(int(count), 4000, 0.5).pvalue > 1e-8
    with pytest.raises(TypeError, match="rate and deterministic must be known"):
        jax.jit(jdrop.patch_dropout)(key(), x, 0.5)
    with pytest.raises(ValueError, match="prefix_tokens is 18"):
        jdrop.patch_dropout(key(), x, 0.5, prefix_tokens=18)
    with pytest.raises(ValueError, match="x has shape"):
        jdrop.patch_dropout(key(), x[0], 0.5)


@some(
    ("count", "width", "scale"),
    [(4, 64, 2.0), (4, 10, 1.7), (8, 128, 3.0), (2, 7, 1.5), (3, 12, 1), (5, 20, 6.0)],
    0,
    1,
    4,
)
def test_the_masks_of_masksembles(count, width, scale):
    masks = np.asarray(jdrop.masksembles_masks(key(1), count, width, scale))
    assert masks.shape == (count, width)
    assert masks.dtype == bool
    assert masks.any(0).all()
    (ones,) = set(masks.sum(1))
    assert abs(ones - width / (scale * (1 - (1 - 1 / scale) ** count))) < 2
    equal(masks, jdrop.masksembles_masks(key(1), count, width, scale))
    if scale > 1:
        assert (masks != jdrop.masksembles_masks(key(2), count, width, scale)).any()


def test_masksembles_is_an_ensemble_by_index():
    masks = jdrop.masksembles_masks(key(1), 4, 16, 2.0)
    y = jdrop.masksembles(X, masks)
    for i in range(8):
        equal(y[i], np.where(masks[i // 2], X[i], 0))
    each = jax.vmap(lambda m: jdrop.masksembles(X, masks, m))(jnp.arange(4))
    beyond = jax.jit(jax.vmap(lambda m: jdrop.masksembles(X, masks, m)))(jnp.array([-1, 3, 4]))
    assert jnp.isnan(beyond).all((1, 2, 3)).tolist() == [True, False, True]
    equal(beyond[1], each[3])
    equal(each[2], np.where(masks[2], X, 0))
    shares = [int((masks[i] & masks[j]).sum()) for i in range(4) for j in range(i)]
    assert 0 < np.mean(shares) < int(masks[0].sum())
    for bad, message in (
        ((X[:7], masks), "7 examples"),
        ((X, masks[:, :3]), "masks has shape"),
        ((X, masks, 4), "index is 4"),
    ):
        with pytest.raises(ValueError, match=message):
            jdrop.masksembles(*bad)
    with pytest.raises(TypeError, match="masks has dtype"):
        jdrop.masksembles(X, masks.astype(jnp.float32))
    with pytest.raises(TypeError, match="index"):
        jdrop.masksembles(X, masks, 0.5)
    with pytest.raises(TypeError, match="key is traced"):
        jax.jit(lambda k: jdrop.masksembles_masks(k, 4, 16))(key())
    with pytest.raises(ValueError, match="scale is 0.5"):
        jdrop.masksembles_masks(key(), 4, 16, 0.5)


def test_concrete_dropout_is_the_paper_s_relaxation():
    u = np.asarray(jax.random.uniform(key(1), X.shape, minval=np.finfo(np.float32).tiny), np.float64)
    p, t = float(np.float32(0.3)), 0.1
    z = 1 / (1 + np.exp(-(np.log(p) - np.log1p(-p) + np.log(u) - np.log1p(-u)) / t))
    np.testing.assert_allclose(jdrop.concrete_dropout(key(1), X, 0.3), X * (1 - z) / (1 - p), rtol=1e-3, atol=1e-5)
    f = lambda rate: jdrop.concrete_dropout(key(1), X, rate, temperature=0.5).sum()
    slope = (f(0.301) - f(0.299)) / 0.002
    np.testing.assert_allclose(jax.grad(f)(0.3), slope, rtol=2e-2)
    equal(jdrop.concrete_dropout(key(), X, 1.0), 0)
    for edge in (0.0, 1.0):
        assert np.isfinite(jax.grad(lambda x, edge=edge: jdrop.concrete_dropout(key(), x, edge).sum())(X)).all()
    kernel = array((5, 4))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    wanted = 0.01 * (np.asarray(kernel, np.float64) ** 2).sum() / (1 - p) - 0.2 * 5 * entropy
    np.testing.assert_allclose(jdrop.concrete_regularizer(kernel, 0.3, weight=0.01, dropout=0.2), wanted, rtol=1e-5)
    with pytest.raises(ValueError, match="temperature"):
        jdrop.concrete_dropout(key(), X, 0.3, temperature=0.0)
    with pytest.raises(ValueError, match="kernel has shape"):
        jdrop.concrete_regularizer(kernel[0], 0.3, weight=0.1, dropout=0.1)
    with pytest.raises(ValueError, match="weight is -1"):
        jdrop.concrete_regularizer(kernel, 0.3, weight=-1, dropout=0.1)


@pytest.mark.slow
def test_variational_dropout_is_a_layer_of_normal_weights():
    kernel, log_alpha, x = array((6, 5)), array((6, 5), seed=2), array((3, 6), seed=3)
    n = 200_000
    y = jax.vmap(lambda k: jdrop.variational_dropout(k, x[:1], kernel, log_alpha))(jax.random.split(key(1), n))[:, 0]
    mean = np.asarray(x[:1], np.float64) @ np.asarray(kernel, np.float64)
    variance = np.asarray(x[:1], np.float64) ** 2 @ (
        np.exp(np.float64(log_alpha)) * np.asarray(kernel, np.float64) ** 2
    )
    z = (np.asarray(y, np.float64) - mean) / np.sqrt(variance)
    assert (np.abs(z.mean(0)) < 5.7 / np.sqrt(n)).all()  # ten tests of a normal number, 1e-7 together
    assert (np.abs(z.var(0) - 1) < 5.7 * np.sqrt(2 / n)).all()
    close(jdrop.variational_dropout(None, x, kernel, log_alpha, True), x @ kernel, rtol=1e-5)
    slopes = jax.grad(lambda *a: jdrop.variational_dropout(key(), *a).sum(), (0, 1, 2))(0 * x, kernel, log_alpha)
    assert all(np.isfinite(slope).all() for slope in slopes)
    with pytest.raises(ValueError, match="kernel"):
        jdrop.variational_dropout(key(), x[:, :4], kernel, log_alpha)
    with pytest.raises(ValueError, match="log_alpha has shape"):
        jdrop.variational_dropout(key(), x, kernel, log_alpha[:4])


@pytest.mark.slow
def test_the_divergence_and_pruning_of_variational_dropout():
    """The approximation against the integral, of which it is within 0.01 nats at all ratios (the paper's figure 1)."""
    epsilon = np.random.default_rng(0).normal(size=1_000_000)
    exact = []
    for log_alpha in (-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0):
        expected = np.log(np.abs(1 + np.exp(log_alpha / 2) * epsilon)).mean()
        exact.append(-0.5 * log_alpha + expected)  # and a constant
    ours = [float(jdrop.variational_kl(jnp.float32(value))) for value in (-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0)]
    difference = np.array(ours) - exact
    assert np.ptp(difference) < 0.03
    close(jdrop.variational_kl(jnp.full((2, 3), 1.0)), 6 * jdrop.variational_kl(jnp.float32(1.0)))
    equal(jdrop.prune(X, jnp.full(16, 4.0)), 0)
    equal(jdrop.prune(X, jnp.full(16, 4.0), 5.0), X)
    with pytest.raises(TypeError, match="log_alpha has dtype"):
        jdrop.prune(X, np.arange(16))


def test_the_divergence_is_the_paper_s_formula():
    a = np.array([-5.0, -1.0, 0.0, 2.0])
    sigmoid = 1 / (1 + np.exp(-(1.87320 + 1.48695 * a)))
    wanted = 0.5 * np.log1p(np.exp(-a)) - 0.63576 * sigmoid + 0.63576
    np.testing.assert_allclose(jdrop.variational_kl(jnp.float32(a)), wanted.sum(), rtol=1e-5)
    np.testing.assert_allclose(jdrop.variational_kl(jnp.float32(a[1])), wanted[1], rtol=1e-5)


def test_samples_of_one_input_share_a_head():
    kernel = array((16, 3))
    y = jdrop.multi_sample_dropout(key(1), X, 0.5, head=lambda x: x @ kernel, num_samples=4)
    for i in range(4):
        close(y[i], jdrop.dropout(jdrop.fold_in(key(1), i), X, 0.5) @ kernel, rtol=1e-5, atol=1e-5)
    close(jdrop.multi_sample_dropout(None, X, 0.5, True, head=lambda x: {"y": x @ kernel})["y"], (X @ kernel)[None])
    with pytest.raises(ValueError, match="num_samples"):
        jdrop.multi_sample_dropout(key(), X, 0.5, head=lambda x: x, num_samples=0)
    with pytest.raises(TypeError, match="head"):
        jdrop.multi_sample_dropout(key(), X, 0.5, head=3)


def test_r_drop_is_the_symmetric_divergence():
    a, b = np.asarray(array((4, 5)), np.float64), np.asarray(array((4, 5), seed=2), np.float64)
    p, q = (np.exp(v) / np.exp(v).sum(-1, keepdims=True) for v in (a, b))
    wanted = 0.5 * ((p * np.log(p / q)).sum(-1) + (q * np.log(q / p)).sum(-1))
    np.testing.assert_allclose(jdrop.r_drop(jnp.float32(a), jnp.float32(b)), wanted, rtol=1e-5)
    masked = jnp.float32([[0.0, -jnp.inf, 1.0]])
    assert jdrop.r_drop(masked, masked + 0) == 0
    assert np.isfinite(jax.grad(lambda x: jdrop.r_drop(x, masked + jnp.float32([1, 0, 0])).sum())(masked)).all()
    with pytest.raises(ValueError, match="other"):
        jdrop.r_drop(X, X[:, :3])


def params():
    return {"a": {"kernel": array((4, 3)), "bias": array((3,))}, "b": {"kernel": array((3, 2), seed=2)}}


def test_weights_are_dropped_by_their_names():
    k = key(1)
    dropped = jdrop.drop_connect(k, params(), 0.3)
    for name in "ab":
        kept = jdrop.keep_mask(jdrop.fold_in(k, f"{name}/kernel"), params()[name]["kernel"].shape, 0.3)
        close(dropped[name]["kernel"], jnp.where(kept, params()[name]["kernel"] / (1 - np.float32(0.3)), 0))
    equal(dropped["a"]["bias"], params()["a"]["bias"])
    everything = jdrop.drop_connect(k, params(), 1.0, kernels_only=False)
    assert not any(leaf.any() for leaf in jax.tree.leaves(everything))
    jax.tree.map(equal, jdrop.drop_connect(None, params(), 0.3, True), params())
    answer = jdrop.mc_dropout(
        lambda k, x: x @ jdrop.drop_connect(k, params(), 0.5)["a"]["kernel"], k, jnp.ones((2, 4)), 50
    )
    assert (answer.variance > 0).all()
    with pytest.raises(ValueError, match="rate has shape"):
        jdrop.drop_connect(k, params(), jnp.full(3, 0.3))


def test_mixout_goes_back_to_the_weights_before():
    k, before = key(1), jax.tree.map(lambda leaf: leaf + 1, params())
    mixed = jdrop.mixout(k, params(), before, 0.3)
    w, u, p = (np.asarray(tree["b"]["kernel"], np.float64) for tree in (params(), before, params()))
    p = float(np.float32(0.3))
    kept = np.asarray(jdrop.keep_mask(jdrop.fold_in(k, "b/kernel"), (3, 2), 0.3))
    wanted = (np.where(kept, w, u) - p * u) / (1 - p)  # the paper's equation
    np.testing.assert_allclose(mixed["b"]["kernel"], wanted, rtol=1e-5)
    jax.tree.map(equal, jdrop.mixout(k, params(), before, 1.0)["b"], before["b"])
    jax.tree.map(equal, jdrop.mixout(None, params(), before, 0.3, True), params())
    jax.tree.map(equal, jax.jit(jdrop.mixout)(k, params(), before, 0.3, True), params())
    for bad, message in (({"a": before["a"]}, "none of its name"), (jax.tree.map(jnp.float16, before), "float16")):
        with pytest.raises(ValueError, match=message):
            jdrop.mixout(k, params(), bad, 0.3)


@pytest.mark.parametrize("scaling", ["inverted", "classic"])
def test_the_moments_of_drop_connect_are_those_of_all_masks(scaling):
    x, kernel, rate = array((1, 3)), array((3, 2)), 0.3
    masks, weights = jdrop.mc.all_masks(6, rate)
    m = np.asarray(masks, np.float64).reshape(-1, 3, 2) / (
        (1 - np.float64(np.float32(rate))) if scaling == "inverted" else 1
    )
    y = np.einsum("i,mij->mj", np.asarray(x[0], np.float64), m * np.asarray(kernel, np.float64))
    w = np.asarray(weights, np.float64)[:, None]
    mean = (w * y).sum(0)
    ours = jdrop.drop_connect_moments(x, kernel, rate, scaling=scaling)
    np.testing.assert_allclose(ours[0][0], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours[1][0], (w * (y - mean) ** 2).sum(0), rtol=1e-5)
    equal(jdrop.drop_connect_moments(x, kernel, 1.0, scaling=scaling)[1], 0)
    with pytest.raises(ValueError, match="scaling"):
        jdrop.drop_connect_moments(x, kernel, rate, scaling="none")


def test_schedules_of_rates():
    s = jdrop.schedules
    steps = jnp.array([0, 1, 50, 99, 100, 1000])
    np.testing.assert_allclose(s.curriculum(0.5, 0.1)(steps), 0.5 * (1 - np.exp(-0.1 * np.asarray(steps))), rtol=1e-6)
    close(s.early(0.5, 100)(steps), [0.5, 0.5, 0.5, 0.5, 0, 0])
    close(s.early(0.5, 100, decay=True)(steps), [0.5, 0.495, 0.25, 0.005, 0, 0])
    close(s.late(0.5, 100)(steps), [0, 0, 0, 0, 0.5, 0.5])
    traces = []

    @jax.jit
    def f(step, x):
        traces.append(step)
        return jdrop.dropout(key(), x, s.late(0.5, 2)(step))

    equal([bool((f(i, X) == X).all()) for i in range(4)], [True, True, False, False])
    assert len(traces) == 1
    for bad in (
        lambda: s.curriculum(2, 1),
        lambda: s.curriculum(0.5, 0),
        lambda: s.early(0.5, 0),
        lambda: s.late(0.5, -1),
    ):
        with pytest.raises(ValueError, match=r"rate|speed|steps|start"):
            bad()


LAYERS = {  # name: (function, strength, options, of the call, the input)
    "AlphaDropout": (jdrop.alpha_dropout, 0.3, {}, {}, X),
    "ChannelDropout": (jdrop.channel_dropout, 0.3, {"channel_axis": 1}, {}, X),
    "DropBlock": (jdrop.drop_block, 0.3, {"block_size": 3}, {}, X),
    "DropPath": (jdrop.drop_path, 0.3, {}, {}, X),
    "EmbeddingDropout": (jdrop.embedding_dropout, 0.3, {}, {"tokens": TOKENS}, X),
    "FeatureAlphaDropout": (jdrop.feature_alpha_dropout, 0.3, {"channel_axis": 1}, {}, X),
    "GaussianDropout": (jdrop.gaussian_dropout, 0.3, {}, {}, X),
    "GaussianNoise": (jdrop.gaussian_noise, 2.0, {}, {}, X),
    "PatchDropout": (jdrop.patch_dropout, 0.3, {"prefix_tokens": 2}, {}, X),
    "TokenDropout": (jdrop.token_dropout, 0.3, {}, {"padding": PADDING}, X),
    "WordDropout": (jdrop.word_dropout, 0.3, {"replacement": 9}, {"padding": PADDING}, jnp.asarray(TOKENS)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_the_functions_with_the_stream_s_key(name):
    function, strength, options, given, x = LAYERS[name]
    same = lambda a, b: jax.tree.map(equal, a, b)

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x, deterministic):
            return getattr(jdrop.linen, name)(strength, **options)(x, deterministic=deterministic, **given)

    k = nn.Dropout(0.5).bind({}, rngs={"dropout": key(1)}).make_rng("dropout")
    linen = getattr(jdrop.linen, name)(strength, deterministic=False, **options)
    same(linen.apply({}, x, rngs={"dropout": key(1)}, **given), function(k, x, strength, **options, **given))
    same(linen.apply({}, x, rng=key(7), **given), function(key(7), x, strength, **options, **given))
    same(Outer().apply({}, x, True), function(None, x, strength, True, **options, **given))
    strength_name = "std" if name == "GaussianNoise" else "rate"
    # The rate of patches decides a shape, so it is no array.
    other = {strength_name: 0.5 if name == "PatchDropout" else jnp.float32(0.125)}
    same(linen.apply({}, x, rng=key(7), **given, **other), function(key(7), x, *other.values(), **options, **given))
    with pytest.raises(jdrop.linen.MissingStreamError, match=name):
        Outer().apply({}, x, False)

    layer = getattr(jdrop.nnx, name)(strength, rngs=nnx.Rngs(dropout=0), **options)
    stream = nnx.Rngs(dropout=0).dropout.fork()
    for _ in range(2):
        same(layer(x, **given), function(stream(), x, strength, **options, **given))
    same(layer(x, rngs=key(7), **given), function(key(7), x, strength, **options, **given))
    same(layer(x, rngs=key(7), **given, **other), function(key(7), x, *other.values(), **options, **given))
    layer.eval()
    same(layer(x, **given), function(None, x, strength, True, **options, **given))
    with pytest.raises(ValueError, match=name):
        getattr(jdrop.nnx, name)(strength, **options)(x, **given)


def test_predictors_have_the_family_draw():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = jdrop.linen.AlphaDropout(0.3)(x, deterministic=not train)
            return jdrop.linen.ChannelDropout(0.3, deterministic=not train)(x)

    class NNXNet(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = jdrop.nnx.AlphaDropout(0.3, rngs=rngs), jdrop.nnx.ChannelDropout(0.3, rngs=rngs)

        def __call__(self, x):
            return self.b(self.a(x))

    for predict, only in (
        (jdrop.linen.predictor(Net(), {}), jdrop.linen.predictor(Net(), {}, only="AlphaDropout_0")),
        (jdrop.nnx.predictor(NNXNet(nnx.Rngs(0))), jdrop.nnx.predictor(NNXNet(nnx.Rngs(0)), only="a")),
    ):
        y, alpha = predict(key(1), X), only(key(1), X)
        assert (y == 0).any()
        assert (alpha != X).any()
        assert (alpha != 0).all()
        assert (predict(key(2), X) != y).any()


def test_a_loss_gets_the_step_of_the_state():
    def loss_fn(params, batch, key, step):
        dropped = jdrop.dropout(key, batch, jdrop.schedules.late(0.5, 2)(step), key is None)
        return (dropped * params["w"]).mean(), {"dropped": (dropped == 0).mean(), "step": step}

    t = jdrop.training
    for options in ({}, {"accumulate": 2}, {"per_example": True}):
        state = t.TrainState.create(params={"w": jnp.ones(16)}, tx=optax.sgd(0.0), key=key())
        step = t.make_train_step(loss_fn, **options)
        found = []
        for _ in range(4):
            state, metrics = step(state, X[:, 0])
            found.append(float(metrics["dropped"]) > 0)
        assert found == [False, False, True, True]
    assert t.make_eval_step(loss_fn)(state, X[:, 0])["step"] == 4


def test_layers_that_learn():
    linen = jdrop.linen.ConcreteDropout(0.2, deterministic=False)
    variables = linen.init({"params": key(0)}, X)
    np.testing.assert_allclose(jax.nn.sigmoid(variables["params"]["logit"]), 0.2, rtol=1e-6)
    loss = lambda variables: (linen.apply(variables, X, rngs={"dropout": key(1)}) ** 2).sum()
    assert jax.grad(loss)(variables)["params"]["logit"] != 0
    equal(linen.clone(deterministic=True).apply(variables, X), X)
    model = jdrop.nnx.ConcreteDropout(0.2, rngs=nnx.Rngs(0))
    k = nnx.Rngs(0).dropout.fork()()
    close(model(X), jdrop.concrete_dropout(k, X, jax.nn.sigmoid(model.logit[...])))
    model.eval()
    equal(model(X), X)
    with pytest.raises(ValueError, match="rate is 0.0"):
        jdrop.nnx.ConcreteDropout(0.0)

    dense = jdrop.linen.VariationalDropout(5, deterministic=False)
    variables = dense.init({"params": key(0)}, X)
    drawn = dense.apply(variables, X, rng=key(1))
    p = variables["params"]
    close(drawn, jdrop.variational_dropout(key(1), X, p["kernel"], p["log_alpha"]) + p["bias"])
    assert set(p) == {"kernel", "log_alpha", "bias"}
    layer = jdrop.nnx.VariationalDropout(16, 5, rngs=nnx.Rngs(0))
    close(layer(X, rngs=key(1)), jdrop.variational_dropout(key(1), X, layer.kernel[...], layer.log_alpha[...]))
    layer.eval()
    close(layer(X), X @ layer.kernel[...], rtol=1e-5, atol=1e-5)


def test_layers_of_masksembles():
    layer = jdrop.linen.Masksembles(4)
    each = jnp.stack([layer.apply({}, X, i) for i in range(4)])
    equal(jax.jit(lambda x, i: layer.apply({}, x, i))(X, 2), each[2])
    equal(layer.apply({}, X)[:2], each[0][:2])
    assert (jdrop.linen.Masksembles(4, seed=1).apply({}, X, 0) != each[0]).any()
    model = jdrop.nnx.Masksembles(16, rngs=nnx.Rngs(0))
    equal(model(X, 1), jdrop.masksembles(X, model.masks[...], 1))


def test_linen_layers_that_drop_another_s_weights():
    layer = jdrop.linen.DropConnect(nn.Dense(5), 0.5, deterministic=False)
    y, variables = layer.init_with_output({"params": key(0), "dropout": key(3)}, X)
    whole = variables["params"]["layer"]
    assert (whole["kernel"] != 0).all()
    assert (y != dense(whole)).any()
    left = jdrop.drop_connect(key(1), whole, 0.5)
    close(layer.apply(variables, X, rng=key(1)), dense(left), rtol=1e-5, atol=1e-5)
    close(layer.clone(deterministic=True).apply(variables, X), dense(whole), rtol=1e-5, atol=1e-5)
    slope = jax.grad(lambda v: layer.apply(v, X, rng=key(1)).sum())(variables)["params"]["layer"]["kernel"]
    equal(slope == 0, left["kernel"] == 0)
    predict = jdrop.linen.predictor(layer.clone(deterministic=True), variables)
    assert (jdrop.mc_dropout(predict, key(1), X, 20).variance > 0).all()


def test_nnx_layers_that_drop_another_s_weights():
    model = jdrop.nnx.DropConnect(nnx.Linear(16, 5, rngs=nnx.Rngs(0)), 0.5, scaling="classic", rngs=nnx.Rngs(1))
    whole = {"kernel": model.layer.kernel[...], "bias": model.layer.bias[...]}
    left = jdrop.drop_connect(key(1), whole, 0.5, scaling="classic")
    close(nnx.jit(lambda model: model(X, rngs=key(1)))(model), dense(left), rtol=1e-5, atol=1e-5)
    equal(model.layer.kernel[...], whole["kernel"])
    assert (model(X) != model(X)).any()
    slope = nnx.grad(lambda model: model(X, rngs=key(1)).sum())(model)["layer"]["kernel"][...]
    equal(slope == 0, left["kernel"] == 0)
    assert (jdrop.mc_dropout(jdrop.nnx.predictor(model), key(1), X, 20).variance > 0).all()
    model.eval()
    close(model(X), 0.5 * (X @ whole["kernel"]) + whole["bias"], rtol=1e-5, atol=1e-5)
    # What else a layer has stays its own, such as the statistics of batches.
    rngs = nnx.Rngs(0)
    both = nnx.Sequential(nnx.Linear(16, 5, rngs=rngs), nnx.BatchNorm(5, momentum=0.0, rngs=rngs))
    jdrop.nnx.DropConnect(both, 1.0, rngs=rngs)(X)
    equal(both.layers[1].var[...], 0)  # no longer 1, since all outputs are the bias
    with pytest.raises(ValueError, match="kernels_only=False"):
        jdrop.nnx.DropConnect(both.layers[1], 0.5, rngs=rngs)(X)
    everything = jdrop.nnx.DropConnect(both.layers[0], 1.0, kernels_only=False, rngs=rngs)(X)
    assert not everything.any()


def test_layers_that_go_back_to_weights_before():
    class Net(nn.Module):  # the parameters of a layer made here are in this module's tree, and those before too
        @nn.compact
        def __call__(self, x, rng=None):
            return jdrop.linen.Mixout(nn.Dense(5), 0.5, deterministic=rng is None)(x, rng=rng)

    for model, name in ((Net(), "Dense_0"), (jdrop.linen.Mixout(nn.Dense(5), 0.5, deterministic=False), "layer")):
        initial = model.init({"params": key(0), "dropout": key(3)}, X)
        jax.tree.map(equal, initial["pretrained"], initial["params"])
        before = initial["params"][name]
        after = jax.tree.map(lambda w: w + 1, before)
        tuned = {"params": {name: after}, "pretrained": {name: before}}
        wanted = jdrop.mixout(key(1), after, before, 0.5)
        close(model.apply(tuned, X, rng=key(1)), dense(wanted), rtol=1e-5, atol=1e-5)
        slope = jax.grad(lambda v, m=model: m.apply(v, X, rng=key(1)).sum())(tuned)
        equal(slope["params"][name]["kernel"] == 0, wanted["kernel"] == before["kernel"])
        with pytest.raises(ValueError, match="pretrained has none of its name"):
            model.apply({"params": initial["params"]}, X, rng=key(1))
    close(Net().apply({"params": {"Dense_0": after}, "pretrained": {"Dense_0": before}}, X), dense(after), rtol=1e-5)

    model = jdrop.nnx.Mixout(nnx.Linear(16, 5, rngs=nnx.Rngs(0)), 0.5, rngs=nnx.Rngs(1))
    before = {"kernel": model.layer.kernel[...], "bias": model.layer.bias[...]}
    after = jax.tree.map(lambda w: w + 1, before)
    model.layer.kernel[...], model.layer.bias[...] = after["kernel"], after["bias"]
    wanted = jdrop.mixout(key(1), after, before, 0.5)
    close(nnx.jit(lambda model: model(X, rngs=key(1)))(model), dense(wanted), rtol=1e-5, atol=1e-5)
    slope = nnx.grad(lambda model: model(X, rngs=key(1)).sum())(model)["layer"]["kernel"][...]
    equal(slope == 0, wanted["kernel"] == before["kernel"])
    assert set(jdrop.nnx.train_parts(model)["params"]) == {"layer"}  # what is optimized
    assert (jdrop.mc_dropout(jdrop.nnx.predictor(model), key(1), X, 20).variance > 0).all()
    model.eval()
    close(model(X), dense(after), rtol=1e-5, atol=1e-5)


def test_layers_of_several_samples():
    layer = jdrop.linen.MultiSampleDropout(nn.Sequential([nn.Dense(5), nn.Dropout(0.5, deterministic=False)]), 0.5, 3)
    streams = {"params": key(0), "dropout": key(3)}
    y, variables = layer.init_with_output(streams, X, deterministic=False)
    assert y.shape == (3, 8, 12, 5)
    assert ((y[0] == 0) != (y[1] == 0)).any()  # what the head draws is not shared
    layer = jdrop.linen.MultiSampleDropout(nn.Dense(5), 0.5, num_samples=3, deterministic=False)
    variables = layer.init({"params": key(0), "dropout": key(3)}, X)
    weights = variables["params"]["head"]
    head = lambda x: x @ weights["kernel"] + weights["bias"]
    wanted = jdrop.multi_sample_dropout(key(1), X, 0.5, head=head, num_samples=3)
    close(layer.apply(variables, X, rng=key(1)), wanted, rtol=1e-5, atol=1e-5)
    close(layer.clone(deterministic=True).apply(variables, X), head(X)[None], rtol=1e-5, atol=1e-5)

    model = jdrop.nnx.MultiSampleDropout(nnx.Linear(16, 5, rngs=nnx.Rngs(0)), 0.5, num_samples=3, rngs=nnx.Rngs(1))
    wanted = jdrop.multi_sample_dropout(key(1), X, 0.5, head=model.head, num_samples=3)
    close(nnx.jit(lambda model: model(X, rngs=key(1)))(model), wanted, rtol=1e-5, atol=1e-5)
    model.eval()
    close(model(X), model.head(X)[None], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="num_samples"):
        jdrop.nnx.MultiSampleDropout(model.head, 0.5, num_samples=0, rngs=nnx.Rngs(1))(X)


@pytest.mark.parametrize("spatial", [(7,), (5, 4), (3, 4, 2)])
def test_channels_are_dropped_as_by_pytorch(spatial):
    """On PyTorch's mask: both multiply all of a channel of an example by one number, 0 or that of the scaling."""
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, f"Dropout{len(spatial)}d")(0.3)
    x = np.asarray(array((16, 32, *spatial)))
    noise = []
    for values in (np.ones_like(x), x):
        torch.manual_seed(5)
        noise.append(theirs(torch.tensor(values)).numpy())
    their_noise, their_y = noise
    ones, y = (np.asarray(jdrop.channel_dropout(key(1), v, 0.3, channel_axis=1)) for v in (jnp.ones(x.shape), x))
    for each, result in ((their_noise, their_y), (ones, y)):
        channel = each.reshape(16, 32, -1)[..., 0]
        np.testing.assert_array_equal(each, np.broadcast_to(channel.reshape(16, 32, *[1] * len(spatial)), x.shape))
        np.testing.assert_allclose(np.unique(each), [0, 1 / 0.7], rtol=1e-6)
        np.testing.assert_allclose(result, x * each, rtol=1e-6)
        # Beyond these counts with a probability of 8e-8, in all six cases together of 5e-7.
        assert 100 <= (channel == 0).sum() <= 210

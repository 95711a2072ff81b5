"""Monte Carlo dropout: masks that never depend on how many samples run at once, and exact uncertainty.

Numbers behind a matrix product are equal to the rounding of float32 alone, `close`: a library rounds it by its rows.
"""

import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import array, key
from flax import nnx
from lowering import lowered
from scipy.stats import entropy
from tiers import some

import jdrop


class Dense(nn.Module):
    """Its modes are arguments without defaults, and given to the layers at the call."""

    width: int = 64

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm()(nn.Dense(self.width)(x), use_running_average=not train)
        x = jdrop.linen.Dropout(0.5)(nn.relu(x), deterministic=not train)
        x = nn.Dropout(0.5)(nn.Dense(self.width)(x), deterministic=not train)
        return nn.Dense(5)(x)


class Convolution(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic=True):
        x = nn.relu(nn.Conv(8, (3, 3))(x[..., None]))
        x = jdrop.linen.Dropout(0.3)(x, deterministic)
        return nn.Dense(5)(x.reshape(len(x), -1))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(2, dropout_rate=0.5, deterministic=True)(x)
        return nn.Dense(5)(x)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(20, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.drop = jdrop.nnx.Dropout(0.5, rngs=rngs)
        self.theirs = nnx.Dropout(0.5, rngs=rngs)
        self.outer = nnx.Linear(64, 5, rngs=rngs)

    def __call__(self, x, train):
        x = self.norm(self.inner(x), not train)
        x = self.drop(nnx.relu(x), deterministic=not train)
        return self.outer(self.theirs(x, deterministic=not train))


def linen(model, x, *args):
    return jdrop.linen.predictor(model, model.init(key(2), x, *args))


PREDICTORS = {  # each gives (predict, x)
    "dense": lambda: of_linen(Dense(), array((6, 20)), False),
    "nnx": lambda: (jdrop.nnx.predictor(NNXNet(nnx.Rngs(0))), array((6, 20))),
    "function": lambda: (lambda k, x: {"y": jdrop.dropout(k, x["x"], 0.5)}, {"x": array((6, 20))}),
    "wide": lambda: of_linen(Dense(700), array((6, 20)), False),
    "single": lambda: of_linen(Dense(), array((1, 20)), False),
    "convolution": lambda: of_linen(Convolution(), array((3, 6, 6))),
    "attention": lambda: of_linen(Attention(), array((2, 6, 8))),
}


def of_linen(model, x, *args):
    return linen(model, x, *args), x


def close(a, b):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), a, b)


@some("name", PREDICTORS, 2)
def test_sample_i_is_the_pass_of_key_i_for_every_chunk_size(name):
    predict, x = PREDICTORS[name]()
    samples = jdrop.mc.samples(predict, key(3), x, 7)
    single = jax.jit(predict)
    for i in range(7):
        close(jax.tree.map(lambda s, i=i: s[i], samples), single(jdrop.fold_in(key(3), i), x))
    for chunk_size in (1, 3):
        close(jdrop.mc.samples(predict, key(3), x, 7, chunk_size=chunk_size), samples)
    close(jax.tree.map(lambda s: s[:4], samples), jdrop.mc.samples(predict, key(3), x, 4))
    assert all((leaf.std(0) > 0).any() for leaf in jax.tree.leaves(samples))


@some("chunk_size", [None, 1, 3, 100], 0, 2)
def test_masks_are_those_of_each_pass_to_the_bit(chunk_size):
    drawn = jdrop.mc.samples(lambda k, x: jdrop.dropout(k, x, 0.5), key(3), jnp.ones((6, 20)), 7, chunk_size=chunk_size)
    for i in range(7):
        data = np.asarray(jax.random.key_data(jdrop.fold_in(key(3), i)))
        np.testing.assert_array_equal(drawn[i] != 0, oracle.mask("threefry2x32", data, (6, 20), 0.5))


def test_only_dropout_is_stochastic_in_a_linen_model():
    """With dropout at rate 0 the stochastic pass is the deterministic one, batch norm included."""

    class Net(nn.Module):
        rate: float

        @nn.compact
        def __call__(self, x, train=True):
            x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
            return jdrop.linen.Dropout(self.rate, deterministic=not train, name="drop")(x)

    x = array((6, 20))
    variables = Net(0.0).init(key(), x, False)
    variables = jax.tree.map(lambda v: v + 0.5, variables)
    wanted = Net(0.0).apply(variables, x, train=False)
    for mode in ({}, {"train": True}):  # the second asks batch norm for its training mode, and must not get it
        predict = jdrop.linen.predictor(Net(0.0), variables, **mode)
        np.testing.assert_array_equal(predict(key(1), x), wanted)
    dropped = jdrop.linen.predictor(Net(0.5), variables)(key(1), x)
    zeros = np.asarray(dropped == 0)
    assert 0 < zeros.mean() < 1
    np.testing.assert_array_equal(np.asarray(dropped)[~zeros], 2 * np.asarray(wanted)[~zeros])


def test_only_dropout_is_stochastic_in_an_nnx_model_which_stays_as_it_was():
    model = NNXNet(nnx.Rngs(0))
    before = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    model.drop.rate = model.theirs.rate = 0.0
    x = array((6, 20))
    for mode in ({}, {"train": True}):
        np.testing.assert_array_equal(jdrop.nnx.predictor(model, **mode)(key(1), x), model(x, False))
    after = jax.tree.leaves(nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.RngKey))))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert type(model.drop) is jdrop.nnx.Dropout


def test_an_nnx_model_predicts_the_same_however_often_it_was_called():
    x, model = array((6, 20)), NNXNet(nnx.Rngs(0))
    before = jdrop.nnx.predictor(model)(key(3), x)
    model.theirs(x, deterministic=False)
    np.testing.assert_array_equal(jdrop.nnx.predictor(model)(key(3), x), before)


def test_layers_of_an_nnx_model_have_masks_of_their_own():
    class Twice(nnx.Module):
        def __init__(self, rngs):
            self.a, self.b = (jdrop.nnx.Dropout(0.5, rngs=rngs) for _ in range(2))

        def __call__(self, x):
            return jnp.stack([self.a(x), self.b(x), self.a(x)])

    a, b, c = np.asarray(jdrop.nnx.predictor(Twice(nnx.Rngs(0)))(key(1), jnp.ones(300)))
    assert (a != b).any()
    assert (a != c).any()
    assert (b != c).any()


class Own(nn.Dropout):
    """A user's layer, whose call has no `deterministic`."""

    def __call__(self, x):
        return super().__call__(x)


class OwnAttention(nn.MultiHeadDotProductAttention):
    """It passes the mode on by position, as Flax's SelfAttention does."""

    def __call__(self, x, deterministic=None):
        return super().__call__(x, None, None, mask=None, deterministic=deterministic)


class OwnNNX(nnx.Dropout):
    def __call__(self, x):
        return super().__call__(x)


@pytest.mark.parametrize("layer", [Own(0.5, deterministic=True), OwnAttention(2, dropout_rate=0.5, deterministic=True)])
def test_layers_derived_from_flax_s_are_stochastic_too(layer):
    samples = jdrop.mc.samples(linen(layer, array((2, 6, 8))), key(1), array((2, 6, 8)), 3)
    assert (np.asarray(samples.std(0)) > 1e-3).any()


def test_an_nnx_layer_derived_from_flax_s_is_stochastic_too():
    layer = OwnNNX(0.5, deterministic=True, rngs=nnx.Rngs(0))
    samples = jdrop.mc.samples(jdrop.nnx.predictor(layer), key(1), jnp.ones(100), 3)
    assert (np.asarray(samples.std(0)) > 1e-3).any()
    assert type(layer) is OwnNNX


def test_arrays_may_be_arguments_of_the_model():
    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x, mask, train=True):
            return jdrop.linen.Dropout(0.5, deterministic=not train)(x) * mask

    for value in (1.0, 2.0):
        predict = jdrop.linen.predictor(Masked(), {}, mask=jnp.full(8, value))
        assert float(jdrop.mc.samples(predict, key(), jnp.ones(8), 5).max()) == 2 * value


@pytest.mark.parametrize("call", [jdrop.mc.samples, jdrop.mc_dropout])
@some("chunk_size", [5, 20], 0)
def test_what_comes_before_the_first_dropout_is_computed_once(call, chunk_size):
    """In the compiled program: its tanh, of one pass's shape, is outside of the loop over chunks."""

    def predict(k, x):
        return jdrop.dropout(k, jnp.tanh(x @ jnp.ones((64, 96))), 0.5)

    program = jax.jit(lambda k, x: jax.tree.leaves(call(predict, k, x, 20, chunk_size=chunk_size)))
    text = program.lower(key(), jnp.ones((8, 64))).compile().as_text()
    fused = re.findall(r"^%?(\S+) \([^\n]*\{\n(?:  [^\n]*\n)*?  [^\n]* = (\S+?)\{\S* tanh\(", text, re.MULTILINE)
    assert [shape for _, shape in fused] == ["f32[8,96]"]
    entry = text[text.index("\nENTRY") :]
    assert f"calls=%{fused[0][0].lstrip('%')}," in entry or "tanh(" in entry


@some("platform", ["cuda", "tpu"], 1)
def test_nothing_loops_over_the_samples_of_a_chunk(platform):
    """On accelerators, whose programs have no loop at all where the samples are one chunk."""

    def predict(k, x):
        return jax.nn.softmax(jdrop.dropout(k, x, 0.5) @ jnp.ones((64, 5)))

    for call in (jdrop.mc.samples, jdrop.mc_dropout):

        def run(k, x, call=call):
            return jax.tree.leaves(call(predict, k, x, 100))

        given = key(), jnp.ones((64, 64))
        assert "stablehlo.while" not in lowered(platform, run, *given)
        assert "stablehlo.while" in lowered("cpu", run, *given)  # of the draw: the line above could have failed


def test_equal_predictors_compile_once():
    x = array((6, 20))
    variables = Dense().init(key(2), x, False)
    traces = []

    class Counting(Dense):
        @nn.compact
        def __call__(self, x, train):
            traces.append(0)
            return super().__call__(x, train)

    for scale in (1.0, 2.0):
        scaled = jax.tree.map(lambda v, s=scale: v * jnp.float32(s), variables)
        jdrop.mc_dropout(jdrop.linen.predictor(Counting(), scaled), key(), x, 3)
    assert len(traces) == 1
    jdrop.mc_dropout(jdrop.linen.predictor(Counting(), variables), key(), x, 3, transform=jax.nn.softmax)
    before = len(traces)
    jdrop.mc_dropout(jdrop.linen.predictor(Counting(), variables), key(), x, 3, transform=jax.nn.softmax)
    assert len(traces) == before


def test_a_function_defined_afresh_is_compiled_once_and_sees_what_has_changed():
    from jdrop.mc._prediction import _stream

    x, params = jnp.ones(3), {"w": jnp.ones(3)}

    def mean():
        return jdrop.mc_dropout(lambda k, x: jdrop.dropout(k, x, 0.5) * params["w"], key(), x, 10).mean

    first, compiled = mean(), _stream._cache_size()
    params["w"] = 3 * params["w"]
    np.testing.assert_allclose(mean(), 3 * first)
    assert _stream._cache_size() == compiled


def test_moments_and_entropies_by_enumeration():
    """Four dropped units, all 16 masks: the true predictive distribution, and the estimate from 20,000 passes.

    Each of the 9 class probabilities and 3 entropies is a mean of 20,000 independent bounded terms; 6 standard errors
    for 12 of them make a false alarm below 1e-7.
    """
    weights, x = array((4, 3), seed=4), array((3, 4), seed=8)

    def predict(k, x):
        return jdrop.dropout(k, x, 0.3) @ weights

    masks = np.array(list(itertools.product([0, 1], repeat=4)))
    chance = np.prod(np.where(masks, 0.7, 0.3), axis=1)
    # The rows of x have masks of their own; each row's marginal is over its own 16 masks.
    logits = (np.asarray(x)[:, None] * masks / 0.7) @ np.asarray(weights, np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mean = np.einsum("m,rmc->rc", chance, p)
    variance = np.einsum("m,rmc->rc", chance, (p - mean[:, None]) ** 2)
    aleatoric = entropy(p, axis=-1) @ chance
    samples = 20000
    result = jdrop.mc_dropout(predict, key(6), x, samples, transform=jax.nn.softmax, chunk_size=5000)
    error = np.sqrt(variance / samples)
    assert (np.abs(result.mean - mean) <= 6 * error).all()
    spread = np.sqrt((entropy(p, axis=-1) - aleatoric[:, None]) ** 2 @ chance / samples)
    assert (np.abs(result.expected_entropy - aleatoric) <= 6 * spread).all()
    np.testing.assert_allclose(result.variance, variance, rtol=0.1)
    np.testing.assert_allclose(result.predictive_entropy, entropy(mean, axis=-1), rtol=0.02)
    np.testing.assert_allclose(result.mutual_information, entropy(mean, axis=-1) - aleatoric, rtol=0.1)


def test_the_summary_is_numpy_s_of_the_samples():
    x = array((6, 20))
    predict = linen(Dense(), x, False)
    result = jdrop.mc_dropout(predict, key(3), x, 9, transform=jax.nn.softmax)
    p = np.asarray(jax.nn.softmax(jdrop.mc.samples(predict, key(3), x, 9)), np.float64)
    assert result.num_samples == 9
    np.testing.assert_allclose(result.mean, p.mean(0), rtol=1e-5)
    np.testing.assert_allclose(result.variance, p.var(0), rtol=1e-4)
    np.testing.assert_allclose(jnp.sqrt(result.variance), p.std(0), rtol=1e-4)
    np.testing.assert_allclose(result.predictive_entropy, entropy(p.mean(0), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(result.expected_entropy, entropy(p, axis=-1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        result.mutual_information, entropy(p.mean(0), axis=-1) - entropy(p, axis=-1).mean(0), rtol=1e-4, atol=1e-6
    )


def test_under_jit_and_in_half_precision():
    x = array((6, 20), jnp.bfloat16)

    def predict(k, x):
        return jdrop.dropout(k, x, 0.5)

    outside = jdrop.mc_dropout(predict, key(3), x, 9, transform=jax.nn.softmax)
    inside = jax.jit(lambda k, x: jdrop.mc_dropout(predict, k, x, 9, transform=jax.nn.softmax))(key(3), x)
    assert outside.mean.dtype == outside.expected_entropy.dtype == jnp.float32
    # XLA keeps bfloat16 values in float32 where it can, so the two agree to bfloat16's precision only.
    np.testing.assert_allclose(inside.mean, outside.mean, rtol=2**-8)
    np.testing.assert_allclose(inside.mutual_information, outside.mutual_information, rtol=2**-6)


def test_logits_have_no_entropy():
    result = jdrop.mc_dropout(lambda k, x: jdrop.dropout(k, x, 0.5), key(), array((2, 3)), 5)
    for name in ("predictive_entropy", "expected_entropy", "mutual_information"):
        with pytest.raises(ValueError, match="not probabilities.*transform=jax.nn.softmax"):
            getattr(result, name)


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_one(size):
    with pytest.raises(ValueError, match=f"num_samples is {size}, but it must be at least 1"):
        jdrop.mc_dropout(lambda k, x: x, key(), jnp.ones(3), size)
    with pytest.raises(ValueError, match=f"chunk_size is {size}, but it must be at least 1"):
        jdrop.mc.samples(lambda k, x: x, key(), jnp.ones(3), 5, chunk_size=size)


def test_arguments_of_a_wrong_type():
    with pytest.raises(TypeError, match="num_samples is 2.5"):
        jdrop.mc_dropout(lambda k, x: x, key(), jnp.ones(3), 2.5)
    with pytest.raises(TypeError, match="predict is a int"):
        jdrop.mc_dropout(3, key(), jnp.ones(3))
    with pytest.raises(TypeError, match="transform is 'softmax'"):
        jdrop.mc_dropout(lambda k, x: x, key(), jnp.ones(3), transform="softmax")
    with pytest.raises(TypeError, match="model is a int"):
        jdrop.linen.predictor(3, {})
    with pytest.raises(TypeError, match="model is a int"):
        jdrop.nnx.predictor(3)
    with pytest.raises(TypeError, match="mc_dropout averages floating-point arrays"):
        jdrop.mc_dropout(lambda k, x: {"a": x.astype(int)}, key(), jnp.ones(3))
    with pytest.raises(TypeError, match=r"mesh is a tuple.*jax.make_mesh"):
        jdrop.mc.samples(lambda k, x: x, key(), jnp.ones(3), mesh=(8,))
    for tolerance in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="tolerance is.*write tolerance=0.01"):
            jdrop.mc_dropout(lambda k, x: x, key(), jnp.ones(3), tolerance=tolerance)
    with pytest.raises(ValueError, match="num_samples=10 and tolerance=0.1 were given, but one of them decides"):
        jdrop.mc_dropout(lambda k, x: x, key(), jnp.ones(3), 10, tolerance=0.1)


MESHES = [((8,), ("samples",)), ((2, 4), ("samples", "batch")), ((2, 2, 2), ("a", "data", "b")), ((8,), ("batch",))]


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "names"), MESHES)
@pytest.mark.parametrize(("chunk_size", "kind"), [(None, "Auto"), (3, "Explicit")])
def test_every_mesh_draws_the_same(sizes, names, chunk_size, kind):
    """Elementwise, so that nothing but the masks could differ: the same to the bit."""
    mesh = jax.make_mesh(sizes, names, axis_types=(jax.sharding.AxisType[kind],) * len(sizes))
    x = array((8, 100))

    def predict(k, x):
        return jax.nn.relu(jdrop.dropout(k, x, 0.4))

    alone = jdrop.mc.samples(predict, key(3), x, 11)
    split = jdrop.mc.samples(predict, key(3), x, 11, chunk_size=chunk_size, mesh=mesh)
    np.testing.assert_array_equal(split, alone)
    one, many = (jdrop.mc_dropout(predict, key(3), x, 11, chunk_size=c, mesh=m) for c, m in ((4, None), (None, mesh)))
    close([many.mean, many.variance], [one.mean, one.variance])


@pytest.mark.slow
@pytest.mark.parametrize("name", PREDICTORS)
def test_split_samples_are_the_same(name):
    predict, x = PREDICTORS[name]()
    mesh = jax.make_mesh((8,), ("samples",), axis_types=(jax.sharding.AxisType.Auto,))
    close(jdrop.mc.samples(predict, key(3), x, 7, mesh=mesh), jdrop.mc.samples(predict, key(3), x, 7))


def test_a_batch_that_the_mesh_does_not_divide():
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    with pytest.raises(ValueError, match=r"shape \(9, 3\).*pad the batch to a multiple of 8"):
        jdrop.mc.samples(lambda k, x: jdrop.dropout(k, x, 0.5), key(), jnp.ones((9, 3)), 5, mesh=mesh)


@some("chunk_size", [1, 4, 7, 100], 2)
def test_moments_do_not_depend_on_the_chunk_size(chunk_size):
    x = array((6, 20))
    predict = linen(Dense(), x, False)
    whole = jdrop.mc_dropout(predict, key(3), x, 23, transform=jax.nn.softmax)
    parts = jdrop.mc_dropout(predict, key(3), x, 23, transform=jax.nn.softmax, chunk_size=chunk_size)
    close(parts, whole)


@some("chunk_size", [1, 7, 1000], 1)
def test_moments_of_large_numbers_keep_their_digits(chunk_size):
    """Mean 1e4 and deviation 1: of sums of squares in float32 no digit of the variance would be left."""
    predict = lambda k, x: x + jax.random.normal(k, x.shape)
    drawn = np.asarray(jdrop.mc.samples(predict, key(3), jnp.full(50, 1e4), 1000), np.float64)
    result = jdrop.mc_dropout(predict, key(3), jnp.full(50, 1e4), 1000, chunk_size=chunk_size)
    np.testing.assert_allclose(result.mean, drawn.mean(0), rtol=5e-6)  # of float32 additions
    np.testing.assert_allclose(result.variance, drawn.var(0), rtol=1e-3)


def test_trees_are_summed_up_leaf_by_leaf():
    def predict(k, x):
        return {"a": jdrop.dropout(k, x["u"], 0.5), "b": jdrop.dropout(jdrop.fold_in(k, "b"), x["v"], 0.2).sum()}

    x = {"u": array((3, 4)), "v": array((5,))}
    result, drawn = jdrop.mc_dropout(predict, key(1), x, 30), jdrop.mc.samples(predict, key(1), x, 30)
    for name in ("a", "b"):
        np.testing.assert_allclose(result.mean[name], np.asarray(drawn[name], np.float64).mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            result.variance[name], np.asarray(drawn[name], np.float64).var(0), rtol=1e-4, atol=1e-9
        )
        error = np.asarray(drawn[name], np.float64).std(0, ddof=1) / np.sqrt(30)
        np.testing.assert_allclose(result.standard_error[name], error, rtol=1e-4)


@pytest.mark.slow
def test_auto_stops_at_the_first_ten_that_are_precise_enough():
    x = array((6, 20))
    predict = lambda k, x: jdrop.dropout(k, x, 0.5)
    drawn = np.asarray(jdrop.mc.samples(predict, key(3), x, 400), np.float64)
    error = np.array([(drawn[:n].std(0, ddof=1) / np.sqrt(n)).max() for n in range(10, 401, 10)])
    wanted = 10 + 10 * int(np.argmax(error <= 0.12))
    assert 20 < wanted < 300
    for chunk_size in (None, 7):
        result = jdrop.mc_dropout(predict, key(3), x, tolerance=0.12, chunk_size=chunk_size)
        assert result.num_samples == wanted
        close(result, jdrop.mc_dropout(predict, key(3), x, wanted))
    with pytest.warns(UserWarning, match="20 samples leave a standard error of"):
        assert jdrop.mc_dropout(predict, key(3), x, tolerance=0.12, max_samples=20).num_samples == 20


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples():
    from jdrop.mc._prediction import _stream

    x = jnp.ones((200, 50))

    def peak(n):
        predict = jax.tree_util.Partial(lambda k, x: jdrop.dropout(k, x, 0.5))
        memory = _stream.lower(predict, key(), x, jnp.float32(0), n, None, None, False).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    assert peak(10_000) <= 1.2 * peak(100)


def test_equal_samples_and_bad_outputs_warn():
    x = jnp.ones((3, 4))
    for call in (jdrop.mc_dropout, jdrop.mc.samples):
        with pytest.warns(UserWarning, match="all 5 Monte Carlo samples are equal.*deterministic"):
            call(lambda k, x: x, key(), x, 5)
        with pytest.warns(UserWarning, match="predict returned NaN or infinite outputs"):
            call(lambda k, x: jdrop.dropout(k, x / 0, 0.5), key(), x, 5)
        call(lambda k, x: x, key(), x, 1)
        call(lambda k, x: jdrop.dropout(k, x, 0.5), key(), x[:0], 5)  # nothing to be equal
    jdrop.mc.samples(lambda k, x: (jdrop.dropout(k, x, 0.5).argmax(-1), x), key(), jnp.ones((50, 4)), 5)
    with pytest.warns(UserWarning, match="samples are equal"):
        jdrop.mc.samples(lambda k, x: x.argmax(-1), key(), x, 5)
    assert jdrop.mc_dropout(lambda k, x: jdrop.dropout(k, x, 0.5), key(), x[:0], tolerance=0.1).num_samples == 10


def test_batches_are_predicted_one_after_another():
    x = array((7, 20))
    predict = lambda k, x: jdrop.dropout(k, x, 0.5)[:, :5]
    parts = [x[:3], x[3:6], x[6:]]
    whole = jdrop.mc.mc_dropout_batches(predict, key(3), iter(parts), 12, transform=jax.nn.softmax, chunk_size=5)
    for b, (start, part) in enumerate(zip((0, 3, 6), parts)):
        one = jdrop.mc_dropout(predict, jdrop.fold_in(key(3), "batch", b), part, 12, transform=jax.nn.softmax)
        for name in ("mean", "variance", "expected_entropy", "mutual_information"):
            close(getattr(whole, name)[start : start + len(part)], getattr(one, name))
    with pytest.raises(ValueError, match="one number for a batch"):
        jdrop.mc.mc_dropout_batches(lambda k, x: jdrop.dropout(k, x, 0.5).sum(), key(3), parts, 12)
    with pytest.raises(ValueError, match="batches is empty"):
        jdrop.mc.mc_dropout_batches(predict, key(3), [])


@pytest.mark.slow
def test_batches_with_a_tolerance_or_without_classes():
    predict, parts = (lambda k, x: jdrop.dropout(k, x, 0.5)[:, :5]), np.split(array((7, 20)), [3, 6])
    auto = jdrop.mc.mc_dropout_batches(predict, key(3), parts, tolerance=0.5, max_samples=400)
    assert auto.num_samples.shape == (7,)
    assert np.isfinite(auto.standard_error).all()
    heads = jdrop.mc.mc_dropout_batches(lambda k, x: jdrop.dropout(k, x, 0.5)[:, 0], key(3), parts, 12)
    assert heads.mean.shape == heads.std.shape == (7,)


def test_equal_samples_of_a_batch_of_padding_are_no_mistake_but_of_all_batches_are():
    predict = lambda k, x: jdrop.dropout(k, x, 0.5)
    batches = [jnp.ones((2, 3)), jnp.zeros((2, 3))]
    result = jdrop.mc.mc_dropout_batches(predict, key(), batches, 20, progress=False)
    assert (result.std[2:] == 0).all()
    with pytest.warns(UserWarning, match="all 20 Monte Carlo samples are equal"):
        jdrop.mc.mc_dropout_batches(predict, key(), batches[1:], 20, progress=False)
    assert jdrop.mc.mc_dropout_batches(predict, key(), [jnp.ones((0, 3))], 20, progress=False).mean.shape == (0, 3)


@pytest.mark.parametrize("number", [2**31, 10**12, 10**400])
def test_more_samples_than_can_be_numbered_are_refused(number):
    predict = lambda k, x: jdrop.dropout(k, x, 0.5)
    with pytest.raises(ValueError, match="num_samples is .* counts as far as"):
        jdrop.mc.samples(predict, key(), jnp.ones(3), number)
    with pytest.raises(ValueError, match="num_samples is .* counts as far as"):
        jdrop.mc_dropout(predict, key(), jnp.ones(3), number)
    with pytest.raises(ValueError, match="max_samples is .* counts as far as"):
        jdrop.mc_dropout(predict, key(), jnp.ones(3), tolerance=0.1, max_samples=number)

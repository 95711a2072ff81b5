"""Which layers of a model draw in a prediction, and how a model with several inputs is called."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, key
from flax import nnx
from tiers import some

import jdrop

X = array((5, 8))


class LinenNet(nn.Module):
    """Two layers with dropout, a head, and dropout after it."""

    @nn.compact
    def __call__(self, x, deterministic=True):
        x = nn.Dropout(0.5, name="first")(nn.Dense(16, name="body")(x), deterministic)
        x = jdrop.linen.Dropout(0.5, deterministic=deterministic, name="second")(nn.Dense(16, name="more")(x))
        return nn.Dense(3, name="head")(x)


class NNXNet(nnx.Module):
    def __init__(self, rngs):
        self.body, self.more, self.head = (nnx.Linear(a, b, rngs=rngs) for a, b in ((8, 16), (16, 16), (16, 3)))
        self.first, self.second = nnx.Dropout(0.5, rngs=rngs), jdrop.nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, deterministic=True):
        x = self.first(self.body(x), deterministic=deterministic)
        return self.head(self.second(self.more(x), deterministic=deterministic))


VARIABLES = jax.jit(LinenNet().init)(key(), X)
NNX_MODEL = NNXNet(nnx.Rngs(0))


def predictor(framework, **sites):
    if framework == "linen":
        return jdrop.linen.predictor(LinenNet(), VARIABLES, **sites)
    return jdrop.nnx.predictor(NNX_MODEL, **sites)


def weights(framework):
    """(kernel, bias) of the three layers, in NumPy."""
    if framework == "linen":
        tree = VARIABLES["params"]
        return [(np.asarray(tree[name]["kernel"]), np.asarray(tree[name]["bias"])) for name in ("body", "more", "head")]
    layers = (NNX_MODEL.body, NNX_MODEL.more, NNX_MODEL.head)
    return [(np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])) for layer in layers]


def is_dropped_head(framework, y):
    """Whether y is the head's product of an input of which some of the 16 are zero and the others doubled."""
    (a, b), (c, d), (e, f) = weights(framework)
    x = (np.asarray(X) @ a + b) @ c + d
    masks = (np.arange(2**16)[:, None] >> np.arange(16)) & 1
    return [
        np.abs((2 * masks * row) @ e + f - out).max(-1).min() < 1e-4 for row, out in zip(x, np.asarray(y), strict=True)
    ]


FRAMEWORKS = pytest.mark.parametrize("framework", ["linen", "nnx"])


@FRAMEWORKS
@some("sites", [{"only": "second"}, {"only": ["sec*"]}, {"only": [], "inject": {"head": 0.5}}], 1, 2)
def test_only_the_layers_that_are_named_draw(framework, sites):
    """The product is that of one of the 65,536 masks of the head's input, and the body's is none."""
    y = predictor(framework, **sites)(key(1), X)
    assert all(is_dropped_head(framework, y))
    assert not any(is_dropped_head(framework, predictor(framework, only="first")(key(1), X)))
    assert not any(is_dropped_head(framework, predictor(framework)(key(1), X)))


@FRAMEWORKS
def test_no_layer_draws_where_none_is_named(framework):
    (a, b), (c, d), (e, f) = weights(framework)
    wanted = ((np.asarray(X) @ a + b) @ c + d) @ e + f
    np.testing.assert_allclose(predictor(framework, only=[])(key(1), X), wanted, atol=1e-5)
    np.testing.assert_allclose(predictor(framework, only=[], inject={"head": 0.0})(key(1), X), wanted, atol=1e-5)


@FRAMEWORKS
def test_injected_masks_differ_by_place_and_by_key(framework):
    dropped = [
        predictor(framework, only=[], inject={place: 0.5})(key(seed), X)
        for place in ("more", "head")
        for seed in (1, 2)
    ]
    assert all((dropped[i] != dropped[j]).any() for i in range(4) for j in range(i))


@FRAMEWORKS
def test_a_place_that_no_layer_has_is_refused(framework):
    for sites, names in ({"only": "hed/**"}, "first"), ({"inject": {"hed": 0.5}}, "head"), ({"only": "head"}, "first"):
        with pytest.raises(ValueError, match=f"names .* which is none of the layers .*{names}"):
            predictor(framework, **sites)(key(), X)


@pytest.mark.parametrize(
    ("sites", "names"),
    [
        ({"only": 3}, "only is 3"),
        ({"only": ["a", 3]}, "only is"),
        ({"inject": ["head"]}, "inject is"),
        ({"inject": {"head": "half"}}, r"inject\['head'\]"),
        ({"inject": {"head": 1.5}}, r"inject\['head'\]"),
    ],
)
@FRAMEWORKS
def test_places_and_rates_of_a_wrong_type_are_named(framework, sites, names):
    with pytest.raises((TypeError, ValueError), match=names):
        predictor(framework, **sites)


@some("framework", ["linen", "nnx"], 1)
@some("sites", [{"only": "second"}, {"only": [], "inject": {"head": 0.5}}], 1)
def test_a_last_layer_predictor_computes_the_body_once(framework, sites):
    """100 samples of a heavy body take at most 1.2 times the operations of one pass, by XLA's own count."""

    class Heavy(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in range(16):
                x = nn.relu(nn.Dense(1024, name=f"body_{i}")(x))
            return nn.Dense(2, name="head")(nn.Dropout(0.5, name="second")(x, deterministic=True))

    class HeavyNNX(nnx.Module):
        def __init__(self, rngs):
            self.body = nnx.List([nnx.Linear(1024, 1024, rngs=rngs) for _ in range(16)])
            self.second, self.head = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(1024, 2, rngs=rngs)

        def __call__(self, x):
            for layer in self.body:
                x = nnx.relu(layer(x))
            return self.head(self.second(x))

    x = jnp.ones((4, 1024))
    if framework == "linen":
        predict = jdrop.linen.predictor(Heavy(), Heavy().init(key(), x), **sites)
    else:
        predict = jdrop.nnx.predictor(HeavyNNX(nnx.Rngs(0)), **sites)

    def operations(f):
        return jax.jit(f).lower(predict, key(), x).compile().cost_analysis()["flops"]

    one = operations(lambda predict, k, x: predict(k, x))
    assert operations(lambda predict, k, x: jdrop.mc.samples(predict, k, x, 100)) <= 1.2 * one


# Models with several inputs.


class Pair(nn.Module):
    @nn.compact
    def __call__(self, words, image, *, mask=None, train=False):
        y = nn.Dense(3)(words) + nn.Dense(3, name="image")(image)
        y = y if mask is None else jnp.where(mask[:, None], y, 0.0)
        return nn.Dropout(0.5, deterministic=not train)(y)


class PairNNX(nnx.Module):
    def __init__(self, rngs):
        self.words, self.image = nnx.Linear(8, 3, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, words, image, *, mask=None):
        y = self.words(words) + self.image(image)
        return self.drop(y if mask is None else jnp.where(mask[:, None], y, 0.0))


class Whole(nn.Module):
    """A model that takes its inputs as one tree."""

    @nn.compact
    def __call__(self, batch):
        x = batch["words"] if isinstance(batch, dict) else batch[0]
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


MASK = np.array([True, False, True, True, False])


def pair(framework):
    if framework == "linen":
        return jdrop.linen.predictor(Pair(), Pair().init(key(), X, X))
    return jdrop.nnx.predictor(PairNNX(nnx.Rngs(0)))


@FRAMEWORKS
def test_a_dict_is_given_by_name_and_a_tuple_by_place(framework):
    predict = pair(framework)
    by_name, by_place = predict(key(1), {"words": X, "image": 2 * X}), predict(key(1), (X, 2 * X))
    np.testing.assert_array_equal(by_name, by_place)
    np.testing.assert_array_equal(predict(key(1), {"image": 2 * X, "words": X}), by_place)
    assert (predict(key(1), (2 * X, X)) != by_place).any()
    masked = predict(key(1), {"words": X, "image": 2 * X, "mask": MASK})
    np.testing.assert_array_equal(masked, np.where(MASK[:, None], by_place, 0.0))


@pytest.mark.slow
@FRAMEWORKS
@some("consistent", [False, True], 0)
def test_several_inputs_and_their_mask_ride_through_batches(framework, consistent):
    """Row by row the mean is that of the rows alone, and masked rows are 0."""
    predict, inputs = pair(framework), {"words": np.asarray(X), "image": np.asarray(2 * X), "mask": MASK}

    def batches():
        for start in (0, 2, 4):
            yield {name: array[start : start + 2] for name, array in inputs.items()}

    result = jdrop.mc.mc_dropout_batches(predict, key(1), batches(), 20, consistent=consistent, progress=False)
    assert result.mean.shape == (5, 3)
    assert (np.asarray(result.mean)[~MASK] == 0).all()
    assert (np.asarray(result.std)[MASK] > 0).all()


class Named(nn.Module):
    @nn.compact
    def __call__(self, *, inputs, train=False):
        return nn.Dropout(0.5, deterministic=not train)(nn.Dense(3)(inputs))


class NamedNNX(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.drop = nnx.Linear(8, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, *, inputs):
        return self.drop(self.dense(inputs))


@FRAMEWORKS
def test_an_input_that_is_taken_by_name_alone(framework):
    make = {"linen": lambda: jdrop.linen.predictor(Named(), Named().init(key(), inputs=X))}
    make["nnx"] = lambda: jdrop.nnx.predictor(NamedNNX(nnx.Rngs(0)))
    predict = make[framework]()
    np.testing.assert_array_equal(predict(key(1), X), predict(key(1), {"inputs": X}))


@pytest.mark.parametrize("batch", [{"words": X}, (X, X), {"words": X, "more": X}])
def test_a_model_that_takes_a_tree_gets_it(batch):
    model = Whole()
    variables = model.init(key(), batch)
    predict = jdrop.linen.predictor(model, variables)
    assert jdrop.mc_dropout(predict, key(1), batch, 10).mean.shape == (5, 3)


class Keep(nn.Module):
    def __call__(self, x):
        return x


class KeepNNX(nnx.Module):
    def __call__(self, x):
        return x


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        a, b = Keep(name="a"), Keep(name="b")
        return jnp.stack([a(x), b(x), a(x)])


class TwiceNNX(nnx.Module):
    def __init__(self):
        self.a, self.b = KeepNNX(), KeepNNX()

    def __call__(self, x):
        return jnp.stack([self.a(x), self.b(x), self.a(x)])


@FRAMEWORKS
def test_every_injected_place_and_call_has_a_mask_of_its_own(framework):
    sites = {"inject": {"a": 0.5, "b": 0.5}}
    make = {"linen": lambda: jdrop.linen.predictor(Twice(), {}, **sites)}
    make["nnx"] = lambda: jdrop.nnx.predictor(TwiceNNX(), **sites)
    y = np.asarray(make[framework]()(key(), jnp.ones(200)))
    assert set(np.unique(y)) == {0.0, 2.0}
    assert all((y[i] != y[j]).any() for i in range(3) for j in range(i))

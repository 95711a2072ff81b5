"""Numbers mean the same however they come: in 16 bits, of NumPy, torch or a list, in integers of any size."""

import calls
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tiers import diagonal, some

import jdrop


@pytest.fixture(scope="module")
def found():
    """{name: (function, arguments)} of the functions of arrays in `jdrop.mc`."""
    return {
        name: call
        for name, call in calls.calls().items()
        if call[0].__module__.startswith("jdrop.mc.") and not {"predict", "width"} & call[1].keys()
    }


def numbers(result):
    plt.close("all")
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(result)]
    return [array.astype(np.float64) for array in arrays if array.dtype != object]  # not axes


def changed(arguments, change):
    """The arguments with every array of floats changed."""

    def is_floats(value):
        return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)

    return {name: change(value) if is_floats(value) else value for name, value in arguments.items()}


@pytest.mark.slow
def test_16_bits_are_the_float32_of_the_same_values(found):
    """Also once they are in float32, where probabilities of 16 bits no longer sum to 1."""
    for (name, (function, arguments)), dtype in diagonal(found.items(), ["float16", "bfloat16"]):
        rounded = changed(arguments, lambda array, dtype=dtype: array.astype(dtype))
        upcast = changed(rounded, lambda array: array.astype(jnp.float32))
        given = numbers(function(**rounded))
        for one, other in zip(given, numbers(function(**upcast)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=name)
        tolerance = 0.15 if dtype == "bfloat16" else 0.02
        if name not in ("batch_bald", "top_k", "plots.most_least_certain"):  # which choose
            for one, whole in zip(given, numbers(function(**arguments)), strict=True):
                if one.shape == whole.shape and one.size < 100:
                    assert np.mean(np.abs(one - whole) <= tolerance * (1 + np.abs(whole))) > 0.7, name


OTHERS = {
    "numpy": np.asarray,
    "list": lambda a: np.asarray(a).tolist(),
    "float64": lambda a: np.asarray(a, np.float64),
    "torch": lambda a: pytest.importorskip("torch").tensor(np.asarray(a)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_arrays_of_other_libraries_are_the_same(found, kind):
    """A fourth of the functions for each, since all take them by the same doors."""
    found = {name: call for name, call in found.items() if not name.startswith("plots")}
    for (name, (function, arguments)), of_this in diagonal(found.items(), OTHERS):
        if of_this == kind:
            given = numbers(function(**changed(arguments, OTHERS[kind])))
            for one, other in zip(given, numbers(function(**arguments)), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_labels_of_every_type_of_integer(found):
    for name, (function, arguments) in found.items():
        if "labels" not in arguments:
            continue
        wanted = numbers(function(**arguments))
        for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int64, np.uint64):
            given = numbers(function(**(arguments | {"labels": np.asarray(arguments["labels"]).astype(dtype)})))
            for one, other in zip(given, wanted, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=name)


@some("classes", [128, 200, 256, 300], 0, 3)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16])
def test_labels_that_reach_the_end_of_their_type(classes, dtype):
    """With as many classes as a byte can tell, and more; under jit too."""
    top = min(np.iinfo(dtype).max, classes - 1)
    labels, p = np.array([0, 1, top]).astype(dtype), np.full((3, classes), 0.5 / (classes - 1))
    p[np.arange(3), [0, 1, top]] = 0.5
    for nll in (jdrop.mc.metrics.nll, jax.jit(jdrop.mc.metrics.nll)):
        np.testing.assert_allclose(nll(jnp.asarray(p, jnp.float32), labels), np.log(2), rtol=1e-5)


@pytest.mark.slow
def test_masked_arrays_are_refused(found):
    """Each argument that is an array, by its name."""
    for function, arguments in found.values():
        for argument, value in arguments.items():
            if isinstance(value, jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key) and value.ndim:
                masked = np.ma.masked_array(np.asarray(value), np.zeros(value.shape, bool))
                with pytest.raises((TypeError, ValueError), match=f"{argument} .*masked"):
                    function(**(arguments | {argument: masked}))
    plt.close("all")


def test_integers_of_64_bits_do_not_wrap():
    """2**32 is none of three classes, and not class 0."""
    p = jnp.ones((2, 3)) / 3
    with pytest.raises(ValueError, match="labels is 4294967296"):
        jdrop.mc.metrics.nll(p, np.array([0, 2**32]))
    step = jdrop.training.make_train_step(calls.loss_fn)
    with pytest.raises(ValueError, match="data holds the integers"):
        jdrop.training.fit(calls.state(), step, np.full((8, 4), 2**32), epochs=1, batch_size=4, progress=False)


# Numbers of any size.


@some("scale", [1e-30, 1e-20, 1e20, 1e30], 0)
def test_moments_of_outputs_of_any_size(scale):
    def predict(k, x):
        return scale * (3 + jax.random.normal(k, x.shape))

    drawn = np.asarray(jdrop.mc.samples(predict, jax.random.key(3), jnp.ones(50), 1000), np.float64)
    found = jdrop.mc_dropout(predict, jax.random.key(3), jnp.ones(50), 1000)
    np.testing.assert_allclose(found.mean, drawn.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.std, drawn.std(0), rtol=1e-4)
    np.testing.assert_allclose(found.standard_error, drawn.std(0, ddof=1) / np.sqrt(1000), rtol=1e-4)


@some("difference", [1e-2, 1e-3, 1e-4], 2)
def test_mutual_information_far_below_the_entropy(difference):
    """2e-8 nats beside 0.69: of a difference of two entropies in float32 no digit would be left."""
    rows = np.float32([[0.5 + difference, 0.5 - difference], [0.5 - difference, 0.5 + difference]])
    samples = np.stack([rows] * 50).reshape(100, 1, 2)
    p = samples.astype(np.float64)
    p = p / p.sum(-1, keepdims=True)
    mean = p.mean(0)
    exact = -(mean * np.log(mean)).sum(-1) + (p * np.log(p)).sum(-1).mean(0)
    np.testing.assert_allclose(jdrop.mc.uncertainty.mutual_information(samples), exact, rtol=1e-2)
    table = jnp.asarray(samples)

    def predict(k, x):
        return jnp.where(jax.random.bernoulli(k), table[0], table[1])

    drawn = np.asarray(jdrop.mc.samples(predict, jax.random.key(0), jnp.ones(1), 200), np.float64)
    mean = drawn.mean(0)
    exact = -(mean * np.log(mean)).sum(-1) + (drawn * np.log(drawn)).sum(-1).mean(0)
    found = jdrop.mc_dropout(predict, jax.random.key(0), jnp.ones(1), 200)
    np.testing.assert_allclose(found.mutual_information, exact, rtol=1e-2)

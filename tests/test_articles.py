"""The experiment on the source articles: their errors, verdicts, and the parts that no other test sees."""

import csv
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

import jdrop
from experiments.__main__ import main
from experiments.articles import cost, ensemble, formulas, regularizers
from experiments.articles import main as articles
from experiments.common import claims, images, networks
from experiments.common.tables import Estimate
from experiments.common.variants import Parts, train_variants

RNG = np.random.default_rng(0)


def every_mask(rate, width):
    """All masks and their probabilities, by NumPy alone."""
    masks = np.array(list(itertools.product((0, 1), repeat=width)))
    return masks, np.prod(np.where(masks, 1 - rate, rate), 1)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_article_000_dropout_is_a_penalty_itself(rate):
    """Its expected squared error has p / (1 - p) sum w² x² more, so that none must be added."""
    x, y, w = RNG.normal(size=(20, 6)), RNG.normal(size=20), RNG.normal(size=6)
    masks, weights = every_mask(rate, 6)
    expected = sum(p * ((y - (m * x / (1 - rate)) @ w) ** 2).sum() for m, p in zip(masks, weights))
    plain = ((y - x @ w) ** 2).sum()
    penalty = rate / (1 - rate) * (w**2 * (x**2).sum(0)).sum()
    np.testing.assert_allclose(expected, plain + penalty, rtol=1e-12)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(expected, plain, rtol=1e-2)
    # and jdrop's masks have it: the mean over many keys, within six standard errors
    with jax.numpy_dtype_promotion("standard"):
        drop = jax.vmap(lambda key: jdrop.dropout(key, jnp.asarray(x, jnp.float32), rate))
        drawn = np.asarray(drop(jax.random.split(jax.random.key(0), 20_000)), np.float64)
    losses = ((y - drawn @ w) ** 2).sum(1)
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() - plain - penalty) < 6 * error < penalty / 10


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_article_003_the_weights_at_prediction_are_multiplied_by_the_keep_probability(keep):
    x, kernel = RNG.normal(size=5), RNG.normal(size=(5, 3))
    masks, weights = every_mask(1 - keep, 5)
    expected = weights @ ((masks * x) @ kernel)
    params = {"layer": {"kernel": jnp.asarray(kernel, jnp.float32)}}
    right, wrong = (
        x @ np.asarray(jdrop.scale_weights(params, {"layer": 1 - keep}, inverse=inverse)["layer"]["kernel"], np.float64)
        for inverse in (False, True)
    )
    np.testing.assert_allclose(right, expected, rtol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(wrong, expected, rtol=1e-2)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_article_004_the_classic_output_is_multiplied_by_one_minus_the_rate(rate):
    x = RNG.normal(size=6).astype(np.float32)
    masks, weights = every_mask(rate, 6)
    expected = weights @ (masks * x)
    at_test = jdrop.dropout(None, jnp.asarray(x), rate, True, scaling="classic")
    np.testing.assert_allclose(at_test, expected, rtol=1e-5)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(x / (1 - rate), expected, rtol=1e-2)


def test_each_error_is_of_an_article():
    assert [error["article"] for error in formulas.ERRORS] == ["000", "003", "004"]


def test_a_standard_error_covers_new_seeds_and_new_examples():
    """The spread of the mean over repeats of an experiment with effects of seeds and of examples is what it says."""
    repeats, seeds, examples = 2000, 6, 50
    effects = RNG.normal(size=(repeats, seeds, 1)) + 3 * RNG.normal(size=(repeats, 1, examples))
    estimates = [claims.paired(a, np.zeros_like(a)) for a in effects]
    spread = np.std([value.mean for value in estimates])
    said = np.sqrt(np.mean([value.error**2 for value in estimates]))
    # The standard deviation of `spread` is 1 / sqrt(2 * 2000) = 1.6 % of it, that of `said` less.
    np.testing.assert_allclose(said, spread, rtol=0.1)
    both = claims.total(effects[0], -effects[1][:, :30])
    of_seeds = effects[0].mean(1) - effects[1][:, :30].mean(1)
    examples = effects[0].mean(0).var(ddof=1) / 50 + effects[1][:, :30].mean(0).var(ddof=1) / 30
    np.testing.assert_allclose(both, (of_seeds.mean(), np.sqrt(of_seeds.var(ddof=1) / 6 + examples)))


@pytest.mark.parametrize("seeds", [2, 5])
def test_a_verdict_needs_the_whole_interval(seeds):
    critical = stats.t(seeds - 1).ppf(0.975)
    for times, below, above in (
        (1.01, "refuted", "confirmed"),
        (0.99, "not separable at this size", "not separable at this size"),
        (-0.99, "not separable at this size", "not separable at this size"),
        (-1.01, "confirmed", "refuted"),
    ):
        for bound in (0.0, 1.1):
            value = Estimate(bound + times * critical * 0.3, 0.3)
            assert (claims.below(value, seeds, bound), claims.above(value, seeds, bound)) == (below, above)
        value = Estimate(times * critical * 0.3, 0.3)
        assert claims.differs(value, seeds) == ("confirmed" if abs(times) > 1 else "not separable at this size")
    assert claims.below(Estimate(0.0, 0.0), seeds) == "not separable at this size"


def test_augmented_images_are_scipy_s():
    """Each is its image shifted and rotated about its centre, by what the key gives."""
    key, images = jax.random.key(3), RNG.random((4, 28, 28, 1)).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"):
        found = np.asarray(regularizers.augment(key, jnp.asarray(images)))
    drawn = np.asarray(jax.random.uniform(key, (4, 3), minval=-1, maxval=1), np.float64) * [np.deg2rad(15), 2, 2]
    assert (abs(drawn).max(0) > [0.1, 1, 1]).all()
    for image, result, (angle, *shift) in zip(images[..., 0], found[..., 0], drawn):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset = np.array([13.5, 13.5]) - turn @ [13.5, 13.5] - shift
        np.testing.assert_allclose(
            result, ndimage.affine_transform(image, turn, offset, order=1, mode="grid-constant"), atol=1e-4
        )


def test_correlations_leave_out_constant_units():
    units = RNG.normal(size=(50, 4))
    units[:, 2] = 0
    expected = [abs(stats.pearsonr(units[:, i], units[:, j])[0]) for i, j in ((0, 1), (0, 3), (1, 3))]
    np.testing.assert_allclose(ensemble.correlations(units), expected)


def test_what_the_backward_pass_keeps_is_counted():
    """Without dropout its inputs, the ReLU's signs and the weights; Flax adds a mask and more, jdrop a key."""
    examples = np.ones((16, 4), np.float32), np.zeros(16, np.int32)
    params = cost.Network((32,), None).init(jax.random.key(0), examples[0])
    models = {name: cost.Network((32,), layer) for name, layer in cost.LAYERS.items()}
    kept = {name: cost.Training(model, params, examples).kept() for name, model in models.items()}
    assert kept["Flax"] - kept["no dropout"] >= 5 * 16 * 32
    assert 0 <= kept["jdrop"] - kept["no dropout"] < 16 * 32


@pytest.mark.slow
def test_variants_of_a_seed_share_first_weights_masks_and_data():
    """So that a penalty of strength 0 makes no difference, and each network is that of its own options."""
    given = images.load_images(None)
    data = Parts(images.take(given.train, slice(64)), images.take(given.train, slice(0)), given.test)
    setting = networks.Setting(networks.Dense(8), epochs=1, batch_size=32)
    keys = jax.random.split(jax.random.key(0), 2)
    variants = {"a": {"rate": 0.5, "l2": 0.0}, "b": {"rate": 0.5, "l2": 0.1}, "c": {"rate": 0.5, "l2": 0.0}}
    with jax.numpy_dtype_promotion("standard"):
        found = train_variants(setting, data, keys, variants)
    assert found["a"].test.nll.shape == (2, len(given.test[1]))
    np.testing.assert_array_equal(found["a"].test.nll, found["c"].test.nll)
    assert not np.allclose(found["a"].test.nll, found["b"].test.nll)
    with jax.numpy_dtype_promotion("standard"):
        alone = train_variants(setting._replace(l2=0.1), data, keys, {"b": {"rate": 0.5}})["b"]
    np.testing.assert_allclose(alone.test.nll, found["b"].test.nll, rtol=1e-5)
    assert found["a"].validation is None
    assert not np.allclose(*found["a"].test.nll)


@pytest.mark.slow
def test_max_norm_of_each_network():
    """Every network of a stack is held to its own limit."""
    given = images.load_images(None)
    data = images.take(given.train, slice(64))
    setting = networks.Setting(networks.Dense(8), epochs=1, batch_size=32)
    limits = jnp.array([0.5, 0.7, np.inf])
    with jax.numpy_dtype_promotion("standard"):
        params = networks.train(setting, data, jax.random.split(jax.random.key(0), 3), max_norm=limits)
    norms = np.linalg.norm(params["Dense_0"]["kernel"], axis=1)
    np.testing.assert_allclose(norms[:2], [[0.5] * 8, [0.7] * 8], rtol=1e-2)
    assert (norms <= 1.00001 * limits[:, None]).all()
    assert norms[2].min() > 0.7


def test_one_article(tmp_path, monkeypatch):
    """Its tables and its picture have its number, and no other article is asked."""

    def part(run):
        """Find nothing."""
        row = {"article": "003", "seeds": run.seeds}
        return claims.Findings(systems=[row], claims=[row], panels=[lambda ax: ax.plot([0, 1])])

    monkeypatch.setattr(articles, "ARTICLES", {"003": (part,), "004": (lambda run: 1 / 0,)})
    assert main(["articles", "--article", "003", "--out", str(tmp_path)]) == 0
    tables = ("article_003", "article_003_claims", "article_003_errors")
    names = {f"{table}.{kind}" for table in tables for kind in ("csv", "md")}
    assert {path.name for path in tmp_path.iterdir()} == names | {"article_003.png"}
    (row,) = csv.DictReader((tmp_path / "article_003_claims.csv").read_text().splitlines())
    assert row == {"article": "003", "seeds": "5"}

"""Acquisition scores against NumPy, and batches against the enumeration of every configuration of labels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import key
from scipy.special import softmax
from scipy.stats import entropy, kstest, mode
from tiers import some

import jdrop

acquisition = jdrop.mc.acquisition
SHAPE = (6, 7, 3)  # most tests share it, and so its compiled programs
SCORES = (
    jdrop.mc.uncertainty.mutual_information,
    jdrop.mc.uncertainty.predictive_entropy,
    lambda p: 1 - jdrop.mc.uncertainty.max_probability(p),
    jdrop.mc.uncertainty.variation_ratio,
    acquisition.mean_std,
)


def predicted(shape, seed=0, sharpness=2.0):
    logits = np.random.default_rng(seed).normal(0, sharpness, shape)
    return jnp.asarray(softmax(logits, -1), jnp.float32)


@jax.jit
def scores(p):
    return [score(p) for score in SCORES]


def test_scores_are_numpy_s():
    p = np.asarray(predicted(SHAPE), np.float64)
    mean = p.mean(0)
    wanted = (
        entropy(mean, axis=-1) - entropy(p, axis=-1).mean(0),
        entropy(mean, axis=-1),
        1 - mean.max(-1),
        1 - mode(p.argmax(-1)).count / len(p),
        np.sqrt((p**2).mean(0) - mean**2).mean(-1),
    )
    for found, value in zip(scores(predicted(SHAPE)), wanted):
        assert found.shape == (7,)
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)


def test_certain_predictions_have_no_score_and_torn_ones_the_highest():
    labels = np.ones(SHAPE[:2], int)
    labels[:, 1] = np.arange(6) % 2
    found = scores(np.eye(3, dtype=np.float32)[labels])
    for values, highest in zip(found, (np.log(2), np.log(2), 0.5, 0.5, 1 / 3)):
        np.testing.assert_allclose(values, [0, highest, 0, 0, 0, 0, 0], rtol=1e-6)


def test_random_scores_are_uniform():
    """One p-value, a false alarm below 1e-7."""
    scores = acquisition.random(key(3), 5000)
    assert kstest(np.asarray(scores), "uniform").pvalue > 1e-7
    np.testing.assert_array_equal(scores, acquisition.random(key(3), 5000))
    assert (np.asarray(scores) != acquisition.random(key(4), 5000)).any()


def test_top_k_is_numpy_s():
    scores = jnp.round(jax.random.normal(key(), (50,)), 1)  # with ties
    assert len(np.unique(scores)) < 50
    wanted = np.argsort(-np.asarray(scores), kind="stable")
    for k in (1, 50):
        np.testing.assert_array_equal(acquisition.top_k(scores, k), wanted[:k])
    np.testing.assert_array_equal(jax.jit(acquisition.top_k, static_argnums=1)(scores, 7), wanted[:7])


def joint_information(p, rows):
    """Mutual information of the labels of these rows and the sample, over all configurations."""
    joint = 0.0
    for labels in itertools.product(range(p.shape[2]), repeat=len(rows)):
        probability = np.prod([p[:, row, label] for row, label in zip(rows, labels)], axis=0).mean()
        joint -= probability * np.log(probability)
    return joint - sum(entropy(p[:, row], axis=-1).mean() for row in rows)


def greedy(p, k):
    picks, information = [], []
    for _ in range(k):
        values = {row: joint_information(p, [*picks, row]) for row in range(p.shape[1]) if row not in picks}
        best, second = sorted([*values.values(), -1], reverse=True)[:2]
        assert best - second > 1e-5, "too close to call in float32"
        picks.append(max(values, key=values.get))
        information.append(best)
    return picks, information


@some("seed", [2, 3], 0)
def test_batches_by_enumeration(seed):
    p = predicted(SHAPE, seed)
    picks, information = acquisition.batch_bald(key(), p, 4)
    wanted_picks, wanted = greedy(np.asarray(p, np.float64), 4)
    np.testing.assert_array_equal(picks, wanted_picks)
    np.testing.assert_allclose(information, wanted, rtol=1e-4)
    again = acquisition.batch_bald(key(1), p, 4)  # the key matters only where something is random
    np.testing.assert_array_equal(again[0], picks)
    np.testing.assert_array_equal(again[1], information)


def test_the_first_pick_is_bald_s():
    for seed in range(10):
        p = predicted(SHAPE, seed)
        picks, information = acquisition.batch_bald(key(), p, 4)
        bald = np.asarray(scores(p)[0])
        assert picks[0] == bald.argmax()
        np.testing.assert_allclose(information[0], bald.max(), rtol=1e-5)


def test_of_two_equal_points_one_is_picked():
    """Samples that are sure of their labels: once the label is known, its double tells nothing. BALD takes both."""
    labels = np.ones((6, 7), int)
    labels[:, :2] = [[0], [1], [2], [2], [2], [2]]
    labels[:, 3] = [0, 0, 0, 0, 0, 1]
    p = np.eye(3, dtype=np.float32)[labels]
    assert set(np.argsort(-np.asarray(scores(p)[0]))[:2]) == {0, 1}
    picks, information = acquisition.batch_bald(key(), p, 4)
    assert picks[:2].tolist() == [0, 3]
    first, both = entropy([1, 1, 4]), entropy([1, 1, 3, 1])
    np.testing.assert_allclose(information, [first, both, both, both], rtol=1e-5)


def test_random_configurations_take_over_where_enumeration_ends():
    """With at most 30 configurations of 3 classes, three labels (27) are enumerated; the fourth joins at random."""
    p = predicted(SHAPE, seed=5, sharpness=1.0)
    exact_picks, exact = greedy(np.asarray(p, np.float64), 7)
    found = [acquisition.batch_bald(key(seed), p, 7, 30) for seed in range(20)]
    for picks, information in found:
        np.testing.assert_array_equal(picks[:4], exact_picks[:4])
        np.testing.assert_array_equal(np.sort(picks), np.arange(7))
        np.testing.assert_allclose(information[:4], exact[:4], rtol=1e-4)
        np.testing.assert_allclose(information[-1], exact[-1], rtol=0.1)
    last = np.array([information[-1] for _, information in found])
    assert last.std() > 0
    np.testing.assert_allclose(last.mean(), exact[-1], rtol=0.02)


def test_large_batches_neither_underflow_nor_exceed_what_there_is_to_know():
    p = predicted((6, 70, 3), sharpness=2.0)
    picks, information = acquisition.batch_bald(key(), p, 70, 100)
    np.testing.assert_array_equal(np.sort(picks), np.arange(70))
    np.testing.assert_allclose(information[-1], np.log(6), rtol=0.1)


def test_batches_under_jit_and_vmap():
    """What is bad in one batch is NaN in that one only."""
    good = predicted(SHAPE)
    found = jax.jit(jax.vmap(lambda p: acquisition.batch_bald(key(), p, 4)))(jnp.stack([good, good.at[1, 2].mul(2)]))
    picks, information = acquisition.batch_bald(key(), good, 4)
    np.testing.assert_array_equal(found[0][0], picks)
    np.testing.assert_allclose(found[1][0], information, rtol=1e-5)
    assert jnp.isnan(found[1][1]).all()


P = predicted((3, 4, 2))


@pytest.mark.parametrize("score", [*SCORES, lambda p: acquisition.batch_bald(key(), p, 2)])
def test_bad_probabilities(score):
    for bad, error, message in (
        (P.at[0, 0, 0].set(np.nan), ValueError, "probabilities is .* sums to nan"),
        (2 * P, ValueError, "sums to 2.*jax.nn.softmax"),
        (P[0, 0], ValueError, r"shape \(2,\), but \(num_samples, .*, classes\) is needed"),
        (P[:, :0], ValueError, "empty"),
        (P[:0], ValueError, "empty"),
        (P.astype(complex), TypeError, "probabilities has dtype complex64"),
        ("half", TypeError, "probabilities is a str"),
    ):
        with pytest.raises(error, match=message):
            score(bad)


def test_bad_probabilities_under_a_trace_become_nan():
    for values in scores(predicted(SHAPE).at[1, 2].mul(2)):
        np.testing.assert_array_equal(jnp.isnan(values), np.arange(7) == 2)
    top_2 = jax.jit(lambda scores: acquisition.top_k(scores, 2))
    np.testing.assert_array_equal(top_2(jnp.array([1.0, np.nan, 2.0])), [3, 3])


@pytest.mark.parametrize(
    "pick", [lambda k: acquisition.batch_bald(key(), P, k), lambda k: acquisition.top_k(P[0, :, 0], k)]
)
def test_sizes(pick):
    for k, error, message in (
        (0, ValueError, "k is 0, but it must be at least 1"),
        (-1, ValueError, "k is -1"),
        (5, ValueError, "k is 5, but there are 4 examples.*write k=4"),
        (1.5, TypeError, "k is 1.5"),
    ):
        with pytest.raises(error, match=message):
            pick(k)


def test_other_bad_input():
    with pytest.raises(ValueError, match=r"scores is nan at \(1,\)"):
        acquisition.top_k(jnp.array([1.0, np.nan]), 1)
    with pytest.raises(ValueError, match=r"scores has shape \(3, 4, 2\), but \(n\) is needed"):
        acquisition.top_k(P, 1)
    with pytest.raises(ValueError, match=r"shape \(4, 2\), but \(num_samples, n, classes\) is needed"):
        acquisition.batch_bald(key(), P[0], 1)
    with pytest.raises(ValueError, match="num_configurations is 0"):
        acquisition.batch_bald(key(), P, 1, 0)
    with pytest.raises(ValueError, match="n is 0"):
        acquisition.random(key(), 0)
    with pytest.raises(TypeError, match="key=None"):
        acquisition.random(None, 3)
    with pytest.raises(TypeError, match="key=None"):
        acquisition.batch_bald(None, P, 1)

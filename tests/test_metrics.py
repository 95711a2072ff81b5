"""Metrics against scikit-learn, SciPy, scoringrules and NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scoringrules
from cases import assert_in_both_precisions
from scipy import integrate, stats
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    auc,
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    root_mean_squared_error,
)

from jdrop.mc import metrics

GENERATOR = np.random.default_rng(1)
N, CLASSES, SAMPLES = 300, 4, 11
P = GENERATOR.dirichlet(np.full(CLASSES, 0.5), N)
LABELS = np.where(GENERATOR.random(N) < 0.3, GENERATOR.integers(0, CLASSES, N), P.argmax(-1))
CONFIDENCE, CORRECT = P.max(-1), P.argmax(-1) == LABELS
UNCERTAINTY = np.round(-CONFIDENCE, 1)  # with many ties
MEAN, VARIANCE, TARGETS = GENERATOR.normal(0, 2, N), GENERATOR.gamma(2, 1, N), GENERATOR.normal(0, 2, N)
SCALE = np.sqrt(VARIANCE)
ENSEMBLE = np.round(GENERATOR.normal(0, 2, (SAMPLES, N)), 1)
ROUNDED = np.round(TARGETS, 1)  # some equal to a sample
LOWER, UPPER = MEAN - SCALE, MEAN + 2 * SCALE


def gaps(scores, hits, bins, strategy="uniform"):
    """|frequency - probability| of each filled bin, by scikit-learn."""
    frequency, probability = calibration_curve(hits, scores, n_bins=bins, strategy=strategy)
    return np.abs(frequency - probability)


def calibration_error(scores, hits, bins=15):
    counts, _ = np.histogram(scores, bins, (0, 1))
    return gaps(scores, hits, bins) @ counts[counts > 0] / N


def expected_risks():
    """The error rate of the k most certain, with the wrong share of a tie counted for each of its examples."""
    wrong = np.array([(~CORRECT)[u == UNCERTAINTY].mean() for u in UNCERTAINTY])
    return np.cumsum(wrong[np.argsort(UNCERTAINTY)]) / np.arange(1, N + 1)


def empirical_crps(samples, target):
    """Integral of (F(x) - [x >= y])**2, over the steps of F."""
    steps = np.sort(np.append(samples, target))
    below = [(np.mean(samples <= x) - (x >= target)) ** 2 for x in steps[:-1]]
    return np.diff(steps) @ below


def of_probabilities(p):
    labels = jnp.asarray(LABELS)
    return {
        "nll": metrics.nll(p, labels),
        "brier": metrics.brier(p, labels),
        "ece": metrics.ece(p, labels),
        "ece of 7 bins": metrics.ece(p, labels, num_bins=7),
        "ece of 1 bin": metrics.ece(p, labels, num_bins=1),
        "mce": metrics.mce(p, labels),
        "adaptive_ece": metrics.adaptive_ece(p, labels),
        "classwise_ece": metrics.classwise_ece(p, labels),
    }


def of_uncertainty(u):
    return {
        "risk_coverage": jnp.stack(metrics.risk_coverage(u, CORRECT)),
        "aurc": metrics.aurc(u, CORRECT),
        "selective_accuracy": metrics.selective_accuracy(u, CORRECT, np.array([0.01, 0.7, 0.999, 1.0], u.dtype)),
    }


def of_gaussians(mean, variance, targets):
    return {
        "log_likelihood": metrics.gaussian_log_likelihood(mean, variance, targets),
        "crps_gaussian": metrics.crps_gaussian(mean, variance, targets),
        "pit_gaussian": metrics.pit_gaussian(mean, variance, targets),
    }


def of_samples(outputs, targets):
    return {
        "crps_ensemble": metrics.crps_ensemble(outputs, targets),
        "pit_ensemble": metrics.pit_ensemble(outputs, targets),
    }


CASES = {
    "probabilities": (
        of_probabilities,
        [P],
        {
            "nll": log_loss(LABELS, P),
            "brier": brier_score_loss(LABELS, P, scale_by_half=False),
            "ece": calibration_error(CONFIDENCE, CORRECT),
            "ece of 7 bins": calibration_error(CONFIDENCE, CORRECT, 7),
            "ece of 1 bin": abs(CONFIDENCE.mean() - CORRECT.mean()),
            "mce": gaps(CONFIDENCE, CORRECT, 15).max(),
            "adaptive_ece": gaps(CONFIDENCE, CORRECT, 15, "quantile").mean(),
            "classwise_ece": np.mean([calibration_error(P[:, c], c == LABELS) for c in range(CLASSES)]),
        },
    ),
    "uncertainty": (
        of_uncertainty,
        [UNCERTAINTY],
        {
            "risk_coverage": np.stack([np.arange(1, N + 1) / N, expected_risks()]),
            "aurc": expected_risks().mean(),
            "selective_accuracy": 1 - expected_risks()[[2, 209, 299, 299]],
        },
    ),
    "gaussians": (
        of_gaussians,
        [MEAN, VARIANCE, TARGETS],
        {
            "log_likelihood": stats.norm.logpdf(TARGETS, MEAN, SCALE).mean(),
            "crps_gaussian": scoringrules.crps_normal(TARGETS, MEAN, SCALE).mean(),
            "pit_gaussian": stats.norm.cdf(TARGETS, MEAN, SCALE),
        },
    ),
    "samples": (
        of_samples,
        [ENSEMBLE, ROUNDED],
        {
            "crps_ensemble": scoringrules.crps_ensemble(ROUNDED, ENSEMBLE.T, estimator="nrg").mean(),
            "pit_ensemble": [
                stats.percentileofscore(samples, y, "mean") / 100 for samples, y in zip(ENSEMBLE.T, ROUNDED)
            ],
        },
    ),
    "means": (
        lambda mean, targets: {"rmse": metrics.rmse(mean, targets)},
        [MEAN, TARGETS],
        {"rmse": root_mean_squared_error(TARGETS, MEAN)},
    ),
    "intervals": (
        lambda *bounds: {"interval_coverage": metrics.interval_coverage(*bounds)},
        [LOWER, UPPER, TARGETS],
        {"interval_coverage": np.mean([lower <= y <= upper for lower, upper, y in zip(LOWER, UPPER, TARGETS)])},
    ),
    "widths": (
        lambda *bounds: {"interval_width": metrics.interval_width(*bounds)},
        [LOWER, UPPER],
        {"interval_width": scoringrules.interval_score(MEAN, LOWER, UPPER, 0.5).mean()},  # of targets inside: the width
    ),
    "variances": (
        lambda variance: {"sharpness": metrics.sharpness(variance)},
        [VARIANCE],
        {"sharpness": np.sqrt(VARIANCE.mean())},
    ),
}
cases = pytest.mark.parametrize(
    ("function", "arguments", "wanted"), [(jax.jit(f), *rest) for f, *rest in CASES.values()], ids=CASES
)


@cases
def test_against_other_libraries(function, arguments, wanted):
    assert_in_both_precisions(function, arguments, wanted)


@cases
def test_one_traced_nan_is_enough(function, arguments, wanted):
    """A number becomes NaN; of an array, at least the value that depends on it."""
    for bad in range(len(arguments)):
        broken = [jnp.asarray(a, jnp.float32) for a in arguments]
        broken[bad] = broken[bad].at[jnp.unravel_index(7, broken[bad].shape)].set(jnp.nan)
        for name, result in function(*broken).items():
            assert np.isnan(np.asarray(result)).any(), name


def test_the_integral_that_crps_is():
    """Of one Gaussian by quadrature, and of samples exactly."""
    integrand = lambda x: (stats.norm.cdf(x, 1, 2) - (x >= 2.5)) ** 2
    wanted = integrate.quad(integrand, -30, 2.5)[0] + integrate.quad(integrand, 2.5, 30)[0]
    score = jax.jit(metrics.crps_gaussian)
    np.testing.assert_allclose(score(*np.array([[1.0], [4.0], [2.5]], np.float32)), wanted, rtol=1e-6)
    wanted = np.mean([empirical_crps(samples, y) for samples, y in zip(ENSEMBLE.T, ROUNDED)])
    np.testing.assert_allclose(jax.jit(metrics.crps_ensemble)(ENSEMBLE, ROUNDED), wanted, rtol=1e-6)


def test_auroc_is_the_share_of_ordered_pairs():
    wrong = ~CORRECT
    pairs = [(u > v) + (u == v) / 2 for u, v in itertools.product(UNCERTAINTY[wrong], UNCERTAINTY[~wrong])]
    np.testing.assert_allclose(metrics.auroc(UNCERTAINTY, wrong), np.mean(pairs), rtol=1e-6)
    assert metrics.auroc(jnp.asarray(wrong, jnp.float32), jnp.asarray(wrong)) == 1.0


def test_average_precision_is_the_sum_over_thresholds():
    """The sum over thresholds; its trapezoidal cousin is another number, but near."""
    wrong, total = ~CORRECT, 0.0
    for u in np.unique(UNCERTAINTY):
        flagged = u <= UNCERTAINTY
        total += wrong[u == UNCERTAINTY].sum() / wrong.sum() * wrong[flagged].mean()
    np.testing.assert_allclose(metrics.average_precision(UNCERTAINTY, wrong), total, rtol=1e-6)
    curve = precision_recall_curve(wrong, UNCERTAINTY)
    np.testing.assert_allclose(metrics.average_precision(UNCERTAINTY, wrong), auc(curve[1], curve[0]), atol=0.05)


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_detection_scores_are_scikit_learn_s_and_need_it_not(name):
    """With ties, and with as many examples as a data set has."""
    draw = np.random.default_rng(5)
    positive = draw.random(200_000) < 0.03
    uncertainty = np.round(draw.normal(positive.astype(float), 1.0), 2).astype(np.float32)
    wanted = {"auroc": roc_auc_score, "average_precision": average_precision_score}[name](positive, uncertainty)
    score = jax.jit(getattr(metrics, name))
    np.testing.assert_allclose(score(uncertainty, positive), wanted, rtol=1e-5)
    assert np.isnan(score(uncertainty, positive & False))
    assert np.isnan(score(uncertainty, positive | True))
    assert np.isnan(score(np.where(positive, np.nan, uncertainty), positive))


def test_the_order_of_the_examples_is_of_no_consequence():
    """With half of the confidences and uncertainties equal."""
    p = np.where(np.arange(N)[:, None] % 2, P, [[0.7, 0.1, 0.1, 0.1]]).astype(np.float32)
    order = np.random.default_rng(2).permutation(N)

    @jax.jit
    def scores(p, labels):
        return metrics.adaptive_ece(p, labels), metrics.aurc(-p.max(-1), p.argmax(-1) == labels)

    np.testing.assert_allclose(scores(p[order], LABELS[order]), scores(p, LABELS), rtol=1e-5)


@pytest.mark.parametrize("num_bins", [7, 299, 1000])
def test_adaptive_bins_have_equal_mass(num_bins):
    """The example of rank r = 0, 1, ... is in bin floor(r num_bins / N)."""
    bins = np.argsort(np.argsort(CONFIDENCE)) * num_bins // N
    wanted = np.abs(np.bincount(bins, CORRECT - CONFIDENCE)).sum() / N
    score = jax.jit(metrics.adaptive_ece, static_argnums=2)
    np.testing.assert_allclose(score(P, LABELS, num_bins), wanted, rtol=1e-5)


def test_bins_are_closed_on_the_right():
    """A confidence of 0.75 falls into (0.5, 0.75] of 4 bins, beside one of 0.625, whose gap it cancels."""
    p = jnp.array([[0.75, 0.25], [0.625, 0.375]])
    score = jax.jit(metrics.ece, static_argnums=2)
    np.testing.assert_allclose(score(p, jnp.array([0, 1]), 4), abs(0.25 - 0.625) / 2)


def test_a_million_examples_do_not_drift():
    """Added one by one in float32, gaps of 0.9 would lose percents."""
    p = jnp.tile(jnp.array([0.9, 0.1]), (2**20, 1))
    np.testing.assert_allclose(jax.jit(metrics.ece)(p, jnp.ones(2**20, int)), 0.9, rtol=1e-4)


def test_leading_axes_are_examples_and_half_precision_is_scored_in_float32():
    p = jnp.asarray(P, jnp.bfloat16)
    score = jax.jit(lambda p, y: jnp.stack([metrics.brier(p, y), metrics.ece(p, y), metrics.classwise_ece(p, y)]))
    flat, folded = score(p, LABELS), score(p.reshape(10, 30, 4), LABELS.reshape(10, 30))
    assert flat.dtype == jnp.float32
    np.testing.assert_allclose(folded, flat, rtol=1e-5)
    squares = (np.asarray(p, np.float64) - np.eye(CLASSES)[LABELS]) ** 2
    np.testing.assert_allclose(flat[0], squares.sum(-1).mean(), rtol=1e-6)


def test_a_label_of_no_probability_costs_infinitely():
    assert metrics.nll(jnp.array([[1.0, 0.0]]), jnp.array([1])) == jnp.inf


def test_likelihood_and_brier_have_gradients():
    scores = lambda logits: jnp.stack([f(jax.nn.softmax(logits), LABELS[:5]) for f in (metrics.nll, metrics.brier)])
    for slope in jax.jit(jax.jacrev(scores))(np.zeros((5, 4), np.float32)):
        np.testing.assert_array_equal(np.argmin(slope, -1), LABELS[:5])


HALVES, ZEROS = jnp.full((3, 2), 0.5), jnp.zeros(3)
FLAGS = np.array([True, False, True])


OF_LABELS = (metrics.nll, metrics.brier, metrics.ece, metrics.mce, metrics.adaptive_ece, metrics.classwise_ece)


@pytest.mark.parametrize("function", OF_LABELS, ids=lambda function: function.__name__)
def test_bad_probabilities_and_labels(function):
    good = np.zeros(3, int)
    for p, labels, error, message in (
        (HALVES * 2, good, ValueError, r"\[1. 1.\] at \(0,\), which sums to 2.*jax.nn.softmax"),
        (HALVES.at[1, 1].set(jnp.nan), good, ValueError, r"at \(1,\), which sums to nan"),
        (HALVES[:0], good[:0], ValueError, "which is empty"),
        (HALVES, good - 1, ValueError, r"labels is -1 at \(0,\), but each must lie in \[0, 1\]"),
        (HALVES, good + 2, ValueError, r"labels is 2 at \(0,\)"),
        (HALVES, good.astype(float), TypeError, r"labels has dtype float64.*labels.astype\(int\)"),
        (HALVES, HALVES, TypeError, "labels has dtype float32, but integers"),
        (HALVES, good[:2], ValueError, r"labels has shape \(2,\).* need \(3,\)"),
        (jnp.stack([HALVES] * 5), good, ValueError, r"labels has shape \(3,\).* need \(5, 3\).*averaged over"),
    ):
        with pytest.raises(error, match=message):
            function(p, labels)


def test_traced_bad_probabilities_and_labels_are_nan():
    jitted = jax.jit(lambda p, labels: jnp.stack([function(p, labels) for function in OF_LABELS]))
    good = np.zeros(3, int)
    assert np.isfinite(jitted(HALVES, good)).all()
    for p, labels in (
        (HALVES.at[1, 1].set(0.7), good),
        (HALVES, np.array([0, -1, 0])),
        (HALVES, np.array([0, 0, 2])),
    ):
        assert np.isnan(jitted(p, labels)).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.ece(HALVES, np.zeros(3, int), 0), ValueError, "num_bins is 0, but it must be at least 1"),
        (lambda m: m.adaptive_ece(HALVES, np.zeros(3, int), 1.5), TypeError, "num_bins is 1.5"),
        (lambda m: m.aurc(ZEROS, np.array([1, 0, 1])), TypeError, "correct has dtype int64.*write correct == 1"),
        (lambda m: m.aurc(ZEROS[:2], FLAGS), ValueError, r"shape \(2,\) and correct \(3,\)"),
        (lambda m: m.aurc(ZEROS[:, None], FLAGS[:, None]), ValueError, r"both must be \(n,\): ravel them"),
        (lambda m: m.risk_coverage(ZEROS * jnp.nan, FLAGS), ValueError, "uncertainty is nan"),
        (lambda m: m.selective_accuracy(ZEROS, FLAGS, 0.0), ValueError, r"coverage is 0.0.*\(0, 1\]"),
        (lambda m: m.selective_accuracy(ZEROS, FLAGS, 1.1), ValueError, r"coverage is 1.1"),
        (lambda m: m.auroc(ZEROS, FLAGS[:2]), ValueError, r"positive \(2,\)"),
        (lambda m: m.auroc(ZEROS, FLAGS | True), ValueError, "positive is True everywhere"),
        (lambda m: m.average_precision(ZEROS, FLAGS & False), ValueError, "positive is False everywhere"),
        (lambda m: m.average_precision(ZEROS + jnp.inf, FLAGS), ValueError, "uncertainty is inf"),
        (lambda m: m.rmse(ZEROS, ZEROS[:, None]), ValueError, r"targets has shape \(3, 1\), but mean has \(3,\)"),
        (lambda m: m.rmse(ZEROS[:0], ZEROS[:0]), ValueError, "mean has shape .*, which is empty"),
        (
            lambda m: m.gaussian_log_likelihood(ZEROS, ZEROS, ZEROS),
            ValueError,
            "variance is 0.0 .*the noise of the data",
        ),
        (lambda m: m.crps_gaussian(ZEROS, 1.0, ZEROS), ValueError, r"variance has shape \(\), but mean has \(3,\)"),
        (lambda m: m.pit_gaussian(ZEROS, -1 - ZEROS, ZEROS), ValueError, "variance is -1.0"),
        (lambda m: m.sharpness(-1.0), ValueError, "variance is -1.0"),
        (lambda m: m.crps_ensemble(HALVES, ZEROS), ValueError, r"targets has shape \(3,\).* need \(2,\)"),
        (lambda m: m.crps_ensemble(HALVES.at[0, 1].set(jnp.nan), ZEROS[:2]), ValueError, r"outputs is nan at \(0, 1\)"),
        (lambda m: m.pit_ensemble(HALVES[:0], ZEROS[:2]), ValueError, "outputs has shape .* empty"),
        (lambda m: m.interval_width(ZEROS + 1, ZEROS), ValueError, "upper is 0.0 at .* below lower"),
        (lambda m: m.interval_coverage(ZEROS, ZEROS, ZEROS[:2]), ValueError, r"targets has shape \(2,\)"),
    ],
    ids=range(23),
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(metrics)


def test_traced_arguments_out_of_range_are_nan():
    @jax.jit
    def scores(zeros, coverage):
        return (
            metrics.sharpness(zeros),
            metrics.gaussian_log_likelihood(zeros, zeros, zeros),
            metrics.interval_coverage(zeros + 1, zeros, zeros),
            metrics.selective_accuracy(zeros, FLAGS, coverage),
        )

    *numbers, accuracy = scores(ZEROS, np.array([0.5, 0, np.nan, 1.1], np.float32))
    assert np.isnan(numbers).all()
    np.testing.assert_array_equal(np.isnan(accuracy), [False, True, True, True])

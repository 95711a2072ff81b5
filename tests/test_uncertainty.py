"""Uncertainty of samples: against SciPy, NumPy and scoringrules, and by enumeration of every dropout mask."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scoringrules
from cases import assert_in_both_precisions, changed, key
from scipy import special, stats

import jdrop
from jdrop.mc import calibration, metrics, uncertainty

GENERATOR = np.random.default_rng(0)
SAMPLES, EXAMPLES, CLASSES = 9, 6, 4
P = GENERATOR.dirichlet(np.full(CLASSES, 0.5), (SAMPLES, EXAMPLES))
P[:, 0] = np.eye(CLASSES)[1]  # every sample certain of the same class
P[:, 1] = np.eye(CLASSES)[np.arange(SAMPLES) % CLASSES]  # certain each time, of different classes
LABELS = np.array([1, 0, 2, 3, 0, 1])
Y = GENERATOR.normal(3, 2, (SAMPLES, EXAMPLES))
TARGETS = GENERATOR.normal(3, 2, EXAMPLES)
LOG_VARIANCE = GENERATOR.normal(0, 1, (SAMPLES, EXAMPLES))
TAU = np.array([0.5, 1, 2, 4, 8, 1.5])
VOTES = P.argmax(-1)
MEAN = P.mean(0)
RANKED = np.sort(MEAN, -1)
SCALE = np.sqrt(np.exp(LOG_VARIANCE))
LEVELS = np.array([0.0, 0.1, 0.5, 1.0])


def disagreement(votes):
    return np.mean([a != b for a, b in itertools.permutations(votes, 2)], 0)


def log_mixture(scale):
    return -scoringrules.logs_mixnorm(TARGETS, Y.T, np.broadcast_to(scale, Y.shape).T)


def of_probabilities(p):
    functions = (
        uncertainty.entropy,
        uncertainty.predictive_entropy,
        uncertainty.expected_entropy,
        uncertainty.mutual_information,
        uncertainty.variation_ratio,
        uncertainty.vote_disagreement,
        uncertainty.max_probability,
        uncertainty.margin,
    )
    return {function.__name__: function(p) for function in functions}


def of_outputs(y):
    return {
        "predictive_mean": uncertainty.predictive_mean(y),
        "epistemic_variance": uncertainty.epistemic_variance(y),
        "total of a number": uncertainty.total_variance(y, tau=4.0),
        "central_interval": jnp.stack(uncertainty.central_interval(y, 0.8)),
    }


def of_noise(y, targets, **noise):
    return {
        "aleatoric_variance": uncertainty.aleatoric_variance(**noise),
        "total_variance": uncertainty.total_variance(y, **noise),
        "mixture_log_likelihood": metrics.mixture_log_likelihood(y, targets, **noise),
    }


SMOOTH = P + np.float32(1e-3) * (1 - CLASSES * P)  # no probability is 0
CASES = {
    "probabilities": (
        of_probabilities,
        [P],
        {
            "entropy": stats.entropy(P, axis=-1),
            "predictive_entropy": stats.entropy(MEAN, axis=-1),
            "expected_entropy": stats.entropy(P, axis=-1).mean(0),
            "mutual_information": stats.entropy(P, MEAN, axis=-1).mean(0),
            "variation_ratio": 1 - stats.mode(VOTES).count / SAMPLES,
            "vote_disagreement": disagreement(VOTES),
            "max_probability": RANKED[:, -1],
            "margin": RANKED[:, -1] - RANKED[:, -2],
        },
    ),
    "labels": (
        lambda p: {"label_log_likelihood": metrics.label_log_likelihood(p, jnp.asarray(LABELS))},
        [SMOOTH],
        {"label_log_likelihood": np.log(SMOOTH.mean(0)[np.arange(EXAMPLES), LABELS])},
    ),
    "outputs": (
        of_outputs,
        [Y],
        {
            "predictive_mean": Y.mean(0),
            "epistemic_variance": Y.var(0),
            "total of a number": Y.var(0) + 0.25,
            "central_interval": np.percentile(Y, [10, 90], axis=0),
        },
    ),
    "tau": (
        lambda tau, y, targets: of_noise(y, targets, tau=tau),
        [TAU, Y, TARGETS],
        {
            "aleatoric_variance": 1 / TAU,
            "total_variance": Y.var(0) + 1 / TAU,
            "mixture_log_likelihood": log_mixture(TAU**-0.5),
        },
    ),
    "log_variance": (
        lambda v, y, targets: of_noise(y, targets, log_variance=v),
        [LOG_VARIANCE, Y, TARGETS],
        {
            "aleatoric_variance": (SCALE**2).mean(0),
            "total_variance": Y.var(0) + (SCALE**2).mean(0),
            "mixture_log_likelihood": log_mixture(SCALE),
        },
    ),
    "prior": (
        lambda rate, decay: {"prior_tau": calibration.prior_tau(rate, 2.0, 50, decay)},
        [0.25, 0.5],
        {"prior_tau": 0.75 * 4 / 50},
    ),
    "levels": (
        lambda y, q: {"quantiles": uncertainty.quantiles(y, q)},
        [Y, LEVELS],
        {"quantiles": np.quantile(Y, LEVELS, axis=0)},
    ),
}
NEEDS = {"aleatoric_variance": (0,), "total_variance": (0, 1)}  # of the arguments, where not all
cases = pytest.mark.parametrize(
    ("function", "arguments", "wanted"), [(jax.jit(f), *rest) for f, *rest in CASES.values()], ids=CASES
)


@cases
def test_against_other_libraries(function, arguments, wanted):
    assert_in_both_precisions(function, arguments, wanted)


@cases
def test_a_traced_nan_shows_in_its_own_example(function, arguments, wanted):
    for bad in range(len(arguments)):
        broken = [np.array(a, np.float32) for a in arguments]
        broken[bad][(0, -1)[-broken[bad].ndim :] if broken[bad].ndim else ()] = np.nan
        for name, result in function(*map(jnp.asarray, broken)).items():
            shows = np.atleast_1d(np.isnan(result))
            assert shows.any() == (bad in NEEDS.get(name, (bad,))), name
            assert not shows[..., :-1].any() or EXAMPLES not in broken[bad].shape, name


def test_half_precision_is_computed_in_float32():
    for dtype in (jnp.bfloat16, jnp.float16):
        rounded = np.asarray(jnp.asarray(P, dtype), np.float64)
        wanted = special.entr(rounded.mean(0)).sum(-1) - special.entr(rounded).sum(-1).mean(0)
        result = jax.jit(uncertainty.mutual_information)(jnp.asarray(P, dtype))
        assert result.dtype == jnp.float32
        np.testing.assert_allclose(result, np.maximum(wanted, 0), atol=1e-6)


def test_it_maps_over_examples_and_has_a_gradient():
    def total(logits):
        return jax.vmap(uncertainty.mutual_information, 1)(jax.nn.softmax(logits)).sum()

    logits = np.log(P[:, 2:]).astype(np.float32)
    step = 1e-2 * np.random.default_rng(1).normal(size=logits.shape).astype(np.float32)
    value, slope = jax.jit(jax.value_and_grad(total))(logits)
    np.testing.assert_allclose(value, CASES["probabilities"][2]["mutual_information"][2:].sum(), rtol=1e-5)
    rise = jax.jit(total)(logits + step) - jax.jit(total)(logits - step)
    np.testing.assert_allclose((np.asarray(slope) * step).sum(), rise / 2, rtol=1e-2)


# Eight units, dropped with probability 0.3: every mask, its probability, and the network's outputs.
MASKS = np.array(list(itertools.product([0, 1], repeat=8)))
CHANCE = np.prod(np.where(MASKS, 0.7, 0.3), 1)
HIDDEN, WEIGHTS = GENERATOR.normal(0, 1, 8), GENERATOR.normal(0, 1, (8, 3))
LOGITS = (HIDDEN * MASKS / 0.7) @ WEIGHTS
TRUE_P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)


def test_equally_probable_masks_are_the_whole_distribution():
    """At rate 0.5 all 256 masks as samples are the true predictive distribution; a linear output has known moments."""
    outputs = (HIDDEN * MASKS / 0.5) @ WEIGHTS
    np.testing.assert_allclose(uncertainty.predictive_mean(outputs), HIDDEN @ WEIGHTS, atol=1e-5)
    np.testing.assert_allclose(uncertainty.epistemic_variance(outputs), HIDDEN**2 @ WEIGHTS**2, rtol=1e-5)


def test_samples_tell_the_true_uncertainty():
    """By Hoeffding's inequality each of the 15 means may leave its bound with a probability of 1e-8."""
    count = 20000

    def predict(k, x):
        return jdrop.dropout(k, x, 0.3) @ jnp.asarray(WEIGHTS, jnp.float32)

    @jax.jit
    def estimates(logits):
        functions = (
            uncertainty.expected_entropy,
            uncertainty.predictive_entropy,
            uncertainty.mutual_information,
            uncertainty.variation_ratio,
            uncertainty.vote_disagreement,
        )
        moments = uncertainty.predictive_mean(logits), uncertainty.epistemic_variance(logits)
        return moments, [function(jax.nn.softmax(logits)) for function in functions]

    logits = jdrop.mc.samples(predict, key(1), jnp.asarray(HIDDEN, jnp.float32), count)
    (mean, variance), (expected, total, mutual, ratio, disagreement) = estimates(logits)
    error = np.sqrt(np.log(2e8) / (2 * count))  # of a mean of terms in an interval of length 1
    width, true_mean = np.ptp(LOGITS, 0), CHANCE @ LOGITS
    assert (np.abs(mean - true_mean) <= error * width).all()
    squares = (LOGITS - true_mean) ** 2
    assert (np.abs(variance - CHANCE @ squares) <= error * squares.max(0) + (error * width) ** 2).all()

    aleatoric = CHANCE @ stats.entropy(TRUE_P, axis=-1)
    assert np.abs(expected - aleatoric) <= error * np.log(3)
    marginal = CHANCE @ TRUE_P
    slope = np.maximum(np.abs(np.log(marginal - error) + 1), np.abs(np.log(marginal + error) + 1))
    bound = error * slope.sum()  # of the entropy, where each probability errs by `error`
    assert np.abs(total - stats.entropy(marginal)) <= bound
    assert np.abs(mutual - (stats.entropy(marginal) - aleatoric)) <= bound + error * np.log(3)
    share = np.array([CHANCE @ (TRUE_P.argmax(-1) == c) for c in range(3)])
    assert np.abs(ratio - (1 - share.max())) <= error
    assert np.abs(disagreement - (1 - share @ share)) <= 2 * 3 * error


GOOD, OUTPUTS = np.full((5, 3, 2), 0.5, np.float32), np.zeros((5, 3), np.float32)
OF_PROBABILITIES = (
    uncertainty.predictive_entropy,
    uncertainty.expected_entropy,
    uncertainty.mutual_information,
    uncertainty.variation_ratio,
    uncertainty.vote_disagreement,
    uncertainty.max_probability,
    uncertainty.margin,
    lambda p: metrics.label_log_likelihood(p, jnp.zeros(3, int)),
)
OF_OUTPUTS = (
    uncertainty.predictive_mean,
    uncertainty.epistemic_variance,
    lambda y: uncertainty.total_variance(y, tau=1.0),
    lambda y: uncertainty.quantiles(y, 0.5),
    uncertainty.central_interval,
    lambda y: metrics.mixture_log_likelihood(y, jnp.zeros(3), tau=1.0),
)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (changed(GOOD, (1, 2, 0), np.nan), ValueError, r"at \(1, 2\).*sums to nan.*jax.nn.softmax"),
        (changed(GOOD, (1, 2), [-0.5, 1.5]), ValueError, r"\[-0.5  1.5\] at \(1, 2\).*not be negative"),
        (GOOD * np.float32(1.01), ValueError, r"sums to 1.01.*sum to 1 over the last axis: write jax.nn.softmax"),
        (GOOD[..., :1], ValueError, r"shape \(5, 3, 1\), but .*jnp.stack\(\[1 - p, p\], -1\)"),
        (GOOD[0, 0], ValueError, r"shape \(2,\), but \(num_samples, ..., classes\)"),
        (GOOD[:0], ValueError, r"shape \(0, 3, 2\), which is empty"),
        (GOOD[:, :0], ValueError, r"shape \(5, 0, 2\), which is empty"),
        (GOOD.astype(np.complex64), TypeError, "complex64, but real numbers are needed"),
        (GOOD > 0, TypeError, "bool, but real numbers are needed"),
        ("half", TypeError, "probabilities is a str"),
        (None, TypeError, "probabilities is a NoneType"),
    ],
    ids=range(11),
)
def test_what_are_no_probabilities(bad, error, message):
    for function in OF_PROBABILITIES:
        with pytest.raises(error, match=message):
            function(bad)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (changed(OUTPUTS, (1, 2), np.nan), ValueError, r"outputs is nan at \(1, 2\), but every value must be finite"),
        (changed(OUTPUTS, (1, 2), -np.inf), ValueError, r"outputs is -inf at \(1, 2\)"),
        (OUTPUTS[:0], ValueError, r"outputs has shape \(0, 3\), which is empty"),
        (np.array(1.0), ValueError, r"shape \(\), but \(num_samples, ...\).*outputs\[None\]"),
        (OUTPUTS > 0, TypeError, "outputs has dtype bool"),
        ("zero", TypeError, "outputs is a str"),
    ],
    ids=range(6),
)
def test_what_are_no_outputs(bad, error, message):
    for function in OF_OUTPUTS:
        with pytest.raises(error, match=message):
            function(bad)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda u: metrics.label_log_likelihood(GOOD, np.array([0, 2, 0])), ValueError, r"2 at \(1,\).*\[0, 1\] for 2"),
        (lambda u: metrics.label_log_likelihood(GOOD, jnp.array([0, 0, -1])), ValueError, r"-1 at \(2,\)"),
        (lambda u: metrics.label_log_likelihood(GOOD, np.array([0, 2**32, 0])), ValueError, "labels is 4294967296"),
        (lambda u: metrics.label_log_likelihood(GOOD, np.zeros(3)), TypeError, r"float64.*labels.astype\(int\)"),
        (lambda u: metrics.label_log_likelihood(GOOD, np.zeros(3, bool)), TypeError, "bool, but integers"),
        (
            lambda u: metrics.label_log_likelihood(GOOD, np.zeros((3, 1), int)),
            ValueError,
            r"shape \(3, 1\).* need \(3,\)",
        ),
        (lambda u: u.vote_disagreement(GOOD[:1]), ValueError, "1 sample, but two are needed"),
        (lambda u: u.aleatoric_variance(), TypeError, "either tau=1.0 or log_variance"),
        (lambda u: u.total_variance(OUTPUTS, tau=1.0, log_variance=OUTPUTS), TypeError, "either tau=1.0"),
        (lambda u: u.aleatoric_variance(tau=0.0), ValueError, r"tau is 0.0 at \(\), but it must be positive"),
        (lambda u: u.aleatoric_variance(tau=jnp.array([1, -1.0])), ValueError, r"tau is -1.0 at \(1,\)"),
        (lambda u: u.aleatoric_variance(tau=float("inf")), ValueError, "tau is inf"),
        (lambda u: u.aleatoric_variance(log_variance=OUTPUTS * jnp.nan), ValueError, "log_variance is nan"),
        (lambda u: u.total_variance(OUTPUTS, tau=jnp.ones(5)), ValueError, r"tau has shape \(5,\).* the \(3,\)"),
        (lambda u: u.total_variance(OUTPUTS, tau=jnp.ones((5, 3))), ValueError, r"tau has shape \(5, 3\)"),
        (lambda u: u.total_variance(OUTPUTS, log_variance=jnp.ones(3)), ValueError, r"log_variance has shape \(3,\)"),
        (
            lambda u: metrics.mixture_log_likelihood(OUTPUTS, jnp.zeros((3, 1)), tau=1.0),
            ValueError,
            r"targets .* need \(3,\)",
        ),
        (
            lambda u: metrics.mixture_log_likelihood(OUTPUTS, jnp.full(3, jnp.nan), tau=1.0),
            ValueError,
            "targets is nan",
        ),
        (lambda u: u.quantiles(OUTPUTS, 1.1), ValueError, r"q is 1.1.* in \[0, 1\]"),
        (lambda u: u.quantiles(OUTPUTS, [0.5, -0.1]), ValueError, r"q is -0.1"),
        (lambda u: u.central_interval(OUTPUTS, 0.0), ValueError, r"coverage is 0.0.* in \(0, 1\]"),
        (lambda u: u.central_interval(OUTPUTS, float("nan")), ValueError, "coverage is nan"),
        (lambda u: calibration.prior_tau(1.0, 1.0, 10, 0.1), ValueError, r"rate is 1, but .*\[0, 1\)"),
        (lambda u: calibration.prior_tau(1.5, 1.0, 10, 0.1), ValueError, "rate is 1.5"),
        (lambda u: calibration.prior_tau(0.5, 0.0, 10, 0.1), ValueError, "length_scale is 0.0"),
        (lambda u: calibration.prior_tau(0.5, 1.0, 0, 0.1), ValueError, "num_examples is 0"),
        (lambda u: calibration.prior_tau(0.5, 1.0, 10, 0.0), ValueError, "weight_decay is 0.0"),
    ],
    ids=range(27),
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(uncertainty)


def test_concrete_values_are_checked_inside_jit_too():
    twice = GOOD * 2
    with pytest.raises(ValueError, match="probabilities"):
        jax.jit(lambda x: x + uncertainty.margin(twice))(jnp.zeros(3))
    with pytest.raises(ValueError, match="labels is 7"):
        jax.jit(lambda p: metrics.label_log_likelihood(p, np.full(3, 7)))(GOOD)


@pytest.mark.parametrize("bad", [-1, 2])
def test_a_traced_label_out_of_range_is_nan(bad):
    result = jax.jit(metrics.label_log_likelihood)(GOOD, jnp.array([0, bad, 1]))
    np.testing.assert_array_equal(np.isnan(result), [False, True, False])


def test_traced_arguments_out_of_range_are_nan():
    @jax.jit
    def values(one, outputs):
        return (
            calibration.prior_tau(one, 1.0, 10, 0.1),
            calibration.prior_tau(one - 1.5, 1.0, 10, 0.1),
            calibration.prior_tau(0.5, -one, 10, 0.1),
            calibration.prior_tau(0.5, 1.0, 10, one - 1),
            uncertainty.quantiles(outputs, 1.5 * one),
            uncertainty.central_interval(outputs, one - 1),
            uncertainty.total_variance(outputs, tau=one - 1),
            uncertainty.variation_ratio(2 * jnp.stack([outputs, one - outputs], -1)),
        )

    for value in jax.tree.leaves(values(jnp.float32(1), OUTPUTS)):
        assert np.isnan(value).all()


def test_entropy_of_a_saturated_distribution_has_a_gradient():
    gradient = jax.grad(lambda z: uncertainty.entropy(jax.nn.softmax(z)).sum())(jnp.array([1000.0, 0.0, 0.0]))
    np.testing.assert_array_equal(gradient, np.zeros(3))

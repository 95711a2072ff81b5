"""Temperature, precision and conformal prediction: against SciPy, by enumeration, and the coverage that is promised."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import array, changed, key
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp
from scipy.stats import betabinom, binom, kstest, norm
from tiers import some

import jdrop

calibration, conformal = jdrop.mc.calibration, jdrop.mc.conformal


FITTED = jax.jit(calibration.fit_temperature)


def classified(shape, scale=1.0, seed=0):
    """Logits of two scales (a common part and one for each sample), and labels drawn from them, 1/scale as sure."""
    *samples, n, classes = shape
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=shape) + generator.normal(size=(n, classes))
    labels = ((logits[0] if samples else logits) + generator.gumbel(size=(n, classes))).argmax(-1)
    return jnp.asarray(np.float32(scale * logits), jnp.float32), jnp.asarray(labels, jnp.int32)


@some(("shape", "fit"), [((400, 5), calibration.fit_temperature), ((20, 400, 5), FITTED)], 1)
def test_the_temperature_is_scipy_s(shape, fit):
    for scale in (1e-6, 0.01, 1.0, 30.0):
        logits, labels = classified(shape, scale)
        z, y = np.asarray(logits, np.float64).reshape(-1, *shape[-2:]), np.asarray(labels)

        def nll(log_t):
            log_p = log_softmax(z / np.exp(log_t), -1)[:, np.arange(len(y)), y]
            return -logsumexp(log_p, 0, b=1 / len(z)).mean()

        wanted = np.exp(minimize_scalar(nll, np.log(scale) + np.array([-1, 1]), tol=1e-10).x)
        fitted = fit(logits, labels)
        assert fitted.shape == ()
        assert fitted.dtype == jnp.float32
        np.testing.assert_allclose(fitted, wanted, rtol=1e-4)


@some("sharpness", [0.2, 1.0, 5.0, 20.0], 0, 3)
def test_temperatures_far_from_that_of_the_start(sharpness):
    """Labels from hardly informative to nearly certain."""
    logits = classified((400, 5))[0]
    labels = (np.asarray(logits) * sharpness + np.random.default_rng(1).gumbel(size=(400, 5))).argmax(-1)
    z = np.asarray(logits, np.float64)
    nll = lambda log_t: -log_softmax(z / np.exp(log_t), -1)[np.arange(400), labels].mean()
    wanted = np.exp(minimize_scalar(nll, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x)
    np.testing.assert_allclose(calibration.fit_temperature(logits, labels), wanted, rtol=1e-3)


def test_log_probabilities_act_as_logits():
    logits, labels = classified((400, 5))
    fitted = calibration.fit_temperature(jax.nn.log_softmax(logits), labels)
    np.testing.assert_allclose(fitted, calibration.fit_temperature(logits, labels), rtol=1e-4)


def test_one_sample_many_times_is_one_sample():
    logits, labels = classified((400, 5))
    many = jnp.tile(logits, (20, 1, 1))
    np.testing.assert_allclose(FITTED(many, labels), calibration.fit_temperature(logits, labels), rtol=1e-5)


def test_in_half_precision():
    logits, labels = classified((400, 5))
    half = logits.astype(jnp.bfloat16)
    fitted = calibration.fit_temperature(half, labels)
    assert fitted.dtype == jnp.float32
    np.testing.assert_array_equal(fitted, calibration.fit_temperature(half.astype(jnp.float32), labels))


LABELS, ONE_HOT = np.arange(400, dtype=np.int32) % 5, np.tile(np.eye(5, dtype=np.float32), (80, 1))


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (ONE_HOT, LABELS),  # every label the likeliest: the likelihood rises as T falls to 0
        (ONE_HOT, (LABELS + 1) % 5),  # worse than chance: it rises with T
        (0 * ONE_HOT, LABELS),
    ],
)
def test_a_likelihood_without_a_maximum_has_no_temperature(logits, labels):
    with pytest.raises(ValueError, match="no maximum at a finite temperature above 0: .*held-out.*better than chance"):
        calibration.fit_temperature(logits, labels)
    assert jnp.isnan(FITTED(np.tile(logits, (20, 1, 1)), labels))


@some("unit", [1e-12, 1.0, 1e12], 0)
def test_the_precision_is_scipy_s(unit):
    generator = np.random.default_rng(0)
    outputs = unit * generator.normal(size=(20, 300)).astype(np.float32)
    targets = unit * (2 * generator.normal(size=300) + 1).astype(np.float32)

    def nll(log_tau):
        log_p = norm.logpdf(targets / unit, outputs / unit, np.exp(-log_tau / 2))
        return -logsumexp(log_p.astype(np.float64), 0, b=1 / 20).mean()

    wanted = np.exp(minimize_scalar(nll, [-2, 0], tol=1e-10).x) / unit**2
    fitted = calibration.fit_tau(outputs, targets)
    assert fitted.shape == ()
    np.testing.assert_allclose(fitted, wanted, rtol=2e-4)
    same = np.tile(outputs[:1], (20, 1))  # without spread, tau is the inverse of the mean squared error
    np.testing.assert_allclose(calibration.fit_tau(same, targets), 1 / np.mean((outputs[0] - targets) ** 2), rtol=1e-4)


def test_the_precision_does_not_depend_on_the_unit():
    outputs, targets = classified((20, 300))[0], classified((300, 2))[0][:, 0]
    fitted = calibration.fit_tau(outputs, targets)
    scaled = calibration.fit_tau(outputs * 2.0**20, targets * 2.0**20)
    np.testing.assert_array_equal(scaled * 2.0**40, fitted)


@pytest.mark.slow
def test_targets_met_exactly_have_no_precision():
    targets = jnp.ones(300)
    for outputs in (jnp.ones((20, 300)), jnp.ones((20, 300)).at[15:].set(2)):
        with pytest.raises(ValueError, match="no maximum at a finite tau above 0: .*met exactly"):
            calibration.fit_tau(outputs, targets)
        assert jnp.isnan(jax.jit(calibration.fit_tau)(outputs, targets))


@some("n", [1, 8, 9, 100], 1, 2)
def test_conformal_quantiles_by_sorting(n):
    """Of residuals, with a variance and without, and of LAC scores; alpha is the decimal that is written."""
    generator = np.random.default_rng(n)
    mean, targets = generator.normal(size=(2, n)).astype(np.float32)
    variance = generator.uniform(0.5, 2, n).astype(np.float32) ** 2
    p = generator.dirichlet(np.ones(3), n).astype(np.float32)
    labels = generator.integers(0, 3, n)
    wanted = abs(targets - mean), abs(targets - mean) / np.sqrt(variance), 1 - p[np.arange(n), labels]

    @functools.partial(jax.jit, static_argnums=0)
    def quantiles(percents):
        alphas = [percent / 100 for percent in percents]
        return (
            [conformal.residual_quantile(mean, targets, alpha) for alpha in alphas],
            [conformal.residual_quantile(mean, targets, alpha, variance) for alpha in alphas],
            [conformal.lac_quantile(p, labels, alpha) for alpha in alphas],
        )

    percents = (1, 10, 30, 50, 71, 99)
    ranks = [-((n + 1) * (percent - 100) // 100) for percent in percents]  # in integers
    for scores, found in zip(wanted, quantiles(percents)):
        np.testing.assert_allclose(found, [[*np.sort(scores), np.inf][rank - 1] for rank in ranks], rtol=1e-6)


def test_too_few_examples_cover_everything():

    @jax.jit
    def covered(p, labels):
        lac = conformal.lac_sets(p, conformal.lac_quantile(p, labels, 0.1))
        aps = conformal.aps_sets(key(), p, conformal.aps_quantile(key(), p, labels, 0.1))
        return lac, aps, conformal.residual_intervals(p[:, 0], conformal.residual_quantile(p[:, 0], p[:, 1], 0.1))

    lac, aps, interval = covered(jnp.full((8, 3), 1 / 3), jnp.zeros(8, int))
    assert lac.all()
    assert aps.all()
    np.testing.assert_array_equal(interval, [[-np.inf] * 8, [np.inf] * 8])


def test_sets_and_intervals_by_hand():
    p = jnp.array([[0.7, 0.2, 0.1], [0.4, 0.35, 0.25]])
    np.testing.assert_array_equal(conformal.lac_sets(p, 0.7), [[True, False, False], [True, True, False]])
    low, high = conformal.residual_intervals(jnp.array([1.0, 2.0]), 2.0)
    np.testing.assert_array_equal([low, high], [[-1, 0], [3, 4]])
    low, high = conformal.residual_intervals(jnp.array([1.0, 2.0]), 2.0, jnp.array([0.25, 9.0]))
    np.testing.assert_array_equal([low, high], [[0, -4], [2, 8]])


def test_adaptive_scores_are_uniform_between_the_sums_without_and_with_the_class():
    """At n = 1 and alpha = 0.5 the quantile is the score. Four p-values, a false alarm below 1e-6."""
    p = jnp.array([[0.2, 0.5, 0.3]])
    score = jax.vmap(lambda k, y: conformal.aps_quantile(k, p, y[None], 0.5), (0, None))
    scores = jax.jit(jax.vmap(score, (None, 0)))(jax.random.split(key(), 2000), jnp.arange(3))
    for of_label, low, width in zip(np.asarray(scores), (0.8, 0.0, 0.5), (0.2, 0.5, 0.3)):
        assert kstest((of_label - low) / width, "uniform").pvalue > 1e-7
    inside = np.asarray(jax.jit(conformal.aps_sets)(key(), jnp.tile(p, (4000, 1)), 0.6)).sum(0)
    assert inside[0] == 0
    assert inside[1] == 4000
    assert 1e-7 < binom(4000, 1 / 3).cdf(inside[2]) < 1 - 1e-7  # (0.6 - 0.5) / 0.3


def test_one_key_gives_the_two_steps_of_adaptive_sets_uniforms_of_their_own():
    p, keys = jnp.array([[1.0, 0.0]]), jax.random.split(key(), 400)

    @jax.jit
    @jax.vmap
    def covered(k):
        score = conformal.aps_quantile(k, p, jnp.array([0]), 0.5)  # u itself
        return conformal.aps_sets(k, p, score)[0, 0]

    assert 1e-7 < binom(400, 0.5).cdf(int(covered(keys).sum())) < 1 - 1e-7  # all of them, if u were the same


SPLITS, HELD_OUT, NEW, ALPHA = 1000, 100, 200, 0.1


def splits(name):
    """`cover(key, rows, alpha)`: how many of the new rows a method covers, given an order of 300 rows."""
    logits, labels = classified((HELD_OUT + NEW, 5), 2.0, seed=3)
    p, std = jax.nn.softmax(logits), jnp.exp(logits[:, 0] / 4)
    targets = logits[:, 1] + std * np.random.default_rng(9).normal(size=labels.shape).astype(np.float32)

    def cover(k, order, alpha):
        old, new = order[:HELD_OUT], order[HELD_OUT:]
        if name in ("lac", "aps"):
            first = (k,) if name == "aps" else ()
            quantile = getattr(conformal, f"{name}_quantile")(*first, p[old], labels[old], alpha)
            sets = getattr(conformal, f"{name}_sets")(*first, p[new], quantile)
            return jnp.take_along_axis(sets, labels[new][:, None], 1).sum()
        s = (lambda rows: std[rows] ** 2) if name == "normalised" else (lambda rows: None)
        quantile = conformal.residual_quantile(logits[old, 1], targets[old], alpha, s(old))
        low, high = conformal.residual_intervals(logits[new, 1], quantile, s(new))
        return ((low <= targets[new]) & (targets[new] <= high)).sum()

    return cover


@functools.cache
def total_law():
    """The exact law of the number covered in one split, and of the sum over all splits."""
    rank = int(np.ceil((HELD_OUT + 1) * (1 - ALPHA)))
    law = betabinom(NEW, rank, HELD_OUT + 1 - rank)
    spectrum = np.fft.rfft(law.pmf(np.arange(NEW + 1)), SPLITS * NEW + 1)
    return law, np.fft.irfft(spectrum**SPLITS, SPLITS * NEW + 1)


def least_tail(counts):
    """A bound on the probability of a sum or an extreme count as far out as these."""
    law, total = total_law()
    tails = [
        total[: counts.sum() + 1].sum(),
        total[counts.sum() :].sum(),
        SPLITS * law.cdf(counts.min()),
        SPLITS * law.sf(counts.max() - 1),
    ]
    return min(tails)


@some("name", ["lac", "aps", "absolute", "normalised"], 0, 1)
def test_the_coverage_is_the_promised_one(name):
    """The number of covered among `NEW` exchangeable rows is exactly beta-binomial: 1,000 random splits of 300 rows.

    Four methods with four tails each: a false alarm below 1e-6 in all. A rank that is off by one moves the mean by
    1 / 101, eight of its standard errors, and must be caught.
    """
    cover = jax.jit(jax.vmap(splits(name), (0, 0, None)), static_argnums=2)
    generator = np.random.default_rng(6)
    orders = generator.permuted(np.tile(np.arange(HELD_OUT + NEW), (SPLITS, 1)), axis=1)
    keys = jax.random.split(key(5), SPLITS)
    assert least_tail(np.asarray(cover(keys, orders, ALPHA))) > 1e-6 / 16
    if name == "absolute":
        assert least_tail(np.asarray(cover(keys, orders, 0.115))) < 1e-6 / 16


P, Z, Y = np.full((4, 4), 1 / 4, np.float32), np.zeros((4, 4), np.float32), np.zeros(4, np.int32)
SAMPLED = classified((20, 400, 5))[0]
T, NAN = np.ones(4, np.float32), np.array([1, np.nan, 1, 1], np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: calibration.fit_temperature(changed(Z, (1, 1), -np.inf), Y),
            ValueError,
            r"logits is -inf at \(1, 1\), .*finite",
        ),
        (lambda: calibration.fit_temperature(Z[0], Y), ValueError, r"logits has shape \(4,\), but \(n, classes\)"),
        (lambda: calibration.fit_temperature(Z[None, None], Y), ValueError, r"shape \(1, 1, 4, 4\)"),
        (lambda: calibration.fit_temperature(Z, Y[1:]), ValueError, r"labels has shape \(3,\), but logits .* \(4,\)"),
        (lambda: calibration.fit_temperature(Z, Y + 4), ValueError, r"labels is 4 at .*\[0, 3\] for 4 classes"),
        (lambda: calibration.fit_temperature(Z, Y - 1), ValueError, "labels is -1"),
        (lambda: calibration.fit_temperature(Z, np.full(4, 2**40)), ValueError, "labels is 1099511627776"),
        (lambda: calibration.fit_temperature(Z, T), TypeError, "labels has dtype float32.*labels.argmax"),
        (lambda: calibration.fit_temperature(Z.astype(np.complex64), Y), TypeError, "logits has dtype complex64.*real"),
        (lambda: calibration.fit_temperature("zero", Y), TypeError, "logits is a str"),
        (lambda: calibration.fit_temperature(Z[:0], Y[:0]), ValueError, r"logits has shape \(0, 4\), .*empty"),
        (lambda: calibration.fit_tau(T, T), ValueError, r"targets .* \(4,\), but outputs .* need \(\)"),
        (lambda: calibration.fit_tau(T[None], T[1:]), ValueError, r"targets .* \(3,\), but outputs .* need \(4,\)"),
        (lambda: calibration.fit_tau(T[None], NAN), ValueError, "targets is nan"),
        (lambda: conformal.lac_quantile(Z, Y, 0.1), ValueError, "sums to 0, .*sum to 1.*jax.nn.softmax"),
        (
            lambda: conformal.lac_quantile(changed(P, 2, [1.5, -0.5, 0, 0]), Y, 0.1),
            ValueError,
            r"-0.5 .*at \(2,\)",
        ),
        (lambda: conformal.lac_quantile(P[None], Y, 0.1), ValueError, r"but \(n, classes\) is needed"),
        (lambda: conformal.aps_quantile(None, P, Y, 0.1), TypeError, "key=None"),
        (lambda: conformal.aps_sets(None, P, 0.1), TypeError, "key=None"),
        (lambda: conformal.lac_sets(P, np.nan), ValueError, "quantile is NaN"),
        (lambda: conformal.lac_sets(P, T), ValueError, r"quantile has shape \(4,\)"),
        (lambda: conformal.residual_quantile(T, T[1:], 0.1), ValueError, r"targets has shape \(3,\)"),
        (lambda: conformal.residual_quantile(T, NAN, 0.1), ValueError, "targets is nan"),
        (
            lambda: conformal.residual_quantile(T, T, 0.1, 0 * T),
            ValueError,
            r"variance is 0.0 at .*write variance \+ 1e-6",
        ),
        (lambda: conformal.residual_quantile(T, T, 0.1, T[1:]), ValueError, r"variance has shape \(3,\)"),
        (lambda: conformal.residual_intervals(T, -1.0), ValueError, "quantile is -1.0, but a residual is at least 0"),
        (lambda: conformal.residual_intervals(T[None], 1.0), ValueError, r"mean has shape \(1, 4\), but \(n\)"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 1.1, float("nan"), float("inf"), True])
def test_alpha_outside_of_the_interval(alpha):
    with pytest.raises(ValueError, match=rf"alpha is {alpha}, .*\(0, 1\): write alpha=0.1"):
        conformal.lac_quantile(P, Y, alpha)


@pytest.mark.parametrize("alpha", ["0.1", None, [0.1], np.full(2, 0.1), 0.1j])
def test_alpha_of_a_wrong_type(alpha):
    with pytest.raises(TypeError, match=r"alpha is .*a concrete number in \(0, 1\)"):
        conformal.residual_quantile(T, T, alpha)
    with pytest.raises(TypeError, match="concrete"):
        jax.jit(lambda alpha: conformal.residual_quantile(T, T, alpha))(0.1)


def test_alpha_as_a_numpy_or_jax_number():
    scores = jnp.arange(1.0, 10.0)
    for alpha in (0.9, np.float32(0.9), jnp.float32(0.9), np.array(0.9)):
        assert conformal.residual_quantile(scores, 0 * scores, alpha) == 1


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (calibration.fit_temperature, (changed(SAMPLED, (0, 0, 0), np.inf), LABELS)),
        (calibration.fit_temperature, (SAMPLED, np.where(np.arange(400) == 7, np.int32(5), LABELS))),
        (calibration.fit_temperature, (SAMPLED, np.where(np.arange(400) == 7, np.int32(-1), LABELS))),
        (calibration.fit_tau, (SAMPLED[:, :300, 0], changed(np.ones(300, np.float32), 0, np.nan))),
        (lambda p, y: conformal.lac_quantile(p, y, 0.5), (changed(P, 0, 0.5), Y)),
        (lambda p, y: conformal.lac_quantile(p, y, 0.5), (P, changed(Y, 1, 7))),
        (lambda p, y: conformal.aps_quantile(key(), p, y, 0.5), (P, changed(Y, 1, -1))),
        (lambda y: conformal.residual_quantile(T, y, 0.5), (NAN,)),
        (lambda v: conformal.residual_quantile(T, T, 0.5, v), (changed(T, 0, 0),)),
        (lambda q: conformal.residual_intervals(T, q)[0], (np.float32(-1),)),
        (lambda q: conformal.residual_intervals(T, q)[1], (np.float32(np.nan),)),
    ],
)
def test_bad_input_under_a_trace_becomes_nan(function, arguments):
    assert jnp.isnan(jax.jit(function)(*arguments)).all()


def test_concrete_bad_input_raises_under_a_trace_of_something_else():
    for call, message in (
        (lambda x: conformal.lac_quantile(2 * np.asarray(P), Y, 0.1), "sums to 2"),
        (lambda x: conformal.lac_quantile(P, np.full(4, 9), 0.1), "labels is 9"),
        (lambda x: conformal.residual_quantile(x, x, 0.1, -np.ones(4)), "variance is -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            jax.jit(call)(T)


def test_bad_input_under_a_trace_gives_the_set_of_all_classes():
    p = jnp.array([[0.9, 0.1], [0.9, 0.2]])
    for sets in (conformal.lac_sets, lambda p, q: conformal.aps_sets(key(), p, q)):
        np.testing.assert_array_equal(jax.jit(sets)(p, 0.5)[1], [True, True])
        assert not jax.jit(sets)(p, 0.5)[0, 1]
        assert jax.jit(sets)(p, jnp.nan).all()


@pytest.mark.slow
def test_a_rate_is_chosen_on_held_out_data():
    """Against a loop in NumPy over rates and samples; with networks of each rate, and without sampling."""
    rates, kernel = [0.1, 0.5, 0.8], 3 * array((6, 4))
    x, labels = array((20, 6), seed=2), jnp.arange(20) % 4

    def predict(k, x, rate, kernel=kernel):
        return jax.nn.softmax(jdrop.dropout(k, x, rate, k is None) @ kernel)

    wanted = []
    for rate in rates:
        mean = np.mean([predict(jdrop.fold_in(key(1), i), x, rate) for i in range(5)], 0)
        wanted.append(-np.log(mean[np.arange(20), np.asarray(labels)]).mean())
    found = calibration.select_rate(predict, key(1), x, labels, rates, num_samples=5)
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-5)
    assert found.rate == np.float32(rates[int(np.argmin(wanted))])

    kernels = jnp.stack([kernel, 0 * kernel, 2 * kernel])
    found = calibration.select_rate(predict, key(1), x, labels, rates, num_samples=None, stacked=kernels)
    plain = [float(jdrop.mc.metrics.nll(predict(None, x, 0.0, k), labels)) for k in kernels]
    np.testing.assert_allclose(found.scores, plain, rtol=1e-5)
    by_ece = calibration.select_rate(predict, key(1), x, labels, rates, num_samples=5, score=jdrop.mc.metrics.ece)
    assert by_ece.scores.max() <= 1
    for bad, message in (
        ({"rates": []}, "rates has shape"),
        ({"rates": [1.5]}, "rate is 1.5"),
        ({"stacked": kernel}, "stacked"),
    ):
        with pytest.raises(ValueError, match=message):
            calibration.select_rate(predict, key(1), x, labels, **{"rates": rates} | bad)
    with pytest.raises(ValueError, match="score gave"):
        calibration.select_rate(predict, key(1), x, labels, rates, score=lambda *_: jnp.nan)

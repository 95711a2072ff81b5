"""Figures: the values drawn are NumPy's, the axes are labelled, and no figure opens that nobody asked for."""

import sys

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tiers import some

import jdrop

plots = jdrop.mc.plots
RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(4), 200).astype(np.float32)
LABELS = (P.cumsum(-1) < RNG.random((200, 1))).sum(-1).clip(max=3).astype(np.int32)
U, X, IMAGES = (RNG.random(shape, np.float32) for shape in (200, 30, (12, 4, 5)))
SAMPLES = RNG.normal(size=(25, 30)).astype(np.float32)
DRAW = (
    lambda ax: plots.reliability_diagram(P, LABELS, ax=ax),
    lambda ax: plots.risk_coverage(U, P.argmax(-1) == LABELS, ax=ax),
    lambda ax: plots.uncertainty_histogram(U, U[:50] + 1, ax=ax),
    lambda ax: plots.rate_curve([0.1, 0.5, 0.3], [0.3, 0.2, 0.4], ax=ax),
    lambda ax: plots.regression_band(X, SAMPLES, ax=ax, tau=4.0, ylabel="a name\nof\nfour\nlines"),
)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@some("draw", DRAW, 0, 2)
def test_the_axes_given_are_drawn_on_and_returned(draw):
    plt.close("all")
    figure, (ax, other) = plt.subplots(1, 2)
    assert draw(ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert not other.has_data()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert len(ax.get_legend().get_texts()) == len(ax.get_legend_handles_labels()[1]) > 0


@some("draw", DRAW, 1, 4)
def test_a_new_figure_opens_without_axes_and_cuts_nothing_off(draw):
    plt.close("all")
    ax = draw(None)
    assert plt.get_fignums() == [ax.figure.number]
    ax.figure.canvas.draw()
    box, inside = ax.get_tightbbox(), ax.figure.bbox
    assert inside.x0 <= box.x0
    assert box.x1 <= inside.x1
    assert inside.y0 <= box.y0
    assert box.y1 <= inside.y1


def test_the_reliability_diagram():
    ax = plots.reliability_diagram(P, LABELS, 7, label="one")
    p = np.asarray(P, np.float64)
    confidence, correct = p.max(-1), p.argmax(-1) == LABELS
    points, error = [], 0.0
    for low in np.arange(7) / 7:
        rows = (confidence >= low) & (confidence < low + 1 / 7)
        if rows.any():
            points.append((confidence[rows].mean(), correct[rows].mean()))
            error += rows.mean() * abs(correct[rows].mean() - confidence[rows].mean())
    assert 3 < len(points) < 7  # some are empty
    np.testing.assert_allclose(ax.lines[1].get_xydata(), points, rtol=1e-6)
    assert ax.lines[1].get_label() == f"one (ECE {error:.3f})"
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 0], [1, 1]])
    plots.reliability_diagram(P, LABELS, ax=ax, label="two")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["perfect calibration", f"one (ECE {error:.3f})", labels[2]]
    assert labels[2].startswith("two (ECE ")
    assert "confidence" in ax.get_xlabel()
    assert "accuracy" in ax.get_ylabel()


def test_certain_predictions_are_in_the_last_bin():
    p = np.tile(np.array([[1, 0, 0, 0], [0.03125, 0.96875, 0, 0]], np.float32), (100, 1))
    ax = plots.reliability_diagram(p, np.zeros(200, int))
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[0.984375, 0.5]])


def test_risk_and_coverage():
    uncertainty = np.tile(np.array([0.5, 0.1, 0.5, 0.9, 0.2], np.float32), 40)
    ax = plots.risk_coverage(uncertainty, np.tile([True, True, False, False, True], 40), label="it")
    kept, wrong = np.arange(1, 201), np.repeat([0, 0.5, 1], [80, 80, 40])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.stack([kept / 200, wrong.cumsum() / kept], 1), rtol=1e-5)
    assert ax.lines[0].get_label() == "it (all kept: 0.400)"
    plots.risk_coverage(uncertainty, np.zeros(200, bool), ax=ax)
    assert ax.get_ylim()[1] > 1  # the second curve is not cut off
    assert "coverage" in ax.get_xlabel()
    assert "risk" in ax.get_ylabel()


def test_the_histogram():
    ax = plots.uncertainty_histogram(U, U[:50] + 1, xlabel="variance (m²)")
    values = np.asarray(U, np.float64), np.asarray(U[:50] + 1, np.float64)
    edges = np.histogram_bin_edges(np.concatenate(values), 30)
    for bars, x in zip(ax.containers, values):
        np.testing.assert_allclose([bar.get_height() for bar in bars], np.histogram(x, edges)[0] / len(x))
        np.testing.assert_allclose([bar.get_x() for bar in bars], edges[:-1])
    assert ax.get_xlabel() == "variance (m²)"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "in distribution (n = 200)",
        "out of distribution (n = 50)",
    ]


def band(collection):
    """(low, high) by x of a filled band, from the corners of its outline."""
    corners = {}
    for x, y in collection.get_paths()[0].vertices:
        corners.setdefault(x, []).append(y)
    return np.array([(min(corners[x]), max(corners[x])) for x in sorted(corners)]).T


def test_the_regression_band():
    ax = plots.regression_band(X, SAMPLES, tau=jnp.float32(4), xlabel="time (s)", ylabel="height (m)")
    order = np.argsort(X)
    mean, variance = SAMPLES.mean(0)[order], SAMPLES.astype(np.float64).var(0)[order]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.stack([X[order], mean], 1), rtol=1e-4, atol=1e-6)
    for collection, total in zip(ax.collections, (variance, variance + 0.25)):
        width = 2 * np.sqrt(total)
        np.testing.assert_allclose(band(collection), [mean - width, mean + width], rtol=1e-4, atol=1e-5)
    assert len(ax.lines) == 21
    np.testing.assert_array_equal(ax.lines[3].get_ydata(), SAMPLES[2, order])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["mean", "± 2 std of the samples", "± 2 std with noise", "20 of 25 samples"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time (s)", "height (m)")
    assert len(plots.regression_band(X, SAMPLES[:3]).collections) == 1


def test_most_and_least_certain_images():
    plt.close("all")
    figure, given = plt.subplots(2, 3)
    axes = plots.most_least_certain(IMAGES, U[:12], 3, axes=given, unit="nats")
    assert axes is given
    assert plt.get_fignums() == [figure.number]
    order = np.argsort(U[:12])
    for row, chosen in zip(axes, (order[::-1][:3], order[:3])):
        for ax, i in zip(row, chosen):
            np.testing.assert_array_equal(ax.images[0].get_array(), IMAGES[i])
            assert ax.get_title() == f"{U[i]:.3g} nats"
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["least certain", "most certain"]
    assert plots.most_least_certain(np.stack([IMAGES] * 3, -1), U[:12], 2).shape == (2, 2)


CORRECT = np.ones(200, bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.reliability_diagram(2 * P, LABELS), ValueError, "sums to 2.*jax.nn.softmax"),
        (lambda: plots.reliability_diagram(P, LABELS + 1), ValueError, "labels is 4"),
        (lambda: plots.reliability_diagram(P[None], LABELS), ValueError, r"labels has shape .* need \(1, 200\)"),
        (lambda: plots.reliability_diagram(P, LABELS[1:]), ValueError, r"labels has shape \(199,\)"),
        (lambda: plots.reliability_diagram(P, LABELS, 0), ValueError, "num_bins is 0"),
        (lambda: plots.risk_coverage(U, LABELS), TypeError, "correct has dtype int32, but booleans are needed"),
        (lambda: plots.risk_coverage(U, [True]), ValueError, r"correct \(1,\)"),
        (lambda: plots.risk_coverage(U, CORRECT[1:]), ValueError, r"correct \(199,\)"),
        (lambda: plots.risk_coverage(U * np.nan, CORRECT), ValueError, "uncertainty is nan"),
        (lambda: plots.uncertainty_histogram(U, U[:0]), ValueError, r"out_of_distribution has shape \(0,\).*empty"),
        (lambda: plots.uncertainty_histogram(P, U), ValueError, r"in_distribution has shape \(200, 4\)"),
        (
            lambda: plots.regression_band(X[1:], SAMPLES),
            ValueError,
            r"x has shape \(29,\), but outputs .* need \(30,\)",
        ),
        (lambda: plots.regression_band(X, SAMPLES[0]), ValueError, r"x has shape \(30,\), but outputs .* need \(\)"),
        (lambda: plots.regression_band(X, SAMPLES, tau=0), ValueError, "tau is 0.0"),
        (lambda: plots.most_least_certain(IMAGES, U, 3), ValueError, "12 images, but 200 uncertainties"),
        (lambda: plots.most_least_certain(IMAGES[0], U[:4], 3), ValueError, r"\(count, height, width\) is needed"),
        (lambda: plots.most_least_certain(IMAGES, U[:12], 13), ValueError, "n is 13, but there are 12 images"),
        (
            lambda: plots.most_least_certain(IMAGES, U[:12], 3, np.empty(3)),
            ValueError,
            r"axes has shape \(3,\), .*\(2, 3",
        ),
    ],
)
def test_bad_input_opens_no_figure(call, error, message):
    plt.close("all")
    with pytest.raises(error, match=message):
        call()
    assert plt.get_fignums() == []


def test_a_missing_matplotlib_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"matplotlib: write pip install 'jdrop\[plots\]'"):
        plots.risk_coverage(U, CORRECT)

"""Figures of the uncertainty of a classifier of digits."""

import functools
import operator

import numpy as np

import jdrop
from experiments.common.plotting import plt, save
from experiments.common.tables import estimate
from experiments.uncertainty.classification import ALPHAS, ANGLES, CORRUPTED, METHODS, ROTATED, classify, conformal_row


def classification(root, out, quick):
    seeds, images = classify(root, out, quick)
    for draw in (calibration, selection, shift, conformal):
        save(draw(seeds), out / f"{draw.__name__}.png")
    axes = jdrop.mc.plots.most_least_certain(images, seeds[0]["measures"]["test"]["mutual information"])
    axes[0, 0].figure.suptitle("Mutual information of test digits, first seed")
    save(axes[0, 0].figure, out / "certain.png")


def pooled(seeds, *path):
    """What lies at a path of names in each seed's results, all seeds together."""
    return np.concatenate([np.asarray(functools.reduce(operator.getitem, path, seed)) for seed in seeds])


def curve(ax, names, seeds, table, column, label=None):
    """A column of a table against the numbers whose rows `names` gives, with standard errors."""
    values = [estimate([float(seed[table][name][column]) for seed in seeds]) for name in names.values()]
    ax.errorbar(list(names), *zip(*values), fmt="o-", markersize=4, capsize=3, label=label or column)


def calibration(seeds):
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    labels = pooled(seeds, "labels")
    for ax, part in zip(axes, ("test", ROTATED)):
        for method in METHODS:
            jdrop.mc.plots.reliability_diagram(pooled(seeds, "means", part, method), labels, ax=ax, label=method)
        ax.legend(fontsize="small", loc="lower right" if part == "test" else "center right")
        ax.set_title(f"Reliability, {part} digits, {len(seeds)} seeds together")
    return figure


def selection(seeds):
    figure, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for name in seeds[0]["correct"]:
        values, correct = pooled(seeds, "measures", "test", name), pooled(seeds, "correct", name)
        jdrop.mc.plots.risk_coverage(values, correct, ax, name)
    ax.set_title(f"Risk against coverage, test digits, {len(seeds)} seeds together")
    return figure


def shift(seeds):
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for ax, name in zip(axes[0], ("predictive entropy", "mutual information")):
        inside, outside = (pooled(seeds, "measures", part, name) for part in ("test", CORRUPTED))
        jdrop.mc.plots.uncertainty_histogram(inside, outside, ax, f"{name} (nats)")
        ax.set_title(f"Test digits, and with {CORRUPTED}")
    names = dict(zip((0, *ANGLES), ("test", *(f"rotated {angle}°" for angle in ANGLES))))
    for score in ("accuracy", "ECE"):
        for method in ("deterministic", "Monte Carlo"):
            curve(axes[1, 0], names, seeds, "shift", f"{score}, {method}")
    axes[1, 0].set(ylabel="fraction", ylim=(0, 1.02))
    for measure in ("predictive entropy", "mutual information"):
        curve(axes[1, 1], names, seeds, "shift", measure)
    axes[1, 1].set(ylabel="mean over digits (nats)", ylim=(0, None))
    for ax in axes[1]:
        ax.set(xlabel="rotation (degrees)", title="Rotated test digits, ± standard error", xticks=list(names))
        ax.legend()
    return figure


def conformal(seeds):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    left.plot([0.8, 1], [0.8, 1], ":", color="black", label="as asked for")
    for kind in ("LAC", "APS"):
        names = {1 - alpha: conformal_row(kind, alpha) for alpha in ALPHAS}
        for part in ("test", ROTATED):
            curve(left, names, seeds, "conformal", f"{part}: coverage", f"{kind}, {part}")
            curve(right, names, seeds, "conformal", f"{part}: classes a set", f"{kind}, {part}")
    left.set(ylabel="coverage (fraction of digits)", title="Prediction sets fitted on validation digits")
    right.set(ylabel="mean classes a set", title="Their size")
    for ax in (left, right):
        ax.set_xlabel("coverage asked for")
        ax.legend()
    return figure

"""Uncertainty of a classifier of digits: calibration, detection of errors and of foreign inputs, prediction sets."""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jdrop
from experiments.common.digits import RATE, TRAIN, Network, train
from experiments.common.fitting import network_keys
from experiments.common.shifts import against, corrupted, photographs, turned
from experiments.common.tables import estimate, save_table

SEEDS, VALIDATION = 5, 500
ANGLES, NOISE, ALPHAS = (15, 30, 45, 60, 75, 90), (0.25, 0.5, 0.75), (0.01, 0.02, 0.05, 0.1, 0.2)
ROTATED, CORRUPTED = "rotated 45°", "50 % noise"
SINGLE, SCALED, MONTE_CARLO, MC_SCALED = METHODS = (
    "deterministic",
    "deterministic, temperature",
    "Monte Carlo",
    "Monte Carlo, temperature",
)
METRICS, UNCERTAINTY = jdrop.mc.metrics, jdrop.mc.uncertainty
SCORES = {
    "accuracy": lambda p, labels: (p.argmax(-1) == labels).mean(),
    "NLL": METRICS.nll,
    "Brier": METRICS.brier,
    "ECE": METRICS.ece,
    "adaptive ECE": METRICS.adaptive_ece,
    "classwise ECE": METRICS.classwise_ece,
    "MCE": METRICS.mce,
}
MEASURES = {  # the higher, the less certain
    "predictive entropy": UNCERTAINTY.predictive_entropy,
    "mutual information": UNCERTAINTY.mutual_information,
    "variation ratio": UNCERTAINTY.variation_ratio,
    "1 - max probability": lambda p: 1 - UNCERTAINTY.max_probability(p),
    "1 - margin": lambda p: 1 - UNCERTAINTY.margin(p),
    "vote disagreement": UNCERTAINTY.vote_disagreement,
}


def classify(root, out, quick):
    """Print and write the tables; returns what each seed's figures need, and the test images of the first."""
    count, epochs, passes = (2, 5, 10) if quick else (SEEDS, 150, 100)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    keys = network_keys(root, count, "classification")
    order, params, _ = train(keys, jnp.full(count, RATE), images, labels, epochs, {})
    seeds = []
    for seed, key in enumerate(keys):
        _, validation, test = np.split(order[seed], [TRAIN, TRAIN + VALIDATION])
        inputs = {"validation": images[validation], "test": images[test]} | shifted(key, images[test])
        inputs["photographs"] = photographs(jdrop.fold_in(key, "photographs"), len(test))
        of_seed = jax.tree.map(operator.itemgetter(seed), params)
        seeds.append(evaluate(key, of_seed, inputs, labels[validation], labels[test], passes))
        if seed == 0:
            first = images[test].reshape(-1, 8, 8)

    print(f"{count} seeds, {TRAIN} training digits, {epochs} epochs, {passes} passes; mean ± standard error, nats")
    for table in ("calibration", "detection", "shift", "conformal"):
        print(f"{table}\n{save_table(summary([seed[table] for seed in seeds]), out, table)}\n")
    return seeds, first


def shifted(key, images):
    """The images rotated, and with some of their pixels replaced by uniform noise."""
    square = images.reshape(-1, 8, 8)
    rotated = {f"rotated {a}°": turned(square, a).reshape(-1, 64) for a in ANGLES}
    return rotated | {f"{rate:.0%} noise".replace("%", " %"): corrupted(key, images, rate) for rate in NOISE}


def evaluate(key, params, inputs, validation_labels, labels, passes):
    """The tables of one seed, and what its figures need."""
    predict = jdrop.linen.predictor(Network(), {"params": params})
    single = {name: _deterministic(params, x) for name, x in inputs.items()}
    logits = {name: jdrop.mc.samples(predict, jdrop.fold_in(key, name), x, passes) for name, x in inputs.items()}
    fit = jdrop.mc.calibration.fit_temperature
    temperatures = (
        1.0,
        fit(single["validation"], validation_labels),
        1.0,
        fit(logits["validation"], validation_labels),
    )
    means = {
        name: dict(zip(METHODS, map(_mean, (single[name][None],) * 2 + (logits[name],) * 2, temperatures)))
        for name in inputs
    }
    measures = {name: _measures(logits[name]) for name in inputs if name != "validation"}
    for name in measures:
        measures[name]["deterministic: entropy"] = UNCERTAINTY.entropy(means[name][SINGLE])
    measures = {name: {key: np.asarray(value) for key, value in of.items()} for name, of in measures.items()}
    correct = np.asarray(means["test"][MONTE_CARLO].argmax(-1) == labels)
    single_correct = np.asarray(means["test"][SINGLE].argmax(-1) == labels)

    calibration = {
        method: {"temperature": temperature} | _scores(means["test"][method], labels)
        for method, temperature in zip(METHODS, temperatures)
    }
    detection, shift = {}, {}
    for name in measures["test"]:
        right = single_correct if name.startswith("deterministic") else correct
        detection[name] = detect({part: values[name] for part, values in measures.items()}, right)
    for name in [name for name in inputs if name not in ("validation", "photographs")]:
        of_single, of_mc = (_scores(means[name][method], labels) for method in (SINGLE, MONTE_CARLO))
        shift[name] = {
            f"{score}, {method}": scores[score]
            for score in ("accuracy", "NLL", "ECE")
            for method, scores in (("deterministic", of_single), ("Monte Carlo", of_mc))
        } | {measure: measures[name][measure].mean() for measure in ("predictive entropy", "mutual information")}
    known = {name: means[name][MONTE_CARLO] for name in ("validation", "test", ROTATED)}
    return {
        "calibration": calibration,
        "detection": detection,
        "shift": shift,
        "conformal": conformal_table(key, known, validation_labels, labels),
        "means": means,
        "measures": measures,
        "labels": labels,
        "correct": dict.fromkeys(MEASURES, correct) | {"deterministic: entropy": single_correct},
    }


@jax.jit
def _deterministic(params, x):
    return Network().apply({"params": params}, x, True)


@jax.jit
def _mean(logits, temperature):
    return jax.nn.softmax(logits / temperature).mean(0)


@jax.jit
def _all_scores(probabilities, labels):
    return [score(probabilities, labels) for score in SCORES.values()]


def _scores(probabilities, labels):
    return dict(zip(SCORES, _all_scores(probabilities, labels)))


@jax.jit
def _all_measures(logits):
    probabilities = jax.nn.softmax(logits)
    return [measure(probabilities) for measure in MEASURES.values()]


def _measures(logits):
    return dict(zip(MEASURES, _all_measures(logits)))


@jax.jit
def _selection(uncertainty, correct):
    return METRICS.aurc(uncertainty, correct), METRICS.selective_accuracy(uncertainty, correct, 0.9)


def detect(values, correct):
    """How well an uncertainty finds the errors on test digits, and inputs that are no test digits."""
    aurc, accuracy = _selection(values["test"], correct)
    row = {
        "errors AUROC": METRICS.auroc(values["test"], ~correct),
        "errors AUPR": METRICS.average_precision(values["test"], ~correct),
        "AURC": aurc,
        "accuracy of 90 %": accuracy,
    }
    for name in (ROTATED, CORRUPTED, "photographs"):
        both = against(values["test"], values[name])
        row |= {f"{name} AUROC": METRICS.auroc(*both), f"{name} AUPR": METRICS.average_precision(*both)}
    return row


@jax.jit
def _conformal(key, probabilities, validation_labels, labels):
    """Coverage and size of prediction sets: on test digits, and where the guarantee does not hold."""
    conformal, known = jdrop.mc.conformal, (probabilities["validation"], validation_labels)
    quantiles = {"LAC": conformal.lac_quantile, "APS": functools.partial(conformal.aps_quantile, key)}
    sets = {"LAC": conformal.lac_sets, "APS": functools.partial(conformal.aps_sets, key)}
    rows = []
    for kind, alpha in itertools.product(sets, ALPHAS):
        quantile = quantiles[kind](*known, alpha)
        row = []
        for name in ("test", ROTATED):
            chosen = sets[kind](probabilities[name], quantile)
            row += [jnp.take_along_axis(chosen, labels[:, None], -1).mean(), chosen.sum(-1).mean()]
        rows.append(row)
    return rows


def conformal_row(kind, alpha):
    return f"{kind}, {100 * (1 - alpha):.0f} %"


def conformal_table(*arguments):
    names = [conformal_row(kind, alpha) for kind, alpha in itertools.product(("LAC", "APS"), ALPHAS)]
    columns = [f"{part}: {what}" for part in ("test", ROTATED) for what in ("coverage", "classes a set")]
    return {name: dict(zip(columns, row)) for name, row in zip(names, _conformal(*arguments))}


def summary(tables):
    """Rows of the mean and standard error over seeds, from a table {name: row} of each."""
    return [
        {"name": name}
        | {column: estimate([float(table[name][column]) for table in tables]) for column in tables[0][name]}
        for name in tables[0]
    ]

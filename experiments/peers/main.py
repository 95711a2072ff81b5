"""The comparison and its report."""

import functools
import itertools
import multiprocessing

import jax
import numpy as np

import jdrop
from experiments.common.claims import differs
from experiments.common.fitting import network_keys
from experiments.common.images import load_images, take
from experiments.common.networks import Setting, of_network, train
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.shifts import against, corrupted
from experiments.common.tables import estimate, save_table
from experiments.common.timing import Case, measure
from experiments.peers.libraries import JDROP, MODULES, NETWORKS, installed, memory, sampler

NEEDS_DATA = True
SEEDS, PASSES, BATCH, TEST = 5, 100, 256, 1024
SCORES = ("NLL", "ECE", "AUROC, noise")


def add_options(parser):
    parser.add_argument("--network", action="append", choices=NETWORKS, help="may be repeated (default: all)")


def run(args):
    images = load_images(args.data_dir)
    seeds, passes, data = (2, 10, take(images.train, slice(500))) if args.quick else (SEEDS, PASSES, images.train)
    x, labels = take(images.test, slice(300 if args.quick else TEST))
    root = jdrop.fold_in(jax.random.key(args.seed), "peers")
    noise = np.asarray(corrupted(jdrop.fold_in(root, "noise"), x))
    keys = network_keys(root, seeds, "network")
    table, scores = [], []
    for network, model in {name: NETWORKS[name] for name in args.network or NETWORKS}.items():
        params = jax.tree.map(np.asarray, train(Setting(model, 1 if args.quick else 2, 128), data, keys))
        names = [name for name in MODULES if installed(name, network)]
        draws = {name: sampler(name, network, of_network(params, 0), passes) for name in names}
        batch = x[:BATCH]
        seconds = measure({name: Case(draw, (0, batch)) for name, draw in draws.items()}, blocks=1 if args.quick else 9)
        found = {name: [] for name in names}
        for name, seed in itertools.product(names, range(seeds)):
            draw = sampler(name, network, of_network(params, seed), passes)
            found[name].append(of_seed(draw, seed, x, noise, labels))
        for name in names:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                grown = pool.apply(memory, (name, network, of_network(params, 0), batch, passes))
            table.append(
                {"network": network, "library": name, "ms": f"{1e3 * seconds[name]:.1f}"}
                | {"time / jdrop's": f"{seconds[name] / seconds[JDROP]:.1f}", "memory, MiB": f"{grown:.0f}"}
            )
            for score in SCORES:
                values = np.array([each[score] for each in found[name]])
                difference = estimate(values - np.array([each[score] for each in found[JDROP]]))
                verdict = "-" if name == JDROP else differs(difference, seeds)
                of_score = {"network": network, "library": name, "score": score, "value": estimate(values)}
                scores.append(of_score | {"difference from jdrop": difference, "differs": verdict})
            print(" ".join(str(value) for value in table[-1].values()), flush=True)
    absent = sorted({module for name, module in MODULES.items() if not installed(name, "dense 128")})
    if absent:
        print(f"not installed, and left out: {', '.join(absent)}")
    preface = f"{made_by()} {images.name}, {passes} passes of {len(batch)} images."
    print(save_table(table, args.out, "peers", preface))
    about = f"{images.name}, {passes} passes of {len(x)} test images, {seeds} seeds; ± is a standard error."
    print(save_table(scores, args.out, "scores", about))
    draw_times(args.out / "peers.png", table)
    print(f"wrote peers.csv, peers.md, scores.csv, scores.md and peers.png in {args.out}")


def of_seed(draw, seed, x, noise, labels):
    """The scores of one network by one library."""
    drawn, of_noise = (in_blocks(functools.partial(draw, 2 * seed + i), images) for i, images in enumerate((x, noise)))
    metrics, entropy = jdrop.mc.metrics, jdrop.mc.uncertainty.predictive_entropy
    p = drawn.mean(0)
    auroc = metrics.auroc(*against(entropy(drawn), entropy(of_noise)))
    return {"NLL": float(metrics.nll(p, labels)), "ECE": float(metrics.ece(p, labels)), "AUROC, noise": float(auroc)}


def in_blocks(draw, x):
    """Passes of all images, a block after the other; the first axis of a repeated batch would fill the memory."""
    starts = range(0, len(x), BATCH)
    # In 64 bits probabilities of the libraries add up to 1 alike.
    p = np.concatenate([np.asarray(draw(x[start : start + BATCH]), np.float64) for start in starts], 1)
    return np.float32(p / p.sum(-1, keepdims=True))


def draw_times(path, table):
    figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    networks, names = (list(dict.fromkeys(row[of] for row in table)) for of in ("network", "library"))
    for axis, column, label in zip(axes, ("ms", "memory, MiB"), ("time of 100 passes, ms", "memory, MiB")):
        for i, name in enumerate(names):
            rows = [row for row in table if row["library"] == name]
            places = [networks.index(row["network"]) + 0.2 * (i - 1.5) for row in rows]
            axis.bar(places, [float(row[column]) for row in rows], 0.2, label=name)
        axis.set_xticks(range(len(networks)), networks)
        axis.set(ylabel=label, yscale="log")
        axis.grid(alpha=0.3, axis="y")
    axes[0].legend(fontsize=8)
    figure.suptitle("Monte Carlo dropout of the same weights, 256 images, on a CPU")
    save(figure, path)

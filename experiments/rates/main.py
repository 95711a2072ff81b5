"""The comparison and its report."""

import jax
import optax

from experiments.common.fitting import network_keys
from experiments.common.images import load_images, take
from experiments.common.networks import LEARNING_RATE, Deep, Setting
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import save_table
from experiments.common.variants import Parts, percent, train_variants

NEEDS_DATA = True
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WIDTH, KEPT, BATCH = 256, 128, 100
FIXED, GROWING = "fixed width", "fixed number kept"


def run(args):
    images = load_images(args.data_dir)
    seeds, updates, size, rates = (2, 60, 1000, RATES[::5]) if args.quick else (5, 3000, 10_000, RATES)
    size = min(size, len(images.train[1]))
    keys = network_keys(jax.random.key(args.seed), seeds, "rates")
    data = Parts(take(images.train, slice(size)), take(images.train, slice(0)), images.test)

    def fit(width, rates):
        schedule = optax.cosine_decay_schedule(LEARNING_RATE, updates)
        setting = Setting(Deep((width, width)), -(-updates * BATCH // size), BATCH, learning_rate=schedule)
        return train_variants(setting, data, keys, {rate: {"rate": rate} for rate in rates})

    table = [row(FIXED, WIDTH, rate, network) for rate, network in fit(WIDTH, rates).items()]
    for rate in rates:
        width = round(KEPT / (1 - rate))
        table.append(row(GROWING, width, rate, fit(width, (rate,))[rate]))
        print(" ".join(str(value) for value in table[-1].values()), flush=True)
    preface = f"{made_by()} {size} images of {images.name}, {updates} updates, {seeds} seeds; ± is a standard error."
    print(save_table(table, args.out, "rates", preface))
    draw(args.out / "rates.png", table)
    print(f"wrote rates.csv, rates.md and rates.png in {args.out}")


def row(kind, width, rate, network):
    errors = {"training error %": percent(network.train), "test error %": percent(network.test)}
    return {"what is fixed": kind, "width": width, "rate": rate} | errors


def draw(path, table):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained", sharey=True)
    titles = {FIXED: f"{WIDTH} units a layer", GROWING: f"{KEPT} units kept: {KEPT} / (1 - rate) a layer"}
    for axis, (kind, title) in zip(axes, titles.items()):
        rows = [row for row in table if row["what is fixed"] == kind]
        for column in ("test error %", "training error %"):
            means, bars = zip(*(row[column] for row in rows))
            axis.errorbar([row["rate"] for row in rows], means, yerr=bars, fmt="o-", capsize=3, label=column[:-2])
        axis.set(xlabel="rate", title=title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("error, %")
    axes[0].legend()
    figure.suptitle("The error by the rate of dropout; bars are standard errors over seeds")
    save(figure, path)

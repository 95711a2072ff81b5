"""The comparison and its report."""

import jax
import optax

from experiments.common.claims import CONFIRMED, above, below, errors
from experiments.common.fitting import network_keys
from experiments.common.images import load_images, take
from experiments.common.networks import LEARNING_RATE, RATE, Deep, Setting
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import Estimate, save_table
from experiments.common.variants import Parts, percent, train_variants

NEEDS_DATA = True
SIZES, BATCH, UPDATES, WIDTHS = (100, 500, 1000, 5000, 10_000, 60_000), 100, 5000, (256, 256)


def run(args):
    images = load_images(args.data_dir)
    seeds, updates, widths = (2, 100, (64, 64)) if args.quick else (5, UPDATES, WIDTHS)
    keys = network_keys(jax.random.key(args.seed), seeds, "data_size")
    none = take(images.train, slice(0))
    table = []
    for size in dict.fromkeys(min(size, len(images.train[1])) for size in SIZES[: 2 if args.quick else None]):
        schedule = optax.cosine_decay_schedule(LEARNING_RATE, updates)
        setting = Setting(Deep(widths, 0.4), updates * BATCH // size, BATCH, learning_rate=schedule)
        data = Parts(take(images.train, slice(size)), none, images.test)
        found = train_variants(setting, data, keys, {"none": {"rate": 0.0}, "dropout": {"rate": RATE}})
        gain = errors(found["none"].test, found["dropout"].test)
        without = percent(found["none"].test)
        table.append(
            {"images": size, "test error %, none": without, "test error %, dropout": percent(found["dropout"].test)}
            | {"gain": gain, "gain, % of the error": Estimate(*(100 * part / without.mean for part in gain))}
            | {"verdict": verdict(gain, seeds)}
        )
        print(" ".join(str(value) for value in table[-1].values()), flush=True)
    shape = "-".join(map(str, widths))
    about = f"{images.name}, hidden layers {shape}, {updates} updates, {seeds} seeds; ± is a standard error."
    print(save_table(table, args.out, "data_size", f"{made_by()} {about}"))
    draw(args.out / "data_size.png", table)
    print(f"wrote data_size.csv, data_size.md and data_size.png in {args.out}")


def verdict(gain, seeds):
    helps = above(gain, seeds) == CONFIRMED
    return "dropout helps" if helps else "dropout hurts" if below(gain, seeds) == CONFIRMED else "not separable"


def draw(path, table):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    sizes = [row["images"] for row in table]
    for column, label in (("test error %, none", "no dropout"), ("test error %, dropout", "dropout 0.5")):
        means, bars = zip(*(row[column] for row in table))
        axes[0].errorbar(sizes, means, yerr=bars, fmt="o-", capsize=3, label=label)
    axes[0].set(xscale="log", yscale="log", xlabel="training images", ylabel="test error, %")
    axes[0].legend()
    means, bars = zip(*(row["gain, % of the error"] for row in table))
    axes[1].errorbar(sizes, means, yerr=bars, fmt="o-", capsize=3, color="tab:green")
    axes[1].axhline(0, color="black", ls=":", lw=1)
    axes[1].set(xscale="log", xlabel="training images", ylabel="gain by dropout, % of the error without")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.suptitle("What dropout gains by the number of training images; bars are standard errors")
    save(figure, path)

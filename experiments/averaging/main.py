"""The comparison and its report."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdrop
from experiments.common.claims import differs, errors
from experiments.common.fitting import network_keys
from experiments.common.images import load_images, take
from experiments.common.networks import LEARNING_RATE, RATE, Deep, Outcome, Setting, of_network
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import save_table
from experiments.common.variants import Parts, nats, percent, train_variants

NEEDS_DATA = True
COUNTS, BATCH = (1, 2, 5, 10, 20, 50, 100, 200), 100
MEANS = {"mean": lambda p: p.mean(0), "geometric mean": jdrop.mc.geometric_mean}


def run(args):
    images = load_images(args.data_dir)
    seeds, updates, counts = (2, 60, COUNTS[:4]) if args.quick else (5, 6000, COUNTS)
    root = jax.random.key(args.seed)
    keys = network_keys(root, seeds, "averaging")
    epochs = -(-updates * BATCH // len(images.train[1]))
    model = Deep((256, 256), 0.4)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, updates)
    data = Parts(images.train, take(images.train, slice(0)), images.test)
    setting = Setting(model, epochs, BATCH, learning_rate=schedule)
    network = train_variants(setting, data, keys, {"dropout": {"rate": RATE}})["dropout"]

    outcomes = {}
    for seed, key in enumerate(keys):
        predict = jdrop.linen.predictor(model, {"params": of_network(network.params, seed)})
        for name, found in averages(predict, jdrop.fold_in(key, "passes"), images.test, counts).items():
            outcomes.setdefault(name, []).append(found)
    outcomes = {name: Outcome(*map(np.stack, zip(*found))) for name, found in outcomes.items()}

    table = []
    for (name, count), found in sorted(outcomes.items(), key=lambda item: list(MEANS).index(item[0][0])):
        difference = errors(found, network.test)
        table.append(
            {"prediction": name, "passes": count, "test error %": percent(found), "test NLL": nats(found)}
            | {"error - scaled weights'": difference, "verdict": differs(difference, seeds)}
        )
    scaled = {"prediction": "scaled weights", "passes": 1}
    table.append(scaled | {"test error %": percent(network.test), "test NLL": nats(network.test)})
    table[-1] |= dict.fromkeys(list(table[0])[-2:], "-")
    preface = f"{made_by()} {images.name}, {updates} updates, {seeds} seeds; ± is a standard error."
    print(save_table(table, args.out, "averaging", preface))
    draw(args.out / "averaging.png", table)
    print(f"wrote averaging.csv, averaging.md and averaging.png in {args.out}")


def averages(predict, key, data, counts, block=500):
    """The `Outcome` of one network by each kind of mean of its first passes, for each of the counts."""
    parts = {}
    for start in range(0, len(data[1]), block):
        x, labels = (array[start : start + block] for array in data)
        # Each block of images has its own key, or the same masks would serve them all.
        logits = jdrop.mc.samples(predict, jdrop.fold_in(key, start), x, max(counts))
        for name, outcome in _outcomes(logits, labels, counts).items():
            parts.setdefault(name, []).append(outcome)
    return {name: Outcome(*map(np.concatenate, zip(*of_name))) for name, of_name in parts.items()}


@jax.jit(static_argnums=2)
def _outcomes(logits, labels, counts):
    probabilities = jax.nn.softmax(logits)

    def outcome(p):
        chosen = jnp.take_along_axis(p, labels[:, None], 1)[:, 0]
        return -jnp.log(jnp.maximum(chosen, jnp.finfo(p.dtype).tiny)), p.argmax(-1) != labels

    return {(name, count): outcome(mean(probabilities[:count])) for name, mean in MEANS.items() for count in counts}


def draw(path, table):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, column, unit in zip(axes, ("test error %", "test NLL"), ("test error, %", "test NLL, nats")):
        for name in MEANS:
            rows = [row for row in table if row["prediction"] == name]
            means, bars = zip(*(row[column] for row in rows))
            axis.errorbar([row["passes"] for row in rows], means, yerr=bars, fmt="o-", capsize=3, label=name)
        scaled = table[-1][column]
        axis.axhline(scaled.mean, color="black", ls="--", label="scaled weights")
        axis.axhspan(scaled.mean - scaled.error, scaled.mean + scaled.error, color="black", alpha=0.1)
        axis.set(xscale="log", xlabel="passes", ylabel=unit)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("Averages of Monte Carlo passes beside scaled weights; bars are standard errors over seeds")
    save(figure, path)

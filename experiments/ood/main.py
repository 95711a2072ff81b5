"""The methods and the report."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdrop
from experiments.common.claims import above, interval
from experiments.common.fitting import network_keys
from experiments.common.images import load_images, load_notmnist, take
from experiments.common.networks import LEARNING_RATE, RATE, Deep, Setting, of_network, train
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.shifts import against, corrupted, turned
from experiments.common.tables import estimate, save_table

NEEDS_DATA = True
REPEATS, MEMBERS, MASKS, PASSES, BLOCK, BATCH = 3, 5, 4, 100, 1000, 128
METRICS, UNCERTAINTY = jdrop.mc.metrics, jdrop.mc.uncertainty
SCORES = {"accuracy": lambda p, labels: (p.argmax(-1) == labels).mean(), "NLL": METRICS.nll, "ECE": METRICS.ece}
MEASURES = {"predictive entropy": UNCERTAINTY.predictive_entropy, "mutual information": UNCERTAINTY.mutual_information}
MC, MASKSEMBLES = "Monte Carlo dropout", "masksembles"
METHODS = ("no dropout", "dropout, scaled weights", MC, "moments", f"ensemble of {MEMBERS}", MASKSEMBLES)


class Masked(nn.Module):
    """`Deep` with Masksembles; the examples of a batch take turns with the masks, or all have that of `index`."""

    widths: tuple

    @nn.compact
    def __call__(self, x, deterministic, rate=None, index=None):
        x, index = x.reshape(len(x), -1), 0 if deterministic and index is None else index
        for width in self.widths:
            x = jdrop.linen.Masksembles(MASKS)(nn.relu(nn.Dense(width)(x)), index)
        return nn.Dense(10)(x)


def run(args):
    images = load_images(args.data_dir)
    full = REPEATS, 10, (256, 256), PASSES, None
    repeats, epochs, widths, passes, count = (2, 1, (32, 32), 10, 1536) if args.quick else full
    data, test = take(images.train, slice(count)), take(images.test, slice(count))
    root = jdrop.fold_in(jax.random.key(args.seed), "ood")
    setting = Setting(
        Deep(widths), epochs, BATCH,
        learning_rate=optax.cosine_decay_schedule(LEARNING_RATE, epochs * -(-len(data[1]) // BATCH)),
    )  # fmt: skip
    inputs = {"test": test[0]} | shifted(root, test[0], args.data_dir and load_notmnist(args.data_dir))
    # Networks without dropout first, the members of each repeat's ensemble side by side, then those with it.
    plain = repeats * MEMBERS
    keys = network_keys(root, plain + repeats, "network")
    params = train(setting, data, keys, rate=jnp.where(jnp.arange(plain + repeats) < plain, 0.0, RATE))
    masked = train(setting._replace(model=Masked(widths)), divisible(data), keys[plain:])

    calibration, detection = [], []
    for repeat in range(repeats):
        members = of_network(params, slice(repeat * MEMBERS, (repeat + 1) * MEMBERS))
        models = methods(widths, members, of_network(params, plain + repeat), of_network(masked, repeat), passes)
        for method, sample in models.items():
            key = jdrop.fold_in(root, "passes", repeat)
            p = {name: in_blocks(sample, jdrop.fold_in(key, name), x) for name, x in inputs.items()}
            for name in (name for name in inputs if name != "notMNIST"):
                scores = {score: float(f(p[name].mean(0), test[1])) for score, f in SCORES.items()}
                calibration.append({"method": method, "images": name} | scores)
            for name in (name for name in inputs if name != "test"):
                found = {of: float(METRICS.auroc(*against(f(p["test"]), f(p[name])))) for of, f in MEASURES.items()}
                detection.append({"method": method, "images": name} | found)
        print(f"repeat {repeat + 1} of {repeats} done", flush=True)

    shape = "-".join(map(str, widths))
    preface = f"{made_by()} {images.name}, hidden layers {shape}, {epochs} epochs, {passes} passes, {repeats} repeats."
    tables = {"calibration": summary(calibration), "detection": summary(detection)}
    tables["versus"] = versus(calibration, repeats)
    for name, table in tables.items():
        print(save_table(table, args.out, name, preface))
    draw(args.out / "ood.png", tables)
    print(f"wrote calibration, detection and versus as CSV and Markdown, and ood.png in {args.out}")


def divisible(data):
    """The examples but for the last few, so that in every batch each mask has as many."""
    return take(data, slice(len(data[1]) // BATCH * BATCH))


def shifted(key, images, letters):
    found = {f"turned {a}°": turned(images, a) for a in (30, 60)}
    found["50 % noise"] = np.asarray(corrupted(jdrop.fold_in(key, "shift"), images))
    return found if letters is None or letters.shape[1:] != images.shape[1:] else found | {"notMNIST": letters}


def methods(widths, members, dropped, masked, passes):
    """For each method a function of a key and images, which returns probabilities, shape (samples, n, classes)."""
    deep = Deep(widths)
    predict = jdrop.linen.predictor(deep, {"params": dropped})

    def alone(params, x):
        return jax.nn.softmax(deep.apply({"params": params}, x, True))

    def moments(key, x):
        mean, variance = jdrop.mc.propagate(predict, x)
        noise = jax.random.normal(jdrop.fold_in(key, "moments"), (passes, *mean.shape))
        return jax.nn.softmax(mean + jnp.sqrt(variance) * noise)

    def masksembles(key, x):
        return jax.vmap(lambda index: jax.nn.softmax(Masked(widths).apply({"params": masked}, x, True, index=index)))(
            jnp.arange(MASKS)
        )

    functions = (
        lambda key, x: alone(of_network(members, 0), x)[None],
        lambda key, x: alone(dropped, x)[None],
        lambda key, x: jax.nn.softmax(jdrop.mc.samples(predict, key, x, passes)),
        moments,
        lambda key, x: jax.vmap(alone, (0, None))(members, x),
        masksembles,
    )
    return dict(zip(METHODS, functions))


def in_blocks(sample, key, x):
    """The samples of all images, computed by a block of them after the other, each with a key of its own."""
    sample = jax.jit(sample)
    starts = range(0, len(x), BLOCK)
    return np.concatenate([sample(jdrop.fold_in(key, start), x[start : start + BLOCK]) for start in starts], 1)


def summary(rows):
    """The mean over repeats of rows that agree in method and images."""
    scores, methods, names = list(rows[0])[2:], *(dict.fromkeys(row[of] for row in rows) for of in ("method", "images"))
    groups = {(name, method): [] for name in names for method in methods}
    for row in rows:
        groups[row["images"], row["method"]].append(row)
    return [
        {"method": method, "images": name} | {score: estimate([row[score] for row in group]) for score in scores}
        for (name, method), group in groups.items()
    ]


def versus(rows, repeats):
    """How much better calibrated Monte Carlo dropout is than each other method."""
    values = {}
    for row in rows:
        values.setdefault((row["method"], row["images"]), []).append(row["ECE"])
    table = []
    for method, name in values:
        if method != MC:
            gain = estimate(np.subtract(values[method, name], values[MC, name]))
            limits = "{:.4f} to {:.4f}".format(*interval(gain, repeats))
            claim = f"better calibrated than {method}"
            table.append(
                {"claim": claim, "images": name, "difference of ECE": gain, "95 % interval": limits}
                | {"verdict": above(gain, repeats)}
            )
    return table


def draw(path, tables):
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    shown = (("calibration", "NLL"), ("calibration", "ECE"), ("detection", "predictive entropy"))
    for axis, (table, score) in zip(axes, shown):
        rows = tables[table]
        names = list(dict.fromkeys(row["images"] for row in rows))
        for i, method in enumerate(METHODS):
            means, bars = zip(*(row[score] for row in rows if row["method"] == method))
            places = np.arange(len(names)) + 0.12 * (i - 2.5)
            axis.errorbar(places, means, yerr=bars, fmt="o", ms=4, capsize=2, label=method)
        axis.set_xticks(range(len(names)), names)
        label = {"NLL": "NLL, nats", "predictive entropy": "AUROC against test images, by entropy"}.get(score, score)
        axis.set(ylabel=label, xlabel="images")
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].legend(fontsize=8)
    figure.suptitle("MNIST and what is not like it; bars are standard errors over repeats")
    save(figure, path)

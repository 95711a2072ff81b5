"""The comparison and its report."""

import jax
import numpy as np
import optax

import jdrop
from experiments.common.claims import below, errors, interval
from experiments.common.fitting import network_keys
from experiments.common.images import load_images, take
from experiments.common.networks import LEARNING_RATE, RATE, Deep, Setting
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import save_table
from experiments.common.variants import Parts, nats, percent, train_variants

NEEDS_DATA = True
WIDTHS, PAIR, BATCH = (1024, 1024, 2048), (1024, 1024), 128
PLAIN = {"rate": 0.0, "l1": 0.0, "l2": 0.0, "kl": 0.0, "max_norm": np.inf}
DROPOUT = PLAIN | {"rate": RATE}
ROWS = {  # what each row has beside PLAIN, the strength that is chosen, and the published error
    "L2": (PLAIN, "l2", (1e-6, 1e-5, 1e-4), 1.62),
    "L2 + L1": (PLAIN | {"l2": 1e-5}, "l1", (1e-7, 1e-6, 1e-5), 1.60),
    "L2 + KL sparsity": (PLAIN | {"l2": 1e-5}, "kl", (1e-5, 1e-4, 1e-3), 1.55),
    "max-norm": (PLAIN, "max_norm", (1.0, 2.0, 3.0), 1.35),
    "dropout + L2": (DROPOUT, "l2", (1e-7, 1e-6, 1e-5), 1.25),
    "dropout + max-norm": (DROPOUT, "max_norm", (2.0, 3.0, 4.0), 1.05),
}
NOISES = {"Bernoulli, 2 layers": (jdrop.linen.Dropout, 1.08), "Gaussian, 2 layers": (jdrop.linen.GaussianDropout, 0.95)}


def add_options(parser):
    parser.add_argument("--divide", type=int, default=1, help="what the widths are divided by (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=18, help="of training (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="networks of each row (default: %(default)s)")


def run(args):
    images = load_images(args.data_dir)
    divide, epochs, seeds, batch = (8, 100, 2, 50) if args.quick else (args.divide, args.epochs, args.seeds, BATCH)
    held_out = len(images.train[1]) // 6
    training, validation = take(images.train, slice(-held_out)), take(images.train, slice(-held_out, None))
    if args.quick:  # so few that dropout gains with narrow layers too
        training = take(training, slice(500))
    data, root = Parts(training, validation, images.test), jax.random.key(args.seed)

    def fit(keys, variants, *, widths, epochs, layer=jdrop.linen.Dropout):
        rate = optax.cosine_decay_schedule(LEARNING_RATE, epochs * (len(training[1]) // batch))
        model = Deep(tuple(width // divide for width in widths), 0.4, layer)
        return train_variants(Setting(model, epochs, batch, learning_rate=rate), data, keys, variants)

    tried = {
        (name, strength): options | {option: strength}
        for name, (options, option, strengths, _) in ROWS.items()
        for strength in strengths
    }
    found = fit(network_keys(root, 1, "strengths"), tried, widths=WIDTHS, epochs=-(-epochs // 3))
    wrong = {key: float(100 * network.validation.wrong.mean()) for key, network in found.items()}
    chosen = {name: min(strengths, key=lambda s: wrong[name, s]) for name, (*_, strengths, _) in ROWS.items()}
    rows = {name: tried[name, strength] for name, strength in chosen.items()}
    found = fit(network_keys(root, seeds, "rows"), rows, widths=WIDTHS, epochs=epochs)
    limit = {"rate": RATE, "max_norm": chosen["dropout + max-norm"]}
    for name, (layer, _) in NOISES.items():
        found |= fit(network_keys(root, seeds, "noise"), {name: limit}, widths=PAIR, epochs=epochs, layer=layer)

    published = {name: row[-1] for name, row in (ROWS | NOISES).items()}
    table = [
        {"regularizer": name, "published error %": published[name], "test error %": percent(network.test)}
        | {"difference": f"{percent(network.test).mean - published[name]:+.2f}"}
        | {"validation error %": percent(network.validation), "test NLL": nats(network.test)}
        | {"strength": chosen.get(name, limit["max_norm"])}
        for name, network in found.items()
    ]
    shape = "-".join(str(width // divide) for width in WIDTHS)
    preface = (
        f"{made_by()} {images.name}, {len(training[1])} training images, hidden layers {shape}, {epochs} epochs "
        f"of {len(training[1]) // batch} updates, {seeds} seeds; ± is a standard error over seeds. The published "
        "errors are of layers 1024-1024-2048 and a million updates."
    )
    print(save_table(table, args.out, "regularizers", preface))
    print(save_table(order(found, seeds), args.out, "order", "Whether each row errs less than the one before it."))
    strengths = [
        {"regularizer": name, "strength": s, "validation error %": f"{wrong[name, s]:.2f}", "chosen": chosen[name] == s}
        for name, s in tried
    ]
    save_table(strengths, args.out, "strengths", f"One seed, {-(-epochs // 3)} epochs.")
    draw(args.out / "regularizers.png", table)
    print(f"wrote regularizers, order and strengths as CSV and Markdown, and regularizers.png in {args.out}")


def order(found, seeds):
    """Each row against the next one, as published."""
    rows = []
    for worse, better in [*zip(list(ROWS), list(ROWS)[1:]), tuple(NOISES)]:
        difference = errors(found[better].test, found[worse].test)
        rows.append(
            {"claim": f"{better} < {worse}", "difference of test errors": difference}
            | {"95 % interval": "{:.3f} to {:.3f}".format(*interval(difference, seeds))}
            | {"verdict": below(difference, seeds)}
        )
    return rows


def draw(path, table):
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    places = np.arange(len(table))
    means, bars = ([getattr(row["test error %"], part) for row in table] for part in ("mean", "error"))
    axis.errorbar(means, places, xerr=bars, fmt="o", capsize=3, label="here, ± standard error over seeds")
    axis.plot([row["published error %"] for row in table], places, "kx", label="published")
    axis.set_yticks(places, [row["regularizer"] for row in table])
    axis.invert_yaxis()
    axis.set(xlabel="test error, %", title="Regularizers on MNIST")
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)

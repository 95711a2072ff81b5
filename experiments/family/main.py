"""The comparison and its report."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullFormatter
from sklearn.datasets import load_digits

import jdrop
from experiments.common.plotting import plt, save
from experiments.common.tables import estimate, save_table
from experiments.family.network import apply, init, masks, penalty

TRAIN, VALIDATION, BATCH, PASSES = 700, 400, 64, 50
RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
KINDS = (
    "none", "dropout", "gaussian_dropout", "gaussian_noise", "alpha_dropout", "drop_path", "drop_connect",
    "token_dropout", "drop_block", "multi_sample_dropout", "r_drop", "concrete_dropout", "variational_dropout",
    "masksembles",
)  # fmt: skip
QUICK = ("none", "dropout", "concrete_dropout", "variational_dropout", "masksembles")
WITHOUT_RATE = ("none", "variational_dropout", "masksembles")


def add_options(parser):
    parser.add_argument("--only", action="append", choices=KINDS, help="may be repeated (default: all; --quick: five)")


def run(args):
    seeds, steps, rates, passes = (2, 10, RATES[2:4], 5) if args.quick else (5, 600, RATES, PASSES)
    root = jax.random.key(args.seed)
    images, labels = load_digits(return_X_y=True)
    order = np.asarray(jax.random.permutation(jdrop.fold_in(root, "split"), len(images)))
    images, labels = jnp.asarray(images[order] / 16, jnp.float32), jnp.asarray(labels[order])
    train, validation, test = (
        (images[part], labels[part])
        for part in (slice(TRAIN), slice(TRAIN, TRAIN + VALIDATION), slice(TRAIN + VALIDATION, None))
    )
    rows, curves = [], []
    for kind in args.only or (QUICK if args.quick else KINDS):
        tried = rates[:1] if kind in WITHOUT_RATE else rates
        params = fit(root, kind, jnp.float32(tried), train, seeds, steps)
        predict = functools.partial(probabilities, kind=kind)
        key = jdrop.fold_in(root, "predict")
        found = jdrop.mc.calibration.select_rate(
            predict, key, validation[0], validation[1], jnp.float32(tried), num_samples=passes, stacked=params,
            score=lambda p, labels: jdrop.mc.metrics.nll(p, jnp.broadcast_to(labels, p.shape[:2])),
        )  # fmt: skip
        best = int(found.scores.argmin())
        chosen = jax.tree.map(lambda leaf, best=best: leaf[best], params)
        p = jdrop.mc.samples(
            lambda key, x, rate=tried[best], chosen=chosen, predict=predict: predict(key, x, rate, chosen),
            key, test[0], 1 if kind == "none" else passes,
        ).mean(0)  # fmt: skip
        rows.append({"kind": kind, "rate": "-" if kind in WITHOUT_RATE else f"{tried[best]:g}"} | scores(p, test[1]))
        print(" ".join(str(value) for value in rows[-1].values()), flush=True)
        curves += [
            {"kind": kind, "rate": rate, "validation NLL": f"{score:.4f}"}
            for rate, score in zip(map(float, found.rates), map(float, found.scores))
        ]
    preface = f"{TRAIN} digits, {steps} steps, {passes} passes, {seeds} seeds from {args.seed}; ± is a standard error."
    print(save_table(rows, args.out, "family", preface))
    save_table(curves, args.out, "rates", "The scores that the rates were chosen by.")
    draw(args.out / "family.png", rows, curves)
    print(f"wrote family.csv, family.md, rates.csv, rates.md and family.png in {args.out}")


@functools.partial(jax.jit, static_argnums=(1, 4, 5))
def fit(root, kind, rates, data, seeds, steps):
    """Parameters trained at each rate and seed, with these two axes first."""
    images, labels = data
    fixed, tx = masks(), optax.adam(2e-3)

    def loss_fn(params, key, rate, x, y):
        def loss(logits):
            return optax.softmax_cross_entropy_with_integer_labels(logits, y)

        logits = apply(params, key, x, rate, kind, fixed)
        added = penalty(params, rate, kind, len(images))
        if kind != "r_drop":
            return loss(logits).mean() + added
        other = apply(params, jdrop.fold_in(key, "other"), x, rate, kind, fixed)
        return (0.5 * (loss(logits) + loss(other)) + jdrop.r_drop(logits, other)).mean()

    def train(rate, seed):
        key = jdrop.fold_in(root, "seed", seed)
        params = init(key, kind)

        def step(carry, i):
            params, state = carry
            rows = jax.random.randint(jdrop.fold_in(key, "batch", i), (BATCH,), 0, len(images))
            gradients = jax.grad(loss_fn)(params, jdrop.fold_in(key, "dropout", i), rate, images[rows], labels[rows])
            updates, state = tx.update(gradients, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[0][0]

    return jax.vmap(lambda rate: jax.vmap(lambda seed: train(rate, seed))(jnp.arange(seeds)))(rates)


def probabilities(key, x, rate, params, *, kind):
    """Class probabilities of the networks of all seeds, shape (seeds, examples, classes)."""
    key = None if kind == "none" else key
    return jax.nn.softmax(jax.vmap(lambda each: apply(each, key, x, rate, kind, masks()))(params))


def scores(p, labels):
    metrics = jdrop.mc.metrics
    return {
        "test error, %": estimate([100 * float((each.argmax(-1) != labels).mean()) for each in p]),
        "NLL": estimate([float(metrics.nll(each, labels)) for each in p]),
        "ECE": estimate([float(metrics.ece(each, labels)) for each in p]),
    }


def draw(path, rows, curves):
    """Error, NLL and ECE of each kind, and the NLL by the rate."""
    figure, axes = plt.subplots(1, 4, figsize=(16, 5), layout="constrained")
    names, places = [row["kind"] for row in rows], range(len(rows))
    for axis, column in zip(axes, ("test error, %", "NLL", "ECE")):
        means, errors = ([getattr(row[column], part) for row in rows] for part in ("mean", "error"))
        axis.errorbar(means, places, xerr=errors, fmt="o", color="tab:blue", capsize=3)
        axis.axvline(means[0], color="black", ls=":", lw=1)
        axis.set_yticks(places, names if axis is axes[0] else [])
        axis.invert_yaxis()
        axis.set_xlabel({"NLL": "test NLL, nats"}.get(column, column))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(alpha=0.3)
    for i, kind in enumerate(name for name in names if name not in WITHOUT_RATE):
        points = [(row["rate"], float(row["validation NLL"])) for row in curves if row["kind"] == kind]
        axes[3].plot(*zip(*points), "o-", ms=3, color=plt.get_cmap("tab20")(i), label=kind)
    axes[3].set(xlabel="rate", ylabel="validation NLL, nats", xscale="log", yscale="log")
    axes[3].xaxis.set_major_formatter(LogFormatterSciNotation())
    axes[3].xaxis.set_minor_formatter(NullFormatter())
    axes[3].legend(fontsize=7)
    axes[3].grid(alpha=0.3)
    figure.suptitle("Digits: each kind of dropout at its best rate; bars are standard errors, dotted is none")
    save(figure, path, 120)

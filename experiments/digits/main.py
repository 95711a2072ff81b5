"""The comparison and its report."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import jdrop
from experiments.common.digits import RATE, TRAIN, Network, train
from experiments.common.plotting import plt, save
from experiments.common.shifts import against, corrupted, photographs
from experiments.common.tables import estimate, save_table

SEEDS = 5
METHODS = ("no dropout", "dropout, deterministic", "dropout, Monte Carlo")
COLORS = ("tab:gray", "tab:orange", "tab:blue")


def run(args):
    epochs, passes = (5, 10) if args.quick else (150, 100)
    root = jax.random.key(args.seed)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    # The networks without dropout, one a seed, then those with it.
    keys = jax.vmap(lambda seed: jdrop.fold_in(root, "seed", seed))(jnp.tile(jnp.arange(SEEDS), 2))
    rates = jnp.repeat(jnp.array([0.0, RATE]), SEEDS)
    parts = {"train": np.arange(TRAIN), "test": np.arange(TRAIN, len(images))}
    order, params, history = train(keys, rates, images, labels, epochs, parts)
    curves = {part: np.reshape(history[f"eval_{part}"], (-1, 2, SEEDS)) for part in parts}

    foreign = photographs(jdrop.fold_in(root, "photographs"), len(images) - TRAIN)
    results = {method: [] for method in METHODS}
    reliability = {method: ([], []) for method in METHODS}
    for seed, seed_key in enumerate(keys[:SEEDS]):
        train_rows, test_rows = np.split(order[seed], [TRAIN])
        inputs = {
            "train": images[train_rows],
            "test": images[test_rows],
            "corrupted": corrupted(jdrop.fold_in(seed_key, "corrupted"), images[test_rows]),
            "photographs": foreign,
        }
        of_seed = jax.tree.map(lambda leaf, seed=seed: leaf[seed::SEEDS], params)
        for method, predictions in predict(of_seed, seed_key, inputs, passes).items():
            entropy = {name: p.predictive_entropy for name, p in predictions.items()}
            results[method].append(
                {"train accuracy": accuracy(predictions["train"].mean, labels[train_rows])}
                | {name: float(score(predictions["test"].mean, labels[test_rows])) for name, score in SCORES.items()}
                | {
                    f"AUROC {name}": jdrop.mc.metrics.auroc(*against(entropy["test"], entropy[name]))
                    for name in ("corrupted", "photographs")
                }
            )
            reliability[method][0].append(predictions["test"].mean)
            reliability[method][1].append(labels[test_rows])
        if seed == 0:
            uncertain = (predictions["test"], images[test_rows], labels[test_rows])

    rows = [
        {"method": method}
        | {name: estimate([result[name] for result in results[method]]) for name in results[method][0]}
        for method in METHODS
    ]
    print(
        f"{SEEDS} seeds, {TRAIN} training digits, {epochs} epochs, {passes} Monte Carlo passes; mean ± standard error"
    )
    print(save_table(rows, args.out, "digits"))
    draw(args.out / "digits.png", curves, reliability, uncertain)
    print(f"wrote digits.csv, digits.md and digits.png in {args.out}")


def predict(params, key, inputs, passes):
    """Predictions of each method for each set of inputs, as `MCPrediction`s (of one pass where nothing is random)."""
    plain, dropped = (jax.tree.map(operator.itemgetter(i), params) for i in range(2))
    key = jdrop.fold_in(key, "predict")

    def deterministic(params):
        return {name: jdrop.mc_dropout(jax.tree_util.Partial(forward, params), key, x, 1) for name, x in inputs.items()}

    stochastic = jdrop.linen.predictor(Network(), {"params": dropped})
    monte_carlo = {
        name: jdrop.mc_dropout(stochastic, key, x, passes, transform=jax.nn.softmax, chunk_size=25)
        for name, x in inputs.items()
    }
    return dict(zip(METHODS, (deterministic(plain), deterministic(dropped), monte_carlo)))


def forward(params, key, x):
    """Class probabilities of the deterministic pass."""
    return jax.nn.softmax(Network().apply({"params": params}, x, True))


def accuracy(probabilities, labels):
    return (probabilities.argmax(-1) == labels).mean()


SCORES = {
    "test accuracy": accuracy,
    "NLL": jdrop.mc.metrics.nll,
    "Brier": jdrop.mc.metrics.brier,
    "ECE": jdrop.mc.metrics.ece,
}


def draw(path, curves, reliability, uncertain):
    """Training curves, reliability, and the digits with the highest mutual information."""
    figure = plt.figure(figsize=(11, 7.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    left, right = top.subplots(1, 2)
    for i, (name, color) in enumerate((("no dropout", COLORS[0]), (f"dropout {RATE}", COLORS[1]))):
        for part, style in (("train", "--"), ("test", "-")):
            losses = curves[part][:, i]
            epochs, mean = np.arange(1, len(losses) + 1), losses.mean(1)
            error = losses.std(1, ddof=1) / np.sqrt(SEEDS)
            left.plot(epochs, mean, style, color=color, label=f"{name}, {part}")
            left.fill_between(epochs, mean - error, mean + error, color=color, alpha=0.25, lw=0)
    left.set(xlabel="epoch", ylabel="negative log-likelihood (nats)", yscale="log", title="Training curves")
    left.legend()
    right.set_prop_cycle(color=COLORS)
    for method, (probabilities, labels) in reliability.items():
        jdrop.mc.plots.reliability_diagram(
            np.concatenate(probabilities), np.concatenate(labels), ax=right, label=method
        )
    right.set(title=f"Reliability on test digits, {SEEDS} seeds together")
    prediction, images, labels = uncertain
    information = np.asarray(prediction.mutual_information)
    most = np.argsort(-information)[:10]
    bottom.suptitle("The ten test digits of the first seed with the highest mutual information")
    for axis, row in zip(bottom.subplots(1, 10), most):
        axis.imshow(images[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        guess = int(prediction.mean[row].argmax())
        axis.set_title(f"is {labels[row]}, says {guess}\n{information[row]:.2f} nats", fontsize=9)
        axis.axis("off")
    save(figure, path, 120)

"""Handwritten digits: dropout against overfitting, and Monte Carlo dropout for uncertainty.

Trains a dense 64-256-256-10 network on 300 of scikit-learn's 1,797 bundled 8x8 digits, without dropout and with rate
0.5 before each of the last two layers: five seeds each, all ten networks in one vmapped, jitted program (the rate is
traced). Each seed has its own split, initialisation, order and masks; the other 1,497 digits are its test set.
Nothing is tuned on them.

Compares no dropout, dropout with the deterministic forward pass, and dropout with 100 Monte Carlo passes. The AUROC
says how well the predictive entropy tells test digits from test digits with half of their pixels replaced by uniform
noise ("corrupted"), and from 8x8 patches of scikit-learn's two bundled photographs ("photographs").

    python -m experiments digits

Writes digits.csv, digits.md and digits.png. Under a minute on two cores.
"""

import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn.datasets import load_digits, load_sample_images

import jdrop
from experiments._fit import fresh_states
from experiments._report import estimate, save_table

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SEEDS, TRAIN, BATCH, RATE = 5, 300, 50, 0.5
METHODS = ("no dropout", "dropout, deterministic", "dropout, Monte Carlo")
COLORS = ("tab:gray", "tab:orange", "tab:blue")


class Network(nn.Module):
    """64-256-256-10 with dropout before the last two layers."""

    rate: float = RATE
    width: int = 256

    @nn.compact
    def __call__(self, x, deterministic, rate=None):
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
            x = jdrop.linen.Dropout(self.rate)(x, deterministic, rate=rate)
        return nn.Dense(10)(x)


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


def train(keys, rates, images, labels, epochs, parts):
    """Train a network for each key and rate, all in one program.

    Each key has its own order of the examples, and trains on the first TRAIN of it. Returns (orders, parameters,
    history), where the history has the loss after each epoch on the named `parts` of the order.
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    orders = jax.vmap(lambda key: jax.random.permutation(jdrop.fold_in(key, "split"), len(images)))(keys)

    def loss_fn(params, places, key, rate, order):
        x, y = images[order[places]], labels[order[places]]
        rngs = None if key is None else {"dropout": key}
        logits = Network().apply({"params": params}, x, key is None, rate, rngs=rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), {}

    evaluate = jdrop.training.make_eval_step(loss_fn)

    def losses(state):
        return {name: evaluate(state, places)["loss"] for name, places in parts.items()}

    states, history = jdrop.training.fit(
        fresh_states(Network(), images[:1], optax.adam(1e-3), keys, rate=rates, order=orders),
        jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn)),
        np.arange(TRAIN),
        epochs=epochs,
        batch_size=BATCH,
        # One network after the other: all at once take up so much memory that each call must map it anew.
        eval_fn=jax.jit(lambda states: jax.lax.map(losses, states)),
        scan=True,
    )
    return np.asarray(orders), states.params, history


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


def against(inside, outside):
    """The uncertainties of both, and which are to be detected: those outside."""
    return np.concatenate([inside, outside]), np.arange(len(inside) + len(outside)) >= len(inside)


def corrupted(key, images, share=0.5):
    """A share of the pixels replaced by uniform noise."""
    noise = jax.random.uniform(jdrop.fold_in(key, "noise"), images.shape)
    return jnp.where(jdrop.keep_mask(key, images.shape, share), images, noise)


def photographs(key, count):
    """Grey 8x8 patches of scikit-learn's two photographs, scaled to [0, 1]."""
    grey = np.stack([image.mean(-1) / 255 for image in load_sample_images().images]).astype(np.float32)
    limits = jnp.array(grey.shape) - jnp.array([0, 7, 7])
    corners = np.asarray(jax.random.randint(key, (count, 3), 0, limits))
    return np.stack([grey[i, row : row + 8, column : column + 8].reshape(64) for i, row, column in corners])


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
    figure.savefig(path, dpi=120)
    plt.close(figure)

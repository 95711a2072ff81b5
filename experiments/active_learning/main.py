"""The comparison and its report."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jdrop
from experiments.common.digits import Network
from experiments.common.fitting import fit_full_batches, fresh_states
from experiments.common.networks import of_network
from experiments.common.plotting import plt, save
from experiments.common.tables import estimate, save_table

SEEDS, POOL, START, BATCH, CANDIDATES, PASSES = 5, 1000, 20, 10, 300, 50
MODEL = Network(width=128)
SCORES = {
    "BALD": jdrop.mc.uncertainty.mutual_information,
    "max entropy": jdrop.mc.uncertainty.predictive_entropy,
}
METHODS = (*SCORES, "BatchBALD", "random")


def run(args):
    root, out = jax.random.key(args.seed), args.out
    seeds, rounds, steps = (2, 1, 10) if args.quick else (SEEDS, 8, 150)
    images, labels = load_digits(return_X_y=True)
    data = jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels)
    keys = [jdrop.fold_in(root, "active", seed) for seed in range(seeds)]
    order = [np.asarray(jax.random.permutation(jdrop.fold_in(key, "split"), len(labels))) for key in keys]
    runs = [(method, seed) for method in METHODS for seed in range(seeds)]
    chosen = {run: list(order[run[1]][:START]) for run in runs}  # the methods of a seed start with the same digits
    of_run = jnp.array([seed for _, seed in runs])
    start, step = fresh_states(MODEL, data[0][:1], optax.adam(3e-3), jnp.stack(keys)[of_run]), make_step(data)
    size = START + rounds * BATCH
    accuracy = {run: [] for run in runs}
    for number in range(rounds + 1):
        rows = jnp.array([chosen[run] + [-1] * (size - len(chosen[run])) for run in runs])
        params = fit_full_batches(start.replace(collections={"rows": rows}), step, size, steps)
        tests = jnp.array([order[seed][POOL:] for _, seed in runs])
        for run, value in zip(runs, _accuracy(params, data, tests)):
            accuracy[run].append(float(value))
        if number == rounds:
            break
        for i, (method, seed) in enumerate(runs):
            key = jdrop.fold_in(keys[seed], "round", number)
            shuffled = np.asarray(jax.random.permutation(jdrop.fold_in(key, "candidates"), order[seed][:POOL]))
            candidates = shuffled[~np.isin(shuffled, chosen[method, seed])][:CANDIDATES]
            of_method = of_network(params, i)
            picks = pick(method, key, of_method, data[0][candidates])
            chosen[method, seed] += list(candidates[np.asarray(picks)])

    counts = START + BATCH * np.arange(rounds + 1)
    table = [
        {"acquisition": method}
        | {f"{n} labels": estimate([accuracy[method, seed][i] for seed in range(seeds)]) for i, n in enumerate(counts)}
        for method in METHODS
    ]
    print(f"accuracy on {len(labels) - POOL} test digits, {seeds} seeds, {BATCH} labels a round, {PASSES} passes")
    print(save_table(table, out, "active_learning"))
    draw(out / "active_learning.png", counts, table)
    print(f"wrote active_learning.csv, active_learning.md and active_learning.png in {out}")


def make_step(data):
    """A step on the labelled digits of each run, the `rows` in its state, filled up with -1."""
    x, y = data

    def loss_fn(params, places, key, rows):
        logits = MODEL.apply({"params": params}, x[rows[places]], False, rngs={"dropout": key})
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y[rows[places]])
        return losses.mean(where=rows[places] >= 0), {}

    return jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn))


@jax.jit
@jax.vmap
def _correct(params, x, y):
    return (MODEL.apply({"params": params}, x, True).argmax(-1) == y).mean()


def _accuracy(params, data, rows):
    return _correct(params, data[0][rows], data[1][rows])


def pick(method, key, params, x):
    """The candidates to have labelled, as rows of `x`."""
    acquisition = jdrop.mc.acquisition
    if method == "random":
        return acquisition.top_k(acquisition.random(key, len(x)), BATCH)
    predict = jdrop.linen.predictor(MODEL, {"params": params})
    probabilities = jax.nn.softmax(jdrop.mc.samples(predict, key, x, PASSES, consistent=True))
    if method == "BatchBALD":
        return acquisition.batch_bald(jdrop.fold_in(key, method), probabilities, BATCH, 500)[0]
    return acquisition.top_k(SCORES[method](probabilities), BATCH)


def draw(path, counts, table):
    figure, ax = plt.subplots(figsize=(7.5, 5), layout="constrained")
    for row in table:
        name, *values = row.values()
        mean, error = np.array(values).T
        line = ax.plot(counts, mean, "o-", markersize=4, label=name)[0]
        ax.fill_between(counts, mean - error, mean + error, color=line.get_color(), alpha=0.2, linewidth=0)
    ax.set(xlabel="labelled digits", ylabel="test accuracy (fraction)", title="Active learning, ± standard error")
    ax.legend()
    save(figure, path)

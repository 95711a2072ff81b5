"""Uncertainty of a regression: scikit-learn's diabetes data, and a curve."""

import operator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_diabetes

import jdrop
from experiments.common.fitting import fit_full_batches, fresh_states, network_keys
from experiments.common.plotting import plt, save
from experiments.common.tables import estimate, save_table

SEEDS, TRAIN, VALIDATION = 10, 242, 100
RATE, WEIGHT_DECAY, LENGTH_SCALE, COVERAGE = 0.1, 1e-3, 1.0, 0.9  # before any result; the inputs have a variance of 1
STEPS = 40  # of 20, 30, 40, 50, 70, 100, 200, 400 and 1000 the one with the lowest error on the validation examples
METRICS, UNCERTAINTY = jdrop.mc.metrics, jdrop.mc.uncertainty
COLUMNS = ("tau", "RMSE", "log-likelihood (nats)", "CRPS", "sharpness", "coverage", "width")
TAUS, INTERVALS = ("prior tau", "fitted tau"), ("conformal, one width", "conformal, width by std")


class Network(nn.Module):
    """A hidden layer of 50, another, and a number; dropout before the last two layers."""

    rate: float = RATE
    shared: bool = False  # one mask for all inputs, so that a sample is a function of them

    @nn.compact
    def __call__(self, x, deterministic):
        for _ in range(2):
            x = nn.relu(nn.Dense(50)(x))
            x = jdrop.linen.Dropout(self.rate, broadcast_dims=(0,) if self.shared else ())(x, deterministic)
        return nn.Dense(1)(x)[:, 0]


def regression(root, out, quick):
    steps, passes = (10, 50) if quick else (STEPS, 1000)
    x, y = map(jnp.float32, load_diabetes(return_X_y=True, scaled=False))
    keys = network_keys(root, SEEDS, "regression")
    x, y = jax.vmap(split, (0, None, None))(keys, x, y)
    params = fit(keys, x[0], y[0], steps)
    tables, figures = jax.lax.map(lambda of_seed: evaluate(*of_seed, passes), (keys, params, x, y))
    rows = [
        {"noise or interval": name}
        | {column: estimate(tables[name][column]) if column in tables[name] else "-" for column in COLUMNS}
        for name in (*TAUS, *INTERVALS)
    ]
    print(
        f"diabetes, {SEEDS} seeds, {TRAIN} training examples, {steps} steps, {passes} passes; targets in units of the "
        f"training targets' standard deviation, {COVERAGE:.0%} intervals"
    )
    print(save_table(rows, out, "regression"))
    draw(out / "regression.png", jax.tree.map(np.asarray, figures))
    draw_band(out / "band.png", jdrop.fold_in(root, "band"), quick)


def split(key, x, y):
    """The training, validation and test examples of a seed, ``[x, x, x], [y, y, y]``, standardised by the first."""
    parts = jnp.split(jax.random.permutation(jdrop.fold_in(key, "split"), len(x)), [TRAIN, TRAIN + VALIDATION])
    return [[(array[rows] - array[parts[0]].mean(0)) / array[parts[0]].std(0) for rows in parts] for array in (x, y)]


def fit(keys, x, y, steps):
    """Each key's parameters after full-batch steps on its ``(1/N) sum_n (y_n - f(x_n))**2 / 2 + lambda ||W||**2``."""

    def loss_fn(params, rows, key, x, y):
        outputs = Network().apply({"params": params}, x[rows], False, rngs={"dropout": key})
        penalty = sum((leaf**2).sum() for leaf in jax.tree.leaves(params))
        return ((y[rows] - outputs) ** 2).mean() / 2 + WEIGHT_DECAY * penalty, {}

    states = fresh_states(Network(), x[0, :1], optax.adam(3e-3), keys, x=x, y=y)
    step = jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn))
    return fit_full_batches(states, step, x.shape[1], steps)


def evaluate(key, params, x, y, passes):
    """The scores of one seed, {row: {column: value}}, and what its figure needs."""
    predict = jdrop.linen.predictor(Network(), {"params": params})
    held_out, outputs = (jdrop.mc.samples(predict, jdrop.fold_in(key, i), x[i], passes) for i in (1, 2))
    targets, mean = y[2], UNCERTAINTY.predictive_mean(outputs)
    prior = jdrop.mc.calibration.prior_tau(RATE, LENGTH_SCALE, TRAIN, WEIGHT_DECAY)
    noise = jax.random.normal(jdrop.fold_in(key, "noise"), outputs.shape)
    scores, pits = {}, {}
    for name, tau in zip(TAUS, (prior, jdrop.mc.calibration.fit_tau(held_out, y[1]))):
        draws = outputs + noise / jnp.sqrt(tau)  # from the predictive distribution
        lower, upper = UNCERTAINTY.central_interval(draws, COVERAGE)
        pits[name] = METRICS.pit_ensemble(draws, targets)
        scores[name] = {
            "tau": tau,
            "RMSE": METRICS.rmse(mean, targets),
            "log-likelihood (nats)": METRICS.mixture_log_likelihood(outputs, targets, tau=tau).mean(),
            "CRPS": METRICS.crps_ensemble(draws, targets),
            "sharpness": METRICS.sharpness(UNCERTAINTY.total_variance(outputs, tau=tau)),
            "coverage": METRICS.interval_coverage(lower, upper, targets),
            "width": METRICS.interval_width(lower, upper),
        }
    # The prior's variance: the fitted one has seen the examples that calibrate.
    variances = [UNCERTAINTY.total_variance(samples, tau=prior) for samples in (held_out, outputs)]
    intervals = {}
    for name, (known, new) in zip(INTERVALS, ((None, None), variances)):
        quantile = jdrop.mc.conformal.residual_quantile(held_out.mean(0), y[1], 1 - COVERAGE, known)
        lower, upper = jdrop.mc.conformal.residual_intervals(mean, quantile, new)
        intervals[name] = {
            "coverage": METRICS.interval_coverage(lower, upper, targets),
            "width": METRICS.interval_width(lower, upper),
        }
    return scores | intervals, {"pits": pits, "targets": targets, "mean": mean, "lower": lower, "upper": upper}


def draw(path, figures):
    """Probability integral transforms, and the test targets in their intervals."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name, values in figures["pits"].items():
        left.hist(values.ravel(), np.linspace(0, 1, 21), density=True, histtype="step", lw=1.5, label=name)
    left.axhline(1, color="black", ls=":", label="calibrated")
    left.set(xlabel="probability integral transform", ylabel="density", title=f"Test targets, {SEEDS} seeds together")
    left.legend(loc="lower center")
    first = jax.tree.map(operator.itemgetter(0), figures)
    order = np.argsort(first["mean"])
    mean, lower, upper, targets = (first[name][order] for name in ("mean", "lower", "upper", "targets"))
    rank = np.arange(len(order))
    right.fill_between(rank, lower, upper, alpha=0.3, lw=0, label=f"{COVERAGE:.0%} {INTERVALS[1]}")
    right.plot(rank, mean, label="predictive mean")
    inside = (lower <= targets) & (targets <= upper)
    right.plot(rank[inside], targets[inside], ".", color="black", label=f"targets inside ({inside.mean():.0%})")
    right.plot(rank[~inside], targets[~inside], "x", color="tab:red", label="targets outside")
    right.set(xlabel="test example, by predicted value", ylabel="disease progression (standard deviations)")
    right.set(title="Conformal intervals, first seed")
    right.legend()
    save(figure, path)


def draw_band(path, key, quick):
    """A curve with a gap in its data: the samples part where there is none."""
    sides = jax.random.uniform(jdrop.fold_in(key, "x"), (2, 40), minval=0.3) * jnp.array([[-1], [1]])
    x = jnp.sort(sides.ravel())
    y = jnp.sin(4 * x) + 0.25 * jax.random.normal(jdrop.fold_in(key, "noise"), x.shape)
    # Every fourth example fits the noise, the others the network.
    held_out = jnp.arange(len(x)) % 4 == 0
    params = fit(key[None], x[None, ~held_out, None], y[None, ~held_out], 20 if quick else 1000)
    predict = jdrop.linen.predictor(Network(shared=True), {"params": jax.tree.map(operator.itemgetter(0), params)})
    tau = jdrop.mc.calibration.fit_tau(jdrop.mc.samples(predict, key, x[held_out, None], 200), y[held_out])
    grid = jnp.linspace(-1.6, 1.6, 200)
    ax = jdrop.mc.plots.regression_band(
        grid, jdrop.mc.samples(predict, key, grid[:, None], 200, consistent=True), tau=tau
    )
    ax.plot(x, y, ".", color="black", zorder=4, label="data")
    ax.set(title="A regression with its Monte Carlo samples")
    ax.legend(loc="upper right", fontsize="small")
    save(ax.figure, path)

"""The networks, the Gaussian process and the report."""

from collections.abc import Callable

import flax.linen as nn
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

import jdrop
from experiments import MissingFiles
from experiments.common.fitting import fit_full_batches, fresh_states, network_keys
from experiments.common.images import subfolder
from experiments.common.networks import of_network
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import Estimate, estimate, save_table

NEEDS_DATA = True
WIDTH, RATE, L2, PASSES = 1024, 0.1, 1e-6, 200
DISTANCES = (0.0, 0.5, 1.0, 1.9)  # from the last month of the data, in their standard deviations, of 13 years each


class Network(nn.Module):
    """Three hidden layers, with dropout before all but the first."""

    activation: Callable
    width: int

    @nn.compact
    def __call__(self, x, deterministic):
        for _ in range(3):
            x = self.activation(nn.Dense(self.width)(x))
            x = jdrop.linen.Dropout(RATE)(x, deterministic)
        return nn.Dense(1)(x)


def run(args):
    (x, y), beyond = load(args.data_dir)
    seeds, steps, width, passes = (2, 20, 64, 20) if args.quick else (3, 3000, WIDTH, PASSES)
    grid = np.concatenate([x, beyond]).astype(np.float32)
    root = jax.random.key(args.seed)
    keys = network_keys(root, seeds, "co2")
    functions = {}
    for name, activation in (("ReLU", nn.relu), ("tanh", jnp.tanh)):
        print(f"training {seeds} networks with {name}", flush=True)
        functions[f"dropout, {name}"] = networks(keys, Network(activation, width), x, y, grid, steps, passes)
    mean, std = gaussian_process(x, y, grid)
    bands = {name: (drawn.mean(1), drawn.std(1)) for name, drawn in functions.items()}

    end = float(x.max())
    places = [int(np.abs(grid[:, 0] - end - distance).argmin()) for distance in DISTANCES]
    table = [
        {"model": name}
        | {f"std at {distance:+.1f}": estimate(band[1][:, place]) for distance, place in zip(DISTANCES, places)}
        | {"RMSE of the data": estimate(np.sqrt(((band[0][:, : len(y)] - y[:, 0]) ** 2).mean(1)))}
        for name, band in bands.items()
    ]
    table.append(
        {"model": "Gaussian process"}
        | {f"std at {distance:+.1f}": Estimate(std[place], 0.0) for distance, place in zip(DISTANCES, places)}
        | {"RMSE of the data": Estimate(float(np.sqrt(((mean[: len(y)] - y[:, 0]) ** 2).mean())), 0.0)}
    )
    preface = f"{made_by()} {steps} steps, {passes} passes, {seeds} seeds; ± is a standard error; no noise added."
    print(save_table(table, args.out, "co2", preface))
    panels = {name: (band[0][0], band[1][0], functions[name][0]) for name, band in bands.items()}
    draw(args.out / "co2.png", x, y, grid, panels | {"Gaussian process": (mean, std, None)})
    print(f"wrote co2.csv, co2.md and co2.png in {args.out}")


def load(folder):
    folder = folder and subfolder(folder, "co2")
    paths = [folder and folder / name for name in ("train.h5", "test.h5")]
    if not all(path and path.is_file() for path in paths):
        raise MissingFiles("train.h5 and test.h5 of CO2 are", folder, "Name the folder that holds them")
    with h5py.File(paths[0]) as train, h5py.File(paths[1]) as test:
        return (train["data"][:].astype(np.float32), train["label"][:].astype(np.float32)), test["data"][:]


def networks(keys, model, x, y, grid, steps, passes):
    """Passes of a network for each key, shape (keys, passes, grid)."""
    x, y = jnp.asarray(x), jnp.asarray(y)

    def loss_fn(params, places, key):
        outputs = model.apply({"params": params}, x[places], False, rngs={"dropout": key})
        return jnp.mean((outputs - y[places]) ** 2) + jdrop.l2(params, L2)

    tx = optax.adam(optax.cosine_decay_schedule(1e-3, steps))
    step = jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn))
    params = fit_full_batches(fresh_states(model, x[:1], tx, keys), step, len(x), steps)
    drawn = []
    for i, key in enumerate(keys):
        predict = jdrop.linen.predictor(model, {"params": of_network(params, i)})
        drawn.append(jdrop.mc.samples(predict, jdrop.fold_in(key, "passes"), grid, passes, consistent=True)[..., 0])
    return np.stack(drawn)


def gaussian_process(x, y, grid):
    """Mean and standard deviation of the function, without the noise."""
    # The marginal likelihood has a lower maximum, of long scales, where the seasons are noise: hence so many starts.
    kernel = ConstantKernel() * RBF(1.0, (0.01, 10.0)) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=10, random_state=0)
    process.fit(x.astype(float), y[:, 0].astype(float))
    mean, std = process.predict(grid.astype(float), return_std=True)
    noise = process.kernel_.k2.noise_level * process._y_train_std**2
    return mean, np.sqrt(np.maximum(std**2 - noise, 0))


def draw(path, x, y, grid, panels):
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained", sharey=True)
    for axis, (title, (mean, std, drawn)) in zip(axes, panels.items()):
        if drawn is not None:
            axis.plot(grid[:, 0], drawn[:20].T, color="tab:blue", alpha=0.15, lw=0.6)
        for widths in (1, 2):
            low, high = mean - widths * std, mean + widths * std
            axis.fill_between(grid[:, 0], low, high, color="tab:blue", alpha=0.2, lw=0)
        axis.plot(grid[:, 0], mean, color="tab:blue", label="mean, with one and two standard deviations")
        axis.plot(x[:, 0], y[:, 0], "k.", ms=2, label="data")
        axis.axvline(x.max(), color="tab:red", ls="--", lw=1, label="end of the data")
        axis.set(xlabel="time, standardised", title=title)
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="CO2, standardised", ylim=(-5, 5))
    axes[0].legend(loc="upper left", fontsize=8)
    save(figure, path)

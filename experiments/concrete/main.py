"""The network and the report."""

import functools

import jax
import jax.numpy as jnp
import optax

import jdrop
from experiments.common.fitting import network_keys
from experiments.common.plotting import plt, save
from experiments.common.provenance import made_by
from experiments.common.tables import estimate, save_table

COUNTS, WIDTH, STEPS, BATCH, PASSES, TEST = (10, 25, 50, 100, 1000), 1024, 4000, 20, 20, 1000
LENGTH_SCALE, START = 1e-4, 0.1
PUBLISHED = {10: 1.82, 25: 1.18, 50: 1.15, 100: 1.15, 1000: 1.07}  # RMSE
NOTES = {10: "epistemic 1.09, hidden rates .40, input .07", 1000: "epistemic .65, hidden rates .23, input .07"}


def run(args):
    seeds, steps, width = (2, 20, 32) if args.quick else (3, STEPS, WIDTH)
    root = jax.random.key(args.seed)
    table = []
    for count in COUNTS[::4] if args.quick else COUNTS:
        keys = network_keys(root, seeds, "concrete", count)
        found = jax.vmap(functools.partial(of_repeat, count=count, steps=steps, width=width))(keys)
        found |= {"mean hidden rate": sum(found[f"rate, hidden {i}"] for i in (1, 2, 3)) / 3}
        table.append(
            {"N": count} | {"RMSE": estimate(found.pop("RMSE")), "published RMSE": PUBLISHED[count]}
            | {name: estimate(values) for name, values in found.items()} | {"published": NOTES.get(count, "-")}
        )  # fmt: skip
        print(" ".join(str(value) for value in table[-1].values()), flush=True)
    preface = f"{made_by()} Width {width}, {steps} steps, {seeds} repeats; ± is a standard error."
    print(save_table(table, args.out, "concrete", preface))
    draw(args.out / "concrete.png", table)
    print(f"wrote concrete.csv, concrete.md and concrete.png in {args.out}")


def data(key, count):
    x, noise = jax.random.normal(key, (2, count, 1))
    return x, 2 * x + 8 + noise


def init(key, width):
    """Dense layers, each with the logit of the rate of its inputs: three hidden ones, the mean and the log-variance."""
    sizes = {"hidden 1": (1, width), "hidden 2": (width, width), "hidden 3": (width, width)}
    sizes |= {"mean": (width, 1), "log-variance": (width, 1)}
    kernels = jax.nn.initializers.glorot_uniform()
    logit = jnp.log(START / (1 - START))
    return {
        name: {"kernel": kernels(jdrop.fold_in(key, name), size), "bias": jnp.zeros(size[1]), "logit": logit}
        for name, size in sizes.items()
    }


def apply(params, key, x):
    """Mean and log-variance of y."""

    def layer(name, x):
        of_layer = params[name]
        rate = jax.nn.sigmoid(of_layer["logit"])
        return jdrop.concrete_dropout(jdrop.fold_in(key, name), x, rate) @ of_layer["kernel"] + of_layer["bias"]

    for name in ("hidden 1", "hidden 2", "hidden 3"):
        x = jax.nn.relu(layer(name, x))
    return layer("mean", x), layer("log-variance", x)


@functools.partial(jax.jit, static_argnames=("count", "steps", "width"))
def of_repeat(key, count, steps, width):
    """Train one network, and what it says of new data."""
    x, y = data(jdrop.fold_in(key, "data"), count)
    tx = optax.adam(1e-3)

    def loss_fn(params, key, x, y):
        mean, log_variance = apply(params, key, x)
        loss = jnp.mean(jnp.exp(-log_variance) * (y - mean) ** 2 + log_variance)
        return loss + sum(
            jdrop.concrete_regularizer(
                layer["kernel"], jax.nn.sigmoid(layer["logit"]), weight=LENGTH_SCALE**2 / count, dropout=2 / count
            )
            for layer in params.values()
        )

    def step(carry, number):
        params, state = carry
        of_step = jdrop.fold_in(key, "step", number)
        rows = jax.random.choice(jdrop.fold_in(of_step, "batch"), count, (min(BATCH, count),), replace=False)
        gradients = jax.grad(loss_fn)(params, jdrop.fold_in(of_step, "dropout"), x[rows], y[rows])
        updates, state = tx.update(gradients, state)
        return (optax.apply_updates(params, updates), state), None

    params = init(jdrop.fold_in(key, "init"), width)
    params, _ = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[0]

    x, y = data(jdrop.fold_in(key, "test"), TEST)
    mean, log_variance = jdrop.mc.samples(
        lambda key, x: jnp.stack(apply(params, key, x)), jdrop.fold_in(key, "passes"), x, PASSES
    ).swapaxes(0, 1)
    rates = {name: jax.nn.sigmoid(layer["logit"]) for name, layer in params.items()}
    names = {"hidden 1": "input", "hidden 2": "hidden 1", "hidden 3": "hidden 2", "mean": "hidden 3"}
    return {
        "RMSE": jdrop.mc.metrics.rmse(mean.mean(0), y),
        "epistemic std": jnp.sqrt(mean.var(0).mean()),
        "aleatoric std": jnp.sqrt(jnp.exp(log_variance).mean()),
    } | {f"rate, {short}": rates[name] for name, short in names.items()}


def draw(path, table):
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    counts = [row["N"] for row in table]
    panels = (
        ("learned rate", [f"rate, {name}" for name in ("input", "hidden 1", "hidden 2", "hidden 3")]),
        ("standard deviation", ["epistemic std", "aleatoric std"]),
        ("RMSE on new data", ["RMSE"]),
    )
    for axis, (label, columns) in zip(axes, panels):
        for column in columns:
            means, bars = zip(*(row[column] for row in table))
            name = column.removeprefix("rate, ")
            axis.errorbar(counts, means, yerr=bars, fmt="o-", capsize=3, label="here" if name == "RMSE" else name)
        axis.set(xscale="log", xlabel="training data, N", ylabel=label)
        axis.grid(alpha=0.3)
    axes[2].plot(counts, [row["published RMSE"] for row in table], "kx", label="published")
    axes[1].axhline(1, color="black", ls=":", lw=1, label="the noise's")
    for axis in axes:
        axis.legend()
    figure.suptitle("Concrete dropout on y = 2x + 8 + N(0, 1); bars are standard errors over repeats")
    save(figure, path)

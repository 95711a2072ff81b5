"""The time of 100 Monte Carlo passes: beside one pass, and beside loops over passes."""

import functools
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp

import jdrop
from experiments.common.networks import RATE, Convolutional, Dense
from experiments.common.plotting import plt, save
from experiments.common.ratios import at_least, at_most, machine
from experiments.common.tables import save_table
from experiments.common.timing import Case, measure

NETWORKS = {"784-128-10": functools.partial(Dense, 128), "two convolutions": Convolutional}
ONE, OURS, FLAX, TORCH = "one pass, jitted", "jdrop.mc_dropout", "loop over a jitted flax apply", "PyTorch's loop"


def speed(root, out, quick):
    """Random weights and images: neither changes the time."""
    batch, passes, size = (16, 5, 8) if quick else (256, 100, 28)
    timing = {"blocks": 1, "seconds": 0.001} if quick else {"blocks": 2, "seconds": 0.05}
    torch = importlib.util.find_spec("torch") is not None
    x = jax.random.uniform(jdrop.fold_in(root, "images"), (batch, size, size, 1))
    rows, times = [], {}
    for name, network in NETWORKS.items():
        cases, convolutional = jax_cases(root, network, x, passes), network is Convolutional
        if (
            torch and not convolutional
        ):  # 100 passes of PyTorch's convolutions take longer than the other topics together
            cases[TORCH] = torch_case(x, passes)
        times[name] = measure(cases, **timing)
        of = times[name]
        rows.append(row(name, OURS, ONE, of, at_most(2) if convolutional else None))
        rows += [row(name, loop, OURS, of, at_least(3)) for loop in (FLAX, TORCH) if loop in of]
    print(f"{passes} passes, batch {batch} of {size}x{size}; median of {timing['blocks']} interleaved blocks")
    print(machine(("jax", "jaxlib", "flax", "torch")))
    print(save_table(rows, out, "speed"))
    if not torch:
        print("torch is not installed: absent from the comparison")
    draw(out / "speed.png", times, batch, passes)


def row(network, what, against, times, target):
    ratio = times[what] / times[against]
    return {
        "network": network,
        "times": f"{what} / {against}",
        "ratio": f"{ratio:.2f}",
        "target": f"{target.sign} {target.least:g}" if target else "-",
        "met": target.met(ratio) if target else "-",
        "ms": f"{1000 * times[what]:.2f} / {1000 * times[against]:.2f}",
    }


def jax_cases(key, network, x, passes):
    """Cases that give the mean and the variance of the class probabilities."""
    model, theirs = network(), network(layer=nn.Dropout)
    params = jax.jit(lambda key, x: model.init(key, x, True))(key, x)["params"]
    predict = jdrop.linen.predictor(model, {"params": params})
    keys = list(jax.random.split(key, passes))

    @jax.jit
    def apply(params, key, x):
        return jax.nn.softmax(theirs.apply({"params": params}, x, False, rngs={"dropout": key}))

    @jax.jit
    def ours(predict, key, x):
        return jdrop.mc_dropout(predict, key, x, passes, transform=jax.nn.softmax)

    def loop():
        samples = jnp.stack([apply(params, key, x) for key in keys])
        return samples.mean(0), samples.var(0)

    return {
        ONE: Case(jax.jit(lambda predict, key, x: jax.nn.softmax(predict(key, x))), (predict, key, x)),
        OURS: Case(ours, (predict, key, x)),
        FLAX: Case(loop),
    }


def torch_case(x, passes):
    """The usual loop with the dense network: evaluation mode but for dropout, one pass after another."""
    import torch
    from torch import nn

    x = torch.tensor(x.tolist())
    dropout = nn.Dropout(RATE)
    layers = nn.Flatten(), nn.Linear(x[0].numel(), 128), nn.ReLU(), dropout, nn.Linear(128, 10), nn.Softmax(-1)
    model = nn.Sequential(*layers).eval()
    dropout.train()

    def loop():
        with torch.no_grad():
            samples = torch.stack([model(x) for _ in range(passes)])
            return samples.mean(0), samples.var(0, correction=0)

    return Case(loop, wait=lambda result: result)


def draw(path, times, batch, passes):
    figure, axes = plt.subplots(1, len(times), figsize=(13, 3.2), layout="constrained")
    for ax, (name, of_network) in zip(axes, times.items()):
        labels = [case if case == ONE else f"{case}, {passes} passes" for case in of_network]
        milliseconds = [1000 * seconds for seconds in of_network.values()]
        bars = ax.barh(labels, milliseconds, color="tab:blue")
        ax.bar_label(bars, [f"{value:.4g}" for value in milliseconds], padding=3)
        ax.set(xlabel="time (ms)", title=f"{name}, batch {batch}", xscale="log")
        ax.set_xlim(min(milliseconds) / 3, max(milliseconds) * 4)
        ax.invert_yaxis()
    save(figure, path)

"""The comparison and its report."""

import time

import jax
import numpy as np

import jdrop
from experiments.common.images import load_mnist, take
from experiments.common.networks import NETWORKS, outcome, train
from experiments.common.tables import save_table

NEEDS_DATA = True
HELD_OUT = 10000


def add_options(parser):
    parser.add_argument("--network", action="append", choices=NETWORKS, help="may be repeated (default: all)")


def run(args):
    images = load_mnist(args.data_dir)
    training, held_out = take(images.train, slice(-HELD_OUT)), take(images.train, slice(-HELD_OUT, None))
    networks = {name: NETWORKS[name] for name in args.network or NETWORKS}
    if args.quick:
        print("Quick version: one epoch on 5,000 images.")
        training = take(training, slice(5000))
        networks = {name: setting._replace(epochs=1) for name, setting in networks.items()}
    rows = []
    for name, setting in networks.items():
        print(f"training {name}")
        key = jdrop.fold_in(jax.random.key(args.seed), name)
        rows.append({"network": name} | errors(setting, key, training, held_out, images.test))
    print(save_table(rows, args.out, "mnist"))
    print(f"wrote mnist.csv and mnist.md in {args.out}")


def errors(setting, key, data, held_out, test) -> dict:
    """Train a network on `data`; returns its row of the table."""
    count = round((1 - setting.validation) * len(data[1]))
    times = [time.perf_counter()]
    params = train(
        setting,
        take(data, slice(count)),
        key[None],
        callbacks=[lambda state, record: times.append(time.perf_counter())],
    )
    parts = {"validation": take(data, slice(count, None)), "held-out": held_out, "test": test}
    return {
        "epochs": setting.epochs,
        "seconds per epoch": f"{np.median(np.diff(times)):.2f}",  # the median, since the first epoch compiles
    } | {
        f"{name} error %": f"{100 * outcome(setting.model, params, part).wrong.mean():.2f}" if len(part[1]) else "-"
        for name, part in parts.items()
    }

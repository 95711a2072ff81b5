"""MNIST: the dense and convolutional networks of the source articles.

    python -m experiments mnist --data-dir FOLDER

dense64     784-64-10, dropout 0.5; 5 epochs, batch 32; the last 20 % of its training images are for validation
dense64_l2  the same with the loss L + 1e-4 R, where R sums the squares of all elements of the kernels (not the biases)
dense128    784-128-10, dropout 0.5; 5 epochs, batch 64
conv        3x3 convolutions to 32 and 64 channels, padded, each with 2x2 max-pooling; dense 128, dropout 0.5, 10;
            8 epochs, batch 128

All with ReLU and Adam (1e-3). FOLDER holds the four IDX files of MNIST, gzipped or not. The last 10,000 of its 60,000
training images are held out from every network, so the validation split is of the first 50,000. The epochs of `conv`
were chosen on the held-out images; nothing was chosen on the test files.

Writes mnist.csv and mnist.md. Two minutes on two cores, nearly all for `conv`: about 10 s an epoch, 0.97 and 1.07 times
PyTorch 2.13's for the same network (medians of ten and of seven interleaved epochs). Its held-out error is 0.87, 0.89
and 0.81 % with the seeds 0, 1 and 2.
"""

import time

import jax
import numpy as np

import jdrop
from experiments._images import load_mnist, take
from experiments._networks import NETWORKS, outcome, train
from experiments._report import save_table

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

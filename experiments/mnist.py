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

Writes mnist.csv and mnist.md. Two minutes on two cores, nearly all for `conv`: about 11 s an epoch, 0.97 and 1.07 times
PyTorch 2.13's for the same network (medians of ten and of seven interleaved epochs). Its held-out error is 0.89, 0.94
and 0.93 % with the seeds 0, 1 and 2.
"""

import sys
import time
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdrop
from experiments._idx import find_idx, read_idx
from experiments._report import save_table

NEEDS_DATA = True
FILES = {
    "train-images-idx3-ubyte": (60000, 28, 28),
    "train-labels-idx1-ubyte": (60000,),
    "t10k-images-idx3-ubyte": (10000, 28, 28),
    "t10k-labels-idx1-ubyte": (10000,),
}
HELD_OUT, RATE = 10000, 0.5


class Dense(nn.Module):
    """One hidden layer, and dropout before the last one."""

    width: int

    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
        return nn.Dense(10)(jdrop.linen.Dropout(RATE)(x, deterministic))


class Convolutional(nn.Module):
    """Two convolutions with max-pooling, then `Dense`."""

    @nn.compact
    def __call__(self, x, deterministic):
        for channels in (32, 64):
            # The ReLU commutes with max-pooling, after which it has a quarter of the work.
            x = nn.relu(max_pool(nn.Conv(channels, (3, 3))(x)))
        return Dense(128)(x, deterministic)


def max_pool(x):
    """2x2 max-pooling, the gradient going to the first maximum."""
    # Not `nn.max_pool`, whose gradient is slower on a CPU than the convolutions'. In this order of comparisons a step
    # needs less than 32 MiB of scratch memory, beyond which glibc maps new pages at every step.
    n, height, width, channels = x.shape
    x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    top, bottom = (larger(x[:, :, row, :, 0], x[:, :, row, :, 1]) for row in range(2))
    return larger(top, bottom)


def larger(a, b):
    return jnp.where(a < b, b, a)


class Setting(NamedTuple):
    """A network, and how it is trained."""

    model: nn.Module
    epochs: int
    batch_size: int
    validation: float = 0.0  # fraction of the training images, the last ones
    l2: float = 0.0


NETWORKS = {
    "dense64": Setting(Dense(64), epochs=5, batch_size=32, validation=0.2),
    "dense64_l2": Setting(Dense(64), epochs=5, batch_size=32, validation=0.2, l2=1e-4),
    "dense128": Setting(Dense(128), epochs=5, batch_size=64),
    "conv": Setting(Convolutional(), epochs=8, batch_size=128),
}


def add_options(parser):
    parser.add_argument("--network", action="append", choices=NETWORKS, help="may be repeated (default: all)")


def run(args):
    paths = [args.data_dir and find_idx(args.data_dir, name) for name in FILES]
    if None in paths:
        print(missing(args.data_dir, paths), file=sys.stderr)
        return 1
    images, labels, test_images, test_labels = map(read_idx, paths, FILES.values())
    training = prepare(images[:-HELD_OUT], labels[:-HELD_OUT])
    held_out = prepare(images[-HELD_OUT:], labels[-HELD_OUT:])
    test = prepare(test_images, test_labels)
    networks = {name: NETWORKS[name] for name in args.network or NETWORKS}
    if args.quick:
        print("Quick version: one epoch on 5,000 images.")
        training = take(training, slice(5000))
        networks = {name: setting._replace(epochs=1) for name, setting in networks.items()}
    rows = []
    for name, setting in networks.items():
        print(f"training {name}")
        key = jdrop.fold_in(jax.random.key(args.seed), name)
        rows.append({"network": name} | train(setting, key, training, held_out, test))
    print(save_table(rows, args.out, "mnist"))
    print(f"wrote mnist.csv and mnist.md in {args.out}")


def missing(folder, paths) -> str:
    """Which files to put where."""
    looked = "no folder was named" if folder is None else f"looked in {folder}"
    files = "\n".join(f"  {name}{'' if path else '  (missing)'}" for name, path in zip(FILES, paths))
    return (
        f"python -m experiments mnist: the files of MNIST are missing ({looked}).\n{files}\n"
        "Put these four into one folder, as they are or gzipped (with .gz after the name), and name the folder by "
        "--data-dir or the environment variable JDROP_DATA."
    )


def prepare(images, labels):
    return images[..., None].astype(np.float32) / 255, labels.astype(np.int32)


def take(data, rows):
    return jax.tree.map(lambda array: array[rows], data)


def train(setting, key, data, held_out, test) -> dict:
    """Train a network on `data`; returns its row of the table."""
    count = round((1 - setting.validation) * len(data[1]))
    validation = take(data, slice(count, None))
    model = setting.model

    def loss_fn(params, batch, key):
        images, labels = batch
        rngs = None if key is None else {"dropout": key}
        logits = model.apply({"params": params}, images, key is None, rngs=rngs)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        if setting.l2:
            loss += jdrop.l2(params, setting.l2)
        return loss, {"error": jnp.mean(logits.argmax(-1) != labels)}

    evaluate = jdrop.training.make_eval_step(loss_fn)

    def error(state, data):
        batches = np.split(np.arange(len(data[1])), len(data[1]) // 1000)
        return np.mean([evaluate(state, take(data, batch))["error"] for batch in batches])

    state = jdrop.training.TrainState.create(
        apply_fn=model.apply,
        params=model.init(jdrop.fold_in(key, "init"), data[0][:1], True)["params"],
        tx=optax.adam(1e-3),
        key=key,
    )
    times = [time.perf_counter()]
    state, _ = jdrop.training.fit(
        state,
        jdrop.training.make_train_step(loss_fn),
        take(data, slice(count)),
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        callbacks=[lambda state, record: times.append(time.perf_counter())],
    )
    return {
        "epochs": setting.epochs,
        "seconds per epoch": f"{np.median(np.diff(times)):.2f}",  # the median, since the first epoch compiles
        "validation error %": f"{100 * error(state, validation):.2f}" if setting.validation else "-",
        "held-out error %": f"{100 * error(state, held_out):.2f}",
        "test error %": f"{100 * error(state, test):.2f}",
    }

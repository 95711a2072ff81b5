"""The comparison and its report."""

import argparse
import math
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import jdrop
from experiments.common.tables import save_table

TRAIN, BATCH, WIDTH, RATE = 1437, 64, 128, 0.5
MESHES = ((1, 1), (2, 1), (4, 1), (8, 1), (4, 2), (2, 4), (1, 8))  # devices along "data" and "model"
PROCESSES, DEVICES = 2, 2  # processes that train together, and devices of each
WEIGHTS = (np.arange(BATCH * WIDTH).reshape(BATCH, WIDTH) * 37 % 251).astype(np.float32)  # of a unit at its place
SPLIT = {
    "first": {"kernel": PartitionSpec(None, "model"), "bias": PartitionSpec("model")},
    "second": {"kernel": PartitionSpec("model", None), "bias": PartitionSpec()},
    "last": {"kernel": PartitionSpec(), "bias": PartitionSpec()},
}


class Network(nn.Module):
    """64-128-128-10; returns the logits and, while training, a digest of the units that were kept."""

    @nn.compact
    def __call__(self, x, train):
        digest = 0.0
        for name in ("first", "second"):
            x = nn.softplus(nn.Dense(WIDTH, name=name)(x))  # nowhere zero, so that a zero is a dropped unit
            if train:
                x = jdrop.linen.Dropout(RATE, deterministic=False)(x)
                digest += jnp.where(x != 0, WEIGHTS, 0).sum()  # of integers, exact in float32
        return nn.Dense(10, name="last")(x), digest


MODEL = Network()


def add_options(parser):
    parser.add_argument("--process", type=int, help=argparse.SUPPRESS)  # which of the two processes this is
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)


def run(args):
    epochs = 2 if args.quick else 20
    jax.config.update("jax_platforms", "cpu")
    if args.process is not None:
        return one_of_several(args, epochs)
    jax.config.update("jax_num_cpu_devices", 8)

    results = {}
    for shape in MESHES[:1] + MESHES[-3:-1] if args.quick else MESHES:
        axes = [f"{axis} {size}" for axis, size in zip(("data", "model"), shape) if size > 1]
        results[" x ".join(axes) or "one device"] = train(args.seed, epochs, shape)
    results[f"data {PROCESSES * DEVICES}, {PROCESSES} processes"] = several(args)

    first, rows = results["one device"], []
    for name, result in results.items():
        loss, parameter = (np.abs(result[part] - first[part]).max() for part in ("losses", "params"))
        rows.append(
            {
                "mesh": name,
                "masks equal": "yes" if np.array_equal(result["digests"], first["digests"]) else "no",
                "largest difference of a loss": f"{loss:.1e}",
                "largest difference of a parameter": f"{parameter:.1e}",
                "test accuracy": f"{result['accuracy']:.4f}",
            }
        )
    preface = f"{len(first['digests'])} steps of {BATCH} digits, {epochs} epochs; seed {args.seed}."
    print(save_table(rows, args.out, "meshes", preface))
    print(f"wrote meshes.csv and meshes.md in {args.out}")


def train(seed, epochs, shape):
    """Train on a mesh of (data, model) devices; what is to be compared, as NumPy's arrays."""
    root = jax.random.key(seed)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    rows, test = np.split(np.asarray(jax.random.permutation(jdrop.fold_in(root, "split"), len(images))), [TRAIN])
    steps = epochs * (TRAIN // BATCH)

    devices = np.array(jax.devices()[: math.prod(shape)]).reshape(shape)
    mesh = jax.sharding.Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    params = MODEL.init(jdrop.fold_in(root, "init"), images[:1], False)["params"]
    state = jdrop.training.TrainState.create(
        apply_fn=MODEL.apply,
        params=jax.tree.map(lambda leaf, spec: jax.device_put(leaf, NamedSharding(mesh, spec)), params, SPLIT),
        tx=optax.adam(3e-3),
        key=root,
        collections={"kept": {"digests": np.zeros(steps, np.float32)}},
    )
    sharding = None if shape == (1, 1) else NamedSharding(mesh, PartitionSpec("data"))
    state, history = jdrop.training.fit(
        state, STEP, (images[rows], labels[rows]), epochs=epochs, batch_size=BATCH, sharding=sharding, progress=False
    )
    metrics = jdrop.training.make_eval_step(loss_fn)(state, (images[test], labels[test]))
    return {
        "digests": np.asarray(state.collections["kept"]["digests"]),
        "losses": np.array(history["loss"]),
        "params": np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state.params)]),
        "accuracy": float(metrics["accuracy"]),
    }


def loss_fn(params, batch, key, kept):
    images, labels = batch
    rngs = None if key is None else {"dropout": key}
    logits, digest = MODEL.apply({"params": params}, images, key is not None, rngs=rngs)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    digests = jnp.roll(kept["digests"], -1).at[-1].set(digest)
    return loss, {"accuracy": (logits.argmax(-1) == labels).mean()}, {"kept": {"digests": digests}}


STEP = jdrop.training.make_train_step(loss_fn)


def several(args):
    """The result of processes that train together, each of them this experiment with the hidden options."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiments", "meshes", f"--seed={args.seed}", f"--port={port}"]
        command += [f"--out={folder}", *(["--quick"] if args.quick else [])]
        processes = [
            subprocess.Popen(
                [*command, f"--process={index}"],
                cwd=Path(__file__).parent.parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in range(PROCESSES)
        ]
        printed = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            raise RuntimeError("\n".join(["a process that trained with others has failed:", *printed]))
        with np.load(Path(folder) / "result.npz") as file:
            return dict(file)


def one_of_several(args, epochs):
    jax.config.update("jax_num_cpu_devices", DEVICES)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{args.port}", PROCESSES, args.process)
    result = train(args.seed, epochs, (PROCESSES * DEVICES, 1))
    if args.process == 0:
        np.savez(args.out / "result.npz", **result)

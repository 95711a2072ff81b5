"""One of several processes that train together: `process.py INDEX COUNT PORT FOLDER PART...`.

test_processes.py starts them. Each does the parts that are named, which are functions below, and leaves what came out
in FOLDER, as PART-INDEX.json.
"""

import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

index, count, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
jax.distributed.initialize(f"localhost:{port}", count, index)

from sharded import STEP, X, Y, evaluate, laid_out, make_mesh, make_state, numbers, train  # noqa: E402

import jdrop  # noqa: E402
from jdrop.training import _data as data_of_steps  # noqa: E402
from jdrop.training import fit, vmap_seeds  # noqa: E402


def data():
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xy")


def over_all(**options):
    return train(mesh=make_mesh((4, 1)), data=data(), **options)


def batches():
    """All devices share the batches; process 0 shows progress and writes the log and the checkpoints."""
    return over_all(eval_fn=evaluate, checkpoint_dir=folder / "batches", log=folder / "log.jsonl", progress=True)


def split():
    """The halves of the first layer lie in different processes."""
    mesh = make_mesh((2, 2), ("model", "data"))
    return train(laid_out(make_state(), mesh), mesh=mesh, data=data(), eval_fn=evaluate)


def split_scan():
    mesh = make_mesh((2, 2), ("model", "data"))
    return train(laid_out(make_state(), mesh), mesh=mesh, data=data(), eval_fn=evaluate, scan=True)


def own_rows():
    """What is not of this process's part of a batch is not a number."""
    order = np.asarray(jax.random.permutation(jdrop.fold_in(jax.random.key(0), "shuffle", 0), len(X)))
    mine = order.reshape(4, count, -1)[:, index].ravel()
    x = np.full_like(X, np.nan)
    x[mine] = X[mine]
    return train(mesh=make_mesh((4, 1)), data=(x, Y), epochs=1)


def seeds():
    """Each process has half of the seeds."""
    mesh = make_mesh((4,), ("seed",))
    stack = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *map(make_state, range(4)))
    step, evaluation = vmap_seeds(STEP), vmap_seeds(evaluate)
    over_seeds = NamedSharding(mesh, PartitionSpec("seed"))

    @jax.jit
    def lay_out(tree):
        return jax.lax.with_sharding_constraint(tree, over_seeds)

    for epochs in (2, 4):
        result = train(
            lay_out(stack), step, mesh, ("seed",), data(), epochs=epochs, checkpoint_dir=folder / "seeds",
            eval_fn=evaluation, patience=50, keep_best=True,
        )  # fmt: skip
    assert result[0].params["first"]["w"].sharding.is_equivalent_to(over_seeds, 3)
    return result


def going_on():
    """From a checkpoint that one process wrote in the middle of an epoch."""
    return over_all(eval_fn=evaluate, checkpoint_dir=folder / "one")


def half():
    """A checkpoint for one process to go on from."""
    mesh = make_mesh((2, 2), ("model", "data"))
    return train(laid_out(make_state(), mesh), mesh=mesh, epochs=2, eval_fn=evaluate, checkpoint_dir=folder / "half")


def interrupted(name, at):
    """A run that gets Ctrl-C in the middle of a step; what it ends with."""
    calls, gather = [], data_of_steps.gather

    def interrupting(*arguments):
        calls.append(0)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
        return gather(*arguments)

    with mock.patch.object(data_of_steps, "gather", interrupting):
        kept = []
        try:
            over_all(
                eval_fn=evaluate, checkpoint_dir=folder / name, save_every=100,
                callbacks=[lambda *call: kept.append(call)],
            )  # fmt: skip
        except KeyboardInterrupt:
            state, record = kept[-1]
            assert record["interrupted"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return state, {}


def interrupted_both():
    return interrupted("both", at=(2, 3)[index])


def interrupted_one():
    return interrupted("only", at=(None, 6)[index])


def resumed():
    return over_all(eval_fn=evaluate, checkpoint_dir=folder / "only")


def no_room():
    """A folder that the first process can't write to any more ends the run in all of them."""
    kept = folder / "no_room"

    def take_away(state, record):
        if index == 0 and record["step"] == 8:
            kept.rename(folder / "aside_no_room")
            kept.write_text("")

    try:
        over_all(eval_fn=evaluate, checkpoint_dir=kept, callbacks=[take_away])
    except ValueError as error:
        return str(error)


def another_state():
    """A mistake that would otherwise go unseen."""
    try:
        train(make_state(index), mesh=make_mesh((4, 1)))
    except ValueError as error:
        return str(error)


def no_sharding():
    try:
        fit(make_state(), STEP, data(), epochs=1, batch_size=16)
    except TypeError as error:
        return str(error)


for name in sys.argv[5:]:
    print(f"process {index}: {name}", flush=True)
    result = globals()[name]()
    if not isinstance(result, str):
        state, history = result
        whole = multihost_utils.process_allgather(numbers(state), tiled=True)
        result = [[leaf.tolist() for leaf in whole], history]
    (folder / f"{name}-{index}.json").write_text(json.dumps(result))

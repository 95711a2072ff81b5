"""What a checkpoint holds of a run, and a run that goes on from it."""

import json

import numpy as np

from jdrop.training._first import CheckpointError
from jdrop.training._layout import on_host
from jdrop.training._leaves import data_of
from jdrop.training._storage import restore


def contents(run, stopping, source, settings, log):
    """(tree of arrays, everything else as JSON has it) of a run whose numbers go to the file `log`, if any."""
    about = {
        **_identity(run, source),
        "alike": _alike(run, source, settings),
        "source": source.state(),
        "step": run.step,
        "history": run.history,
        "metrics": {name: str(array.dtype) for name, array in run.metrics.arrays.items()},
        "evaluated": run.evaluated,
        "patience": stopping.patience,
        "keep_best": stopping.keep_best,
        "has_kept": stopping.kept is not None,
        "best_loss": stopping.best_loss.tolist(),
        "waited": stopping.waited.tolist(),
        "log": None if log is None else [str(log), log.stat().st_size if log.exists() else 0],
    }
    return _tree(run, stopping), about


def go_on(run, stopping, source, settings, path, about, end):
    """Take over the checkpoint at `path`, in a run that ends at the step `end`.

    Raises:
      CheckpointError: it is another run's.
    """
    _compare(path, about, _identity(run, source))
    if about["step"] > end:
        raise CheckpointError(
            f"the checkpoint {path} is beyond step {end}, where epochs={(end - run.start) // run.steps} ends: "
            "write more epochs, or give another checkpoint_dir."
        )
    if np.shape(about["best_loss"]) != run.stack or np.shape(about["waited"]) != run.stack:
        raise CheckpointError(f"the checkpoint {path} is of another number of seeds: give another checkpoint_dir.")
    compared = np.isfinite(about["best_loss"]).any()
    if (compared and about["keep_best"] != stopping.keep_best) or (
        run.stack and about["patience"] not in (None, stopping.patience)
    ):
        was, here = ({name: of[name] for name in ("patience", "keep_best")} for of in (about, vars(stopping)))
        raise CheckpointError(
            f"the checkpoint {path} is of a run with {was}, but here it is {here}: what has stopped, or was not kept, "
            "can't go on. Resume with the same, or give another checkpoint_dir."
        )
    root = on_host(data_of(run.state.key))
    alike = _alike(run, source, settings)
    run.metrics.allocate(about["metrics"])
    stopping.kept = run.state if about["has_kept"] else None
    tree = restore(path, about, _tree(run, stopping))
    if not np.array_equal(root, on_host(data_of(tree["state"].key))):
        raise CheckpointError(
            f"the checkpoint {path} is of a run with another root key: resume with the key that the run began "
            "with, or give another checkpoint_dir."
        )
    _compare(path, about["alike"], alike)
    try:
        source.restore(about["source"], about["step"])
    except Exception as error:  # whatever an iterator of another library raises
        raise CheckpointError(f"the data can't go on where the checkpoint {path} was: {error}.") from error
    run.state, stopping.kept, run.metrics.arrays = tree["state"], tree["kept"], tree["metrics"]
    run.step = run.checked = about["step"]
    run.history, run.evaluated = about["history"], about["evaluated"]
    stopping.best_loss, stopping.waited = np.array(about["best_loss"], float), np.array(about["waited"], int)


def _tree(run, stopping):
    return {"state": run.state, "kept": stopping.kept, "metrics": run.metrics.arrays}


def _identity(run, source):
    """What a resumed run must have in common with the one that was interrupted."""
    batch_size = source.batch_size if source.examples else None
    return {"start": run.start, "examples": source.examples, "batch_size": batch_size, "seeds": list(run.stack)}


def _alike(run, source, settings):
    """What else can be known of a run, and is compared where both know it."""
    optimizer, hyperparameters = run.optimizer
    return {"data": source.fingerprint, "optimizer": optimizer, "hyperparameters": hyperparameters, **settings}


def _compare(path, there, here):
    for name, mine in here.items():
        if mine is not None and there.get(name) is not None and json.dumps(there[name]) != json.dumps(mine):
            raise CheckpointError(
                f"the checkpoint {path} is of a run with {name} {there[name]}, but here it is {mine}: resume with "
                "what the run began with, or give another checkpoint_dir."
            )

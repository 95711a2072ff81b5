"""What a checkpoint holds of a run, and a run that goes on from it."""

import numpy as np

from jdrop.training._layout import on_host
from jdrop.training._leaves import data_of
from jdrop.training._storage import CheckpointError, restore


def contents(run, stopping, log):
    """(tree of arrays, everything else as JSON has it) of a run whose numbers go to the file `log`, if any."""
    about = {
        **_identity(run),
        "step": run.step,
        "history": run.history,
        "metrics": {name: str(array.dtype) for name, array in run.metrics.arrays.items()},
        "evaluated": run.evaluated,
        "patience": stopping.patience,
        "keep_best": stopping.keep_best,
        "has_kept": stopping.kept is not None,
        "best_loss": stopping.best_loss.tolist(),
        "waited": stopping.waited.tolist(),
        "log": None if log is None else [str(log), log.stat().st_size],
    }
    return _tree(run, stopping), about


def go_on(run, stopping, path, about, end):
    """Take over the checkpoint at `path`, in a run that ends at the step `end`.

    Raises:
      CheckpointError: it is another run's.
    """
    for name, mine in _identity(run).items():
        if about[name] != mine:
            raise CheckpointError(
                f"the checkpoint {path} is of a run with {name} {about[name]}, but here it is {mine}: resume with "
                "what the run began with, or give another checkpoint_dir."
            )
    if about["step"] > end:
        raise CheckpointError(
            f"the checkpoint {path} is beyond step {end}, where epochs={(end - run.start) // run.steps} ends: "
            "write more epochs, or give another checkpoint_dir."
        )
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
    run.metrics.allocate(about["metrics"])
    stopping.kept = run.state if about["has_kept"] else None
    tree = restore(path, about, _tree(run, stopping))
    if not np.array_equal(root, on_host(data_of(tree["state"].key))):
        raise CheckpointError(
            f"the checkpoint {path} is of a run with another root key: resume with the key that the run began "
            "with, or give another checkpoint_dir."
        )
    run.state, stopping.kept, run.metrics.arrays = tree["state"], tree["kept"], tree["metrics"]
    run.step = run.checked = about["step"]
    run.history, run.evaluated = about["history"], about["evaluated"]
    stopping.best_loss, stopping.waited = np.array(about["best_loss"], float), np.array(about["waited"], int)


def _tree(run, stopping):
    return {"state": run.state, "kept": stopping.kept, "metrics": run.metrics.arrays}


def _identity(run):
    """What a resumed run must have in common with the one that was interrupted."""
    return {
        "start": run.start,
        "examples": run.examples,
        "batch_size": run.batch_size,
        "seeds": list(run.stack),
    }

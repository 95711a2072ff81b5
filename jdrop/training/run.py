"""A run: what training changes from step to step, and what its checkpoints hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jdrop.training import checkpoint
from jdrop.training.layout import on_host
from jdrop.training.leaves import data_of, with_data
from jdrop.training.records import (
    NonFiniteLossError,
    averages,
    check_finite,
    check_real,
    empty_records,
    record,
    record_dtypes,
)


class Run:
    """The state at a step, the metrics of the epoch so far, the history, and the best state.

    A stack of n states has `stack` (n,), and every number of the run is then an array of n.
    """

    def __init__(self, state, examples, batch_size, patience, everywhere):
        self.state, self.everywhere, self.stack = state, everywhere, state.key.shape
        numbers = np.unique(on_host(state.step))
        if len(self.stack) > 1 or len(numbers) != 1 or np.shape(state.step) != self.stack:
            raise ValueError(
                f"state has keys of shape {self.stack} and steps {numbers.tolist()}, but one state, or a stack of "
                "states at the same step, is needed: make it by jax.vmap(make_state)(keys)."
            )
        self.step = self.start = self.checked = int(numbers[0])
        self.examples, self.batch_size, self.steps = examples, batch_size, examples // batch_size  # steps an epoch
        self.records, self.history, self.evaluated = {}, {}, True
        self.folder = self.saved = self.dtypes = self.log = None
        self.best, self.best_loss = None, np.full(self.stack, np.inf)
        self.patience, self.waited = patience, np.zeros(self.stack, int)

    @property
    def stopped(self):
        """Which seeds have waited as long as the patience lasts."""
        return self.waited >= (np.inf if self.patience is None else self.patience)

    def root(self):
        """The root key, in this process alone."""
        return with_data(self.state.key, on_host(data_of(self.state.key)))

    def is_deleted(self):
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))

    def make_records(self, metrics):
        """Make room for the metrics of an epoch, of which these are a step's."""
        self.dtypes = self.dtypes or record_dtypes(metrics)
        self.records = self.records or empty_records(self.dtypes, self.steps, self.stack, self.everywhere)
        if metrics.keys() != self.records.keys():
            raise ValueError(
                f"train_step returned the metrics {sorted(metrics)}, but those of the epoch's steps before are "
                f"{sorted(self.records)}: return the same ones at every step, also in a run that is resumed."
            )

    def advance(self, state, metrics):
        """Take over what a step returned."""
        self.make_records(metrics)
        records = record(self.records, metrics, np.int32(self.step % self.steps))
        self.advance_to(self.step + 1, state, records)

    def advance_to(self, step, state, records):
        self.state, self.records, self.step, self.evaluated = state, records, step, False

    def check(self):
        """Raise if the loss of a step since the last check is not finite."""
        first = (self.step - 1) // self.steps * self.steps  # of the epoch
        if self.step > self.checked:
            losses = np.asarray(self.records["loss"])[self.checked - first : self.step - first]
            check_finite(losses, self.checked, self.stopped)
            self.checked = self.step

    def end_epoch(self):
        """Average the epoch's records into the history."""
        first = max(self.start - (self.step - self.steps), 0)
        means, self.records = averages(self.records, first), {}
        return self._remember({name: np.where(self.stopped, np.nan, mean) for name, mean in means.items()})

    def evaluate(self, eval_fn):
        """Evaluate the state into the history, and keep it if it is the best."""
        metrics = eval_fn(self.state)
        if self.is_deleted():
            raise ValueError(
                "eval_fn has donated the state that it was given, which training still needs: write "
                "vmap_seeds(eval_fn, donate_argnums=())."
            )
        if not isinstance(metrics, dict) or (self.patience is not None and "loss" not in metrics):
            came = sorted(metrics) if isinstance(metrics, dict) else f"a {type(metrics).__name__}"
            raise ValueError(
                f"eval_fn returned {came}, but a dict of metrics, with patience one that has a 'loss', is needed."
            )
        for name, value in metrics.items():
            check_real(f"eval_fn returned {name!r}", value)
        metrics = {name: np.asarray(value, float) for name, value in on_host(metrics).items()}
        for name, value in metrics.items():
            if value.shape != self.stack:
                raise ValueError(
                    f"eval_fn returned {name!r} of shape {value.shape}, but {self.stack} is needed: a number a state; "
                    "write vmap_seeds(eval_fn, donate_argnums=()) for a stack of states."
                )
        stopped = self.stopped
        if self.patience is not None:
            self._compare(metrics["loss"])
        self.evaluated = True
        return self._remember({f"eval_{name}": np.where(stopped, np.nan, value) for name, value in metrics.items()})

    def _compare(self, losses):
        if not np.all(np.isfinite(losses) | self.stopped):
            raise NonFiniteLossError(
                f"the evaluation's loss after epoch {-(-self.step // self.steps)} (step {self.step}) is {losses}: "
                "early stopping cannot compare it; look for bad values in the evaluation data."
            )
        better = (losses < self.best_loss) & ~self.stopped
        self.best = jax.tree.map(jnp.copy, self.state) if self.best is None else _choose(better, self.state, self.best)
        self.best_loss = np.where(better, losses, self.best_loss)
        self.waited = np.where(better, 0, self.waited + ~self.stopped)

    def _remember(self, values):
        values = {name: value.tolist() for name, value in values.items()}
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        return values

    def result(self):
        """The best state so far, or the last one where none is looked for."""
        return self.state if self.patience is None or self.best is None else self.best

    def open(self, folder, resume, end):
        """Take a folder for the run's checkpoints, and go on from the newest one."""
        checkpoint.prepare(folder)
        if resume:
            self._resume(folder, end)
        elif checkpoint.checkpoint_steps(folder):
            raise checkpoint.CheckpointError(
                f"checkpoint_dir {folder} holds checkpoints: write resume=True to go on with that run, or give another."
            )
        self.folder, self.saved = folder, self.step

    def save(self, due, keep, log):
        """Save the run in its folder, if it has one and has not been saved at this step."""
        if self.folder is None or not due or self.saved == self.step:
            return
        record = {
            **self._identity(),
            "step": self.step,
            "history": self.history,
            "metrics": {name: str(of_steps.dtype) for name, of_steps in self.records.items()},
            "has_best": self.best is not None,
            "best_loss": self.best_loss.tolist(),
            "waited": self.waited.tolist(),
            "evaluated": self.evaluated,
            "patience": self.patience,
            "log": None if log is None else [str(log), log.stat().st_size],
        }
        checkpoint.save(self.folder, self.step, self._tree(), record, keep)
        self.saved = self.step

    def _resume(self, folder, end):
        """Take over the newest whole checkpoint, if there is one."""
        found = checkpoint.newest(folder)
        if found is None:
            return
        path, record = found
        for name, mine in self._identity().items():
            if record[name] != mine:
                raise checkpoint.CheckpointError(
                    f"the checkpoint {path} is of a run with {name} {record[name]}, but here it is {mine}: resume with "
                    "what the run began with, or give another checkpoint_dir."
                )
        if record["step"] > end:
            raise checkpoint.CheckpointError(
                f"the checkpoint {path} is beyond step {end}, where epochs={(end - self.start) // self.steps} ends: "
                "write more epochs, or give another checkpoint_dir."
            )
        if self.stack and record["patience"] not in (None, self.patience):
            raise checkpoint.CheckpointError(
                f"the checkpoint {path} is of seeds trained with patience {record['patience']}, but here it is "
                f"{self.patience}: those that have stopped can't go on. Resume with the same, or give another "
                "checkpoint_dir."
            )
        root = on_host(data_of(self.state.key))
        self.records = empty_records(record["metrics"], self.steps, self.stack, self.everywhere)
        self.best = self.state if record["has_best"] else None
        tree = checkpoint.restore(path, record, self._tree())
        if not np.array_equal(root, on_host(data_of(tree["state"].key))):
            raise checkpoint.CheckpointError(
                f"the checkpoint {path} is of a run with another root key: resume with the key that the run began "
                "with, or give another checkpoint_dir."
            )
        self.state, self.best, self.records = tree["state"], tree["best"], tree["records"]
        self.step = self.checked = record["step"]
        self.history, self.evaluated, self.log = record["history"], record["evaluated"], record["log"]
        self.best_loss, self.waited = np.array(record["best_loss"], float), np.array(record["waited"], int)

    def _tree(self):
        return {"state": self.state, "best": self.best, "records": self.records}

    def _identity(self):
        """What a resumed run must have in common with the one that was interrupted."""
        return {
            "start": self.start,
            "examples": self.examples,
            "batch_size": self.batch_size,
            "seeds": list(self.stack),
        }


@functools.partial(jax.jit, donate_argnums=2)
def _choose(better, new, old):
    """The new state's leaves for the seeds that are better."""

    def choose(new, old):
        data = data_of(new)  # a select of keys would count as a use of both
        chosen = jnp.where(better.reshape(better.shape + (1,) * (data.ndim - better.ndim)), data, data_of(old))
        return with_data(new, chosen)

    return jax.tree.map(choose, new, old)

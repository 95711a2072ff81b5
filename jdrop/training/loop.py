"""The training loop."""

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jdrop.keys import fold_in
from jdrop.masks.shape import as_size


class NonFiniteLossError(FloatingPointError, ValueError):
    """The training loss became NaN or infinite."""


def fit(state, train_step, data, *, epochs, batch_size, eval_fn=None, patience=None, progress=True):
    """Train for some epochs over data in memory.

    Epoch e of the run visits the n examples in the order ``permutation(fold_in(state.key, "shuffle", e), n)``, in
    ``n // batch_size`` whole batches; the ``n % batch_size`` at the end of the order wait for another epoch's. The
    number of the first epoch follows from ``state.step``, so that a second `fit` goes on where a first one stopped.

    Args:
      state: a `TrainState`; it is copied, so that the caller's stays usable.
      train_step: `(state, batch) -> (state, metrics)`, from `make_train_step`.
      data: a tree of arrays with the same first axis, the examples.
      epochs: how many passes, at least 0.
      batch_size: examples a step, 1 to the number of examples.
      eval_fn: `(state) -> metrics`, called after each epoch.
      patience: stop after this many epochs without a lower "loss" from `eval_fn`, and return the best state.
      progress: show a progress bar.

    Returns:
      (state, history): the last state, or with `patience` the one with the lowest evaluation loss; and a dict of
      lists with a number an epoch: each training metric averaged over the epoch's steps, and each metric of
      `eval_fn` under "eval_" and its name.

    Raises:
      NonFiniteLossError: a step's loss is NaN or infinite; the message names the step.
      ValueError: sizes that do not fit, or `patience` without an evaluation loss.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5) @ params["w"]) ** 2).mean(), {}
      >>> state = jdrop.training.TrainState.create(
      ...     apply_fn=None, params={"w": jnp.ones(3)}, tx=optax.sgd(0.1), key=jax.random.key(0))
      >>> step = jdrop.training.make_train_step(loss_fn)
      >>> state, history = jdrop.training.fit(
      ...     state, step, jnp.ones((8, 3)), epochs=2, batch_size=4, progress=False)
      >>> len(history["loss"])
      2
    """
    examples = _count_examples(data)
    epochs, batch_size = as_size("epochs", epochs, 0), as_size("batch_size", batch_size)
    if batch_size > examples:
        raise ValueError(
            f"batch_size is {batch_size}, but there are only {examples} examples: write batch_size={examples} or less."
        )
    if patience is not None and (as_size("patience", patience) and eval_fn is None):
        raise ValueError("patience needs an evaluation to wait for: pass an eval_fn that returns a dict with a 'loss'.")
    data = jax.tree.map(np.asarray, data)
    steps = examples // batch_size
    root = state.key
    state = jax.tree.map(jnp.copy, state)
    start = int(state.step) // steps
    best, best_loss, waited = state, np.inf, 0  # the first epoch's evaluation is finite, and lower
    history = {}
    with _progress_bar(epochs * steps, progress) as advance:
        for epoch in range(epochs):
            order = np.asarray(jax.random.permutation(fold_in(root, "shuffle", start + epoch), examples))
            first_step = int(state.step)
            records = []
            for batch in np.split(order[: steps * batch_size], steps):
                state, metrics = train_step(state, jax.tree.map(lambda array, rows=batch: array[rows], data))
                records.append(metrics)
                advance(1, f"epoch {epoch + 1}/{epochs}")
            records = jax.device_get(records)
            _check_finite(records, first_step)
            for name in records[0]:
                history.setdefault(name, []).append(float(np.mean([record[name] for record in records])))
            summary = f"epoch {epoch + 1}/{epochs}  loss {history['loss'][-1]:.4g}"
            if eval_fn is not None:
                evaluation = _evaluation(eval_fn, state, patience, epoch)
                for name, value in evaluation.items():
                    history.setdefault(f"eval_{name}", []).append(value)
                summary += "".join(f"  eval {name} {value:.4g}" for name, value in evaluation.items())
            advance(0, summary)
            if patience is not None:
                if evaluation["loss"] < best_loss:
                    best, best_loss, waited = jax.tree.map(jnp.copy, state), evaluation["loss"], 0
                else:
                    waited += 1
                if waited >= patience:
                    break
    return (state if patience is None else best), history


def _count_examples(data) -> int:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    sizes = sorted({shape[0] if shape else 0 for shape in shapes})
    if len(sizes) != 1 or sizes[0] == 0:
        raise ValueError(
            f"data has arrays with first axes of {sizes}, but all need the same one, the examples, of at least 1: give "
            "arrays, not lists of numbers."
        )
    return sizes[0]


def _evaluation(eval_fn, state, patience, epoch):
    metrics = eval_fn(state)
    if not isinstance(metrics, dict) or (patience is not None and "loss" not in metrics):
        came = sorted(metrics) if isinstance(metrics, dict) else f"a {type(metrics).__name__}"
        raise ValueError(
            f"eval_fn returned {came}, but a dict of metrics, with patience one that has a 'loss', is needed."
        )
    metrics = {name: float(value) for name, value in metrics.items()}
    if patience is not None and not np.isfinite(metrics["loss"]):
        raise NonFiniteLossError(
            f"the evaluation's loss after epoch {epoch + 1} (step {int(state.step)}) is {metrics['loss']}: early "
            "stopping cannot compare it; look for bad values in the evaluation data."
        )
    return metrics


def _check_finite(records, first_step):
    for step, record in enumerate(records, first_step):
        if not np.all(np.isfinite(record["loss"])):
            raise NonFiniteLossError(
                f"the loss of step {step} is {record['loss']}: lower the learning rate, clip the gradient "
                "(optax.clip_by_global_norm), or look for bad values in the data."
            )


class _progress_bar:
    """A bar over all steps, as a context that yields `advance(steps, text)`."""

    def __init__(self, total, shown):
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self.task = self.bar.add_task("training", total=total)

    def __enter__(self):
        self.bar.start()
        return lambda steps, text: self.bar.update(self.task, advance=steps, description=text)

    def __exit__(self, *error):
        self.bar.stop()

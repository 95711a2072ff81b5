"""The training loop."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax.experimental import multihost_utils

from jdrop._checks import as_bool, as_size, check_callable
from jdrop._types import PyTree
from jdrop.training._checkpoints import Checkpoints
from jdrop.training._interrupt import interrupts
from jdrop.training._layout import keep_layout, own, replicated
from jdrop.training._log import Reporter, open_log
from jdrop.training._loops import all_steps, each_step
from jdrop.training._progress import progress_bar
from jdrop.training._run import Run
from jdrop.training._sources import as_source
from jdrop.training._state import TrainState
from jdrop.training._step import settings_of
from jdrop.training._stopping import Stopping


def fit(
    state: TrainState,
    train_step: Callable[[TrainState, Any], tuple[TrainState, Any]],
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    eval_fn: Callable[[TrainState], Any] | None = None,
    eval_every: int | None = None,
    patience: int | None = None,
    keep_best: bool = False,
    scan: bool = False,
    sharding: PyTree | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    save_every: int | None = None,
    keep: int | None = 3,
    resume: bool = True,
    callbacks: Iterable[Callable[[TrainState, dict[str, Any]], Any]] = (),
    log: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> tuple[TrainState, dict[str, list[Any]]]:
    """Train for some epochs over data; stopped at any time, the same call goes on to the same result.

    Epoch e of a run is its steps ``e * s`` to ``(e + 1) * s``, where ``s = n // batch_size``. It visits the n examples
    in the order ``permutation(fold_in(state.key, "shuffle", e), n)``, in s whole batches; the ``n % batch_size`` at the
    end of the order wait for another epoch's. So what step t sees and draws follows from the root key and t alone, and
    a second `fit` goes on where a first one stopped.

    Args:
      state: a `TrainState`, or a stack of them (`vmap_seeds`); it is copied, so that the caller's stays usable.
      train_step: `(state, batch) -> (state, metrics)`, from `make_train_step`; make it once, since each new one is
        compiled anew. Metrics are recorded in float32 (float64 stays); "step", "epoch", "seconds",
        "examples_per_second" and "eval_..." can't be their names.
      data: a tree of arrays with the same first axis, the n examples, or an object that has a length n and gives
        example i for ``data[i]``, both read batch by batch. Or, without a `batch_size`, an iterable of batches that can
        be read again, whose order is its own: a list, a PyTorch `DataLoader`, tf.data or grain's datasets. Where its
        iterator has `get_state` and `set_state`, as grain's, the state is saved with each checkpoint; another is read
        again up to where the run was, which gives the same batches if its order is the same each time.
      epochs: how many passes, at least 0; from the middle of an epoch on, the rest of it is the first.
      batch_size: examples a step, 1 to n; None for batches.
      steps_per_epoch: how many batches make an epoch, at least 1; None takes a whole pass over them. An iterator of
        grain's, which has no length, needs it. A stack of states sees each batch with every seed.
      eval_fn: `(state) -> metrics`, a dict of numbers, called after each epoch. The state is donated later: copy what
        is to be kept of it.
      eval_every: evaluate after each so many steps of the run instead, at least 1.
      patience: stop after this many evaluations without a lower "loss", at least 1.
      keep_best: return the state with the lowest "loss" of the evaluations, and not the last one.
      scan: True keeps the data on the device and runs all steps between two events (the end of an epoch, an
        evaluation, a save) as one compiled loop: for data that fit into its memory, and short steps.
      sharding: a `NamedSharding` of a batch, or a tree of them as `data`. What of the state is laid out on that mesh
        stays so, the rest is replicated over it, and `train_step` is jitted with a result laid out alike. With
        several processes each has the same state and all of `data`, memory-mapped perhaps, and reads the rows of its
        own devices.
      checkpoint_dir: a folder for checkpoints, one folder a step; shared by all processes. `fit` saves there at its end
        too, and raises if what it holds is another run's.
      save_every: steps from one checkpoint to the next, at least 1; None saves after each epoch.
      keep: how many checkpoints to keep, at least 1; None keeps all.
      resume: True goes on from the newest whole checkpoint of `checkpoint_dir`; False wants that folder empty.
      callbacks: functions `(state, record)`, called after each epoch and evaluation with a dict of the "step" it
        follows, the "epoch", and what entered the history. As with `eval_fn`, the state is donated later. After
        Ctrl-C they are called once more, with "interrupted" in the record and a state that is theirs to keep.
      log: a file to which each record is appended as a line of JSON, with the "seconds" since the call began and the
        "examples_per_second" of the steps since the last record. A resumed run cuts off what was written after its
        checkpoint.
      progress: show a progress bar with the throughput and the time left.

    Returns:
      (state, history): the last state, or with `keep_best` the one with the lowest evaluation loss; and a dict of
      lists: each training metric averaged over an epoch's steps, a number an epoch, and each metric of `eval_fn` under
      "eval_" and its name, a number an evaluation. A stack of states has lists of numbers in their place, with NaN for
      a seed that has stopped earlier than others, and whose state is the one that it stopped with.

    Raises:
      KeyboardInterrupt: Ctrl-C, after the step in progress is made, the run saved in `checkpoint_dir`, and `callbacks`
        called. (With several processes, at the next event; a second Ctrl-C raises at once; where the program handles
        the signal itself, `fit` leaves that to it.)
      NonFiniteLossError: a step's loss is NaN or infinite; the message names the step. Such a state is never saved.
        With `optax.apply_if_finite`, which leaves out such steps, it is raised when the parameters are not finite.
      CheckpointError: a checkpoint can't be written, none can be read, another run is using the folder, or it is
        another run's: another model, optimizer (by its state, and the hyperparameters in that), kind of key, root key,
        data (by shapes, types and 32 rows), batch size, `eval_every`, `accumulate` or `per_example`, or one that has
        gone further than `epochs`. The code of the loss, and hyperparameters that no state shows, can't be compared.
      TypeError: a state of another kind, metrics that are not real numbers, a `sharding` that is none of a mesh, or
        that several processes need and have not.
      ValueError: sizes that do not fit, `patience` or `keep_best` without an evaluation loss, or processes with
        different states.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5) @ params["w"]) ** 2).mean(), {}
      >>> tx = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.linear_schedule(0.1, 0.0, 100)))
      >>> state = jdrop.training.TrainState.create(
      ...     params={"w": jnp.ones(3)}, tx=tx, key=jax.random.key(0))
      >>> step = jdrop.training.make_train_step(loss_fn)
      >>> state, history = jdrop.training.fit(
      ...     state, step, jnp.ones((8, 3)), epochs=2, batch_size=4, progress=False)
      >>> len(history["loss"])
      2
    """
    epochs, source = as_size("epochs", epochs, 0, write=10), as_source(data, batch_size, steps_per_epoch)
    keep_best, scan, resume, progress = (
        as_bool(name, value)
        for name, value in {"keep_best": keep_best, "scan": scan, "resume": resume, "progress": progress}.items()
    )
    check_callable("train_step", train_step, "(state, batch)")
    if eval_fn is not None:
        check_callable("eval_fn", eval_fn, "(state)")
    try:
        callbacks = list(callbacks)
    except TypeError:
        came = type(callbacks).__name__
        raise TypeError(f"callbacks is a {came}, but a list of functions is needed: write [f].") from None
    for callback in callbacks:
        check_callable("one of callbacks", callback, "(state, record)")
    if scan and not source.is_arrays:
        raise ValueError("scan=True keeps the data on the device, but data is no tree of arrays: write scan=False.")
    sizes = {"patience": (patience, 5), "eval_every": (eval_every, 100), "save_every": (save_every, 100)}
    sizes |= {"keep": (keep, 3)}
    patience, eval_every, save_every, keep = (
        None if value is None else as_size(name, value, write=write) for name, (value, write) in sizes.items()
    )
    for name, value in (("patience", patience), ("eval_every", eval_every), ("keep_best", keep_best or None)):
        if value is not None and eval_fn is None:
            raise ValueError(f"{name} needs an evaluation: pass an eval_fn that returns a dict with a 'loss'.")
    if save_every is not None and checkpoint_dir is None:
        raise ValueError("save_every needs a place to save to: pass a checkpoint_dir.")
    if not isinstance(state, TrainState):
        raise TypeError(
            f"state is a {type(state).__name__}, but a jdrop.training.TrainState is needed, which has the run's root "
            "key: write TrainState.create(params=params, tx=tx, key=jax.random.key(0))."
        )

    everywhere = replicated(sharding)
    run = Run(own(state, everywhere), source.steps, everywhere)
    source.begin(run, sharding)
    stopping = Stopping(patience, keep_best, run.stack)
    end = (run.start // run.steps + epochs) * run.steps
    settings = {"eval_every": eval_fn and (eval_every or run.steps), **settings_of(train_step)}
    eval_every, save_every = eval_every or run.steps, save_every or run.steps
    with contextlib.ExitStack() as held:
        checkpoints, resumed = None, None
        if checkpoint_dir is not None:
            checkpoints = Checkpoints(checkpoint_dir, save_every, keep, resume, source, settings)
            resumed = held.enter_context(checkpoints.opened(run, stopping, end))
        journal = checkpoints and checkpoints.journal
        log = open_log(log, journal, resumed)
        if everywhere is not None:
            train_step = keep_layout(train_step, run.state, everywhere, donate_argnums=0)
        elif run.stack:
            train_step = jax.jit(train_step, donate_argnums=0)  # which `vmap_seeds` leaves to its caller
        train = (all_steps if scan else each_step)(run, train_step, source, sharding)
        events = [run.steps] + [eval_every] * (eval_fn is not None) + [save_every]
        asked = held.enter_context(interrupts())
        shown = progress and jax.process_index() == 0
        advance = held.enter_context(progress_bar(run.step, end, lambda: run.examples(source), shown))
        reporter, seconds = Reporter(run, source, callbacks, log, journal, advance, end // run.steps), 0.0
        while True:
            try:
                news = run.end_epoch(stopping.stopped) if run.metrics.arrays and run.step % run.steps == 0 else {}
                if eval_fn is not None and not run.evaluated and run.step % eval_every == 0:
                    news |= run.evaluate(eval_fn, stopping)
                if news:
                    reporter.report(news, seconds)
                    seconds = 0.0
            except KeyboardInterrupt:
                if jax.process_count() > 1:
                    raise
                asked.set()
            finished = run.step >= end or stopping.stopped.all()
            interrupted = _any_process(asked) and not finished
            if checkpoints is not None:
                checkpoints.save(run, stopping, log, finished or interrupted)
            if interrupted:
                reporter.report_interrupt()
                raise KeyboardInterrupt(_advice(run.step, end, checkpoints))
            if finished:
                return stopping.result(run.state), run.history
            began = time.monotonic()
            train(min(end, *((run.step // every + 1) * every for every in events)), asked, advance)
            run.check(stopping.stopped)
            seconds += time.monotonic() - began


def _advice(step, end, checkpoints):
    where = "nowhere: give a checkpoint_dir" if checkpoints is None else f"in {checkpoints.folder}: make the same call"
    return f"fit was interrupted at step {step} of {end}; what is trained is saved {where} to go on from there."


def _any_process(asked):
    """Whether any process was asked to stop, the same answer in all."""
    return asked.is_set() if jax.process_count() == 1 else multihost_utils.process_allgather(asked.is_set()).any()

"""One jitted training step, and its evaluation."""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jdrop._checks import as_bool, as_size, count_examples
from jdrop._keys import fold_in
from jdrop.training._state import TrainState, without_weak_types


def make_train_step(
    loss_fn: Callable[..., Any], *, accumulate: int = 1, per_example: bool = False
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Make the jitted function `(state, batch) -> (state, metrics)` of one gradient update.

    ``params <- params + tx(mean over i < accumulate of d loss_i / d params)``, where loss_i is the loss of micro-batch
    i: the examples i, i + accumulate, i + 2 accumulate, ... of the batch. The optimizer gets `value`, `grad` and
    `value_fn` too, where it takes them. The step's key is
    ``s = fold_in(state.key, "dropout", state.step)``, and the loss draws

    * of the whole batch from s itself;
    * of micro-batch i, with ``accumulate > 1``, from ``fold_in(s, i)``;
    * of example j of the whole batch, with `per_example`, from ``fold_in(s, j)``.

    Args:
      loss_fn: `(params, batch, key) -> loss`, a scalar, or `(loss, metrics)` with a dict of arrays. Where the state
        carries other collections it gets them by name, `(params, batch, key, batch_stats=...)`, and may return their
        update as a third value, `{"batch_stats": ...}`. An argument named `step` gets the step of the state, for
        `jdrop.schedules`.
      accumulate: in how many micro-batches to cut the batch, at least 1; it divides the first axis of all arrays of the
        batch. They follow one another, each with the collections that the one before left, and need memory for the
        activations of one. Gradients, loss and metrics are averaged: where the loss is a mean over the examples, the
        gradient is that of the whole batch. A batch that is split over devices along its first axis stays where it
        is if the micro-batches can be split so too.
      per_example: call `loss_fn` on each example alone, under `jax.vmap`, as a batch of one with a key of its own, and
        average loss and metrics. An example's masks then depend on its index alone, not on `accumulate`, on the
        devices or on what pads the batch. It is for a loss that is a mean over the examples, and for models in which
        examples do not meet, so not for batch statistics. It costs a key for each example and layer, up to
        about a tenth of a step's time, and more where a layer's mask has fewer than 32 elements an example.

    Returns:
      The step. It donates the state, whose arrays must not be used again; its metrics hold "loss" and those of
      `loss_fn`.

    Raises:
      TypeError: `loss_fn` does not return loss, (loss, metrics) or (loss, metrics, collections).
      ValueError: the update names a collection that the state does not carry, or changes one under `per_example`;
        `accumulate` is below 1, or does not divide the batch; arrays of the batch that differ in their first axis.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5) @ params["w"]) ** 2).mean(), {}
      >>> state = jdrop.training.TrainState.create(
      ...     params={"w": jnp.ones(3)}, tx=optax.sgd(0.1), key=jax.random.key(0))
      >>> step = jdrop.training.make_train_step(loss_fn, accumulate=2, per_example=True)
      >>> state, metrics = step(state, jnp.ones((4, 3)))
      >>> int(state.step)
      1
    """
    _check_loss(loss_fn)
    accumulate, per_example = as_size("accumulate", accumulate, write=4), as_bool("per_example", per_example)

    def step(state, batch):
        loss = _at_step(loss_fn, state)
        batch_loss = _mean_over_examples(loss) if per_example else loss
        step_key = fold_in(state.key, "dropout", state.step)

        def gradient(collections, batch, number):
            key = step_key if number is None else _folded(step_key, number, batch)

            def loss_of(params):
                loss, metrics, update = _call(batch_loss, params, batch, key, collections)
                return loss, ({"loss": loss, **metrics}, {**collections, **update})

            gradients, (metrics, collections) = jax.grad(loss_of, has_aux=True)(state.params)
            return gradients, metrics, collections

        def value_of(params):
            """The loss at other parameters, as the line searches of some optimizers need it."""
            if accumulate == 1:
                key = step_key if number is None else _folded(step_key, number, batch)
                return _call(batch_loss, params, batch, key, state.collections)[0]

            def add(collections, part):
                key = _folded(step_key, part[1], part[0])
                loss, _, update = _call(batch_loss, params, part[0], key, collections)
                return {**collections, **update}, loss

            return _mean(lax.scan(add, state.collections, (_cut(batch, accumulate), number))[1])

        number = jnp.arange(_count_examples(batch), dtype=jnp.int32) if per_example else None
        if accumulate == 1:
            gradients, metrics, collections = gradient(state.collections, batch, number)
        else:
            number = _cut(number, accumulate) if per_example else jnp.arange(accumulate, dtype=jnp.int32)
            gradients, metrics, collections = _mean_over_parts(gradient, state, (_cut(batch, accumulate), number))
        extra = {"value": metrics["loss"], "grad": gradients, "value_fn": value_of}
        state = state.apply_gradients(grads=gradients, extra=extra, collections=collections)
        return without_weak_types(state), metrics

    step.settings = {"accumulate": accumulate, "per_example": per_example}  # pyright: ignore
    return jax.jit(step, donate_argnums=0)


def settings_of(train_step) -> dict[str, Any]:
    """The arguments that `make_train_step` made a step with, also below `vmap_seeds`; nothing of another step."""
    while train_step is not None and not hasattr(train_step, "settings"):
        train_step = getattr(train_step, "__wrapped__", None)
    return {} if train_step is None else train_step.settings


def make_eval_step(loss_fn: Callable[..., Any]) -> Callable[[TrainState, Any], dict[str, jax.Array]]:
    """Make the jitted function `(state, batch) -> metrics`, in which nothing is random.

    Args:
      loss_fn: that of `make_train_step`; it is called with ``key=None`` and must then be deterministic. An update of
        collections that it returns is not used.

    Returns:
      The evaluation; its metrics hold "loss" and those of `loss_fn`.

    Raises:
      TypeError: `loss_fn` does not return loss, (loss, metrics) or (loss, metrics, collections).

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5, deterministic=key is None) @ params["w"]) ** 2).mean(), {}
      >>> evaluate = jdrop.training.make_eval_step(loss_fn)
    """
    _check_loss(loss_fn)

    def evaluate(state, batch):
        loss, metrics, _ = _call(_at_step(loss_fn, state), state.params, batch, None, state.collections)
        return {"loss": loss, **metrics}

    return jax.jit(evaluate)


def _at_step(loss_fn, state):
    """The loss with the step of the state, where it has an argument of that name which is no collection."""
    with contextlib.suppress(ValueError):  # of some that are not written in Python nothing is known
        if "step" in inspect.signature(loss_fn).parameters and "step" not in state.collections:
            return functools.partial(loss_fn, step=state.step)
    return loss_fn


def _check_loss(loss_fn):
    if not callable(loss_fn):
        raise TypeError(f"loss_fn is {loss_fn!r}, but a function (params, batch, key) -> loss is needed.")


def _mean_over_parts(gradient, state, parts):
    """Gradients and metrics averaged over `parts`, (batch, number) along the first axis, and the last collections."""

    def add(carry, part):
        total, collections = carry
        gradients, metrics, collections = gradient(collections, *part)
        return (jax.tree.map(lambda total, g: total + g.astype(total.dtype), total, gradients), collections), metrics

    # Sums of many gradients of 16 bits would lose the small ones.
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, np.promote_types(p.dtype, np.float32)), state.params)
    (total, collections), metrics = lax.scan(add, (zeros, state.collections), parts)
    count = len(jax.tree.leaves(parts)[0])
    gradients = jax.tree.map(lambda total, p: (total / count).astype(p.dtype), total, state.params)
    return gradients, _mean(metrics), collections


def _mean_over_examples(loss_fn):
    """`loss_fn` averaged over the examples of a batch, each a batch of one with its own of an array of keys."""

    def one(params, example, key, collections):
        batch = jax.tree.map(lambda array: array[None], example)
        loss, metrics, update = _call(loss_fn, params, batch, key, collections)
        # A variable that was only read may come back too, as the very same array.
        came = {id(leaf) for leaf in jax.tree.leaves(collections)}
        changed = sorted(name for name in update if any(id(leaf) not in came for leaf in jax.tree.leaves(update[name])))
        if changed:
            raise ValueError(
                f"loss_fn returned an update of the collections {changed}, but with per_example=True every example is "
                "alone and there are no statistics of a batch: write per_example=False, or a normalisation without "
                "them, such as LayerNorm."
            )
        return loss, metrics

    def mean_loss(params, batch, keys, **collections):
        return _mean(jax.vmap(one, (None, 0, 0, None))(params, batch, keys, collections))

    return mean_loss


def _mean(tree):
    return jax.tree.map(lambda array: jnp.mean(array, 0), tree)


def _folded(key, number, batch):
    """``fold_in(key, number)``, or for an array of numbers, of the batch's examples, a key each."""
    if not number.ndim:
        return fold_in(key, number)
    keys = jax.vmap(lambda j: fold_in(key, j))(number)
    # On a mesh of explicit axes `jax.vmap` asks that the keys be sharded as the examples are.
    sharding = jax.typeof(jax.tree.leaves(batch)[0]).sharding
    split = PartitionSpec(sharding.spec[0])
    return jax.sharding.reshard(keys, NamedSharding(sharding.mesh, split)) if any(split) else keys


def _cut(batch, count):
    """The micro-batches of a tree of arrays, along a new first axis.

    They are strided, so that of a batch that is split over devices each has its share of every micro-batch at hand. Of
    contiguous ones it would have all of a few and nothing of the others.
    """
    examples = _count_examples(batch)
    if examples % count:
        raise ValueError(
            f"the batch has {examples} examples, which accumulate={count} does not cut into equal micro-batches: write "
            f"accumulate={math.gcd(examples, count)}, or give batches of {-(-examples // count) * count} examples."
        )
    return jax.tree.map(lambda array: array.reshape(examples // count, count, *array.shape[1:]).swapaxes(0, 1), batch)


def _count_examples(batch) -> int:
    return count_examples(
        "the batch",
        batch,
        "accumulate and per_example need one and the same: the examples, at least 1. Repeat what all examples share, "
        "or let loss_fn close over it.",
    )


def _call(loss_fn, params, batch, key, collections):
    """(loss, metrics, update of collections) of `loss_fn`, checked."""
    result = loss_fn(params, batch, key, **collections)
    result = result if isinstance(result, tuple) else (result, {})
    if len(result) not in (2, 3):
        raise TypeError(
            f"loss_fn returned a tuple of {len(result)}, but loss, (loss, metrics) or (loss, metrics, collections) is "
            "needed: write return loss, {}."
        )
    loss, metrics, *update = result
    if not isinstance(loss, (jax.Array, np.ndarray, np.generic, int, float)) or np.shape(loss):
        came = f"an array of shape {np.shape(loss)}" if hasattr(loss, "shape") else f"a {type(loss).__name__}"
        raise TypeError(f"loss_fn returned the loss as {came}, but one number is needed: write return loss.mean().")
    if not isinstance(metrics, dict) or "loss" in metrics:
        raise TypeError(
            f"loss_fn returned the metrics {metrics!r}, but a dict without the name 'loss' is needed: that is the loss "
            "itself. Write return loss, {}."
        )
    update = dict(update[0]) if update else {}
    unknown = sorted(set(update) - set(collections))
    if unknown:
        raise ValueError(
            f"loss_fn returned the collections {unknown}, but the state carries {sorted(collections)}: pass "
            "them to TrainState.create(collections=...)."
        )
    return loss, metrics, update

"""The metrics of an epoch's steps, kept on the device until they are asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

RESERVED = ("step", "epoch", "seconds", "examples_per_second")


class NonFiniteLossError(FloatingPointError, ValueError):
    """The training loss became NaN or infinite."""


def empty_records(dtypes, steps, stack, everywhere):
    """Room for each metric at each step of an epoch, {name: (steps, *stack)}; `stack` is () or (number of seeds,)."""
    return {name: jnp.zeros((steps, *stack), dtype, device=everywhere) for name, dtype in dtypes.items()}


def record_dtypes(metrics):
    """The dtype in which each metric of a step is recorded."""
    if not isinstance(metrics, dict) or "loss" not in metrics:
        came = sorted(metrics) if isinstance(metrics, dict) else f"a {type(metrics).__name__}"
        raise ValueError(
            f"train_step returned the metrics {came}, but a dict with a 'loss' is needed: use make_train_step."
        )
    taken = sorted(name for name in metrics if name in RESERVED or name.startswith("eval_"))
    if taken:
        raise ValueError(
            f"train_step returned the metrics {taken}, but {sorted(RESERVED)} and names that start with 'eval_' have "
            "their own meaning in records and history: give them other names."
        )
    for name, value in metrics.items():
        check_real(f"train_step returned {name!r}", value)
    return {name: jnp.promote_types(jnp.result_type(value), jnp.float32) for name, value in metrics.items()}


def check_real(what, value):
    """Raise unless a metric is a real number or an array of them."""
    array = isinstance(value, (jax.Array, jax.ShapeDtypeStruct, np.ndarray, np.generic, bool, int, float))
    dtype = jnp.result_type(value) if array else None
    if not array or not (
        jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating) or dtype == jnp.bool_
    ):
        came = f"an array of {dtype}" if array else f"a {type(value).__name__}"
        raise TypeError(f"{what} as {came}, but a metric is a real number: write jnp.mean(x), or a name for each part.")
    if 0 in np.shape(value):
        raise ValueError(f"{what} of shape {np.shape(value)}, but an empty array has no mean: return a number.")


def write(records, metrics, place):
    """The records with the metrics of one step, each averaged to one number a seed."""

    def written(record, metric):
        metric = jnp.asarray(metric).astype(record.dtype).reshape(*record.shape[1:], -1)
        return record.at[place].set(_sum(jnp.moveaxis(metric, -1, 0)) / metric.shape[-1])

    return {name: written(record, metrics[name]) for name, record in records.items()}


@functools.partial(jax.jit, donate_argnums=0)
def record(records, metrics, place):
    return write(records, metrics, place)


def averages(records, first):
    """The mean of each metric from the step `first` of the epoch on."""
    # Divided on the host: XLA divides a stack of seeds as it multiplies by the reciprocal, which rounds differently.
    sums = jax.device_get(_sums(records, np.int32(first)))
    return {name: total / total.dtype.type(len(records[name]) - first) for name, total in sums.items()}


@jax.jit
def _sums(records, first):
    def total(record):
        seen = (jnp.arange(len(record)) >= first).reshape(-1, *(1,) * (record.ndim - 1))
        return _sum(jnp.where(seen, record, 0))

    return jax.tree.map(total, records)


def _sum(x):
    """The sum over the first axis by halves: XLA would choose its order by the shape, so by the number of seeds."""
    while len(x) > 1:
        half = len(x) // 2
        x = jnp.concatenate([x[:half] + x[half : 2 * half], x[2 * half :]])
    return x[0]


def check_finite(losses, first_step, stopped):
    """Raise for the first of the steps whose loss is not finite; seeds that have stopped may do as they please."""
    fine = np.isfinite(losses) | stopped
    bad = np.flatnonzero(~fine.reshape(len(fine), -1).all(1))
    if len(bad):
        raise NonFiniteLossError(
            f"the loss of step {first_step + bad[0]} is {losses[bad[0]]}: lower the learning rate, clip the gradient "
            "(optax.clip_by_global_norm), or look for bad values in the data."
        )

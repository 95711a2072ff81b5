"""The metrics of an epoch's steps, kept on the device until they are asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


class NonFiniteLossError(FloatingPointError, ValueError):
    """The training loss became NaN or infinite."""


def empty_records(dtypes, steps, stack, everywhere):
    """Room for each metric at each step of an epoch, {name: (steps, *stack)}; `stack` is () or (number of seeds,)."""
    return {name: jnp.full((steps, *stack), jnp.nan, dtype, device=everywhere) for name, dtype in dtypes.items()}


def record_dtypes(metrics):
    """The dtype in which each metric of a step is recorded."""
    if not isinstance(metrics, dict) or "loss" not in metrics:
        came = sorted(metrics) if isinstance(metrics, dict) else f"a {type(metrics).__name__}"
        raise ValueError(
            f"train_step returned the metrics {came}, but a dict with a 'loss' is needed: use make_train_step."
        )
    return {name: jnp.promote_types(jnp.result_type(value), jnp.float32) for name, value in metrics.items()}


def write(records, metrics, place):
    """The records with the metrics of one step, each averaged to one number a seed."""

    def written(record, metric):
        metric = jnp.asarray(metric).astype(record.dtype).reshape(*record.shape[1:], -1)
        return record.at[place].set(metric.mean(-1))

    return {name: written(record, metrics[name]) for name, record in records.items()}


@functools.partial(jax.jit, donate_argnums=0)
def record(records, metrics, place):
    return write(records, metrics, place)


@jax.jit
def averages(records, first):
    """The mean of each metric from the step `first` of the epoch on."""

    def average(record):
        seen = jnp.arange(len(record)) >= first
        return jnp.mean(record, 0, where=seen.reshape(-1, *(1,) * (record.ndim - 1)))

    return jax.tree.map(average, records)


def check_finite(losses, first_step, stopped):
    """Raise for the first of the steps whose loss is not finite; seeds that have stopped may do as they please."""
    fine = np.isfinite(losses) | stopped
    bad = np.flatnonzero(~fine.reshape(len(fine), -1).all(1))
    if len(bad):
        raise NonFiniteLossError(
            f"the loss of step {first_step + bad[0]} is {losses[bad[0]]}: lower the learning rate, clip the gradient "
            "(optax.clip_by_global_norm), or look for bad values in the data."
        )

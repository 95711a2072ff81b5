"""The metrics of an epoch's steps, kept on the device until they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np

RESERVED = ("step", "epoch", "seconds", "examples_per_second", "interrupted")


class NonFiniteLossError(FloatingPointError, ValueError):
    """The training loss became NaN or infinite."""


class EpochMetrics:
    """An array for each metric, with a place for each step of an epoch: {name: (steps, *stack)}.

    `stack` is (), or (n,) for n seeds. A metric that is an array is averaged to one number a seed.
    """

    def __init__(self, steps, stack, everywhere):
        self.steps, self.stack, self.everywhere = steps, stack, everywhere
        self.arrays, self.dtypes = {}, None

    def make_room(self, metrics):
        """Begin an epoch's arrays, if it has none, for metrics such as these."""
        self.dtypes = self.dtypes or _dtypes(metrics)
        if not self.arrays:
            self.allocate(self.dtypes)
        if metrics.keys() != self.arrays.keys():
            raise ValueError(
                f"train_step returned the metrics {sorted(metrics)}, but those of the epoch's steps before are "
                f"{sorted(self.arrays)}: return the same ones at every step, also in a run that is resumed."
            )

    def allocate(self, dtypes):
        shape = (self.steps, *self.stack)
        self.arrays = {name: jnp.zeros(shape, dtype, device=self.everywhere) for name, dtype in dtypes.items()}

    def add(self, metrics, place):
        """Take over the metrics of one step."""
        self.make_room(metrics)
        self.arrays = _write(self.arrays, metrics, np.int32(place))

    def losses(self, first, last):
        """The losses of the steps from `first` up to `last`, on the host."""
        return np.asarray(self.arrays["loss"])[first:last]

    def take_averages(self, first):
        """The mean of each metric from the step `first` on, and an end to the epoch."""
        # Divided on the host: XLA divides a stack of seeds as it multiplies by the reciprocal, which rounds otherwise.
        sums, count = jax.device_get(_sums(self.arrays, np.int32(first))), self.steps - first
        self.arrays = {}
        return {name: total / total.dtype.type(count) for name, total in sums.items()}


def write(arrays, metrics, place):
    """The arrays with the metrics of one step."""

    def written(array, metric):
        metric = jnp.asarray(metric).astype(array.dtype).reshape(*array.shape[1:], -1)
        return array.at[place].set(_sum(jnp.moveaxis(metric, -1, 0)) / metric.shape[-1])

    return {name: written(array, metrics[name]) for name, array in arrays.items()}


_write = jax.jit(write, donate_argnums=0)


@jax.jit
def _sums(arrays, first):
    def total(array):
        seen = (jnp.arange(len(array), dtype=jnp.int32) >= first).reshape(-1, *(1,) * (array.ndim - 1))
        return _sum(jnp.where(seen, array, 0))

    return jax.tree.map(total, arrays)


def _sum(x):
    """The sum over the first axis by halves: XLA would choose its order by the shape, so by the number of seeds."""
    while len(x) > 1:
        half = len(x) // 2
        x = jnp.concatenate([x[:half] + x[half : 2 * half], x[2 * half :]])
    return x[0]


def _dtypes(metrics):
    """The dtype in which each metric is kept."""
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
    dtype = jnp.result_type(value) if array else np.dtype(object)
    if not any(jnp.issubdtype(dtype, kind) for kind in (jnp.integer, jnp.floating, jnp.bool_)):
        came = f"an array of {dtype}" if array else f"a {type(value).__name__}"
        raise TypeError(f"{what} as {came}, but a metric is a real number: write jnp.mean(x), or a name for each part.")
    if 0 in np.shape(value):
        raise ValueError(f"{what} of shape {np.shape(value)}, but an empty array has no mean: return a number.")


def check_finite(losses, first_step, stopped):
    """Raise for the first of the steps whose loss is not finite; seeds that have stopped may do as they please."""
    fine = np.isfinite(losses) | stopped
    bad = np.flatnonzero(~fine.reshape(len(fine), -1).all(1))
    if len(bad):
        raise NonFiniteLossError(
            f"the loss of step {first_step + bad[0]} is {losses[bad[0]]}: lower the learning rate, clip the gradient "
            "(optax.clip_by_global_norm), or look for bad values in the data."
        )

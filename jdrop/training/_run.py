"""A run: what training changes from step to step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jdrop.training._layout import on_host
from jdrop.training._leaves import data_of, with_data
from jdrop.training._metrics import EpochMetrics, check_finite, check_real


class Run:
    """The state at a step, the metrics of the epoch so far, and the history.

    A stack of n states has `stack` (n,), and every number of the run is then an array of n.
    """

    def __init__(self, state, steps, everywhere):
        self.state, self.everywhere, self.stack = state, everywhere, state.key.shape
        numbers = np.unique(on_host(state.step))
        if len(self.stack) > 1 or len(numbers) != 1 or np.shape(state.step) != self.stack:
            raise ValueError(
                f"state has keys of shape {self.stack} and steps {numbers.tolist()}, but one state, or a stack of "
                "states at the same step, is needed: make it by jax.vmap(make_state)(keys)."
            )
        self.step = self.start = self.checked = int(numbers[0])
        self.steps = steps  # of an epoch
        self.optimizer = _described(state.opt_state)
        self.leaves_out = "ApplyIfFiniteState" in str(self.optimizer[0])
        self.metrics, self.history, self.evaluated = EpochMetrics(self.steps, self.stack, everywhere), {}, True

    def examples(self, source) -> int:
        """How many examples a step has, of all seeds."""
        return source.batch_size * max((1, *self.stack))

    def root(self):
        """The root key, in this process alone."""
        return with_data(self.state.key, on_host(data_of(self.state.key)))

    def is_deleted(self):
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))

    def advance(self, state, metrics):
        """Take over what a step returned."""
        self.metrics.add(metrics, self.step % self.steps)
        self.advance_to(self.step + 1, state)

    def advance_to(self, step, state):
        self.state, self.step, self.evaluated = state, step, False

    def check(self, stopped):
        """Raise if the loss of a step since the last check is not finite, but for seeds that have stopped.

        An optimizer that leaves out such steps may, as long as it has: until the parameters are not finite.
        """
        first = (self.step - 1) // self.steps * self.steps  # of the epoch
        if self.step > self.checked:
            losses = self.metrics.losses(self.checked - first, self.step - first)
            if self.leaves_out and not np.isfinite(losses).all():
                stopped = stopped | on_host(_all_finite(self.state.params, len(self.stack)))
            check_finite(losses, self.checked, stopped)
            self.checked = self.step

    def end_epoch(self, stopped):
        """Average the epoch's metrics into the history."""
        means = self.metrics.take_averages(max(self.start - (self.step - self.steps), 0))
        return self._remember(means, stopped)

    def evaluate(self, eval_fn, stopping):
        """Evaluate the state into the history, and tell `stopping` of the loss."""
        metrics = eval_fn(self.state)
        if self.is_deleted():
            raise ValueError(
                "eval_fn has donated the state that it was given, which training still needs: jit it without "
                "donate_argnums."
            )
        if not isinstance(metrics, dict) or (stopping.compares and "loss" not in metrics):
            came = sorted(metrics) if isinstance(metrics, dict) else f"a {type(metrics).__name__}"
            raise ValueError(
                f"eval_fn returned {came}, but a dict of metrics, with patience or keep_best one that has a 'loss', is "
                "needed."
            )
        for name, value in metrics.items():
            check_real(f"eval_fn returned {name!r}", value)
        metrics = {name: np.asarray(value, float) for name, value in on_host(metrics).items()}
        for name, value in metrics.items():
            if value.shape != self.stack:
                raise ValueError(
                    f"eval_fn returned {name!r} of shape {value.shape}, but {self.stack} is needed: a number a state; "
                    "write vmap_seeds(eval_fn) for a stack of states."
                )
        stopped = stopping.stopped
        if stopping.compares:
            stopping.look(self.state, metrics["loss"], self.step)
        self.evaluated = True
        return self._remember({f"eval_{name}": value for name, value in metrics.items()}, stopped)

    def _remember(self, values, stopped):
        values = {name: np.where(stopped, np.nan, value).tolist() for name, value in values.items()}
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        return values


@functools.partial(jax.jit, static_argnums=1)
def _all_finite(params, num_axes):
    """Whether the parameters of each state of a stack are finite."""
    finite = [
        jnp.isfinite(leaf).all(range(num_axes, leaf.ndim))
        for leaf in jax.tree.leaves(params)
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    return functools.reduce(jnp.logical_and, finite)


def _described(opt_state):
    """What a state shows of its optimizer: the names of its parts, and the hyperparameters that are arrays."""
    hyperparameters = {}

    def parts(state, path):
        if isinstance(getattr(state, "hyperparams", None), dict):
            for name, value in sorted(state.hyperparams.items()):
                hyperparameters[f"{path}{name}"] = np.asarray(on_host(value), float).tolist()
        kinds = [parts(part, f"{path}{i}/") for i, part in enumerate(state) if isinstance(part, tuple)]
        return [type(state).__name__, *kinds]

    return parts(opt_state, "") if isinstance(opt_state, tuple) else [type(opt_state).__name__], hyperparameters

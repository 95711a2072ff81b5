"""Early stopping, and the state that comes back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jdrop.training._leaves import data_of, with_data
from jdrop.training._metrics import NonFiniteLossError


class Stopping:
    """What the losses of the evaluations say: which seeds have stopped, and which state comes back of each.

    Without `keep_best` that is the last one of a seed, which other seeds may train on from; `kept` holds those.
    """

    def __init__(self, patience, keep_best, stack):
        self.patience, self.keep_best = patience, keep_best
        self.best_loss, self.waited, self.kept = np.full(stack, np.inf), np.zeros(stack, int), None

    @property
    def compares(self) -> bool:
        return self.keep_best or self.patience is not None

    @property
    def stopped(self):
        """Which seeds have waited as long as the patience lasts."""
        return self.waited >= (np.inf if self.patience is None else self.patience)

    def look(self, state, losses, step):
        """Compare the losses of an evaluation after `step` steps."""
        before = self.stopped
        if not np.all(np.isfinite(losses) | before):
            raise NonFiniteLossError(
                f"the evaluation's loss after step {step} is {losses}: it can't be compared with others; look for bad "
                "values in the evaluation data."
            )
        better = (losses < self.best_loss) & ~before
        self.best_loss = np.where(better, losses, self.best_loss)
        self.waited = np.where(better, 0, self.waited + ~before)
        ends = better if self.keep_best else self.stopped & ~before
        if ends.any():
            self.kept = jax.tree.map(jnp.copy, state) if self.kept is None else _choose(ends, state, self.kept)

    def result(self, state):
        """The state to return of a run that ends with `state`."""
        if self.kept is None:
            return state
        return self.kept if self.keep_best else _choose(~self.stopped, state, self.kept)


@functools.partial(jax.jit, donate_argnums=2)
def _choose(taken, new, old):
    """The new state's leaves for the seeds that are taken."""

    def choose(new, old):
        data = data_of(new)  # a select of keys would count as a use of both
        chosen = jnp.where(taken.reshape(taken.shape + (1,) * (data.ndim - taken.ndim)), data, data_of(old))
        return with_data(new, chosen)

    return jax.tree.map(choose, new, old)

"""Several seeds as one program."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def vmap_seeds(function: Callable[..., Any], *, donate_argnums: int | Sequence[int] = ()) -> Callable[..., Any]:
    """Map a train step or an evaluation over a stack of states, so that n seeds train as one program.

    ``vmap_seeds(f)(states, ...)[i] = f(states[i], ...)``: `fit` trains a stack of states as it trains one, each with
    its own key, dropout masks, order of the data, best state and early stopping, and its history then has a list of n
    numbers in the place of each number. The numbers are those of a seed alone to the rounding of matrix products.

    Args:
      function: `(state, batch) -> (state, metrics)` from `make_train_step`, or an evaluation `(state) -> metrics`. All
        its arguments become stacks with a first axis of n seeds.
      donate_argnums: that of `jax.jit`. `fit` donates the states that it trains; a loop of your own that needs their
        memory donates them by 0, of a train step.

    Returns:
      The jitted function of stacks.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5) @ params["w"]) ** 2).mean(), {}
      >>> def make_state(key):
      ...     return jdrop.training.TrainState.create(
      ...         params={"w": jax.random.normal(key, 3)}, tx=optax.sgd(0.1), key=key)
      >>> states = jax.vmap(make_state)(jax.random.split(jax.random.key(0), 5))
      >>> step = jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn))
      >>> states, history = jdrop.training.fit(
      ...     states, step, jnp.ones((8, 3)), epochs=2, batch_size=4, progress=False)
      >>> len(history["loss"]), len(history["loss"][0])
      (2, 5)
    """
    if not callable(function):
        raise TypeError(f"function is {function!r}, but a step or an evaluation of one state is needed.")
    return jax.jit(jax.vmap(function), donate_argnums=donate_argnums)

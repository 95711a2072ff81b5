"""Several seeds as one program."""

import jax
from jax import lax

from jdrop.training.leaves import data_of, with_data


def vmap_seeds(function, *, exact=True, donate_argnums=0):
    """Map a train step or an evaluation over a stack of states, so that n seeds train as one program.

    ``vmap_seeds(f)(states, ...)[i] = f(states[i], ...)``: `fit` trains a stack of states as it trains one, each with
    its own key, dropout masks, order of the data, best state and early stopping, and its history then has a list of n
    numbers in the place of each number.

    Args:
      function: `(state, batch) -> (state, metrics)` from `make_train_step`, or an evaluation `(state) -> metrics`. All
        its arguments become stacks with a first axis of n seeds.
      exact: True writes the seeds out one after another in one program, so that each operation is the one that a seed
        alone would run; compiling then takes n times as long. The results are those of a seed alone to the bit,
        unless XLA compiles an update otherwise in the larger program: seen on a CPU with Adam and LAMB. False batches
        them with `jax.vmap`, the fastest on accelerators and for many seeds: the same masks and the same order of the
        data, but XLA's batched matrix products may round the last bits differently.
      donate_argnums: that of `jax.jit`: a train step donates its states, an evaluation must not: write
        ``vmap_seeds(eval_fn, donate_argnums=())``.

    Returns:
      The jitted function of stacks.

    Example:
      >>> import jax, jax.numpy as jnp, optax, jdrop
      >>> def loss_fn(params, batch, key):
      ...     return ((jdrop.dropout(key, batch, 0.5) @ params["w"]) ** 2).mean(), {}
      >>> def make_state(key):
      ...     return jdrop.training.TrainState.create(
      ...         apply_fn=None, params={"w": jax.random.normal(key, 3)}, tx=optax.sgd(0.1), key=key)
      >>> states = jax.vmap(make_state)(jax.random.split(jax.random.key(0), 5))
      >>> step = jdrop.training.vmap_seeds(jdrop.training.make_train_step(loss_fn))
      >>> states, history = jdrop.training.fit(
      ...     states, step, jnp.ones((8, 3)), epochs=2, batch_size=4, progress=False)
      >>> len(history["loss"]), len(history["loss"][0])
      (2, 5)
    """

    def alone(_, arguments):
        # XLA would fuse the first and last operations with taking the stacks apart, and round them differently.
        return None, _barrier(function(*_barrier(arguments)))

    def one_after_another(*stacks):
        # Written out, since XLA's convolutions round differently in a loop, and are slow in one on a CPU.
        if len(jax.tree.leaves(stacks)[0]) == 1:  # of which lax.scan makes a loop all the same
            _, results = alone(None, jax.tree.map(lambda leaf: leaf[0], stacks))
            return jax.tree.map(lambda leaf: leaf[None], results)
        return lax.scan(alone, None, stacks, unroll=True)[1]

    return jax.jit(one_after_another if exact else jax.vmap(function), donate_argnums=donate_argnums)


def _barrier(tree):
    """`lax.optimization_barrier`, which takes the data of keys, since it counts as a use of a key itself."""
    return jax.tree.map(with_data, tree, lax.optimization_barrier(jax.tree.map(data_of, tree)))

"""Networks that are trained together, as one program."""

import jax
import jax.numpy as jnp
import numpy as np

import jdrop


def network_keys(root, count, *path):
    """A key for each of so many networks, by what they are for and their number."""
    return jax.vmap(lambda number: jdrop.fold_in(root, *path, number))(jnp.arange(count))


def fresh_states(model, x, tx, keys, /, **collections):
    """The states of Linen models for each of the keys, with the optimizer `tx`; `x` shows the input's shape.

    The collections are stacks too: what each network has of its own, and its loss gets by name.
    """

    def make_state(of_one):
        key, collections = of_one
        params = model.init(jdrop.fold_in(key, "init"), x, True)["params"]
        return jdrop.training.TrainState.create(
            apply_fn=model.apply, params=params, tx=tx, key=key, collections=collections
        )

    return jax.lax.map(make_state, (keys, collections))  # which compiles in half the time of jax.vmap


def fit_full_batches(states, step, count, steps):
    """The stack's parameters after so many steps, each on all of `count` examples."""
    states, _ = jdrop.training.fit(
        states, step, np.arange(count), epochs=steps, batch_size=count, scan=True, progress=False
    )
    return states.params

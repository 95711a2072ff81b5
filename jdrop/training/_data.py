"""Which examples a step sees: a function of the root key and the step's number."""

import functools

import jax
import numpy as np
from jax import lax

from jdrop._keys import fold_in


def epoch_order(root, epoch, examples):
    """The order of an epoch's examples, shape (examples,), or one for each of a stack of keys."""
    return np.asarray(_order(root, np.int32(epoch), examples))


@functools.partial(jax.jit, static_argnums=2)
def _order(root, epoch, examples):
    # Compiled once for all epochs: `lax.map` alone compiles anew for each number that it closes over.
    def order(key):
        return jax.random.permutation(fold_in(key, "shuffle", epoch), examples)

    return order(root) if root.shape == () else lax.map(order, root)


def gather(data, rows, sharding):
    """The batch of these rows; with a sharding each process reads only the rows of its own devices."""
    if sharding is None:
        return jax.tree.map(lambda array: array[rows], data)

    def place(sharding, array):
        read = {}  # once for all devices that have parts of the same rows

        def part(index):
            of_rows, rest = index[: rows.ndim], index[rows.ndim :]
            if str(of_rows) not in read:
                read[str(of_rows)] = array[rows[of_rows]]
            return read[str(of_rows)][(slice(None),) * rows.ndim + rest]

        return jax.make_array_from_callback(rows.shape + array.shape[1:], sharding, part)

    return jax.tree.map(place, jax.tree.broadcast(sharding, data), data)

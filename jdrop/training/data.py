"""Which examples a step sees: a function of the root key and the step's number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from jdrop.keys import fold_in
from jdrop.training.state import without_weak_types


def count_examples(data) -> int:
    """The examples in a tree of arrays: the size of their common first axis."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    sizes = sorted({shape[0] if shape else 0 for shape in shapes})
    if len(sizes) != 1 or sizes[0] == 0:
        raise ValueError(
            f"data has arrays with first axes of {sizes}, but all need the same one, the examples, of at least 1: give "
            "arrays, not lists of numbers."
        )
    return sizes[0]


def epoch_order(root, epoch, examples):
    """The order of an epoch's examples, shape (examples,), or one for each of a stack of keys."""
    return np.asarray(_order(root, epoch, examples))


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
        def part(index):
            of_rows, rest = index[: rows.ndim], index[rows.ndim :]
            return array[rows[of_rows]][(slice(None),) * rows.ndim + rest]

        return jax.make_array_from_callback(rows.shape + array.shape[1:], sharding, part)

    return jax.tree.map(place, jax.tree.broadcast(sharding, data), data)


def replicated(sharding):
    """The sharding of what every device of the batch's mesh holds, or None without a mesh."""
    meshes = {leaf.mesh if isinstance(leaf, NamedSharding) else None for leaf in jax.tree.leaves(sharding)}
    if not meshes and jax.process_count() == 1:
        return None
    if len(meshes) != 1 or None in meshes:
        raise TypeError(
            f"sharding is {sharding!r}, but a NamedSharding of a batch over the devices of all processes is needed: "
            'write sharding=NamedSharding(mesh, PartitionSpec("data")).'
        )
    return NamedSharding(meshes.pop(), PartitionSpec())


def own(state, everywhere):
    """A copy of the state to be donated, without weak types; what is not laid out over the mesh is replicated on it."""

    def copy(leaf):
        leaf = jnp.asarray(leaf)
        if everywhere is not None and leaf.sharding.device_set != everywhere.device_set:
            leaf = jax.device_put(leaf, everywhere)
        return jnp.copy(leaf)

    return without_weak_types(jax.tree.map(copy, state))

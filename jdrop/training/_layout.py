"""How a run lies on the mesh of its batches."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jdrop.training._leaves import data_of, with_data
from jdrop.training._state import without_weak_types


def replicated(sharding):
    """The sharding of what every device of the batch's mesh holds, or None without a mesh."""
    leaves = jax.tree.leaves(sharding)
    if sharding is None and jax.process_count() == 1:
        return None
    meshes = {leaf.mesh for leaf in leaves if isinstance(leaf, NamedSharding)}
    if len(meshes) != 1 or not all(isinstance(leaf, NamedSharding) for leaf in leaves):
        raise TypeError(
            f"sharding is {sharding!r}, but a NamedSharding of a batch over the devices of all processes is needed: "
            'write sharding=NamedSharding(mesh, PartitionSpec("data")).'
        )
    return NamedSharding(meshes.pop(), PartitionSpec())


def own(state, everywhere):
    """A copy of the state to be donated, without weak types; what is not laid out over the mesh is replicated on it."""

    def copy(leaf):
        leaf = jnp.asarray(leaf)
        if everywhere is not None and getattr(leaf.sharding, "mesh", None) != everywhere.mesh:
            leaf = _replicate(leaf, everywhere)
        return jnp.copy(leaf)

    return without_weak_types(jax.tree.map(copy, state))


def _replicate(leaf, everywhere):
    data = data_of(leaf)
    try:
        # Only from the host can an array get onto the devices of other processes.
        data = jax.device_put(np.asarray(data) if data.is_fully_addressable else data, everywhere)
    except AssertionError:
        raise ValueError(
            f"state has an array of shape {data.shape} that is not the same in all processes: make the state from the "
            "same key in each."
        ) from None
    return with_data(leaf, data)


def on_devices(data, everywhere):
    """The data on every device of the mesh: each process reads its own."""
    if everywhere is None:
        return jax.device_put(data)
    return jax.tree.map(lambda leaf: jax.make_array_from_callback(leaf.shape, everywhere, lambda _: leaf), data)


def on_host(tree):
    """NumPy's arrays of a tree, of which each process may have a part only."""

    def fetch(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return jax.device_get(leaf)

    return jax.tree.map(fetch, tree)


def keep_layout(function, state, everywhere, **options):
    """Jit a function with a result (state, metrics), the one laid out as `state` is, the other on every device.

    XLA would choose a result's layout for itself, and where it is not that of the argument, the next step would be
    compiled again and could not reuse the donated buffers.
    """
    layout = None if everywhere is None else (jax.tree.map(lambda leaf: leaf.sharding, state), everywhere)
    return jax.jit(function, out_shardings=layout, **options)


def constrain(tree, shardings):
    """Within a jitted function: the leaves of `tree` laid out by a sharding each."""

    def place(leaf, sharding):
        explicit = set(jax.tree.leaves(tuple(sharding.spec))) & set(sharding.mesh.explicit_axes)
        return jax.sharding.reshard(leaf, sharding) if explicit else lax.with_sharding_constraint(leaf, sharding)

    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten(map(place, leaves, shardings))

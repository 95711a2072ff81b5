"""What each device computes of a program for several: its own shard, and where that starts."""

import itertools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec


def origin(mesh, spec, sizes):
    """Where this device's shard of `sizes` starts: a uint32 an axis, and one for a scalar."""
    starts = [jnp.uint32(0)]
    for axes, size in zip((*spec, *(None,) * len(sizes)), sizes):
        place = np.uint32(0)
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            place = place * np.uint32(mesh.shape[axis]) + lax.axis_index(axis).astype(jnp.uint32)
        starts.append(jnp.uint32(place * np.uint32(size)))
    return jnp.stack(starts[1:] or starts)


def partitioned(run, axes, shape):
    """A function of which each device computes the shard that XLA gives it, without a word to others.

    Args:
      run: `(start, sizes, *operands) -> result`, of a shard that starts at `start` and has `sizes`.
      axes: for each operand, and each of its axes, the axis of the result that it is split with, or None.
      shape: shape of the whole result.
    """

    def whole(*operands):
        return run(jnp.zeros(max(len(shape), 1), jnp.uint32), shape, *operands)

    def partition(mesh, operands, result):
        spec = (*result.sharding.spec, *(None,) * len(shape))[: len(shape)]

        def of_shard(*operands):
            sizes = NamedSharding(mesh, PartitionSpec(*spec)).shard_shape(shape)
            return run(origin(mesh, spec, sizes), sizes, *operands)

        split = [PartitionSpec(*(None if axis is None else spec[axis] for axis in of)) for of in axes]
        shardings = tuple(NamedSharding(mesh, each) for each in split)
        return mesh, of_shard, NamedSharding(mesh, PartitionSpec(*spec)), shardings

    names = itertools.count()
    factors = [" ".join(f"own{next(names)}" if axis is None else f"axis{axis}" for axis in of) for of in axes]
    function = custom_partitioning(whole)
    function.def_partition(
        partition, sharding_rule=f"{', '.join(factors)} -> {' '.join(f'axis{axis}' for axis in range(len(shape)))}"
    )
    return function

"""Which kernel drops on a platform, and how a batch and a mesh reach it."""

import functools
import importlib
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

NUMBERS = 3  # of a rate: its threshold, whether all is dropped, and the scale's bits; the origin's follow them
_OWN = {"cuda": "gpu", "tpu": "tpu"}


def fused(platform, implementation, context, batch, levels, sizes, dtype, *, impl, shape, bits):
    """The function of the operands of `drop` that runs a kernel, or None where none serves.

    Args:
      platform: what the program is lowered for, "cuda", "tpu" or "cpu".
      implementation: that of `jdrop.dropout`.
      context: JAX's axis context, which says what devices the program is for.
      batch: the sizes of the levels.
      levels: for each `vmap`, which operands it maps over.
      sizes, dtype: of an array.
      impl, shape, bits: as for `jdrop.masks.packed.draw`.
    """
    own = _OWN.get(platform)
    name = {None: own, "xla": None, "pallas": own or "gpu", "pallas_tpu": "tpu"}[implementation]
    local = is_local(context)
    if name is None or not (local or (platform != "tpu" and getattr(context, "abstract_mesh", None))):
        return None
    # Imported late: a JAX without one of Pallas's backends loses that kernel and nothing else.
    kernel = importlib.import_module(f"jdrop.masks.{name}")
    if not kernel.applies(impl, shape, sizes, math.prod(batch), dtype):
        return None
    run = functools.partial(kernel.drop, impl=impl, shape=shape, bits=bits, interpret=name != own)

    def program(*operands):
        every = zip(*levels) if levels else [()] * len(operands)
        data, *rate, start, x = (_flat(operand, mapped, batch) for operand, mapped in zip(operands, every))
        # One array for all numbers: each that is computed for a kernel is a launch before it.
        numbers = [_as_bits(part)[:, None] for part in rate]
        size = max(map(len, (*numbers, start)))
        numbers = [jnp.broadcast_to(part, (size, part.shape[1])) for part in (*numbers, start)]
        flat = data, jnp.concatenate(numbers, axis=1), x
        return (run if local else _partitioned(run, flat))(*flat).reshape(*batch, *sizes)

    return program


def is_local(context) -> bool:
    """Whether a program is that of one device: the only one, or each of those that a shard_map splits it over."""
    if hasattr(context, "manual_axes"):
        return set(context.manual_axes) == set(context.mesh.axis_names)
    return getattr(context, "num_devices", 1) == 1


def origin(mesh, spec, sizes):
    """Where the shard of this device starts, if shards have `sizes`: a uint32 an axis, and one for a scalar."""
    starts = [jnp.uint32(0)]
    for axes, size in zip((*spec, *(None,) * len(sizes)), sizes):
        place = np.uint32(0)
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            place = place * np.uint32(mesh.shape[axis]) + lax.axis_index(axis).astype(jnp.uint32)
        starts.append(jnp.uint32(place * np.uint32(size)))
    return jnp.stack(starts[1:] or starts)


def _as_bits(part):
    floating = jnp.issubdtype(part.dtype, jnp.floating)
    return lax.bitcast_convert_type(part, jnp.uint32) if floating else part.astype(jnp.uint32)


def _flat(operand, mapped, batch):
    """`operand` with its levels as one first axis, of 1 where it has none of them."""
    rest = operand.shape[sum(mapped) :]
    if not any(mapped):
        return operand[None]
    operand = operand.reshape(*(size if own else 1 for size, own in zip(batch, mapped)), *rest)
    return jnp.broadcast_to(operand, (*batch, *rest)).reshape(-1, *rest)


def _partitioned(run, operands):
    """`run` on the shards that XLA splits its last operand, and its result, into."""
    batch = max(len(operand) for operand in operands)

    def partition(mesh, _, result):
        spec = (*result.sharding.spec, *(None,) * len(result.shape))[: len(result.shape)]
        first = [spec[0] if len(operand) == batch else None for operand in operands]
        shardings = [NamedSharding(mesh, PartitionSpec(axis)) for axis in first]
        shardings[-1] = NamedSharding(mesh, PartitionSpec(first[-1], *spec[1:]))

        def of_shard(data, numbers, x):
            return run(data, numbers.at[:, NUMBERS:].add(origin(mesh, spec[1:], x.shape[1:])), x)

        return mesh, of_shard, NamedSharding(mesh, PartitionSpec(*spec)), tuple(shardings)

    def factors(i, operand):
        first = "n" if len(operand) == batch else f"one{i}"
        return " ".join([first, *(f"axis{i}x{axis}" for axis in range(1, operand.ndim))])

    *others, x = (factors(i, operand) for i, operand in enumerate(operands))
    function = custom_partitioning(run)
    rule = f"{', '.join((*others, x))} -> {' '.join(['n', *x.split()[1:]])}"
    function.def_partition(partition, sharding_rule=rule)
    return function

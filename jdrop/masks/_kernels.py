"""Which kernel drops on a platform, and how its arguments reach it."""

import functools
import importlib
import math

import jax.numpy as jnp
from jax import lax

from jdrop._compat import can_partition, is_local
from jdrop.masks._layout import as_matrix
from jdrop.masks._shards import partitioned

_OWN = {"cuda": "gpu", "tpu": "tpu"}


def fused(spec, platform, implementation, context, batch, levels, sizes, dtype):
    """The function of the operands of `drop` that runs a kernel, or None where none serves.

    Args:
      spec: the mask's `Spec`.
      platform: what the program is lowered for, "cuda", "tpu" or "cpu".
      implementation: that of `jdrop.dropout`.
      context: JAX's axis context, which says what devices the program is for.
      batch: the sizes of the levels.
      levels: for each `vmap`, which operands it maps over.
      sizes, dtype: of an array.
    """
    own = _OWN.get(platform)
    name = {None: own, "xla": None, "pallas": own or "gpu", "pallas_tpu": "tpu"}[implementation]
    local = is_local(context)
    if name is None or not (local or can_partition(context, platform)):
        return None
    # Imported late: a JAX without one of Pallas's backends loses that kernel and nothing else.
    kernel = importlib.import_module(f"jdrop.masks._{name}")
    whole = local or as_matrix(spec.shape).pieces == 1
    if not whole or not kernel.applies(spec, sizes, math.prod(batch), dtype):
        return None
    run = functools.partial(kernel.drop, spec, interpret=name != own)

    def of_shard(start, _, data, numbers, x):
        start = jnp.broadcast_to(start[1:], (len(numbers), len(start) - 1))
        return run(data, jnp.concatenate([numbers, start], axis=1), x)

    def program(*operands):
        data, *rate, start, x = _flattened(operands, levels, batch)
        # One array for all numbers: each that is computed for a kernel is a launch before it.
        numbers = [*(_as_bits(part)[:, None] for part in rate), start]
        draws = max(map(len, numbers))
        numbers = jnp.concatenate([jnp.broadcast_to(part, (draws, part.shape[1])) for part in numbers], axis=1)
        if local:
            return run(data, numbers, x).reshape(*batch, *sizes)
        whole = (math.prod(batch), *sizes)
        first = [0 if len(operand) == whole[0] else None for operand in (data, numbers, x)]
        axes = (first[0], None), (first[1], None), (first[2], *range(1, x.ndim))
        return partitioned(of_shard, axes, whole)(data, numbers, x).reshape(*batch, *sizes)

    return program


def _flattened(operands, levels, batch):
    """The operands, each with its levels as one first axis, of 1 where it has none of them."""
    every = zip(*levels) if levels else [()] * len(operands)
    return [_flat(operand, mapped, batch) for operand, mapped in zip(operands, every)]


def _flat(operand, mapped, batch):
    rest = operand.shape[sum(mapped) :]
    if not any(mapped):
        return operand[None]
    operand = operand.reshape(*(size if own else 1 for size, own in zip(batch, mapped)), *rest)
    return jnp.broadcast_to(operand, (*batch, *rest)).reshape(-1, *rest)


def _as_bits(part):
    floating = jnp.issubdtype(part.dtype, jnp.floating)
    return lax.bitcast_convert_type(part, jnp.uint32) if floating else part.astype(jnp.uint32)

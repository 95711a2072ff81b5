"""A mask, and an array dropped by one, as operations of JAX: what a platform makes of them is decided when it is known.

`keep` gives the mask and `drop` the array. Both are primitives, for two reasons. Which program serves depends on the
platform and on how many devices share it, which JAX knows when it lowers a program and not when it traces it. And
`drop` is linear in x, its own transpose: so a derivative draws the mask again and keeps the key alone.

Everywhere but in the kernels a mask is drawn by XLA. A kernel draws a shard of its own: inside of `jax.shard_map`,
where the sharding is part of x's type (explicit axes), and on GPUs under any other sharding. XLA for TPUs lets nobody
say how a kernel is to be split (jax-ml/jax#38196); there a program of several devices and automatic axes is XLA's.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import PartitionSpec

from jdrop._compat import apply_primitive, axis_context, ignore_triton, is_export, is_local, needs_mesh, vary, varying
from jdrop.masks import _packed as packed
from jdrop.masks import _symbolic as symbolic
from jdrop.masks._kernels import fused
from jdrop.masks._layout import as_matrix
from jdrop.masks._mask import Mask
from jdrop.masks._rate import Threshold
from jdrop.masks._shape import is_static
from jdrop.masks._shards import origin


def keep(mask: Mask):
    """Draw a mask: a boolean array of its shape, True where an element is kept."""
    if not is_static(mask.shape):
        return symbolic.keep(mask)
    start = np.zeros(len(mask.shape), np.uint32)
    return keep_p.bind(*_alike(*_operands(mask), start), spec=mask.spec, sizes=mask.shape, aligned=False, levels=())


def keep_tile(mask: Mask, start, sizes, aligned=False):
    """Draw the part of a mask that starts at `start` and has `sizes`, and nothing else of it.

    Args:
      mask: of any shape; its thresholds broadcast with `sizes`.
      start: a uint32 an axis.
      sizes: an integer an axis.
      aligned: whether planes of the last two axes, and the part in them, start and end where words do.
    """
    if tuple(sizes) == mask.shape:
        return keep(mask)
    if not is_static(mask.shape):
        return packed.tile(mask, start, sizes, aligned=aligned)
    operands = _alike(*_operands(mask), jnp.stack([jnp.asarray(s, jnp.uint32) for s in start]))
    return keep_p.bind(*operands, spec=mask.spec, sizes=tuple(sizes), aligned=aligned, levels=())


def drop(mask: Mask, scale, x, implementation=None):
    """`x * scale` where a mask of one rate keeps, else 0.

    Args:
      mask: of the shape of `x`.
      scale: a scalar in the dtype to multiply in.
      x: a floating-point or complex array.
      implementation: that of `jdrop.dropout`.
    """
    operands = _operands(mask)
    params = {"spec": mask.spec, "implementation": implementation, "levels": ()}
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec):
        splits = implementation == "pallas" or (implementation is None and jax.default_backend() == "gpu")
        primitive = drop_split_p if splits and jax.device_count() > 1 else drop_p
        return primitive.bind(*_alike(*operands, scale, np.zeros(0, np.uint32), x), **params)

    def of_shard(*operands):
        *operands, x = operands
        return drop_p.bind(*_alike(*operands, origin(sharding.mesh, sharding.spec, x.shape), x), **params)

    specs = (*(PartitionSpec() for _ in (*operands, scale)), sharding.spec)
    return jax.shard_map(of_shard, mesh=sharding.mesh, in_specs=specs, out_specs=sharding.spec)(*operands, scale, x)


def times(x, factor):
    """`x * factor`, rounded once; a complex number's parts are scaled apart, so that no NaN crosses over."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return lax.complex(x.real * factor, x.imag * factor)
    return (x.astype(factor.dtype) * factor).astype(x.dtype)


def _operands(mask):
    low, all_dropped, _ = mask.limit
    return jax.random.key_data(mask.key), low, np.zeros(low.shape, bool) if all_dropped is None else all_dropped


def _mask(data, low, all_dropped, spec):
    """The mask of the operands of a primitive."""
    key = jax.random.wrap_key_data(data, impl=spec.impl)
    return Mask(key, Threshold(low, all_dropped, None), spec.shape, spec.bits)


def _alike(*operands):
    """Operands that all vary over the axes of a mesh, inside of shard_map, over which one of them does."""
    operands = [jnp.asarray(operand) for operand in operands]
    axes = frozenset().union(*map(varying, operands))
    return [vary(operand, axes) for operand in operands]


# What a platform makes of them.


_SMALL = 2**14  # elements of a mask, 16 vector registers of a TPU


def _keep_rule(platform):
    def keep(data, low, all_dropped, start, *, spec, sizes, aligned, local, unroll):
        mask, shape = _mask(data, low, all_dropped, spec), spec.shape
        if sizes != shape:
            return packed.tile(mask, start, sizes, unroll, aligned)
        # Rows that fill their words shard as they are.
        if np.broadcast_shapes(low.shape, shape) == shape and (local or as_matrix(shape).fills_words):
            return packed.opened(packed.draw(mask, unroll), shape)
        return packed.tile(mask, np.zeros(len(shape), np.uint32), shape, unroll)

    def rule(ctx, *args, levels, **params):
        local = is_local(axis_context(ctx))
        # On a TPU a loop is seven launches and more; without it XLA draws the words once for each of the 32 lanes,
        # which is cheap for a small mask alone. Counted in compiled programs, not measured.
        unroll = platform == "cuda" or (platform == "tpu" and ctx.avals_out[0].size <= _SMALL)
        return _lower(ctx, _mapped(keep, levels, local=local, unroll=unroll, **params), *args)

    return rule


def _drop_rule(platform):
    unroll = platform == "cuda"

    def by_xla(data, low, all_dropped, scale, origin, x, *, spec):
        if unroll and scale.dtype == jnp.float32:  # else XLA makes a kernel for each number of a traced rate
            numbers = jnp.stack([low, all_dropped.astype(jnp.uint32), lax.bitcast_convert_type(scale, jnp.uint32)])
            low, all_dropped, scale = lax.optimization_barrier(numbers)
            all_dropped, scale = all_dropped != 0, lax.bitcast_convert_type(scale, jnp.float32)
        if x.shape == spec.shape:
            kept = keep(_mask(data, low, all_dropped, spec))
        else:
            kept = packed.tile(_mask(data, low, all_dropped, spec), origin, x.shape, unroll)
        return jnp.where(kept, times(x, scale), jnp.zeros((), x.dtype))

    def rule(ctx, *args, levels, implementation, spec):
        batch = tuple(size for size, _ in _axes(levels, ctx.avals_in))
        (out,), context = ctx.avals_out, axis_context(ctx)
        if platform == "cuda" and is_export(ctx) and implementation is None:
            implementation = "xla"  # since JAX promises no artefact with a Triton kernel that it can be loaded again
        try:
            with warnings.catch_warnings():
                ignore_triton()
                sizes = out.shape[len(batch) :]
                run = fused(spec, platform, implementation, context, batch, levels, sizes, out.dtype)
                if run:
                    return _lower(ctx, run, *args)
        except Exception as error:  # whatever a version of Pallas may refuse: XLA draws the same mask
            say_once(platform, f"{type(error).__name__}: {error}")
        return _lower(ctx, _mapped(by_xla, levels, spec=spec), *args)

    return rule


@functools.lru_cache(1024)
def _mapped(function, levels, **params):
    """A function of one mask for the batches of `levels`, as one and the same object, so that JAX traces it once."""
    function = functools.partial(function, **params)
    for level in reversed(levels):
        function = jax.vmap(function, [0 if mapped else None for mapped in level])
    return jax.jit(function, inline=True)


def _lower(ctx, function, *args):
    # A rule is traced for what a device holds, which has neither a sharding nor axes to vary over.
    avals = [ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in]
    return mlir.lower_fun(function, multiple_results=False)(ctx.replace(avals_in=avals), *args)


@functools.cache
def say_once(platform, error):
    warnings.warn(
        f"jdrop's kernel was not compiled for {platform}; XLA drops there, by the same mask: {error}", stacklevel=2
    )


# Batches: each `vmap` is a level, a boolean for each operand, whose first axis it maps over. The last is the innermost.


def _axes(levels, operands):
    """The size of each level, and the explicit mesh axes that it is split over."""
    for i, level in enumerate(levels):
        operand = level.index(True)
        axis = sum(outer[operand] for outer in levels[:i])
        yield operands[operand].shape[axis], operands[operand].sharding.spec[axis]


def _batch(primitive, operands, axes, *, levels, **params):
    moved = [o if axis is None else jnp.moveaxis(o, axis, 0) for o, axis in zip(operands, axes)]
    level = tuple(axis is not None for axis in axes)
    return primitive.bind(*moved, levels=(level, *levels), **params), 0


def _aval(operands, levels, shape, dtype):
    batch = list(_axes(levels, operands))
    spec = PartitionSpec(*(axes for _, axes in batch), *(None for _ in shape))
    sharding = operands[0].sharding.update(spec=spec)
    shape = (*(size for size, _ in batch), *shape)
    return operands[0].update(shape=shape, dtype=dtype, weak_type=False, sharding=sharding)


def _keep_aval(*operands, sizes, levels, **params):
    rates = operands[1].shape[sum(level[1] for level in levels) :]
    return _aval(operands, levels, np.broadcast_shapes(sizes, rates), jnp.bool_)


def _drop_aval(*operands, levels, **params):
    x = operands[-1]
    return _aval(operands, levels, x.shape[sum(level[-1] for level in levels) :], x.dtype)


def _drop_primitive(name):
    def of_tangent(tangent, *operands, **params):
        return primitive.bind(*operands[:-1], tangent, **params)

    def of_cotangent(cotangent, *operands, levels, **params):
        mapped = tuple((*level[:-1], True) for level in levels)
        gradient = primitive.bind(*operands[:-1], cotangent, levels=mapped, **params)
        shared = tuple(i for i, level in enumerate(levels) if not level[-1])
        return [*[None] * (len(operands) - 1), gradient.sum(shared) if shared else gradient]

    primitive = _primitive(name, _drop_aval, _drop_rule)
    ad.deflinear2(primitive, of_cotangent)
    ad.defjvp(primitive, *[None] * 5, of_tangent)  # linear in x alone
    return primitive


def _primitive(name, aval, rule):
    primitive = Primitive(name)
    primitive.def_impl(functools.partial(apply_primitive, primitive))
    primitive.def_abstract_eval(aval)
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    mlir.register_lowering(primitive, rule("cpu"))
    for platform in ("cuda", "tpu"):
        mlir.register_lowering(primitive, rule(platform), platform=platform)
    return primitive


keep_p = _primitive("jdrop_keep", _keep_aval, _keep_rule)
drop_p = _drop_primitive("jdrop_drop")
# The same for a program of several GPUs, whose kernel needs the mesh to be split.
drop_split_p = _drop_primitive("jdrop_drop_split")
needs_mesh(drop_split_p)

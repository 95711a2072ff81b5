"""Dropout as one GPU kernel: it reads x, draws the mask in registers, scales, and writes y.

The mask is that of `jdrop.masks`, bit for bit, and is never in memory. A program serves a tile of
128 positions with 128 threads: a thread draws the words of one position, then the tile opens into
(128, 32) elements, which the threads load and store 16 bytes at a time where rows are a multiple of
32 elements (and singly where they are not: such rows start at odd addresses).

The kernel is linear in x and its own transpose. `pallas_call` knows no transpose, so it is the
lowering of a primitive of ours, which also batches (a batch of draws is one longer grid).

Written for Pallas's Triton backend: it compiles for every NVIDIA GPU since Ampere. (JAX 0.11
deprecates it for Mosaic GPU, which needs Hopper and asks for layouts by hand.) On other platforms
the kernel is interpreted.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from jdrop.masks.packed import LANES, all_lanes, compare, row_layout, shared_lanes, zero_lanes
from jdrop.masks.words import BLOCK_WORDS, WORDS, counter_block

_TILE = 128  # positions a program
_LARGEST = 2**31 - _TILE * LANES  # elements: the kernel counts in int32
_DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


def applies(key, x, limit, shape) -> bool:
    """Whether the kernel can drop elements of `x` by a mask drawn in `shape`."""
    counted = str(jax.random.key_impl(key)) in BLOCK_WORDS and 0 < x.size < _LARGEST
    split = any(jax.typeof(x).sharding.spec)
    return counted and not split and x.dtype in _DTYPES and limit.low.ndim == 0 and shape == x.shape


def drop(key, x, limit, scale, bits: int):
    """`x * scale` where the mask of (key, x.shape, limit) keeps, else 0, if that `applies`.

    Args:
      key: a typed key.
      x: a real array.
      limit: the rate's `Threshold`, scalars.
      scale: a scalar in the dtype to multiply in.
      bits: how many leading bits of the threshold may be set, from `static_bits`.
    """
    all_dropped = False if limit.all_dropped is None else limit.all_dropped
    limit = jnp.stack([limit.low, jnp.asarray(all_dropped).astype(jnp.uint32)])
    impl, data = str(jax.random.key_impl(key)), jax.random.key_data(key)
    varying = frozenset().union(*(_varying(a) for a in (data, limit, scale))) - _varying(x)
    x = lax.pcast(x, tuple(varying), to="varying") if varying else x
    return drop_p.bind(data, limit, scale, x, impl=impl, bits=bits, shape=x.shape)


def _varying(x):
    """The axes of a mesh over which `x` differs, inside of shard_map."""
    return jax.typeof(x).manual_axis_type.varying


def _launch(key_data, limit, scale, x, *, impl, bits, shape, interpret):
    """Run the kernel; the arguments may share leading batch axes, one draw of `shape` each."""
    size, (_, row) = math.prod(shape), row_layout(shape)
    per_row = -(-row // LANES)
    positions = size // row * per_row
    tiles = -(-positions // _TILE)
    key_size = key_data.shape[-1]

    def kernel(key_ref, limit_ref, scale_ref, x_ref, y_ref):
        draw = lax.div(pl.program_id(0), np.int32(tiles))
        position = lax.rem(pl.program_id(0), np.int32(tiles)) * _TILE + lax.iota(jnp.int32, _TILE)
        lane = lax.broadcasted_iota(jnp.int32, (_TILE, LANES), 1)
        inside = jnp.broadcast_to((position < positions)[:, None], lane.shape)
        start = position * LANES
        if row % LANES:
            place = lax.rem(position, np.int32(per_row)) * LANES
            inside = inside & (lane < (row - place)[:, None])
            start = lax.div(position, np.int32(per_row)) * row + place
        index = (draw * size + start)[:, None] + lane
        x = triton.load(x_ref.at[index], mask=inside, other=0)

        # The first key word is loaded by every thread. Were all words scalars, Triton would take the whole
        # draw for arithmetic that may be repeated, and change layout after opening a tile and not before.
        key_start = draw * key_size
        key_words = [triton.load(key_ref.at[jnp.full((_TILE,), key_start)])]
        key_words += [key_ref[key_start + i] for i in range(1, key_size)]
        low, all_dropped = limit_ref[2 * draw], limit_ref[2 * draw + 1]
        counter = position.astype(jnp.uint32)
        width, kept = BLOCK_WORDS[impl], jnp.full((_TILE,), 2**32 - 1, jnp.uint32)
        for j in reversed(range(-(-min(bits, WORDS) // width))):
            words = list(counter_block(impl, key_words, (jnp.zeros_like(counter), counter), np.uint32(j)))
            places = [np.uint32(j * width + place) for place in range(width)]
            if places[-1] == WORDS - 1:
                words[-1] = shared_lanes(words[-1], low)
            kept = compare(kept, words, [zero_lanes(low, place) for place in places])
        kept = kept & ~all_lanes(all_dropped)

        opened = (kept[:, None] >> lane.astype(jnp.uint32)) & np.uint32(1) != 0
        factor = scale_ref[draw]
        y = jnp.where(opened, x.astype(factor.dtype) * factor, jnp.zeros((), factor.dtype))
        triton.store(y_ref.at[index], y.astype(x.dtype), mask=inside)

    call = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct((x.size,), x.dtype, manual_axis_type=jax.typeof(x).manual_axis_type),
        grid=(x.size // size * tiles,),
        compiler_params=triton.CompilerParams(num_warps=_TILE // 32, num_stages=1),
        interpret=interpret,
        name="jdrop_drop",
    )
    return call(key_data.reshape(-1), limit.reshape(-1), scale.reshape(-1), x.reshape(-1)).reshape(x.shape)


def _batch(args, axes, **params):
    size = next(arg.shape[axis] for arg, axis in zip(args, axes) if axis is not None)
    args = [
        jnp.broadcast_to(arg, (size, *arg.shape)) if axis is None else jnp.moveaxis(arg, axis, 0)
        for arg, axis in zip(args, axes)
    ]
    if args[3].size >= _LARGEST:
        return lax.map(lambda each: drop_p.bind(*each, **params), tuple(args)), 0
    return drop_p.bind(*args, **params), 0


def _of_tangent(tangent, key_data, limit, scale, _, **params):
    return drop_p.bind(key_data, limit, scale, tangent, **params)


def _lowering(interpret):
    rule = mlir.lower_fun(functools.partial(_launch, interpret=interpret), multiple_results=False)

    def lower(ctx, *args, **params):
        # Each device runs its own kernel, in which nothing varies; Pallas does not work where something does.
        local = [aval.update(manual_axis_type=jax.typeof(0).manual_axis_type) for aval in ctx.avals_in]
        return rule(ctx.replace(avals_in=local), *args, **params)

    return lower


drop_p = Primitive("jdrop_drop")
drop_p.def_impl(functools.partial(xla.apply_primitive, drop_p))
drop_p.def_abstract_eval(lambda key_data, limit, scale, x, **params: x.update(weak_type=False))
ad.deflinear2(drop_p, lambda cotangent, *args, **params: [None, None, None, _of_tangent(cotangent, *args, **params)])
ad.defjvp(drop_p, None, None, None, _of_tangent)  # linear in x alone
batching.primitive_batchers[drop_p] = _batch
mlir.register_lowering(drop_p, _lowering(interpret=True))
mlir.register_lowering(drop_p, _lowering(interpret=False), platform="cuda")

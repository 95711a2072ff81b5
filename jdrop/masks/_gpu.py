"""Dropout as one GPU kernel: it reads x, draws the mask in registers, scales, and writes y.

The mask is that of `jdrop.masks`, bit for bit, and is never in memory. A program serves a tile of 128 words with 128
threads: a thread draws one word, then the tile opens into (32, 128) elements, which the threads load and store 16 bytes
at a time where rows are a multiple of that (and singly where they are not: such rows start at odd addresses).

Written for Pallas's Triton backend: it compiles for every NVIDIA GPU since Ampere. (JAX 0.11 deprecates it for Mosaic
GPU, which needs Hopper and asks for layouts by hand.) On other platforms the kernel is interpreted.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from jdrop._compat import result_like
from jdrop.masks._layout import LANES, as_matrix, as_runs
from jdrop.masks._words import BLOCK_WORDS, WORDS, blocks, decided

_WORDS = 128  # words a program
_LARGEST = 2**31 - _WORDS * LANES  # elements: the kernel counts in int32
_DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float8_e4m3fn, jnp.float8_e5m2)


def applies(spec, sizes, batch, dtype) -> bool:
    """Whether the kernel can drop `batch` arrays of `sizes`, parts of masks of `spec`."""
    whole = spec.shape == sizes or as_matrix(spec.shape).pieces == 1
    return spec.impl in BLOCK_WORDS and dtype in _DTYPES and whole and 0 < batch * math.prod(sizes) < _LARGEST


def drop(spec, data, numbers, x, interpret=False):
    """`x * scale` where a mask keeps, else 0, if that `applies`.

    Every array has a first axis of the number of draws, or of 1 where all draws share it.

    Args:
      spec: the mask's `Spec`.
      data: the key's words, uint32.
      numbers: uint32: the rate's threshold, whether all is dropped, the bits of the scale (float32), and, if x is a
        part of the mask, where it starts, a number an axis.
      x: real arrays.
      interpret: whether to interpret the kernel.
    """
    impl, shape, bits = spec
    matrix, sizes = as_matrix(shape), x.shape[1:]
    batch, size = max(map(len, (data, numbers, x))), math.prod(sizes)
    first, rows, aligned = as_runs(shape, sizes)
    columns = matrix.columns if shape == sizes else sizes[-1]
    planes = 1 if shape == sizes else size // (rows * columns)
    wide = min(_WORDS, pl.next_power_of_2(columns))
    high = _WORDS // wide
    across, down = pl.cdiv(columns, wide), pl.cdiv(pl.cdiv(rows, LANES) + (not aligned), high)
    tiles = planes * down * across

    def kernel(data_ref, numbers_ref, x_ref, y_ref):
        program = pl.program_id(0)
        draw, tile = lax.div(program, np.int32(tiles)), lax.rem(program, np.int32(tiles))

        def start(array):
            return draw * np.int32(math.prod(array.shape[1:])) if len(array) > 1 else np.int32(0)

        threshold, all_dropped, scale, *origin = (numbers_ref[start(numbers) + i] for i in range(numbers.shape[1]))
        origin = origin or [np.uint32(0)] * max(len(sizes), 1)

        place, word = lax.iota(jnp.int32, _WORDS), lax.div(tile, np.int32(across))
        plane, word = lax.div(word, np.int32(down)), lax.rem(word, np.int32(down)) * high + place // wide
        column = lax.rem(tile, np.int32(across)) * wide + place % wide
        row = first(plane.astype(jnp.uint32), origin)  # of the plane's first element
        word_row = row // LANES + word.astype(jnp.uint32)

        lane = lax.broadcasted_iota(jnp.int32, (LANES, _WORDS), 0)
        below = word[None] * LANES + lane - (row % LANES).astype(jnp.int32)  # rows below the plane's first
        inside = (below >= 0) & (below < rows) & (column < columns)[None]
        if matrix.pieces == 1:
            index = (plane * rows + below) * columns + column[None]
        else:
            across_row = lax.rem(below, np.int32(matrix.pieces)) * columns + column[None]
            inside = inside & (across_row < matrix.last)
            index = lax.div(below, np.int32(matrix.pieces)) * matrix.last + across_row
        if interpret:  # where a masked store writes what was there before, in no order
            index = jnp.where(inside, index, x_ref.size + y_ref.size)
        part = triton.load(x_ref.at[start(x) + index], mask=inside)

        # The first key word is loaded by every thread. Were all words scalars, Triton would take the whole
        # draw for arithmetic that may be repeated, and change layout after opening a tile and not before.
        at = start(data)
        key = [triton.load(data_ref.at[jnp.full((_WORDS,), at)])]
        key += [data_ref[at + i] for i in range(1, data.shape[-1])]
        column = column.astype(jnp.uint32) + (origin[-1] if matrix.pieces == 1 else np.uint32(0))
        width, kept = BLOCK_WORDS[impl], jnp.full((_WORDS,), 2**32 - 1, jnp.uint32)
        for j in reversed(range(-(-min(bits, WORDS) // width))):
            words = blocks(impl, key, word_row, column, np.uint32(j))
            for i in reversed(range(width)):
                kept = decided(kept, words[i], np.uint32(j * width + i), threshold)
        kept = kept & (all_dropped - np.uint32(1))
        opened = (kept[None] >> lane.astype(jnp.uint32)) & np.uint32(1) != 0
        scale = lax.bitcast_convert_type(scale, jnp.float32)
        y = jnp.where(opened, part.astype(jnp.float32) * scale, jnp.float32(0))
        triton.store(y_ref.at[draw * np.int32(size) + index], y.astype(x.dtype), mask=inside)

    call = pl.pallas_call(
        kernel,
        out_shape=result_like(x, (batch * size,)),
        grid=(batch * tiles,),
        compiler_params=triton.CompilerParams(num_warps=_WORDS // 32, num_stages=1),
        interpret=interpret,
        name="jdrop_drop",
    )
    return call(data.reshape(-1), numbers.reshape(-1), x.reshape(-1)).reshape(batch, *sizes)

"""Dropout as one TPU kernel: it reads x, draws the mask in vector registers, scales, and writes y.

The mask is that of `jdrop.masks`, bit for bit, and is never in memory. A word serves a column of 32 rows, and rows are
sublanes: a program draws the words of a tile of x, (words, columns), and opens each by giving it to all sublanes, which
shift it by their place. Nothing moves between lanes.

Tiles lie in x as it is: a reshape of an array in a TPU's memory may copy it.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jdrop.masks.layout import LANES, as_matrix, as_runs
from jdrop.masks.words import BLOCK_WORDS, WORDS, blocks, decided

_TILE = 2**18  # elements a program
_WIDE = 1024  # columns a program, at most
_DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float8_e4m3fn, jnp.float8_e5m2)


def applies(impl, shape, sizes, batch, dtype) -> bool:
    """Whether the kernel can drop `batch` arrays of `sizes`, parts of masks of `shape`."""
    known = impl.startswith("threefry") and dtype in _DTYPES  # a TPU has no high word of a product, for philox
    return known and batch * math.prod(sizes) > 0 and as_matrix(shape).pieces == 1 and len(sizes) > 1


def drop(data, numbers, x, *, impl, shape, bits, interpret=False):
    """`x * scale` where a mask keeps, else 0, if that `applies`; see `jdrop.masks.gpu.drop` for the arguments."""
    batch, planes, (height, width) = max(map(len, (data, numbers, x))), math.prod(x.shape[1:-2]), x.shape[-2:]
    first_of_run, rows, aligned = as_runs(shape, x.shape[1:])
    a_run = rows // height  # planes that follow each other in the mask

    # A tile of `deep` planes, `high` rows and `wide` columns, whose words start `start` rows before it.
    wide = min(width, _WIDE)
    most = _TILE // (-(-wide // 128) * 128)  # rows
    period = LANES // math.gcd(LANES, height)  # planes after which one starts with a word again
    if aligned and (a_run == 1 or height % LANES == 0):
        high = min(height, most)
        deep = min(planes, max(1, most // high)) if high == height and height % LANES == 0 else 1
        ragged = False
    elif aligned and a_run == planes and period * height <= most:
        high, deep, ragged = height, period, False
    else:  # a plane starts at any lane, and so its words serve rows before and after it
        high, deep, ragged = min(height, most - LANES), 1, True
    each = -(-high // LANES) + ragged if deep == 1 or height % LANES == 0 else None  # words a plane
    count = each * deep if each else -(-deep * high // LANES)

    def kernel(data_ref, numbers_ref, x_ref, y_ref):
        key = [data_ref[0, i] for i in range(data.shape[1])]
        threshold, all_dropped, scale, *origin = (numbers_ref[0, i] for i in range(numbers.shape[1]))
        origin = origin or [np.uint32(0)] * (x.ndim - 1)
        plane, block, column = (pl.program_id(axis).astype(jnp.uint32) for axis in (1, 2, 3))

        def first(i):
            """The row in the mask of this tile's first row in its plane number i."""
            at = plane * np.uint32(deep) + np.uint32(i)
            if a_run == planes:
                return first_of_run(np.uint32(0), origin) + at * np.uint32(height) + block * np.uint32(high)
            of_run = first_of_run(at // np.uint32(a_run), origin)
            return of_run + at % np.uint32(a_run) * np.uint32(height) + block * np.uint32(high)

        at = lax.broadcasted_iota(jnp.uint32, (count, wide), 0)
        row = first(0) // LANES + at
        for i in range(1, deep if each and a_run != planes else 1):
            start = np.uint32(i * each)
            row = jnp.where(at >= start, first(i) // LANES + at - start, row)
        column = lax.broadcasted_iota(jnp.uint32, (count, wide), 1) + column * np.uint32(wide) + origin[-1]

        per_block, kept = BLOCK_WORDS[impl], jnp.full((count, wide), 2**32 - 1, jnp.uint32)
        for j in reversed(range(-(-min(bits, WORDS) // per_block))):
            words = blocks(impl, key, row, column, np.uint32(j))
            for i in reversed(range(per_block)):
                kept = decided(kept, words[i], np.uint32(j * per_block + i), threshold)
        kept = lax.bitcast_convert_type(kept & (all_dropped - np.uint32(1)), jnp.int32)

        scale = lax.bitcast_convert_type(scale, jnp.float32)
        below = (first(0) % LANES).astype(jnp.int32)  # the lane of the first row, where it is ragged
        for i, top in itertools.product(range(deep), range(0, high, LANES)):
            here = min(LANES, high - top)
            lane = lax.broadcasted_iota(jnp.int32, (here, wide), 0)
            word, start = divmod(i * each * LANES + top if each else i * high + top, LANES)
            lane = lane + (below if ragged else start)
            bits_of = jnp.broadcast_to(kept[word : word + 1], lane.shape)
            if ragged or start + here > LANES:
                bits_of = jnp.where(lane < LANES, bits_of, jnp.broadcast_to(kept[word + 1 : word + 2], lane.shape))
                lane = lane & (LANES - 1)
            opened = bits_of << (LANES - 1 - lane) < 0  # the sign is the lane's bit
            part = x_ref[i, top : top + here]
            y = jnp.where(opened, part.astype(jnp.float32) * scale, jnp.float32(0))
            y_ref[i, top : top + here] = y.astype(x.dtype)

    def scalars(array):
        def index(n, p, r, c):
            return (n if len(array) > 1 else 0, 0, 0)

        return pl.BlockSpec((None, 1, array.shape[1]), index, memory_space=pltpu.SMEM)

    tile = (None, deep, high, wide)
    call = pl.pallas_call(
        kernel,
        out_shape=jax.ShapeDtypeStruct(
            (batch, planes, height, width), x.dtype, manual_axis_type=jax.typeof(x).manual_axis_type
        ),
        grid=(batch, pl.cdiv(planes, deep), pl.cdiv(height, high), pl.cdiv(width, wide)),
        in_specs=[
            scalars(data),
            scalars(numbers),
            pl.BlockSpec(tile, lambda n, p, r, c: (n if len(x) > 1 else 0, p, r, c)),
        ],
        out_specs=pl.BlockSpec(tile, lambda n, p, r, c: (n, p, r, c)),
        interpret=interpret,
        name="jdrop_drop",
    )
    y = call(data[:, None], numbers[:, None], x.reshape(len(x), planes, height, width))
    return y.reshape(batch, *x.shape[1:])

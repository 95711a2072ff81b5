"""Dropout as one TPU kernel: it reads x, draws the mask in vector registers, scales, and writes y.

The mask is that of `jdrop.masks`, bit for bit, and is never in memory. A word serves a column of 32 rows; a program
draws the words of a tile of x and opens each by shifting its bits into the sign. Nothing moves between lanes.

A reshape of an array in a TPU's memory may copy it, so a tile lies in x as XLA lays x out. Mostly rows are sublanes,
and a word is given to all sublanes (`_down`). Where the last axis but one is no multiple of 8, XLA makes the first
axis sublanes; and of few rows each is cut in pieces of 128, which lie beside each other. In both cases the rows that a
word serves are one array of sublanes and lanes after another, and each sublane has words of its own (`_across`).
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jdrop._compat import result_like
from jdrop.masks._layout import LANES, as_matrix, as_runs
from jdrop.masks._words import BLOCK_WORDS, WORDS, blocks, decided

_TILE = 2**18  # elements a program
_WIDE = 1024  # columns a program, at most
_PIECE = 128  # lanes
_DTYPES = (jnp.bfloat16, jnp.float32, jnp.float8_e4m3fn, jnp.float8_e5m2)  # Mosaic loads no float16


def applies(spec, sizes, batch, dtype) -> bool:
    """Whether the kernel can drop `batch` arrays of `sizes`, parts of masks of `spec`."""
    shape = spec.shape
    if not spec.impl.startswith("threefry") or dtype not in _DTYPES or not batch * math.prod(sizes):
        return False  # a TPU has no high word of a product, for philox
    if as_matrix(shape).pieces == 1:
        return len(sizes) > 1
    return shape == sizes and (_on_a_line(shape) or _in_pieces(shape))


def drop(spec, data, numbers, x, interpret=False):
    """`x * scale` where a mask keeps, else 0, if that `applies`; see the GPU's `drop` for the arguments."""
    shape = spec.shape
    if _on_a_line(shape):
        lines = (shape[0] // _PIECE, _PIECE)
        return drop(spec._replace(shape=lines), data, numbers, x.reshape(len(x), *lines), interpret).reshape(x.shape)
    if _in_pieces(shape):
        rows = x.reshape(len(x), 1, *shape[-2:])
        return _across(spec, data, numbers, rows, as_matrix(shape).pieces, None, True, interpret).reshape(x.shape)
    if _first_axis_is_sublanes(shape, x.shape[1:]):
        middle = x.shape[2:-1]
        planes = jnp.moveaxis(x, 1, -2)
        turned = planes.reshape(len(x), math.prod(middle), *planes.shape[-2:])
        rows, stride = math.prod(shape[1:-1]), math.prod(shape[2:-1])
        y = _across(spec, data, numbers, turned, rows, stride, False, interpret)
        return jnp.moveaxis(y.reshape(len(y), *planes.shape[1:]), -2, 1)
    return _down(spec, data, numbers, x, interpret)


def _on_a_line(shape) -> bool:
    """Whether a vector's pieces are a matrix as they lie in memory."""
    return len(shape) == 1 and shape[0] % (8 * _PIECE) == 0 and as_matrix(shape).columns == _PIECE


def _in_pieces(shape) -> bool:
    matrix = as_matrix(shape)
    return len(shape) > 1 and math.prod(shape[:-2]) == 1 and matrix.pieces > 1 and matrix.columns == _PIECE


def _first_axis_is_sublanes(shape, sizes) -> bool:
    """Whether XLA makes the first axis sublanes, and the rows behind each of its elements follow each other."""
    whole = len(sizes) > 2 and sizes[2:-1] == shape[2:-1]
    return whole and (sizes[0] % 8 == 0 or sizes[0] in (2, 4)) and all(size % 8 and size > 1 for size in sizes[1:-1])


def _kept(spec, key, threshold, all_dropped, row, column):
    """The words that serve word rows and columns, as int32, whose sign is the bit of lane 31."""
    (impl, _, bits), width, kept = spec, BLOCK_WORDS[spec.impl], jnp.full(row.shape, 2**32 - 1, jnp.uint32)
    for j in reversed(range(-(-min(bits, WORDS) // width))):
        words = blocks(impl, key, row, column, np.uint32(j))
        for i in reversed(range(width)):
            kept = decided(kept, words[i], np.uint32(j * width + i), threshold)
    return lax.bitcast_convert_type(kept & (all_dropped - np.uint32(1)), jnp.int32)


def _opened(part, words, lane, scale):
    """The elements of `part`, scaled, whose bit `lane` in `words` is set."""
    opened = words << (LANES - 1 - lane) < 0
    return jnp.where(opened, part.astype(jnp.float32) * scale, jnp.float32(0)).astype(part.dtype)


def _read(data_ref, numbers_ref, axes):
    """(the key's words, threshold, whether all is dropped, scale, origin) in scalar memory."""
    key = [data_ref[0, i] for i in range(data_ref.shape[1])]
    threshold, all_dropped, scale, *origin = (numbers_ref[0, i] for i in range(numbers_ref.shape[1]))
    return key, threshold, all_dropped, lax.bitcast_convert_type(scale, jnp.float32), origin or [np.uint32(0)] * axes


def _down(spec, data, numbers, x, interpret):
    """Rows are sublanes."""
    planes, (height, width) = math.prod(x.shape[1:-2]), x.shape[-2:]
    first_of_run, rows, aligned = as_runs(spec.shape, x.shape[1:])
    a_run = rows // height  # planes that follow each other in the mask

    # A tile of `deep` planes, `high` rows and `wide` columns.
    wide = min(width, _WIDE)
    most = _TILE // (pl.cdiv(wide, _PIECE) * _PIECE) // LANES * LANES  # rows
    period = LANES // math.gcd(LANES, height)  # planes after which one starts with a word again
    if aligned and (a_run == 1 or height % LANES == 0):
        high = min(height, most)
        deep = min(planes, max(1, most // high)) if high == height and height % LANES == 0 else 1
        ragged = False
    elif aligned and a_run == planes and period * height <= most:
        high, deep, ragged = height, period, False
    else:  # a plane starts at any lane, and so its words serve rows before and after it
        high, deep, ragged = min(height, most - LANES), 1, True
    each = pl.cdiv(high, LANES) + ragged if deep == 1 or height % LANES == 0 else 0  # words a plane, if whole
    count = each * deep if each else pl.cdiv(deep * high, LANES)

    def kernel(data_ref, numbers_ref, x_ref, y_ref):
        key, threshold, all_dropped, scale, origin = _read(data_ref, numbers_ref, x.ndim - 1)
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
        kept = _kept(spec, key, threshold, all_dropped, row, column)

        below = (first(0) % LANES).astype(jnp.int32)  # the lane of the first row, where it is ragged
        for i, top in itertools.product(range(deep), range(0, high, LANES)):
            here = min(LANES, high - top)
            lane = lax.broadcasted_iota(jnp.int32, (here, wide), 0)
            word, start = divmod(i * each * LANES + top if each else i * high + top, LANES)
            lane = lane + (below if ragged else start)
            words = jnp.broadcast_to(kept[word : word + 1], lane.shape)
            if ragged or start + here > LANES:
                words = jnp.where(lane < LANES, words, jnp.broadcast_to(kept[word + 1 : word + 2], lane.shape))
                lane = lane & (LANES - 1)
            y_ref[i, top : top + here] = _opened(x_ref[i, top : top + here], words, lane, scale)

    return _call(
        kernel, data, numbers, x.reshape(len(x), planes, height, width), (deep, high, wide), interpret
    ).reshape(-1, *x.shape[1:])


def _across(spec, data, numbers, x, rows, stride, in_pieces, interpret):
    """Sublanes have rows of their own.

    Args:
      spec, data, numbers, interpret: as for `drop`.
      x: (draws, t, i, columns), element t of sublane i being row ``i * rows + t`` of the mask; or, `in_pieces`,
        (draws, 1, i, last), t being a piece of the last axis.
      rows: how many rows a sublane has in the mask.
      stride: how many of them an element of the mask's second axis has.
    """
    _, length, height, width = x.shape
    sublanes = min(height, 16)
    if in_pieces:
        length, wide = pl.cdiv(width, _PIECE), _PIECE
        most = _TILE // (pl.cdiv(sublanes, 8) * 8 * _PIECE) // LANES * LANES
    else:
        wide = min(width, _PIECE)
        most = 7 * LANES
    steps = min(length, most)
    tile = (1, sublanes, steps * _PIECE) if in_pieces else (steps, sublanes, wide)

    def kernel(data_ref, numbers_ref, x_ref, y_ref):
        key, threshold, all_dropped, scale, origin = _read(data_ref, numbers_ref, 2)
        block, tops, columns = (pl.program_id(axis).astype(jnp.uint32) for axis in (1, 2, 3))
        block, columns = (columns, np.uint32(0)) if in_pieces else (block, columns)
        first = block * np.uint32(steps) + (np.uint32(0) if in_pieces else origin[1] * np.uint32(stride))
        sublane = lax.broadcasted_iota(jnp.uint32, (sublanes, wide), 0) + tops * np.uint32(sublanes) + origin[0]
        row = sublane * np.uint32(rows) + first
        column = lax.broadcasted_iota(jnp.uint32, (sublanes, wide), 1) + columns * np.uint32(wide)
        column = column if in_pieces else column + origin[-1]
        kept = [
            _kept(spec, key, threshold, all_dropped, row // LANES + np.uint32(word), column)
            for word in range((steps + LANES - 2) // LANES + 1)
        ]
        below = (row % LANES).astype(jnp.int32)
        for t in range(steps):
            word, start = divmod(t, LANES)
            lane, words = below + start, kept[word]
            if word + 1 < len(kept):
                words = jnp.where(lane < LANES, words, kept[word + 1])
            here = (0, slice(None), slice(t * _PIECE, (t + 1) * _PIECE)) if in_pieces else t
            y_ref[here] = _opened(x_ref[here], words, lane & (LANES - 1), scale)

    return _call(kernel, data, numbers, x, tile, interpret)


def _call(kernel, data, numbers, x, tile, interpret):
    """`kernel(data_ref, numbers_ref, x_ref, y_ref)` for each draw and tile of x, (draws, ...) with three axes."""

    def scalars(array):
        def index(n, *_):
            return (n if len(array) > 1 else 0, 0, 0)

        return pl.BlockSpec((None, 1, array.shape[1]), index, memory_space=pltpu.SMEM)

    batch = max(map(len, (data, numbers, x)))
    call = pl.pallas_call(
        kernel,
        out_shape=result_like(x, (batch, *x.shape[1:])),
        grid=(batch, *map(pl.cdiv, x.shape[1:], tile)),
        in_specs=[
            scalars(data),
            scalars(numbers),
            pl.BlockSpec((None, *tile), lambda n, *at: (n if len(x) > 1 else 0, *at)),
        ],
        out_specs=pl.BlockSpec((None, *tile), lambda n, *at: (n, *at)),
        interpret=interpret,
        name="jdrop_drop",
    )
    return call(data[:, None], numbers[:, None], x)

"""Keep masks by XLA, 32 rows at once: one bit an element until the very end."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdrop.masks._layout import LANES, as_matrix
from jdrop.masks._words import BLOCK_WORDS, WORDS, all_lanes, blocks, decided, words_of_bits


def draw(mask, unroll=False, matrix=None):
    """The words of a mask.

    Args:
      mask: a `Mask`, whose thresholds broadcast to its shape.
      matrix: the `Matrix` of its shape, where that is known from elsewhere.
      unroll: whether the blocks of a word are written out and not a loop: what a GPU needs, see `_draw`.

    Returns:
      uint32 words for `opened`, one for 32 rows of a column: (*leading, words, 1, columns) where each plane of the last
      two axes fills its words, which lets all axes shard, and else (words, 1, columns) of the mask's matrix.
    """
    shape, matrix = mask.shape, matrix or as_matrix(mask.shape)
    *outer, rows = matrix.leading if matrix.fills_words else (matrix.rows,)
    counts = (*outer, -(-rows // LANES))
    drawn = (*counts, 1, matrix.columns)

    def place(zero):
        return _row(counts, drawn, [zero] * len(counts)), _along(drawn, -1) + zero

    def place_on_a_line(zero):
        index, columns = _along((1, math.prod(drawn)), -1), np.uint32(max(matrix.columns, 1))
        return index // columns, index % columns

    def by_lane(leaf):
        if leaf.ndim == 0 or (matrix.pieces == 1 and leaf.size == leaf.shape[-1]):  # one rate, or one a column
            return leaf.reshape(*(1,) * (len(drawn) - 1), -1)
        by_row = matrix.pieces == 1 and leaf.shape[-1] == 1
        leaf = jnp.broadcast_to(leaf, (*shape[:-1], 1) if by_row else shape)
        if matrix.pieces > 1:
            padding = matrix.pieces * matrix.columns - matrix.last
            leaf = jnp.pad(leaf.reshape(*matrix.leading, -1), [(0, 0)] * len(matrix.leading) + [(0, padding)])
        leaf = leaf.reshape(*outer, rows, 1 if by_row else matrix.columns)
        leaf = jnp.pad(leaf, [(0, 0)] * len(outer) + [(0, -rows % LANES), (0, 0)])
        return leaf.reshape(*counts, LANES, leaf.shape[-1])

    if unroll and mask.limit.low.ndim == 0:  # XLA would take what depends on the row or the column alone out of it
        mask = _with_limit(mask, lambda leaf: leaf.reshape(1, 1))
        return _draw(mask, place_on_a_line, (1, math.prod(drawn)), unroll).reshape(drawn)
    return _draw(_with_limit(mask, by_lane), place, drawn, unroll)


def opened(words, shape, matrix=None):
    """The booleans of `shape` in the words of `draw`."""
    matrix = matrix or as_matrix(shape)
    kept = _is_odd(words >> _lane(words.ndim))
    if matrix.fills_words:
        return kept.reshape(shape)
    kept = kept.reshape(matrix.word_rows * LANES, matrix.columns)[: matrix.rows]
    return kept.reshape(*matrix.leading, matrix.pieces * matrix.columns)[..., : matrix.last].reshape(shape)


def tile(mask, origin, sizes, unroll=False, aligned=False):
    """The booleans of a mask that start at `origin` and have `sizes`, drawn without the rest of it.

    No word serves two planes of the last two axes, or, where the mask is cut in pieces or the rate varies from row to
    row, two elements: more words than in `draw`, but a program that splits over devices wherever `sizes` does.

    Args:
      mask: a `Mask`, whose thresholds broadcast with `sizes`.
      origin: a uint32 an axis.
      sizes: an integer an axis.
      unroll: as for `draw`.
      aligned: whether planes of the last two axes, and the tile in them, start and end where words do.
    """
    if not mask.shape:
        return tile(dataclasses.replace(mask, shape=(1,)), np.zeros(1, np.uint32), (1,), unroll).reshape(
            mask.limit.low.shape
        )
    matrix, rates = as_matrix(mask.shape), mask.limit.low.shape
    one_a_column = math.prod(rates[:-1]) == 1 and jnp.broadcast_shapes(rates, sizes) == sizes
    if aligned and matrix.pieces == 1 and one_a_column:
        drawn = (*sizes[:-2], sizes[-2] // LANES, 1, sizes[-1])
        counts = (*matrix.leading[:-1], matrix.leading[-1] // LANES)

        def place_of_words(zero):
            row = _row(counts, drawn, [*(start + zero for start in origin[:-2]), origin[-2] // np.uint32(LANES) + zero])
            return row, _along(drawn, -1) + (origin[-1] + zero)

        mask = _with_limit(mask, lambda leaf: leaf.reshape(*(1,) * len(sizes), -1))
        words = _draw(mask, place_of_words, drawn, unroll)
        return _is_odd(words >> _lane(words.ndim)).reshape(sizes)

    if matrix.pieces == 1 and len(sizes) > 1 and one_a_column:
        count = -(-sizes[-2] // LANES) + 1
        drawn = (*sizes[:-2], count, 1, sizes[-1])

        def first_row(shape, zero):  # of each plane
            return _row(matrix.leading, shape, [start + zero for start in origin[:-2]]) + (origin[-2] + zero)

        def place(zero):
            row = first_row(drawn, zero) // np.uint32(LANES) + _along(drawn, -3)
            return row, _along(drawn, -1) + (origin[-1] + zero)

        mask = _with_limit(mask, lambda leaf: leaf.reshape(*(1,) * len(sizes), -1))
        words = _draw(mask, place, drawn, unroll)
        # Looked up and not reshaped: XLA would move words between devices where a shard ends inside of one.
        row = np.arange(sizes[-2])
        before, after = (jnp.take(words[..., 0, :], row // LANES + i, axis=-2, mode="clip") for i in (0, 1))
        lane = _along((*(1,) * (len(sizes) - 2), sizes[-2], 1), -2) % np.uint32(LANES)
        lane = first_row((*sizes[:-2], 1, 1), np.uint32(0)) % np.uint32(LANES) + lane
        return _is_odd(jnp.where(lane < LANES, before, after) >> lane % np.uint32(LANES))

    return by_element(mask, origin, sizes, matrix.pieces, matrix.columns, unroll)


def by_element(mask, origin, sizes, pieces, columns, unroll=False):
    """`tile` with a word for each element; the pieces and columns of the mask's matrix may be traced."""
    axes = (*sizes[:-1], 1, sizes[-1])

    def row_and_column(zero):
        row = _row(mask.shape[:-1], axes, [start + zero for start in origin[:-1]])
        last = _along(axes, -1) + (origin[-1] + zero)
        return row * _uint32(pieces) + last // _uint32(columns), last % _uint32(columns)

    def place(zero):
        row, column = row_and_column(zero)
        return row // np.uint32(LANES), column

    mask = _with_limit(mask, lambda leaf: leaf.reshape((*(1,) * (len(sizes) - leaf.ndim), *leaf.shape))[..., None, :])
    words = _draw(mask, place, jnp.broadcast_shapes(axes, mask.limit.low.shape), unroll)
    return _is_odd(words >> row_and_column(np.uint32(0))[0] % np.uint32(LANES))[..., 0, :]


def _with_limit(mask, function):
    return dataclasses.replace(mask, limit=jax.tree.map(function, mask.limit))


def _draw(mask, place, shape, unroll):
    """Words of `shape`, whose axis before the last is 1; that of the thresholds is 1, or 32 for its lanes.

    `place(zero)` gives the word rows and columns. The blocks of a word are a loop on a CPU and a TPU, where XLA would
    draw them again for each of the 32 lanes and takes long to compile them written out. On a GPU they are written out:
    there they take one kernel, and each turn of a loop takes several.
    """
    (impl, _, bits), limit, data = mask.spec, mask.limit, jax.random.key_data(mask.key)
    used, width = min(bits, WORDS), BLOCK_WORDS.get(impl, 4)
    row, column = place(np.uint32(0))
    every = None
    if impl not in BLOCK_WORDS:
        matrix = as_matrix(mask.shape)
        every = words_of_bits(mask.key, (matrix.word_rows, matrix.columns))
        every = every.reshape(-1, *shape) if every[0].size == math.prod(shape) else every[:, row, column]

    def step(data, zero, j, kept):
        if every is None:
            at_row, at_column = place(zero)
            words = blocks(impl, data, at_row, at_column, j)
        else:
            words = lax.dynamic_slice_in_dim(every, j.astype(jnp.int32) * width, width)
        for i in reversed(range(width)):
            last = i == width - 1 and used == WORDS
            kept = decided(kept, words[i], j * np.uint32(width) + np.uint32(i), limit.low, _packed, last)
        return kept

    # All ones, that vary over the devices where the words do, as shard_map asks of what a loop starts with.
    kept = ~(jnp.zeros(shape, jnp.uint32) | (data[0] | limit.low[..., :1, :] | row) & np.uint32(0))
    if used and 0 not in shape and unroll:
        for j in reversed(range(-(-used // width))):
            kept = step(tuple(data), np.uint32(0), np.uint32(j), kept)
    elif used and 0 not in shape:
        # At least two turns: a loop of one is inlined, and its words drawn again for each of the 32 lanes.
        kept = _loop(data, max(2, used // width), step, kept)
    return kept if limit.all_dropped is None else kept & ~_packed(limit.all_dropped)


def _packed(flags):
    """Words of the booleans on the axis before the last, of 32 lanes, or of 1 for all of them."""
    if flags.shape[-2] == 1:
        return all_lanes(flags)
    return jnp.sum(flags.astype(jnp.uint32) << _lane(flags.ndim), axis=-2, keepdims=True, dtype=jnp.uint32)


def _loop(data, steps, step, value):
    """`value = step(data, zero, j, value)` for j = steps - 1 ... 0, with the key's data and a zero.

    The key's data and the zero ride in one array that the loop adds to. Were they constants of the loop, XLA would
    move each scalar of the key schedule, and each part of a counter without the zero, out of it into a kernel and a
    buffer of its own: slower for small masks, and three times as long to compile. The counter stays apart, so
    that under `vmap` over keys the loops end together and no device asks another.
    """
    state = jnp.pad(data, (0, 2))
    one = np.eye(1, state.shape[0], state.shape[0] - 1, dtype=np.uint32)[0]

    def body(carry):
        value, state, i = carry
        *data, zero, _ = state
        return step(data, zero, np.uint32(steps - 1) - i, value), state + one, i + np.uint32(1)

    return lax.while_loop(lambda carry: carry[2] < np.uint32(steps), body, (value, state, jnp.uint32(0)))[0]


def _row(leading, shape, starts):
    """For each element of `shape`, the row-major index in `leading` of its place on the first axes, from `starts`."""
    row = None
    for axis, start in enumerate(starts):
        stride = math.prod(leading[axis + 1 :])
        along = _along(shape, axis) + start
        along = along if isinstance(stride, int) and stride == 1 else along * _uint32(stride)
        row = along if row is None else row + along
    return jnp.zeros(shape, jnp.uint32) if row is None else row


def _uint32(size):
    """A size, known or symbolic or traced."""
    return np.uint32(size) if isinstance(size, int) else jnp.asarray(size).astype(jnp.uint32)


def _along(shape, axis):
    # Counted in another type on every other axis: XLA would take those of two axes of one size for the same array, and
    # move its parts between devices where the axes are split over different ones.
    dtype = (jnp.uint32, jnp.int32)[axis % len(shape) % 2]
    return lax.broadcasted_iota(dtype, shape, axis % len(shape)).astype(jnp.uint32)


def _lane(ndim):
    """The lanes, on the axis before the last."""
    return np.arange(LANES, dtype=np.uint32).reshape(*(1,) * (ndim - 2), LANES, 1)


def _is_odd(words):
    return words & np.uint32(1) != 0

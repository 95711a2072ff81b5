"""Keep masks of a shape with symbolic axes, as `jax.export` has them: the layout is chosen when the program runs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdrop.masks._layout import LANES, Matrix
from jdrop.masks._packed import by_element, draw, opened
from jdrop.masks._words import BLOCK_WORDS


def keep(mask):
    """The booleans of a mask of the specified generators, bit for bit those of a mask of the sizes that come.

    Rows that are not cut are drawn by words. Where they are cut the pieces are traced numbers, and no shape may depend
    on them: each element then draws a word of its own.
    """
    shape = mask.shape
    if str(jax.random.key_impl(mask.key)) not in BLOCK_WORDS:  # whose stream is not specified, whatever the shape
        key = jax.random.wrap_key_data(jax.random.key_data(mask.key), impl=jax.random.key_impl(mask.key))
        kept = jax.random.bits(key, shape, jnp.uint32) >= mask.limit.low
        return kept if mask.limit.all_dropped is None else kept & ~mask.limit.all_dropped
    *leading, last = shape
    pieces, columns = _pieces(math.prod(leading), last)
    start = np.zeros(len(shape), np.uint32)
    matrix = Matrix(tuple(leading), last, 1, last)
    if mask.limit.low.ndim:
        return by_element(mask, start, shape, pieces, columns)
    return lax.cond(
        pieces == 1,
        lambda mask: opened(draw(mask, matrix=matrix), shape, matrix),
        lambda mask: by_element(mask, start, shape, pieces, columns),
        mask,
    )


def _pieces(rows, last):
    """The (pieces, columns) that `as_matrix` chooses, uint32 scalars."""
    with jax.enable_x64(True):
        rows, last = (jnp.asarray(size).astype(jnp.int64) for size in (rows, last))
        columns = last
        for candidate in (2**n for n in range(8)):  # from the last resort up, each before those below
            columns = jnp.where(
                (candidate < last) & (_fits(rows, last, candidate) | (candidate == 1)), candidate, columns
            )
        columns = jnp.where(_fits(rows, last, last), last, columns)
        return (-(-last // columns)).astype(jnp.uint32), columns.astype(jnp.uint32)


def _fits(rows, last, columns):
    """Whether at most one bit in eight of so many columns would serve no element."""
    drawn = -(-(rows * -(-last // columns)) // LANES) * LANES * columns
    return 8 * (drawn - rows * last) <= drawn

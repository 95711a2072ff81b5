"""Where the elements of a mask find their bits: a matrix of rows and columns, 32 rows to a word."""

import math
from typing import NamedTuple

import numpy as np

from jdrop.masks._shape import is_static

LANES = 32  # rows that a word serves, one bit each
MOST_ROWS, MOST_COLUMNS = 2**32, 2**27  # what the counters have room for
WHOLE_ROWS = 217  # of so many rows and more, no more than one bit in eight of their words serves no element


class Matrix(NamedTuple):
    """The matrix that a mask is drawn as: the last axis, cut in `pieces` of `columns`, is so many rows."""

    leading: tuple[int, ...]  # the axes before the last
    last: int
    pieces: int
    columns: int

    @property
    def rows(self) -> int:
        return math.prod(self.leading) * self.pieces

    @property
    def word_rows(self) -> int:
        return -(-self.rows // LANES)

    @property
    def fills_words(self) -> bool:
        """Whether no word serves rows of two planes, so that the leading axes need not be merged."""
        whole = self.pieces == 1 and bool(self.leading) and isinstance(self.leading[-1], int)
        return whole and self.leading[-1] % LANES == 0


def as_matrix(shape) -> Matrix:
    """The rows and columns of a mask of `shape`.

    The columns are the last axis, or, where the rows are so few that more than one bit in eight would serve no
    element, the widest piece of 128, 64, ... 1 of it for which no more than that do (1 in any case).

    Raises:
      ValueError: a key serves no matrix as large.
    """
    *leading, last = shape or (1,)
    whole = Matrix(tuple(leading), last, 1, last)
    if not is_static(shape) and whole.rows >= WHOLE_ROWS:
        return whole
    for columns in (last, *(2**n for n in range(7, -1, -1) if 2**n < last)):
        matrix = Matrix(tuple(leading), last, -(-last // columns) if last else 0, columns)
        drawn = matrix.word_rows * LANES * columns
        if columns == 1 or 8 * (drawn - math.prod(shape)) <= drawn:
            break
    if matrix.rows > MOST_ROWS or matrix.columns > MOST_COLUMNS:
        raise ValueError(
            f"a mask of shape {tuple(shape)} was asked for, but one key serves at most 2**27 columns (the last axis) "
            "and 2**32 rows (all other axes together): draw it in parts, each from its own fold_in(key, part)."
        )
    return matrix


def as_runs(shape, sizes):
    """The rows of a part of a mask, as planes of rows that follow each other.

    Args:
      shape: shape of the mask.
      sizes: that of the part, which starts at a multiple of it on each axis.

    Returns:
      (first, rows, aligned): the mask's row that a plane starts at, a function of the plane's number and the part's
      origin, uint32; how many rows a plane has; whether every plane starts where a word does.
    """
    leading, sizes, rows = shape[:-1], sizes[:-1], as_matrix(shape).rows
    if leading == sizes:
        return (lambda plane, origin: plane * np.uint32(0)), rows, True
    split = max(axis for axis, size in enumerate(sizes) if size != leading[axis])
    strides = [math.prod(leading[axis + 1 :]) for axis in range(split + 1)]
    rows = sizes[split] * strides[split]

    def first(plane, origin):
        row = origin[split] * np.uint32(strides[split])
        for axis in reversed(range(split)):
            row = row + (origin[axis] + plane % np.uint32(sizes[axis])) * np.uint32(strides[axis])
            plane = plane // np.uint32(sizes[axis])
        return row

    return first, rows, all(stride % LANES == 0 for stride in (*strides[:split], rows))

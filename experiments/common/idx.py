"""Reading IDX files, the format of MNIST."""

import gzip
import math
import struct
import zlib

import numpy as np

UNSIGNED_BYTE = 0x08


def find_idx(folder, name):
    """The path of the file `name` in `folder`, as it is or gzipped; None where there is neither."""
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def read_idx(path, shape) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped where its name ends in .gz.

    The file is two zero bytes, a byte for the type, a byte for the number of axes, the sizes of the axes as big-endian
    32-bit integers, and the elements, the last axis fastest.

    Args:
      path: a `pathlib.Path`.
      shape: the shape that the file must have.

    Raises:
      ValueError: the file is damaged or something else; the message names it.
    """
    # The longest header, the elements, and a byte that should not be there: what else a small gzip file may hold would
    # fill any memory.
    longest = 4 + 4 * 255 + math.prod(shape) + 1
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(longest)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): fetch it again.") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError(
            f"{path} starts with the bytes {content[:4]!r}, but an IDX file starts with two zeros, the type and the "
            "number of axes."
        )
    kind, axes = content[2:4]
    if kind != UNSIGNED_BYTE:
        raise ValueError(f"{path} has elements of the type 0x{kind:02x}, but 0x08, unsigned bytes, is needed.")
    start = 4 + 4 * axes
    if len(content) < start:
        raise ValueError(f"{path} ends after {len(content)} bytes, within its header of {start}: fetch it again.")
    found = struct.unpack(f">{axes}I", content[4:start])
    if found != tuple(shape):
        raise ValueError(f"{path} has the shape {found}, but {tuple(shape)} is needed.")
    if len(content) != start + math.prod(shape):
        count = f"{len(content) - start}{' or more' if len(content) == longest else ''}"
        raise ValueError(
            f"{path} holds {count} elements, but its shape {found} needs {math.prod(shape)}: fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

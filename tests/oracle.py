"""The stream, written again in NumPy from the docstring of `jdrop.masks` alone."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np

U32 = np.uint32
VERSION = 2  # of the stream that is written here


def rotate(x, n):
    return (x << U32(n)) | (x >> U32(32 - n))


def threefry2x32(key, counter, rounds):
    k = [np.array([w], U32) for w in key]
    k.append(k[0] ^ k[1] ^ U32(0x1BD11BDA))
    x = [np.atleast_1d(np.array(c, U32)) + w for c, w in zip(counter, k)]
    for r in range(rounds):
        x[0] = x[0] + x[1]
        x[1] = rotate(x[1], [13, 15, 26, 6, 17, 29, 16, 24][r % 8]) ^ x[0]
        if (r + 1) % 4 == 0:
            s = (r + 1) // 4
            x = [x[0] + k[s % 3], x[1] + k[(s + 1) % 3] + U32(s)]
    return x


def threefry4x32(key, counter, rounds):
    k = [np.array([w], U32) for w in key]
    k.append(k[0] ^ k[1] ^ k[2] ^ k[3] ^ U32(0x1BD11BDA))
    x = [np.atleast_1d(np.array(c, U32)) + w for c, w in zip(counter, k)]
    table = [(10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20)]
    for r in range(rounds):
        for a, b, n in ((0, 1 + 2 * (r % 2), table[r % 8][0]), (2, 3 - 2 * (r % 2), table[r % 8][1])):
            x[a] = x[a] + x[b]
            x[b] = rotate(x[b], n) ^ x[a]
        if (r + 1) % 4 == 0:
            s = (r + 1) // 4
            x = [x[i] + k[(s + i) % 5] for i in range(4)]
            x[3] = x[3] + U32(s)
    return x


def philox4x32(key, counter, rounds):
    k = [np.uint64(w) for w in key]
    x = [np.array(c, np.uint64) for c in counter]
    low = np.uint64(0xFFFFFFFF)
    for _ in range(rounds):
        p0, p1 = np.uint64(0xD2511F53) * x[0], np.uint64(0xCD9E8D57) * x[2]
        shift = np.uint64(32)
        x = [(p1 >> shift) ^ x[1] ^ k[0], p1 & low, (p0 >> shift) ^ x[3] ^ k[1], p0 & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return [w.astype(U32) for w in x]


def matrix(shape):
    """(row, column) of every element, in row-major order."""
    *leading, last = shape or (1,)
    n, rows = math.prod(shape), math.prod(leading)
    for columns in [last] + [w for w in (128, 64, 32, 16, 8, 4, 2, 1) if w < last]:
        pieces = math.ceil(last / columns) if last else 0
        bits = math.ceil(rows * pieces / 32) * 32 * columns
        if columns == 1 or bits - n <= bits / 8:
            break
    element = np.arange(n, dtype=np.uint64)
    lead, place = (element // max(last, 1)), element % max(last, 1)
    return lead * pieces + place // max(columns, 1), place % max(columns, 1)


def uniform(impl, key, shape):
    """The 32-bit uniform of every element."""
    row, column = (index.astype(np.uint64) for index in matrix(shape))
    places, which = np.unique(np.stack([row // 32, column], 1), axis=0, return_inverse=True)
    word_row, column = places.astype(U32).T
    tag, words = 2**31, []
    for j in range(8 if impl == "threefry2x32" else 4):
        if impl == "threefry2x32":
            words += threefry2x32(key, (U32(tag | (j << 27)) | column, word_row), 13)
        else:
            counter = (word_row, U32(tag) | column, np.full_like(column, tag | j), np.zeros_like(column))
            words += threefry4x32(key, counter, 13) if impl == "threefry4x32" else philox4x32(key, counter, 7)
    words = np.stack(np.broadcast_arrays(*words))[:, which.reshape(-1)]
    lane = (row % 32).astype(U32)
    u = words[15] >> U32(15)
    for i in range(15):
        u |= ((words[i] >> lane) & U32(1)) << U32(31 - i)
    return u.reshape(shape)


def mask(impl, key, shape, rate, broadcast_dims=()):
    """keep mask; `rate` is rounded to float32 as the stream says."""
    drawn = [1 if d in {axis % len(shape) for axis in broadcast_dims} else n for d, n in enumerate(shape)]
    threshold = np.round(np.float64(np.float32(rate)) * 2**32).astype(np.uint64)
    return np.broadcast_to(uniform(impl, key, tuple(drawn)).astype(np.uint64) >= threshold, shape)


def golden(cases):
    """The text of golden.json, with digests of the masks of these cases."""
    lines = []
    for case in cases:
        drawn = mask(case["impl"], np.array(case["key"], U32), tuple(case["shape"]), case["rate"])
        lines.append(json.dumps(case | {"sha256": hashlib.sha256(np.packbits(drawn).tobytes()).hexdigest()}))
    return f'{{"stream version": {VERSION}, "masks": [\n' + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":  # `python tests/oracle.py > tests/golden.json` would empty the file before it is read
    path = Path(__file__).parent / "golden.json"
    path.write_text(golden(json.loads(path.read_text())["masks"]))

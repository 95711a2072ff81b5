"""The stream, written again in NumPy from the docstring of `jdrop.masks` alone."""

import math

import numpy as np

U32 = np.uint32


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


def uniform(impl, key, shape):
    """The 32-bit uniform of every element."""
    split = len(shape)
    while split:
        split -= 1
        n = math.prod(shape[split:])
        if n % 32 == 0 or n >= 1024:
            break
    n = math.prod(shape[split:])
    per_row = math.ceil(n / 32)
    count = math.prod(shape[:split]) * per_row
    p = np.arange(count, dtype=np.uint64)
    high, low = (p >> np.uint64(32)).astype(U32), p.astype(U32)
    tag, words = 2**31, []
    for j in range(8 if impl == "threefry2x32" else 4):
        if impl == "threefry2x32":
            words += threefry2x32(key, (U32(tag | (j << 27)) | high, low), 13)
        else:
            counter = (low, U32(tag) | high, np.full_like(low, tag | j), np.zeros_like(low))
            words += threefry4x32(key, counter, 13) if impl == "threefry4x32" else philox4x32(key, counter, 7)
    lanes = np.arange(32, dtype=U32)
    u = np.zeros((count, 32), U32)
    for i in range(15):
        u |= ((words[i][:, None] >> lanes) & U32(1)) << U32(31 - i)
    u |= words[15][:, None] >> U32(15)
    return u.reshape(math.prod(shape[:split]), per_row * 32)[:, :n].reshape(shape)


def mask(impl, key, shape, rate, broadcast_dims=()):
    """keep mask; `rate` is rounded to float32 as the stream says."""
    drawn = [1 if d in {axis % len(shape) for axis in broadcast_dims} else n for d, n in enumerate(shape)]
    threshold = np.round(np.float64(np.float32(rate)) * 2**32).astype(np.uint64)
    return np.broadcast_to(uniform(impl, key, tuple(drawn)).astype(np.uint64) >= threshold, shape)

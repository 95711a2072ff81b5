"""Random words of each PRNG implementation, a block at a time.

`block_function(key, shape)` gives a function of the block number j whose value is the tuple of
uint32 arrays of `shape` that block j holds for every position. The counter-based generators
are those of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"), with the
fewest rounds published as passing BigCrush; they are keyed with the whole key.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WORDS = 16  # words a position can draw; every block function covers them all
BLOCK_WORDS = {"threefry2x32": 2, "threefry4x32": 4, "philox4x32": 4}  # words a block of the specified generators

# One bit that JAX's own use of a key (split, fold_in, bits) never sets in these counter words,
# so that drawing a mask from a key and folding into the same key stay independent.
_TAG = np.uint32(1 << 31)


def block_function(key, shape):
    """Return (block, words a block): `block(data, zero, j)` is the tuple of uint32 arrays of `shape` of block j."""
    impl = str(jax.random.key_impl(key))
    if impl not in BLOCK_WORDS:
        return _from_bits(key, shape), 4

    def block(data, zero, j):
        coordinates = [lax.broadcasted_iota(jnp.uint32, shape, d) + zero for d in range(len(shape))]
        return counter_block(impl, data, linear_index(coordinates, shape), j)

    return block, BLOCK_WORDS[impl]


def counter_block(impl, data, position, j):
    """Block j of a counter-based generator with the key's `data`, for the positions numbered (high, low)."""
    high, low = position
    if impl == "threefry2x32":
        return threefry2x32(data, ((_TAG | (j << np.uint32(27))) | high, low))
    j = jnp.broadcast_to(_TAG | j, low.shape)
    generator = threefry4x32 if impl == "threefry4x32" else philox4x32
    return generator(data, (low, _TAG | high, j, jnp.zeros_like(j)))


def linear_index(coordinates, shape):
    """The row-major index of `coordinates` in an array of `shape`, as (high, low) uint32 words.

    Raises:
      ValueError: `shape` has so many positions that the counter would wrap around.
    """
    if math.prod(shape) > 2**59 or any(n > 2**32 for n in shape):
        raise ValueError(
            f"a mask of {math.prod(shape)} words of 32 elements (word shape {tuple(shape)}) was asked for, but "
            "one key serves at most 2**59 words and 2**32 along an axis: draw it in parts, each from its own "
            "fold_in(key, part)."
        )
    high, low = jnp.zeros_like(coordinates[0]), jnp.zeros_like(coordinates[0])
    for axis, position in enumerate(coordinates):
        stride = math.prod(shape[axis + 1 :])
        stride_high, stride_low = np.uint32(stride >> 32), np.uint32(stride & 0xFFFFFFFF)
        term = position * stride_low
        low = low + term
        if math.prod(shape) > 2**32:
            carry = (low < term).astype(jnp.uint32)
            high = high + _mulhi(position, stride_low) + position * stride_high + carry
    return high, low


def _rotate_left(x, bits: int):
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))


def threefry2x32(key, counter, rounds: int = 13):
    """Threefry-2x32 of Salmon et al. 2011: two key words and two counter words to two words."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    rotations = (13, 15, 26, 6, 17, 29, 16, 24)
    a, b = counter[0] + key[0], counter[1] + key[1]
    for i in range(rounds):
        a = a + b
        b = a ^ _rotate_left(b, rotations[i % 8])
        if i % 4 == 3:
            n = i // 4 + 1
            a = a + schedule[n % 3]
            b = b + schedule[(n + 1) % 3] + np.uint32(n)
    return a, b


def threefry4x32(key, counter, rounds: int = 13):
    """Threefry-4x32 of Salmon et al. 2011: four key words and four counter words to four words."""
    schedule = (*key, key[0] ^ key[1] ^ key[2] ^ key[3] ^ np.uint32(0x1BD11BDA))
    rotations = ((10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20))
    x = [c + k for c, k in zip(counter, key, strict=True)]
    for i in range(rounds):
        first, second = rotations[i % 8]
        p, q = (1, 3) if i % 2 == 0 else (3, 1)
        x[0] = x[0] + x[p]
        x[p] = x[0] ^ _rotate_left(x[p], first)
        x[2] = x[2] + x[q]
        x[q] = x[2] ^ _rotate_left(x[q], second)
        if i % 4 == 3:
            n = i // 4 + 1
            x = [word + schedule[(n + d) % 5] for d, word in enumerate(x)]
            x[3] = x[3] + np.uint32(n)
    return tuple(x)


def philox4x32(key, counter, rounds: int = 7):
    """Philox-4x32 of Salmon et al. 2011: two key words and four counter words to four words."""
    m0, m1 = np.uint32(0xD2511F53), np.uint32(0xCD9E8D57)
    w0, w1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
    (k0, k1), (x0, x1, x2, x3) = key, counter
    for i in range(rounds):
        if i:
            k0, k1 = k0 + w0, k1 + w1
        high0, high1 = _mulhi(x0, m0), _mulhi(x2, m1)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, x2 * m1, high0 ^ x3 ^ k1, x0 * m0
    return x0, x1, x2, x3


def _mulhi(x, factor):
    """The high word of the product of uint32: `lax.mulhi` can be neither partitioned nor compiled by Triton."""
    with jax.enable_x64(True):
        wide = lax.convert_element_type(x, jnp.uint64) * np.uint64(factor)
        return lax.convert_element_type(wide >> np.uint64(32), jnp.uint32)


def _from_bits(key, shape):
    """Blocks of four words from `jax.random.bits`, for implementations whose stream is not promised."""
    bits = jax.random.bits(key, (WORDS // 4, 4, *shape), jnp.uint32)

    def block(data, zero, j):
        words = lax.dynamic_index_in_dim(bits, j, keepdims=False)
        return tuple(words[i] for i in range(4))

    return block

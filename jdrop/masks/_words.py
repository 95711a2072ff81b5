"""Random words of each PRNG implementation, a block at a time.

The counter-based generators are those of Salmon et al. 2011 ("Parallel random numbers: as easy as 1, 2, 3"), with the
fewest rounds published as passing BigCrush; they are keyed with the whole key. A word's counter is its place in the
mask, so that any tile of a mask can be drawn alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WORDS = 16  # words that serve one column of 32 rows
BLOCK_WORDS = {"threefry2x32": 2, "threefry4x32": 4, "philox4x32": 4}  # words a block of the specified generators

# One bit that JAX's own use of a key (split, fold_in, bits) never sets in these counter words,
# so that drawing a mask from a key and folding into the same key stay independent.
_TAG = np.uint32(1 << 31)


def blocks(impl, data, row, column, j):
    """Block j of the counter-based generator `impl`: the words that serve `column` in the word row `row`.

    Args:
      impl: a name in `BLOCK_WORDS`.
      data: the key's words, scalars or arrays.
      row, column, j: uint32 scalars or arrays, which broadcast.

    Returns:
      A tuple of ``BLOCK_WORDS[impl]`` uint32 arrays.
    """
    if impl == "threefry2x32":
        return threefry2x32(data, (_TAG | (j << np.uint32(27)) | column, row))
    row, column = jnp.broadcast_arrays(row, _TAG | column)
    j = jnp.full_like(row, _TAG | j)
    generator = threefry4x32 if impl == "threefry4x32" else philox4x32
    return generator(data, (row, column, j, jnp.zeros_like(j)))


def decided(kept, word, index, low, packed=None, last=True):
    """Let word number `index` decide on `kept`, what the words after it decided.

    The 32-bit uniform U of an element is compared with the threshold T without being assembled: from the lowest bit of
    T up, ``U >= T`` is ``u & rest`` where T has a one and ``u | rest`` where it has none, for 32 elements at once.
    The last word holds no bits of single elements, but those that they share.

    Args:
      kept: uint32 words, all ones before the last word decides.
      word: uint32 words.
      index: the word's number, uint32, traced or not.
      low: the thresholds, uint32.
      packed: what makes words of booleans; None where all elements of a word have one threshold.
      last: whether a traced `index` may be that of the last word.
    """
    packed = packed or all_lanes
    zero = packed((low >> (np.uint32(31) - index)) & np.uint32(1) == 0)
    own = (word & kept) | (zero & (word | kept))
    if not last or (isinstance(index, np.generic) and int(index) < WORDS - 1):
        return own
    shared = packed((word >> np.uint32(15)) >= (low & np.uint32(2**17 - 1)))
    return shared if isinstance(index, np.generic) else jnp.where(index == WORDS - 1, shared, own)


def all_lanes(flags):
    """All ones where a boolean is true, else zeros."""
    return np.uint32(0) - flags.astype(jnp.uint32)


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


def words_of_bits(key, shape):
    """(WORDS, *shape) words from `jax.random.bits`, for implementations whose stream is not promised."""
    return jax.random.bits(key, (WORDS, *shape), jnp.uint32)

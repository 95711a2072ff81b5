"""Drawing keep masks, 32 elements at once: one bit an element until the very end."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jdrop.masks.rate import threshold
from jdrop.masks.words import WORDS, block_function, linear_index

LANES = 32  # elements a word


def row_layout(shape):
    """Split `shape` into (leading axes, elements a row).

    Trailing axes are merged until a row fills its words (a multiple of 32 elements) or is long
    enough for the unused lanes of its last word not to matter (1024), so that masks with small
    or odd last axes waste nothing and all others keep their axes, which is what lets them shard.
    """
    split = len(shape)
    while split > 0:
        split -= 1
        row = math.prod(shape[split:])
        if row % LANES == 0 or row >= 1024:
            break
    return tuple(shape[:split]), math.prod(shape[split:])


def keep(key, shape, rate, bits: int, save_as: str | None = None):
    """Draw a keep mask.

    Args:
      key: a typed key.
      shape: shape of the mask, with 1 on the axes along which a decision is shared.
      rate: the rates, a float array that broadcasts against `shape`.
      bits: how many leading bits of their thresholds may be set, from `static_bits`.
      save_as: a name under which `jax.checkpoint` policies find the mask with one bit an element.

    Returns:
      bool array of `shape` broadcast with that of `rate`, True where an element is kept.
    """
    leading, row = row_layout(shape)
    axes = (1,) * (len(shape) - rate.ndim) + rate.shape
    lead_axes, row_axes = axes[: len(leading)], axes[len(leading) :]
    follows = all(n in (1, size) for n, size in zip(lead_axes, leading))
    if follows and math.prod(row_axes) == 1:
        per_row = rate.reshape(*lead_axes, 1) if rate.ndim else rate
        drawn = _draw_rows(key, (*leading, -(-row // LANES)), threshold(per_row), bits)
        return _bit(checkpoint_name(drawn, save_as) if save_as else drawn, shape)
    low, all_dropped, _ = threshold(rate)
    kept = (_draw_uniform(key, shape) >= low) & ~all_dropped
    return _bit(checkpoint_name(_pack(kept), save_as), kept.shape) if save_as else kept


def _draw_rows(key, word_shape, limit, bits: int):
    """Keep bits with one threshold a row, of which only the leading `bits` bits may be set."""
    low, all_dropped, _ = limit
    block, width = block_function(key, word_shape)
    # At least two steps: a loop of one is inlined, and its words drawn again for each of the 32 lanes.
    steps = max(2, min(bits, WORDS) // width)

    def step(i, kept):
        j = steps - 1 - i
        return compare_block(kept, block(j), j, low)

    kept = ~(jnp.zeros(word_shape, jnp.uint32) | (low & np.uint32(0)) | _zero_of(key))
    if bits and math.prod(word_shape):
        kept = lax.fori_loop(0, steps, step, kept)
    return kept & ~all_lanes(all_dropped)


def compare_block(kept, words, j, low):
    """Let the words of block j decide on `kept`, what the blocks after it decided.

    The 32-bit uniform U of an element is compared with the threshold T without being assembled:
    from the lowest bit of T up, ``U >= T`` is ``u & rest`` where T has a one and ``u | rest``
    where it has none, for 32 elements at once.
    """
    for place in reversed(range(len(words))):
        index = jnp.uint32(j * len(words) + place)
        word, bit = words[place], (low >> (np.uint32(31) - index)) & np.uint32(1)
        if place == len(words) - 1:
            below = (word >> np.uint32(15)) >= (low & np.uint32(2**17 - 1))
            word = jnp.where(index == WORDS - 1, all_lanes(below), word)
            bit = jnp.where(index == WORDS - 1, np.uint32(1), bit)
        kept = (word & kept) | (~all_lanes(bit) & (word | kept))
    return kept


def _draw_uniform(key, shape):
    """The 32-bit uniform U of every element of `shape`."""
    leading, row = row_layout(shape)
    block, width = block_function(key, (*leading, -(-row // LANES)))

    def step(j, uniform):
        for place, word in enumerate(block(j)):
            index = jnp.uint32(j * width + place)
            shared = _of_elements(word, shape) >> np.uint32(15)
            own = _bit(word, shape).astype(jnp.uint32) << (np.uint32(31) - index)
            uniform = uniform | jnp.where(index == WORDS - 1, shared, own)
        return uniform

    uniform = jnp.zeros(shape, jnp.uint32) | _zero_of(key)
    return lax.fori_loop(0, WORDS // width, step, uniform) if math.prod(shape) else uniform


def _zero_of(key):
    """A zero that varies over devices where the key does, as shard_map asks of what a loop starts with."""
    return jax.random.key_data(key)[0] & np.uint32(0)


def _bit(words, shape):
    """Open words into booleans of `shape`: each element's own bit."""
    return (_of_elements(words, shape) >> (_row_index(shape) & np.uint32(LANES - 1))) & np.uint32(1) != 0


def _of_elements(words, shape):
    """The word that serves each element of `shape`."""
    if row_layout(shape)[1] % LANES == 0:
        return jnp.broadcast_to(words[..., None], (*words.shape, LANES)).reshape(shape)
    # A look-up and no reshape: XLA would move words between devices where a shard ends inside of one.
    return words.at[..., _row_index(shape) // np.uint32(LANES)].get(mode="promise_in_bounds")


def _row_index(shape):
    """Each element's place in its row, over the axes that `row_layout` merges into one."""
    leading, row = row_layout(shape)
    merged = shape[len(leading) :]
    if row > 2**32:
        raise ValueError(f"a row of {row} elements is longer than 2**32: reshape it to {(-(-row // 2**20), 2**20)}.")
    if not merged:
        return jnp.zeros((), jnp.uint32)
    return linear_index([lax.broadcasted_iota(jnp.uint32, merged, axis) for axis in range(len(merged))], merged)[1]


def _pack(kept):
    leading, row = row_layout(kept.shape)
    rows = kept.reshape(*leading, row).astype(jnp.uint32)
    rows = jnp.pad(rows, [(0, 0)] * len(leading) + [(0, -row % LANES)])
    return jnp.sum(
        rows.reshape(*leading, -(-row // LANES), LANES) << lax.iota(jnp.uint32, LANES), axis=-1, dtype=jnp.uint32
    )


def all_lanes(flag):
    """All ones where `flag` (0 or 1) is set, else all zeros."""
    return np.uint32(0) - jnp.asarray(flag).astype(jnp.uint32)

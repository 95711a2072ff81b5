"""Drawing keep masks, 32 elements at once: one bit an element until the very end."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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


def keep(key, shape, limit, bits: int):
    """Draw a keep mask.

    Args:
      key: a typed key.
      shape: shape of the mask, with 1 on the axes along which a decision is shared.
      limit: the `Threshold` of the rates, whose shape broadcasts against `shape`.
      bits: how many leading bits of the thresholds may be set, from `static_bits`.

    Returns:
      bool array of `shape` broadcast with that of the rates, True where an element is kept.
    """
    if _one_rate_a_row(shape, limit):
        return opened(draw(key, shape, limit, bits), shape)
    kept = _draw_uniform(key, shape) >= limit.low
    return kept if limit.all_dropped is None else kept & ~limit.all_dropped


def draw(key, shape, limit, bits: int):
    """The mask that `keep` draws, packed into words of 32 elements; `opened` gives it back."""
    if not _one_rate_a_row(shape, limit):
        return _pack(keep(key, shape, limit, bits))
    leading, row = row_layout(shape)
    if limit.low.ndim:
        per_row = (*_aligned(shape, limit)[: len(leading)], 1)
        limit = jax.tree.map(lambda leaf: leaf.reshape(per_row), limit)
    return _draw_rows(key, (*leading, -(-row // LANES)), limit, bits)


def _one_rate_a_row(shape, limit) -> bool:
    axes, split = _aligned(shape, limit), len(row_layout(shape)[0])
    return math.prod(axes[split:]) == 1 and all(n in (1, size) for n, size in zip(axes[:split], shape))


def _aligned(shape, limit):
    return (1,) * (len(shape) - limit.low.ndim) + limit.low.shape


def _draw_rows(key, word_shape, limit, bits: int):
    """Keep bits with one threshold a row, of which only the leading `bits` bits may be set."""
    block, width = block_function(key, word_shape)
    # At least two steps: a loop of one is inlined, and its words drawn again for each of the 32 lanes.
    steps = max(2, min(bits, WORDS) // width)
    places = np.arange(steps * width, dtype=np.uint32).reshape(steps, width, *(1,) * limit.low.ndim)
    zeros = zero_lanes(limit.low, places)

    def step(data, zero, i, kept):
        j = np.uint32(steps - 1) - i
        words = list(block(data, zero, j))
        if steps * width == WORDS:
            words[-1] = lax.select_n(i == 0, words[-1], shared_lanes(words[-1], limit.low))
        return compare(kept, words, lax.dynamic_index_in_dim(zeros, j, keepdims=False))

    kept = ~(jnp.zeros(word_shape, jnp.uint32) | (limit.low & np.uint32(0)) | _zero_of(key))
    if bits and math.prod(word_shape):
        kept = _loop(key, steps, step, kept)
    return kept if limit.all_dropped is None else kept & ~all_lanes(limit.all_dropped)


def compare(kept, words, zeros):
    """Let the words of a block decide on `kept`, what the blocks after it decided.

    The 32-bit uniform U of an element is compared with the threshold T without being assembled:
    from the lowest bit of T up, ``U >= T`` is ``u & rest`` where T has a one and ``u | rest``
    where it has none, for 32 elements at once.
    """
    for place in reversed(range(len(words))):
        kept = (words[place] & kept) | (zeros[place] & (words[place] | kept))
    return kept


def zero_lanes(low, place):
    """All lanes where the threshold's bit that word `place` decides is zero; none for the shared bits' word."""
    one = (low >> (np.uint32(31) - place)) & np.uint32(1)
    return (one | (place == WORDS - 1).astype(np.uint32)) - np.uint32(1)


def shared_lanes(word, low):
    """All lanes where the low bits of U, which the lanes of `word` share, are no lower than the threshold's."""
    return all_lanes((word >> np.uint32(15)) >= (low & np.uint32(2**17 - 1)))


def _loop(key, steps, step, value):
    """`value = step(data, zero, i, value)` for i = 0 ... steps - 1, with the key's data and a zero.

    The key's data and the zero ride in one array that the loop adds to. Were they constants of the loop, XLA would
    move each scalar of the key schedule, and each part of a counter without the zero, out of it into a kernel and a
    buffer of its own: slower for small masks, and three times as long to compile. The counter stays apart, so
    that under `vmap` over keys the loops end together and no device asks another.
    """
    state = jnp.pad(jax.random.key_data(key), (0, 2))
    one = np.eye(1, state.shape[0], state.shape[0] - 1, dtype=np.uint32)[0]

    def body(carry):
        value, state, i = carry
        *data, zero, _ = state
        return step(data, zero, i, value), state + one, i + np.uint32(1)

    return lax.while_loop(lambda carry: carry[2] < np.uint32(steps), body, (value, state, jnp.uint32(0)))[0]


def _draw_uniform(key, shape):
    """The 32-bit uniform U of every element of `shape`."""
    leading, row = row_layout(shape)
    block, width = block_function(key, (*leading, -(-row // LANES)))

    def step(data, zero, j, uniform):
        for place, word in enumerate(block(data, zero, j)):
            index = j * np.uint32(width) + np.uint32(place)
            shared = _of_elements(word, shape) >> np.uint32(15)
            own = opened(word, shape).astype(jnp.uint32) << (np.uint32(31) - index)
            uniform = uniform | jnp.where(index == WORDS - 1, shared, own)
        return uniform

    uniform = jnp.zeros(shape, jnp.uint32) | _zero_of(key)
    return _loop(key, WORDS // width if math.prod(shape) else 0, step, uniform)


def _zero_of(key):
    """A zero that varies over devices where the key does, as shard_map asks of what a loop starts with."""
    return jax.random.key_data(key)[0] & np.uint32(0)


def opened(words, shape):
    """The booleans of `shape` in packed words: each element's own bit."""
    if row_layout(shape)[1] % LANES == 0:
        lanes = jnp.broadcast_to(words[..., None], (*words.shape, LANES))
        return _is_odd(lanes >> lax.broadcasted_iota(jnp.uint32, lanes.shape, words.ndim)).reshape(shape)
    return _is_odd(_of_elements(words, shape) >> (_row_index(shape) & np.uint32(LANES - 1)))


def _is_odd(words):
    return words & np.uint32(1) != 0


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
    """All ones where `flag` is set, else all zeros."""
    return np.uint32(0) - jnp.asarray(flag).astype(jnp.uint32)

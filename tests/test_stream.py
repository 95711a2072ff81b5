"""The stream is the specified one: an independent NumPy implementation draws the same masks."""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from cases import IMPLEMENTATIONS, RATES, SHAPES, key
from tiers import some

import jdrop
from jdrop.masks import STREAM_VERSION
from jdrop.masks import _packed as packed
from jdrop.masks import _words as words
from jdrop.masks._layout import as_matrix
from jdrop.masks._mask import Mask
from jdrop.masks._rate import as_rate, threshold

ONES, ZEROS = [2**32 - 1] * 4, [0] * 4
PI = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89]
# Random123, tests/kat_vectors: (generator, rounds, key, counter, answer).
KNOWN_ANSWERS = (
    ("threefry2x32", 13, ZEROS[:2], ZEROS[:2], "9d1c5ec6 8bd50731"),
    ("threefry2x32", 13, ONES[:2], ONES[:2], "fd36d048 2d17272c"),
    ("threefry2x32", 13, PI[2:4], PI[:2], "ba3e4725 f27d669e"),
    ("threefry4x32", 13, ZEROS, ZEROS, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
    ("threefry4x32", 13, ONES, ONES, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
    ("threefry4x32", 13, PI[4:], PI[:4], "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
    ("philox4x32", 7, ZEROS[:2], ZEROS, "5f6fb709 0d893f64 4f121f81 4f730a48"),
    ("philox4x32", 7, ONES[:2], ONES, "5207ddc2 45165e59 4d8ee751 8c52f662"),
    ("philox4x32", 7, PI[4:6], PI[:4], "4dfccaba 190a87f0 c47362ba b6b5242a"),
    ("threefry2x32", 20, PI[2:4], PI[:2], "c4923a9c 483df7a0"),
    ("philox4x32", 10, PI[4:6], PI[:4], "d16cfe09 94fdcceb 5001e420 24126ea1"),
)
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.mark.parametrize(("name", "rounds", "key_words", "counter", "answer"), KNOWN_ANSWERS)
def test_generators_give_the_known_answers(name, rounds, key_words, counter, answer):
    expected = [int(word, 16) for word in answer.split()]
    assert [int(word.item()) for word in getattr(oracle, name)(key_words, counter, rounds)] == expected
    arguments = [jnp.array(word, jnp.uint32) for word in key_words], [jnp.array(word, jnp.uint32) for word in counter]
    assert [int(word) for word in getattr(words, name)(*arguments, rounds=rounds)] == expected


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@some("shape", SHAPES, 0, 10)
def test_masks_are_those_of_the_specification(impl, shape):
    root = key(7, impl)
    data = np.asarray(jax.random.key_data(root))
    for rate in RATES:
        drawn = np.asarray(jdrop.keep_mask(root, shape, rate))
        np.testing.assert_array_equal(drawn, oracle.mask(impl, data, shape, rate))


def test_shared_axes_are_those_of_the_specification():
    data = np.asarray(jax.random.key_data(key(7)))
    for axes in ((0,), (-1,), (0, 2), (1, -1, 2)):
        drawn = jdrop.keep_mask(key(7), (3, 40, 64), 0.4, broadcast_dims=axes)
        np.testing.assert_array_equal(np.asarray(drawn), oracle.mask("threefry2x32", data, (3, 40, 64), 0.4, axes))


@some("part", range(5), 0)  # each has every key, shape and rate
def test_golden_digests_of_this_stream_version(part):
    """Digests of the oracle's masks, written once: neither may drift."""
    assert GOLDEN["stream version"] == STREAM_VERSION
    assert len(GOLDEN["masks"]) == 3 * 6 * 6
    for case in GOLDEN["masks"][part::5]:
        root = jax.random.wrap_key_data(jnp.array(case["key"], jnp.uint32), impl=case["impl"])
        drawn = np.asarray(jdrop.keep_mask(root, tuple(case["shape"]), case["rate"]))
        assert hashlib.sha256(np.packbits(drawn).tobytes()).hexdigest() == case["sha256"], case


# Matrices whose words have rows of several planes, that are cut in pieces, that fill their words; and parts of them.
TILES = [
    ((40,), (3,), (30,)),
    ((5000,), (70,), (1000,)),
    ((300, 17), (31, 2), (100, 15)),
    ((8, 30), (4, 15), (4, 15)),
    ((4, 64, 33), (1, 32, 0), (3, 32, 33)),
    ((2, 3, 197, 20), (1, 0, 100, 7), (1, 3, 97, 13)),
    ((64, 7, 7, 3), (32, 3, 0, 1), (32, 4, 7, 2)),
]


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
@some(("shape", "origin", "sizes"), TILES, 5)
def test_any_tile_can_be_drawn_alone(impl, shape, origin, sizes):
    """Also with its place traced, and one rate or a rate an element."""
    data = jax.random.key_data(key(7, impl))
    rates = np.asarray(jax.random.uniform(key(1), shape))
    whole = oracle.uniform(impl, np.asarray(data), shape).astype(np.uint64)
    here = tuple(slice(start, start + size) for start, size in zip(origin, sizes))
    for rate in (np.float32(0.3), rates):
        of_tile = rate if rate.ndim == 0 else rate[here]
        limit = threshold(as_rate(of_tile))._replace(valid=None)
        draw = jax.jit(lambda at, limit=limit: packed.tile(Mask(key(7, impl), limit, shape, 32), at, sizes))
        wanted = whole >= np.round(rate.astype(np.float64) * 2**32).astype(np.uint64)
        np.testing.assert_array_equal(draw(np.array(origin, np.uint32)), wanted[here])


@some("impl", IMPLEMENTATIONS)
def test_written_out_the_blocks_are_those_of_the_loop(impl):
    """As on a GPU, where a program of XLA's has no loop."""
    limit = threshold(as_rate(0.3))
    for shape in ((3, 40, 64), (5, 1025), (70,)):
        mask, data = Mask(key(7, impl), limit, shape, 32), jax.random.key_data(key(7, impl))
        words = packed.draw(mask, unroll=True)
        np.testing.assert_array_equal(words, packed.draw(mask))
        np.testing.assert_array_equal(packed.opened(words, shape), oracle.mask(impl, np.asarray(data), shape, 0.3))


def test_few_bits_are_wasted():
    """At most one in eight, or for fewer than 217 elements the lanes of one word."""
    shapes = [(n,) for n in (1, 31, 33, 216, 217, 1000, 4097, 10**6)]
    shapes += [(rows, last) for rows in (1, 2, 31, 32, 33, 100, 216, 217, 10**5) for last in (1, 7, 100, 129, 5000)]
    for shape in (*shapes, (2, 7, 7, 512), (1, 1, 1, 50257), (3, 1, 5)):
        matrix, size = as_matrix(shape), np.prod(shape)
        drawn = matrix.word_rows * 32 * matrix.columns
        assert matrix.rows * matrix.columns >= size
        assert (drawn - size <= drawn / 8) if size >= 217 else (drawn - size < 32 or drawn - size <= drawn / 8), shape
    assert as_matrix((16, 512, 1024)).columns == 1024
    assert as_matrix((8, 7, 7, 512)).pieces == 1


def test_counters_do_not_wrap_around():
    """The rows of tiles far into a mask that is far too large to draw, against Python's integers."""
    shape, data = (2**10, 2**9, 2**13, 40), jax.random.key_data(key(7))
    limit = threshold(as_rate(0.5))._replace(valid=None)
    for origin in ((0, 0, 0, 0), (2**10 - 1, 2**9 - 1, 2**13 - 64, 0), (513, 300, 4097, 3)):
        row = (origin[0] * shape[1] + origin[1]) * shape[2] + origin[2] + np.arange(64, dtype=np.uint64)
        tile = packed.tile(Mask(key(7), limit, shape, 32), np.array(origin, np.uint32), (1, 1, 64, 2))
        for column in range(2):
            counter = np.full(64, 2**31 | (origin[3] + column), np.uint32), (row // 32).astype(np.uint32)
            word = oracle.threefry2x32(np.asarray(data), counter, 13)[0]
            np.testing.assert_array_equal(tile[0, 0, :, column], word >> (row % 32).astype(np.uint32) & 1)


@pytest.mark.parametrize("shape", [(2**33, 1), (2, 300, 2**28)])
def test_a_mask_too_large_for_the_counter_is_refused(shape):
    with pytest.raises(ValueError, match=r"2\*\*27 columns .* 2\*\*32 rows"):
        as_matrix(shape)


@some("impl", IMPLEMENTATIONS, 0)
def test_every_bit_of_the_uniform_counts(impl):
    """An element is kept at the threshold that equals its uniform, and dropped at the next one."""
    data = np.asarray(jax.random.key_data(key(7, impl)))
    uniform = oracle.uniform(impl, data, (40,))
    draw = jax.jit(lambda rate: jdrop.keep_mask(key(7, impl), (40,), rate))
    with jax.enable_x64(True):
        for element in range(40):
            at, above = (np.float64(int(uniform[element]) + step) / 2**32 for step in (0, 1))
            assert draw(at)[element]
            assert not draw(above)[element]
            assert jdrop.keep_mask(key(7, impl), (40,), jnp.full((40,), at))[element]

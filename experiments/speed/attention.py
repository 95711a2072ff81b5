"""Attention with dropout of its weights: time and scratch memory, beside Flax's dense attention."""

import functools

import jax
import jax.numpy as jnp

from experiments.common.attention import flax, gradients, ours
from experiments.common.ratios import at_most, record
from experiments.common.timing import Case, measure
from experiments.common.transformer import RATE

LENGTHS = tuple(2**n for n in range(7, 15))  # 128 to 16,384
DENSE = 4096  # the length at which scratch memory is compared with dense attention's


CASES = {"flax": flax, "jdrop": ours, "jdrop, no dropout": functools.partial(ours, rate=0.0)}


def attention(quick):
    """Times of the forward and backward pass, and scratch memory by the length."""
    for length in (16, 32) if quick else (128, 2048):
        yield from _times(length, quick)
    yield from _scratch(LENGTHS[:2] if quick else LENGTHS, LENGTHS[0] if quick else DENSE)


def _times(length, quick):
    shape = (1, length, 4, 64)
    q, k, v = (jax.random.normal(jax.random.key(seed), shape) for seed in range(3))
    cases = {name: Case(jax.jit(gradients(function)), (q, k, v, jax.random.key(3))) for name, function in CASES.items()}
    times = measure(cases, blocks=1 if quick else 15, seconds=0.001 if quick else 0.5)
    about = {"shape": shape, "dtype": "float32", "rate": RATE, "key": "threefry2x32", "mode": "jitted"}
    mine, dense, plain = times["jdrop"], times["flax"], times["jdrop, no dropout"]
    about |= {"ours": ("jdrop.dot_product_attention", mine)}
    yield record(
        f"attention, length {length}: times Flax's",
        mine / dense,
        at_most(0.7 if length > 128 else 1),
        **about,
        theirs=("flax.linen.dot_product_attention", dense),
    )
    yield record(
        f"attention, length {length}: times our own without dropout",
        mine / plain,
        at_most(1.15) if length > 128 else None,
        **about,
        theirs=("rate 0", plain),
    )


def _scratch(lengths, dense):
    key, found = jax.random.key(0), {}

    def scratch(function, length):
        x = jax.ShapeDtypeStruct((1, length, 4, 64), jnp.float32)
        return jax.jit(gradients(function)).lower(x, x, x, key).compile().memory_analysis().temp_size_in_bytes

    for length in lengths:
        found[length] = scratch(ours, length)
        about = {"shape": (1, length, 4, 64), "dtype": "float32", "rate": RATE, "mode": "compiled"}
        yield record("attention: scratch memory, MiB", found[length] / 2**20, **about)
        if length // 2 in found:
            ratio = found[length] / found[length // 2]
            yield record("attention: scratch memory, times that of half the length", ratio, at_most(2.2), **about)
        if length == dense:
            what = "attention: scratch memory, times dense Flax's"
            yield record(what, found[length] / scratch(flax, length), at_most(1 / 8), **about)

"""The moments and entropies of samples, of which more may come."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from jdrop._checks import at_least_float32
from jdrop.mc._checks import on_simplex, tolerance_of
from jdrop.mc.uncertainty._classification import entropy_of, relative_entropy


class Entropies(struct.PyTreeNode):
    """The entropies of one output, over its last axis."""

    expected: Any  # the mean of the samples'
    information: Any  # that of the mean less the mean of the samples'
    known: Any  # whether all samples were probabilities; the others are 0 where not, since NaN would be an error


class Moments(NamedTuple):
    """Of a set of samples. No number is a small difference of large ones, nor a square."""

    count: Any  # float32
    first: Any  # the first sample
    low: Any  # the mean less that
    root: Any  # the root of the sum of squared deviations from the mean
    entropies: Any


def moments_of(drawn, taken) -> Moments:
    """The moments of those of the samples that are `taken`, of which the first is one."""
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(drawn)):
        raise TypeError(
            f"predict returned {jax.tree.map(lambda leaf: leaf.dtype, drawn)}, but mc_dropout averages "
            "floating-point arrays: return these, or draw any outputs with jdrop.mc.samples."
        )
    count = taken.sum(dtype=jnp.float32)

    def of_taken(leaf):
        return jnp.where(taken.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, jnp.zeros((), leaf.dtype))

    def average(leaf):
        return of_taken(leaf).sum(0) / count.astype(leaf.dtype)

    def root(deviation):
        deviation = of_taken(deviation)
        largest = jax.lax.stop_gradient(jnp.abs(deviation).max(0))
        unit = jnp.where(largest == 0, 1, largest)
        square = ((deviation / unit[None]) ** 2).sum(0)
        positive = jnp.where(largest == 0, 1, square)  # whose root has a derivative
        return jnp.where(largest == 0, 0, unit * jnp.sqrt(positive))

    def entropies(leaf):
        wide = leaf.astype(at_least_float32(leaf.dtype))
        if leaf.ndim == 1:
            return Entropies(jnp.zeros((), wide.dtype), jnp.zeros((), wide.dtype), jnp.zeros((), bool))
        each = on_simplex(wide, tolerance_of(leaf.dtype)) | ~taken.reshape(-1, *(1,) * (leaf.ndim - 1))
        known = each.all(0)
        p = jnp.where(known[None], wide, jnp.zeros((), wide.dtype))
        information = relative_entropy(p, average(p)[None])
        return Entropies(average(entropy_of(p)), average(information), known[..., 0])

    found = jax.tree.map(entropies, drawn)
    drawn = jax.tree.map(lambda leaf: leaf.astype(at_least_float32(leaf.dtype)), drawn)
    first = jax.tree.map(lambda leaf: leaf[0], drawn)
    drawn = jax.tree.map(lambda leaf, first: leaf - first[None], drawn, first)
    low = jax.tree.map(average, drawn)
    return Moments(count, first, low, jax.tree.map(lambda y, m: root(y - m[None]), drawn, low), found)


def merged(these: Moments, those: Moments) -> Moments:
    """The moments of two sets of samples together (Chan, Golub & LeVeque 1979); the second is not empty."""
    n, m = these.count, those.count
    share = m / (n + m)
    first = jax.tree.map(lambda a, b: jnp.where(n > 0, a, b), these.first, those.first)
    gap = jax.tree.map(
        lambda first, a, b_first, b: jnp.where(n > 0, (b_first - first) + b - a, b),
        first, these.low, those.first, those.low,
    )  # fmt: skip
    low = jax.tree.map(lambda a, gap: a + gap * share.astype(a.dtype), these.low, gap)

    def root(q, r, gap):
        return jnp.hypot(jnp.hypot(q, r), jnp.abs(gap) * jnp.sqrt(n * share).astype(q.dtype))

    def entropies(a, b, of_a, of_b, mean):
        known = jnp.where(n > 0, of_a.known, True) & of_b.known
        a, b, mean = (jnp.where(known[..., None], p, jnp.zeros((), p.dtype)) if p.ndim else p for p in (a, b, mean))
        of = share.astype(mean.dtype)
        expected = of_a.expected + (of_b.expected - of_a.expected) * of
        if not mean.ndim:
            return Entropies(expected, expected, known)
        apart_a, apart_b = (relative_entropy(p, mean) for p in (a, b))
        information = (1 - of) * (of_a.information + apart_a) + of * (of_b.information + apart_b)
        expected, information = (jnp.where(known, e, jnp.zeros((), e.dtype)) for e in (expected, information))
        return Entropies(expected, information, known)

    mean_of = functools.partial(jax.tree.map, lambda first, low: first + low)
    found = jax.tree.map(
        entropies,
        mean_of(these.first, these.low), mean_of(those.first, those.low),
        these.entropies, those.entropies, mean_of(first, low),
    )  # fmt: skip
    return Moments(n + m, first, low, jax.tree.map(root, these.root, those.root, gap), found)

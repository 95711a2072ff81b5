"""Attention a tile of queries and keys at a time: memory linear in their number, and the mask that of the whole.

The forward pass is the online softmax of Milakov and Gimelshein 2018. The derivative is written once, forwards, and
linear in the tangents: with weights ``p = exp(logits - lse)`` and kept weights ``w = kept p / (1 - rate)``,
``d out = sum_s (w_s d logits_s v_s + w_s d v_s) - (sum_s p_s d logits_s) out``. JAX transposes it. Each tile of it is a
`jax.checkpoint`, so that the backward pass keeps q, k, v, the output and the log-sum-exp, and draws the mask again.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jdrop._checks import at_least_float32
from jdrop._compat import vary, varying
from jdrop.masks._layout import LANES
from jdrop.masks._mask import Mask
from jdrop.masks._primitives import keep_tile


class Form(NamedTuple):
    """What is known of an attention when a program is compiled."""

    scale: float
    is_causal: bool
    window: tuple[int, int] | None  # keys before and after a query's own place that it sees
    block: tuple[int, int]  # queries and keys of a tile
    impl: str | None  # of the key; None where nothing is dropped


class Inputs(NamedTuple):
    """What has a derivative."""

    q: Any  # (B, T, N, H)
    k: Any  # (B, S, K, H)
    v: Any  # (B, S, K, V)
    bias: Any  # broadcasts to (B, N, T, S); or None


class Fixed(NamedTuple):
    """What has none."""

    # Of (B, N, T, S), or of 1 where a decision is shared; None where nothing is dropped. With the key's words in the
    # place of the key: JAX's guard against a second use takes a key in a loop for used.
    mask: Mask | None
    factor: Any  # of a kept weight, a scalar or as large as the mask's thresholds
    allowed: Any  # bool, broadcasts to (B, N, T, S): which keys a query sees; or None
    query_lengths: Any  # (B,), or None
    key_lengths: Any  # (B,), or None
    start: Any  # uint32 (3,): the batch, head and query that a device's part of the whole starts at


def attention(form: Form, inputs: Inputs, fixed: Fixed):
    """The output (B, T, N, V), in the dtype of the inputs."""
    q, v = inputs.q, inputs.v
    out, _ = _attend(form, inputs, fixed)
    return jnp.moveaxis(out, 2, 1).reshape(*q.shape[:3], v.shape[-1]).astype(q.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attend(form, inputs, fixed):
    """The output (B, K, T, N // K, V) and the log-sum-exp (B, K, T, N // K), in at least float32."""
    tiles = _Tiles(form, inputs, fixed)

    def of_queries(_, row):
        def of_keys(carry, column):
            total, most, weight = carry
            logits = tiles.logits(row, column)
            new = jnp.maximum(most, logits.max(-1))
            shift = _finite(new)
            p, shrink = jnp.exp(logits - shift[..., None]), jnp.exp(most - shift)
            kept = tiles.kept(row, column, p)
            total = total * shrink[..., None] + tiles.weighted(kept, column["v"], tiles.dtype)
            return total, new, weight * shrink + p.sum(-1)

        shape = tiles.row_shape
        start = tiles.zeros(*shape, inputs.v.shape[-1]), tiles.zeros(*shape) - jnp.inf, tiles.zeros(*shape)
        total, most, weight = tiles.over_keys(row, of_keys, start, tiles.columns)
        weight = jnp.where(weight == 0, 1, weight)
        return None, (total / weight[..., None], most + jnp.log(weight))

    return tiles.over_queries(of_queries, None, {})


@functools.partial(_attend.defjvp, symbolic_zeros=True)
def _tangents(form, primals, tangents):
    inputs, fixed = primals
    tangents = Inputs(*(None if t is None or isinstance(t, SymbolicZero) else t for t in tangents[0]))
    out, lse = _attend(form, inputs, fixed)
    tiles = _Tiles(form, inputs, fixed, tangents)
    zeros = tiles.zeros(*tiles.row_shape, inputs.v.shape[-1]), tiles.zeros(*tiles.row_shape)

    def of_queries(columns, row):
        shift = _finite(row["lse"])[..., None]

        def of_keys(carry, column):
            moved, mean = carry
            p = jnp.exp(tiles.logits(row, column) - shift)
            kept, change = tiles.kept(row, column, p), tiles.change(row, column)
            if change is not None:
                moved += tiles.weighted(kept * change, column["v"])
                mean += (p * change).sum(-1)
            if tangents.v is not None:
                moved += tiles.weighted(kept, column["dv"].astype(inputs.v.dtype))
            return moved, mean

        return columns, tiles.over_keys(row, of_keys, zeros, columns, jax.checkpoint)

    rows = {"lse": _split(lse, 2, *tiles.rows)}
    moved, mean = tiles.over_queries(of_queries, tiles.columns, rows)
    return (out, lse), (moved - mean[..., None] * out, mean)


class _Tiles:
    """What attention is made of, cut in blocks of queries (rows) and of keys (columns)."""

    def __init__(self, form, inputs, fixed, tangents=(None, None, None, None)):
        (self.batch, self.T, heads, _), (_, self.S, groups, _) = inputs.q.shape, inputs.k.shape
        self.form, self.fixed, self.dtype = form, fixed, at_least_float32(inputs.q.dtype)
        self.heads = (groups, heads // groups)
        self.block = form.block if form.block == (self.T, self.S) else tuple(map(min, form.block, (self.T, self.S)))
        self.rows, self.keys = ((-(-n // size), size) for n, size in zip((self.T, self.S), self.block))
        self.row_shape = (self.batch, groups, self.block[0], heads // groups)
        self.axes = frozenset().union(*map(varying, jax.tree.leaves((inputs, fixed))))

        def of_queries(x):
            x = jnp.moveaxis(x.reshape(self.batch, self.T, *self.heads, x.shape[-1]), 1, 2)
            return _split(x, 2, *self.rows)

        def of_keys(x):
            return _split(jnp.moveaxis(x, 1, 2), 2, *self.keys)

        def of_pairs(x):  # of four axes, or a scalar
            if jnp.ndim(x) == 0:
                return jnp.broadcast_to(x, (self.rows[0], self.keys[0]))
            return jax.vmap(lambda row: _split(row, 3, *self.keys))(_split(x, 2, *self.rows))

        # The tangents ride in at least float32, in which their transposes are summed over tiles.
        dq, dk, dv, dbias = (None if tangent is None else tangent.astype(self.dtype) for tangent in tangents)
        pairs = {"bias": inputs.bias, "dbias": dbias, "allowed": fixed.allowed, "factor": fixed.factor}
        pairs["limit"] = None if fixed.mask is None else fixed.mask.limit
        self.queries = {**jax.tree.map(of_queries, {"q": inputs.q, "dq": dq}), "pairs": jax.tree.map(of_pairs, pairs)}
        self.columns = jax.tree.map(of_keys, {"k": inputs.k, "v": inputs.v, "dk": dk, "dv": dv})

    def zeros(self, *shape):
        return vary(jnp.zeros(shape, self.dtype), self.axes)

    def over_queries(self, body, carry, more):
        """The joined results of `body(carry, row)` for each block of queries."""
        rows = {**self.queries, **more, "i": jnp.arange(self.rows[0])}
        if self.rows[0] == 1:
            return body(carry, jax.tree.map(lambda x: x[0], rows))[1]

        def joined(x):
            x = jnp.moveaxis(x, 0, 2)
            return x.reshape(*x.shape[:2], math.prod(self.rows), *x.shape[4:])[:, :, : self.T]

        return jax.tree.map(joined, lax.scan(body, carry, rows)[1])

    def over_keys(self, row, body, carry, columns, wrap=lambda function, prevent_cse: function):
        """The last carry of `body(carry, column)`, for each block of keys of which these queries may see one."""
        columns = {**columns, "pairs": row["pairs"], "j": jnp.arange(self.keys[0])}

        def step(carry, column):
            if self.keys[0] == 1 or not (self.form.is_causal or self.form.window):
                return body(carry, column), None
            return lax.cond(self._reach(row["i"], column["j"]), body, lambda carry, _: carry, carry, column), None

        step = wrap(step, prevent_cse=False)
        if self.keys[0] == 1:
            return step(carry, jax.tree.map(lambda x: x[0], columns))[0]
        return lax.scan(step, carry, columns)[0]

    def logits(self, row, column):
        """The scaled products of queries and keys, (B, K, queries, N // K, keys); -inf where a key is not seen."""
        logits = self._product("bktgh,bksh->bktgs", row["q"], column["k"], self.dtype) * self.form.scale
        bias = column["pairs"]["bias"]
        logits = logits if bias is None else (logits + self._by_heads(bias)).astype(self.dtype)
        seen = self._seen(row["i"], column["j"], column["pairs"]["allowed"])
        return logits if seen is None else jnp.where(seen, logits, -jnp.inf)

    def change(self, row, column):
        """What the tangents move the logits by; None for nothing."""
        terms, dtype = [], row["q"].dtype
        if row["dq"] is not None:
            terms.append((row["dq"].astype(dtype), column["k"]))
        if column["dk"] is not None:
            terms.append((row["q"], column["dk"].astype(dtype)))
        terms = [self._product("bktgh,bksh->bktgs", *term) * self.form.scale for term in terms]
        if column["pairs"]["dbias"] is not None:
            terms.append(self._by_heads(column["pairs"]["dbias"]))
        return functools.reduce(jnp.add, terms) if terms else None

    def kept(self, row, column, p):
        """The weights that are kept, scaled, and 0 in the place of the others."""
        if self.fixed.mask is None:
            return p
        key = jax.random.wrap_key_data(self.fixed.mask.key, impl=self.form.impl)
        mask = dataclasses.replace(self.fixed.mask, key=key, limit=column["pairs"]["limit"])
        whole = (self.batch, math.prod(self.heads), *self.block)
        sizes = tuple(1 if shared == 1 else size for shared, size in zip(mask.shape, whole))
        places = (*self.fixed.start[:2], *self._first(row["i"], column["j"]))
        start = [np.uint32(0) if n == 1 else jnp.asarray(at).astype(jnp.uint32) for n, at in zip(mask.shape, places)]
        aligned = mask.shape[2] % LANES == self.T % LANES == self.block[0] % LANES == 0
        kept = keep_tile(mask, start, sizes, aligned)
        return jnp.where(self._by_heads(kept), p * self._by_heads(column["pairs"]["factor"]), 0)

    def weighted(self, weights, v, dtype=None):
        """The sums of v over keys."""
        return self._product("bktgs,bksh->bktgh", weights.astype(v.dtype), v, dtype)

    def _product(self, axes, a, b, dtype=None):
        # A product whose result has the type of its operands is transposed to products of that type; of another, it
        # would be transposed to slow ones of two types. XLA copies where two axes are summed over: so the axis of a
        # group's heads goes where it is 1. It is not merged with that of the queries: either may be split over devices.
        if a.shape[3] > 1:
            return jnp.einsum(axes, a, b, preferred_element_type=dtype).astype(self.dtype)
        product = jnp.einsum(axes.replace("g", ""), a[:, :, :, 0], b, preferred_element_type=dtype)
        return product.astype(self.dtype)[:, :, :, None]

    def _by_heads(self, x):
        if x.ndim == 0:
            return x
        heads = (1, 1) if x.shape[1] == 1 else self.heads
        return jnp.moveaxis(x.reshape(x.shape[0], *heads, *x.shape[2:]), 2, 3)

    def _first(self, i, j):
        """The first query and key of a tile, in the whole."""
        return i * self.block[0] + jnp.asarray(self.fixed.start[2]).astype(jnp.int32), j * self.block[1]

    def _reach(self, i, j):
        """Whether a tile has a query and a key that the form lets it see."""
        (query, key), (high, wide) = self._first(i, j), self.block
        reach = key < query + high if self.form.is_causal else True
        if self.form.window:
            before, after = self.form.window
            reach = (key + wide > query - before) & (key < query + high + after) & reach
        return reach

    def _seen(self, i, j, allowed):
        """Which queries of a tile see which keys; None where all see all."""
        query, key = self._first(i, j)
        query = query + jnp.arange(self.block[0]).reshape(1, 1, -1, 1, 1)
        key = key + jnp.arange(self.block[1]).reshape(1, 1, 1, 1, -1)
        seen = [] if allowed is None else [self._by_heads(allowed)]
        if self.form.is_causal:
            seen.append(key <= query)
        if self.form.window:
            before, after = self.form.window
            seen += [key >= query - before, key <= query + after]
        if self.S % self.block[1]:
            seen.append(key < self.S)
        for place, lengths in ((query, self.fixed.query_lengths), (key, self.fixed.key_lengths)):
            if lengths is not None:
                seen.append(place < lengths[:, None, None, None, None])
        return functools.reduce(jnp.logical_and, seen) if seen else None


def _split(x, axis, count, size):
    """Blocks of an axis, on a new first one; the last is filled up with zeros, and an axis of 1 is repeated."""
    if x.shape[axis] == 1 and count * size > 1:
        return jnp.broadcast_to(x, (count, *x.shape))
    more = count * size - x.shape[axis]
    x = jnp.pad(x, [(0, more if a == axis else 0) for a in range(x.ndim)]) if more else x
    return jnp.moveaxis(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)


def _finite(x):
    return jnp.where(x == -jnp.inf, 0, x)

"""Attention with dropout of its weights."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec, reshard
from jax.typing import ArrayLike

from jdrop._checks import as_bool, as_flag, as_scalar, as_size, at_least_float32, check_choice, is_concrete, to_array
from jdrop._compat import varying
from jdrop._types import Flag
from jdrop.functional._tiles import Fixed, Form, Inputs, attention
from jdrop.masks._layout import WHOLE_ROWS
from jdrop.masks._mask import as_mask
from jdrop.masks._primitives import times
from jdrop.masks._rate import scales
from jdrop.masks._shape import is_static
from jdrop.masks._shards import origin
from jdrop.masks._words import BLOCK_WORDS


def dot_product_attention(
    key: jax.Array | None,
    q: ArrayLike,
    k: ArrayLike,
    v: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    bias: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    is_causal: bool = False,
    scale: ArrayLike | None = None,
    query_seq_lengths: ArrayLike | None = None,
    key_value_seq_lengths: ArrayLike | None = None,
    local_window_size: int | tuple[int, int] | None = None,
    broadcast_dims: Sequence[int] = (),
    block_size: int | tuple[int, int] | None = None,
    implementation: Literal["xla"] | None = None,
) -> jax.Array:
    """Attention whose weights are dropped with probability `rate`, in memory linear in the length.

    ``y = (keep * softmax(scale q k^T + bias) / (1 - rate)) v`` with ``keep = keep_mask(key, (B, N, T, S), rate)``, at
    evaluation ``y = softmax(scale q k^T + bias) v``. B is the batch, T and S are the numbers of queries and keys, N and
    K those of their heads, and H is the size of a head.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn (evaluation, or a static rate of 0 or 1). One of rbg
        and its like is taken for the threefry2x32 key that its bits make.
      q: queries, (B, T, N, H) or (T, N, H), floating-point.
      k: keys, (B, S, K, H) or (S, K, H), of the dtype of `q`; N is a multiple of K.
      v: values, (B, S, K, V) or (S, K, V), of the dtype of `q`.
      rate: the probability that a weight is dropped, in [0, 1]; a number or an array, traced or not, that broadcasts
        against (B, N, T, S). It gets no gradient. Where it varies from query to query the mask takes longer to draw.
      deterministic: True at evaluation; a boolean, traced or not.
      bias: added to the logits, broadcasts against (B, N, T, S).
      mask: True where a query sees a key, broadcasts against (B, N, T, S).
      is_causal: whether query t sees keys 0 to t alone.
      scale: what the products of queries and keys are multiplied by; None for 1 / sqrt(H).
      query_seq_lengths: how many queries of each sequence there are, integers of shape (B,); those after give zeros.
      key_value_seq_lengths: how many keys of each sequence are seen, integers of shape (B,).
      local_window_size: how many keys before and after its own place a query sees; one number for both.
      broadcast_dims: axes of (B, N, T, S) along which one decision is shared: (0, 1) for batch and heads.
      block_size: how many queries and keys are computed at a time, a pair or one number for both; None for a size that
        is quick on the default backend. It changes no mask, and the output by no more than rounding.
      implementation: None or "xla": there is no other yet.

    Returns:
      An array like `q`, its last axis that of `v`. Logits and their softmax are of at least float32, as in
      `jax.nn.dot_product_attention`. A query that sees no key gives zeros. No more than a tile of the weights is in
      memory at a time: all queries and a block of keys. Where `is_causal` or `local_window_size` leave out whole tiles
      it is a block of queries too, on one device, under explicit axes and inside of ``jax.shard_map``; elsewhere name
      a `block_size`. The backward pass keeps `q`, `k`, `v`, the output and its log-sum-exp, and draws the mask again.
      A traced rate that is NaN or outside [0, 1] makes the output NaN.

    Raises:
      TypeError: no key where one is needed, inputs that are no floating-point arrays or of several dtypes, a mask that
        is not boolean, lengths that are no integers, a rate or flag of a wrong type.
      ValueError: shapes that do not fit, a concrete rate outside [0, 1] or NaN, an axis out of range, a size below 1.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> q = k = v = jnp.ones((2, 197, 4, 16))
      >>> jdrop.dot_product_attention(jax.random.key(0), q, k, v, 0.1, is_causal=True).shape
      (2, 197, 4, 16)

    Paper:
      Vaswani et al. 2017, "Attention is all you need"; in blocks, Dao et al. 2022, "FlashAttention: fast and
      memory-efficient exact attention with IO-awareness".
    """
    q, k, v = _inputs(q, k, v)
    batched = q.ndim == 4
    q, k, v = (x if batched else x[None] for x in (q, k, v))
    B, T, N, H = q.shape
    S = k.shape[1]
    bias = _of_pairs("bias", bias, (B, N, T, S))
    mask = _of_pairs("mask", mask, (B, N, T, S))
    check_choice("implementation", implementation, (None, "xla"))
    deterministic = as_flag(deterministic)
    dropped = as_mask(key, (B, N, T, S), rate, broadcast_dims, drawn=deterministic is not True)
    factor, one = scales(dropped.limit, q.dtype, "inverted")
    if dropped.keeps_all or (deterministic is True and dropped.limit.valid is None):
        dropped = factor = impl = None
    else:
        dropped = dataclasses.replace(dropped, limit=dropped.limit._replace(valid=None))
        if deterministic is not False:
            dropped, factor = dropped.unless(deterministic), jnp.where(deterministic, one, factor)
        impl, data = dropped.spec.impl, jax.random.key_data(dropped.key)
        if impl not in BLOCK_WORDS:  # of such a key no part of a mask can be drawn alone
            data = jax.random.bits(jax.random.wrap_key_data(data, impl=impl), (2,), "uint32")
            impl = "threefry2x32"
        dropped = dataclasses.replace(dropped, key=data)
        factor = jnp.asarray(factor)
    logit_scale: Any = 1 / math.sqrt(H)
    if scale is not None:
        logit_scale = as_scalar("scale", scale, lambda scale: scale == scale, "and no NaN", "scale=0.125")
    if not is_concrete(logit_scale):
        q, logit_scale = times(q, logit_scale.astype(at_least_float32(q.dtype))), 1.0
    is_causal, window = as_bool("is_causal", is_causal), None
    if local_window_size is not None:
        window = _pair("local_window_size", local_window_size, 0, 128, (128, 0))
    local = jax.device_count() == 1 or any(jax.typeof(q).sharding.spec) or bool(varying(q))
    block = _block(block_size, (B, N, T, S), local and (is_causal or window is not None))
    fixed = Fixed(
        mask=dropped,
        factor=factor,
        allowed=mask,
        query_lengths=_lengths("query_seq_lengths", query_seq_lengths, B),
        key_lengths=_lengths("key_value_seq_lengths", key_value_seq_lengths, B),
        start=jnp.zeros(3, jnp.uint32),
    )
    out = _attention(Form(float(logit_scale), is_causal, window, block, impl), Inputs(q, k, v, bias), fixed)
    return out if batched else out[0]


@functools.partial(jax.jit, static_argnums=0)
def _attention(form, inputs, fixed):
    sharding = jax.typeof(inputs.q).sharding
    if not any(sharding.spec):
        return attention(form, inputs, fixed)
    # Each device computes the queries that it holds. What its keys and values are split by, but for batch and heads, is
    # gathered first.
    batch, queries, heads, _ = sharding.spec
    groups = heads
    if heads is not None and inputs.k.shape[2] % math.prod(_sizes(sharding.mesh, heads)):
        groups, heads = None, heads if inputs.k.shape[2] == 1 else None
    rows, columns, each = (batch, queries, heads), PartitionSpec(batch, None, groups), PartitionSpec(batch)

    def of_pairs(x):
        if x is None or jnp.ndim(x) == 0:
            return None if x is None else PartitionSpec()
        axes = zip((batch, heads, queries, None), x.shape)
        return PartitionSpec(*(axis if size > 1 else None for axis, size in axes))

    pairs = jax.tree.map(of_pairs, (inputs.bias, fixed.allowed, fixed.factor, fixed.mask and fixed.mask.limit))
    bias, allowed, factor, limit = pairs
    mask = fixed.mask and dataclasses.replace(fixed.mask, key=PartitionSpec(), limit=limit)
    of_queries, of_keys = (None if x is None else each for x in (fixed.query_lengths, fixed.key_lengths))
    specs = (
        Inputs(PartitionSpec(*rows), columns, columns, bias),
        Fixed(mask, factor, allowed, of_queries, of_keys, PartitionSpec()),
    )

    def of_shard(inputs, fixed):
        sizes = (inputs.q.shape[axis] for axis in (0, 2, 1))
        start = origin(sharding.mesh, (batch, heads, queries), tuple(sizes))
        return attention(form, inputs, fixed._replace(start=start))

    operands = jax.tree.map(reshard, (inputs, fixed), specs)
    return jax.shard_map(of_shard, mesh=sharding.mesh, in_specs=specs, out_specs=PartitionSpec(*rows))(*operands)


def _sizes(mesh, axes):
    return [mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes)]


def _inputs(*arrays):
    """The queries, keys and values: floating-point, of one dtype, and of shapes that fit."""
    q, k, v = arrays = tuple(jnp.asarray(to_array(name, x)) for name, x in zip("qkv", arrays))
    dtypes, shapes = [x.dtype for x in arrays], ", ".join(str(x.shape) for x in arrays)
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise TypeError(
            f"q, k and v have dtypes {', '.join(map(str, dtypes))}, but floating-point arrays are needed: write "
            "q.astype(jnp.float32)."
        )
    if len(set(dtypes)) > 1:
        raise TypeError(
            f"q, k and v have dtypes {', '.join(map(str, dtypes))}, but one dtype is needed: write k.astype(q.dtype)."
        )
    if q.ndim not in (3, 4) or k.ndim != q.ndim or v.ndim != q.ndim:
        raise ValueError(
            f"q, k and v have shapes {shapes}, but each needs the axes (batch, length, heads, size), or all three no "
            "batch: reshape them."
        )
    if q.shape[:-3] != k.shape[:-3] or k.shape[:-1] != v.shape[:-1] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"q, k and v have shapes {shapes}, but these must be (B, T, N, H), (B, S, K, H) and (B, S, K, V), with one "
            "batch for all, and one length and one number of heads for k and v."
        )
    if k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
        raise ValueError(
            f"q has {q.shape[-2]} heads and k has {k.shape[-2]}, but the first must be a multiple of the second: give "
            "each head of k to as many of q."
        )
    return arrays


def _of_pairs(name, value, shape):
    """A bias or mask with four axes, each of 1 or that of `shape`."""
    if value is None:
        return None
    array = jnp.asarray(to_array(name, value))
    boolean = array.dtype == jnp.bool_
    if boolean != (name == "mask"):
        wanted, write = ("booleans are", "mask=m != 0") if name == "mask" else ("numbers are", "mask=m for booleans")
        raise TypeError(f"{name} has dtype {array.dtype}, but {wanted} needed: write {write}.")
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name} has dtype {array.dtype}, but real numbers are needed: write {name}.real.")
    full = (1,) * (4 - array.ndim) + array.shape
    if len(full) != 4 or any(n != 1 and n != whole for n, whole in zip(full, shape)):
        raise ValueError(
            f"{name} has shape {array.shape}, which does not broadcast to the shape {shape} of the weights (batch, "
            f"heads, queries, keys): write {name}[:, None] where the heads are missing."
        )
    return array.reshape(full)


def _lengths(name, value, batch):
    if value is None:
        return None
    array = jnp.asarray(to_array(name, value))
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name} has dtype {array.dtype}, but integers are needed: write {name}.astype(jnp.int32).")
    if array.shape != (batch,):
        raise ValueError(
            f"{name} has shape {array.shape}, but one length for each of the {batch} sequences is needed: give it the "
            f"shape ({batch},)."
        )
    return array


def _pair(name, value, least, one, two):
    """One number for both, or two; `one` and `two` are what errors advise."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name} is {value!r}, but one number or two are needed: write {two}.")
    first, second = (as_size(name, size, least, one) for size in pair)
    return first, second


def _block(value, shape, skips):
    """How many queries and keys a tile has, for weights of `shape`.

    All queries, since then only keys are looped over, and that splits over devices however the queries are split; but
    few where tiles are skipped. As many keys as the memory near the processor holds, which a GPU hides and asks for few
    and large steps.
    """
    *_, heads, queries, keys = shape
    sizes = None if value is None else _pair("block_size", value, 1, 256, (512, 256))
    if not is_static((queries, keys)) or (not is_static(shape) and heads * queries < WHOLE_ROWS):
        return queries, keys  # a mask whose layout is chosen when the program runs is drawn in whole
    if sizes is not None:
        return min(sizes[0], queries), min(sizes[1], keys)
    high = _even(queries, 512) if skips else queries
    wide = 512 if jax.default_backend() == "gpu" else max(128, 2**17 // max(high, 1))
    return high, _even(keys, wide)


def _even(length, size):
    """A multiple of 32, not much above `size`, that cuts a length in parts of nearly one size; or the length."""
    if length <= size:
        return length
    part = -(-length // -(-length // size))
    return -(-part // 32) * 32

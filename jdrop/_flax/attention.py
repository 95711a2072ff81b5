"""What Flax's attention asks of an `attention_fn`, in both of its modules' families."""

import contextlib
import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from jdrop._checks import as_flag, to_array
from jdrop.functional._attention import dot_product_attention
from jdrop.functional._dropout import dropout


def attention(query, key, value, *, bias, mask, dropout_rng, dropout_rate, broadcast_dropout, deterministic, **form):
    """`jdrop.dot_product_attention` of arrays (batch..., length, heads, size), by Flax's names.

    Args:
      form: `precision` of the products, and arguments of `jdrop.dot_product_attention`.
    """
    batch, (length, heads, _), keys = query.shape[:-3], query.shape[-3:], key.shape[-3]
    precision = form.pop("precision")
    flat = functools.partial(_flat, batch=batch)
    q, k, v = (x.reshape(math.prod(batch), *x.shape[-3:]) for x in (query, key, value))
    with jax.default_matmul_precision(_name(precision)) if precision else contextlib.nullcontext():
        out = dot_product_attention(
            dropout_rng,
            q,
            k,
            v,
            dropout_rate,
            deterministic,
            bias=flat(None if bias is None else to_array("bias", bias), (heads, length, keys)),
            mask=None if mask is None else flat(as_mask(mask), (heads, length, keys)),
            broadcast_dims=(0, 1) if broadcast_dropout else (),
            **form,
        )
    return out.reshape(*batch, *out.shape[1:])


def dropped(weights, mask, *, dropout_rng, dropout_rate, broadcast_dropout, deterministic):
    """Attention weights (batch..., heads, queries, keys), 0 where a mask is, dropped by the mask of `attention`."""
    if mask is not None:  # Flax's are not where a query sees no key
        weights = jnp.where(as_mask(mask), weights, jnp.zeros((), weights.dtype))
    shared = range(weights.ndim - 2) if broadcast_dropout else ()
    return dropout(dropout_rng, weights, dropout_rate, as_flag(deterministic), broadcast_dims=tuple(shared))


def serves(x, precision) -> bool:
    """Whether `attention` can: for real numbers, and a precision that `jax.default_matmul_precision` has a name for."""
    return jnp.issubdtype(x.dtype, jnp.floating) and (precision is None or isinstance(precision, (str, lax.Precision)))


def as_operands(query, key, value):
    """The three as arrays, of shapes that fit; or a ValueError in Flax's words."""
    given = {"query": query, "key": key, "value": value}
    q, k, v = (jnp.asarray(to_array(name, x)) for name, x in given.items())
    if not q.ndim == k.ndim == v.ndim >= 3:
        raise ValueError(
            "query, key and value must have same rank, of at least 3, but they have the shapes "
            f"{q.shape}, {k.shape} and {v.shape}."
        )
    for agree, what in (
        (q.shape[:-3] == k.shape[:-3] == v.shape[:-3], "query, key and value batch dims must match"),
        (q.shape[-1] == k.shape[-1], "query and key depths must match"),
        (k.shape[-3:-2] == v.shape[-3:-2], "key and value lengths must match"),
    ):
        if not agree:
            raise ValueError(f"{what}, but they have the shapes {q.shape}, {k.shape} and {v.shape}.")
    return q, k, v


def as_mask(mask):
    return jnp.asarray(to_array("mask", mask)).astype(bool)


def _name(precision):
    return precision.name.lower() if isinstance(precision, lax.Precision) else precision


def _flat(x, shape, batch):
    """A bias or mask with one batch axis, of 1 where it has none of its own."""
    if x is None:
        return None
    x = jnp.asarray(x)
    x = x.reshape((1,) * (len(batch) + 3 - x.ndim) + x.shape)
    if any(size != 1 for size in x.shape[:-3]):
        x = jnp.broadcast_to(x, (*batch, *x.shape[-3:]))
    return x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])

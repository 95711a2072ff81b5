"""Attention for Flax NNX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from flax.nnx.nn.attention import dot_product_attention_weights
from flax.typing import PrecisionLike, PromoteDtypeFn
from jax.typing import ArrayLike, DTypeLike

from jdrop._flax.attention import as_mask, as_operands, attention, dropped, serves
from jdrop._types import Flag


def attention_fn(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: jax.Array | None = None,
    dropout_rate: ArrayLike = 0.0,
    deterministic: Flag = False,
    dtype: DTypeLike | None = None,
    precision: PrecisionLike = None,
    module: nnx.Module | None = None,
    promote_dtype: PromoteDtypeFn = dtypes.promote_dtype,
    is_causal: bool = False,
) -> jax.Array:
    """Attention by `jdrop.dot_product_attention`, in the place of `flax.nnx.dot_product_attention`.

    ``y = (keep * softmax(query key^T / sqrt(H) + bias) / (1 - dropout_rate)) value``. Give it to Flax's attention,
    ``nnx.MultiHeadAttention(num_heads=4, ..., attention_fn=jdrop.nnx.attention_fn)``.

    Args:
      query: (batch..., queries, heads, size), floating-point.
      key: (batch..., keys, groups, size); the heads are a multiple of the groups.
      value: (batch..., keys, groups, size).
      bias: added to the logits, broadcasts against (batch..., heads, queries, keys).
      mask: not 0 where a query sees a key, broadcasts alike.
      broadcast_dropout: whether one decision is shared by batch and heads, as it is in Flax by default.
      dropout_rng: a PRNG key.
      dropout_rate: the probability that a weight is dropped, in [0, 1].
      deterministic: True at evaluation.
      dtype: to compute in; None for that of the inputs.
      precision: of the products.
      module: an NNX module that the weights are sown into. They then are computed in whole, and dropped by the same
        mask; so they are for a `precision` that has no name.
      promote_dtype: gives the inputs one dtype, as in Flax.
      is_causal: whether query t sees keys 0 to t alone.

    Returns:
      (batch..., queries, heads, size).

    Raises:
      TypeError, ValueError: what `jdrop.dot_product_attention` refuses.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> layer = nnx.MultiHeadAttention(4, 8, decode=False, attention_fn=jdrop.nnx.attention_fn, rngs=nnx.Rngs(0))
      >>> y = layer(jnp.ones((2, 9, 8)))

    Paper:
      Vaswani et al. 2017, "Attention is all you need".
    """
    promoted: Any = promote_dtype(as_operands(query, key, value), dtype=dtype)
    query, key, value = promoted
    drawn = {
        "dropout_rng": dropout_rng,
        "dropout_rate": dropout_rate,
        "broadcast_dropout": broadcast_dropout,
        "deterministic": deterministic,
    }
    if module is None and serves(query, precision):
        return attention(query, key, value, bias=bias, mask=mask, precision=precision, is_causal=is_causal, **drawn)
    weights = dot_product_attention_weights(
        query,
        key,
        None if bias is None else jnp.asarray(bias),
        None if mask is None else jnp.asarray(mask),
        deterministic=True,
        precision=precision,
        module=module,
        is_causal=is_causal,
    )
    if is_causal:
        causal = jnp.tril(jnp.ones(weights.shape[-2:], bool))
        mask = causal if mask is None else causal & as_mask(mask)
    weights = dropped(weights, mask, **drawn)
    groups = value.shape[-2]
    weights = weights.reshape(*weights.shape[:-3], groups, weights.shape[-3] // groups, *weights.shape[-2:])
    out = jnp.einsum("...kgts,...skh->...tkgh", weights, value, precision=precision)
    return out.reshape(*out.shape[:-3], query.shape[-2], value.shape[-1])


class MultiHeadAttention(nnx.MultiHeadAttention):
    """`flax.nnx.MultiHeadAttention` with jdrop's dropout, in memory linear in the length.

    ``y = (keep * softmax(q k^T / sqrt(H)) / (1 - dropout_rate)) v`` for each head, of projected inputs. Parameters,
    arguments and names are those of Flax's module, and so is what it does, but for two defaults.

    Args:
      num_heads: number of heads.
      in_features: size of the inputs' last axis.
      broadcast_dropout: whether one decision is shared by batch and heads; here False, independent ones.
      attention_fn: here `jdrop.nnx.attention_fn`.
      **kwargs: what else Flax's module takes, such as `dropout_rate`, `deterministic` and `rngs`.

    Raises:
      ValueError: a stream or mode is missing, as in Flax.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> layer = jdrop.nnx.MultiHeadAttention(
      ...     4, 8, dropout_rate=0.1, deterministic=False, decode=False, rngs=nnx.Rngs(0)
      ... )
      >>> y = layer(jnp.ones((2, 9, 8)))

    Paper:
      Vaswani et al. 2017, "Attention is all you need".
    """

    def __init__(
        self,
        num_heads: int,
        in_features: int,
        *args: Any,
        broadcast_dropout: bool = False,
        attention_fn: Callable[..., jax.Array] = attention_fn,
        **kwargs: Any,
    ) -> None:
        given = {"broadcast_dropout": broadcast_dropout, "attention_fn": attention_fn}
        super().__init__(num_heads, in_features, *args, **given, **kwargs)

"""Attention for Flax Linen."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from flax.typing import PrecisionLike
from jax.typing import ArrayLike, DTypeLike

from jdrop._flax.attention import as_operands, attention, dropped, serves
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
    module: nn.Module | None = None,
    force_fp32_for_softmax: bool = False,
    einsum_dot_general: Callable[..., jax.Array] | None = None,
    qk_attn_weights_einsum: Callable[..., jax.Array] | None = None,
    attn_weights_value_einsum: Callable[..., jax.Array] | None = None,
) -> jax.Array:
    """Attention by `jdrop.dot_product_attention`, in the place of `flax.linen.dot_product_attention`.

    ``y = (keep * softmax(query key^T / sqrt(H) + bias) / (1 - dropout_rate)) value``. Give it to Flax's attention,
    ``nn.MultiHeadDotProductAttention(num_heads=4, attention_fn=jdrop.linen.attention_fn)``.

    Args:
      query: (batch..., queries, heads, size), floating-point.
      key: (batch..., keys, heads, size).
      value: (batch..., keys, heads, size).
      bias: added to the logits, broadcasts against (batch..., heads, queries, keys).
      mask: not 0 where a query sees a key, broadcasts alike.
      broadcast_dropout: whether one decision is shared by batch and heads, as it is in Flax by default.
      dropout_rng: a PRNG key.
      dropout_rate: the probability that a weight is dropped, in [0, 1].
      deterministic: True at evaluation.
      dtype: to compute in; None for that of the inputs.
      precision: of the products.
      module: a Linen module that the weights are sown into. They then are computed in whole, and dropped by the same
        mask; so they are for another dot product, in `precision` or in the next ones.
      force_fp32_for_softmax: has no effect but on weights in whole: the softmax is in at least float32.
      einsum_dot_general: another dot product than JAX's, as in Flax.
      qk_attn_weights_einsum: another `einsum` than JAX's for the logits; needs the next one too.
      attn_weights_value_einsum: that for the output.

    Returns:
      (batch..., queries, heads, size).

    Raises:
      TypeError, ValueError: what `jdrop.dot_product_attention` refuses; one of the two einsums alone.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> layer = nn.MultiHeadDotProductAttention(num_heads=4, dropout_rate=0.1, attention_fn=jdrop.linen.attention_fn)
      >>> y, _ = layer.init_with_output(jax.random.key(0), jnp.ones((2, 9, 8)), deterministic=False)

    Paper:
      Vaswani et al. 2017, "Attention is all you need".
    """
    query, key, value = promote_dtype(*as_operands(query, key, value), dtype=dtype)
    drawn = {
        "dropout_rng": dropout_rng,
        "dropout_rate": dropout_rate,
        "broadcast_dropout": broadcast_dropout,
        "deterministic": deterministic,
    }
    if (qk_attn_weights_einsum is None) != (attn_weights_value_einsum is None):
        raise ValueError(
            "one of qk_attn_weights_einsum and attn_weights_value_einsum came alone, but both are needed: write both."
        )
    products = (einsum_dot_general, qk_attn_weights_einsum, attn_weights_value_einsum)
    if module is None and serves(query, precision) and not any(products):
        return attention(query, key, value, bias=bias, mask=mask, precision=precision, **drawn)
    weights = nn.dot_product_attention_weights(
        query,
        key,
        None if bias is None else jnp.asarray(bias),
        None if mask is None else jnp.asarray(mask),
        deterministic=True,
        precision=precision,
        module=module,
        force_fp32_for_softmax=force_fp32_for_softmax,
        einsum_dot_general=einsum_dot_general,
        einsum=qk_attn_weights_einsum,
    )
    dot: Any = einsum_dot_general or jax.lax.dot_general
    einsum = attn_weights_value_einsum or functools.partial(jnp.einsum, precision=precision, _dot_general=dot)
    return einsum("...hqk,...khd->...qhd", dropped(weights, mask, **drawn), value)


class MultiHeadDotProductAttention(nn.MultiHeadDotProductAttention):
    """`flax.linen.MultiHeadDotProductAttention` with jdrop's dropout, in memory linear in the length.

    ``y = (keep * softmax(q k^T / sqrt(H)) / (1 - dropout_rate)) v`` for each head, of projected inputs. Parameters,
    arguments and names are those of Flax's module, and so is what it does, but for two defaults.

    Attributes:
      num_heads: number of heads.
      dropout_rate: the probability that a weight is dropped, in [0, 1].
      deterministic: True at evaluation; give it here or at the call.
      broadcast_dropout: whether one decision is shared by batch and heads; here False, independent ones.
      attention_fn: here `jdrop.linen.attention_fn`.

    Raises:
      flax.errors.InvalidRngError: the stream "dropout" was not passed to apply.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.MultiHeadDotProductAttention(num_heads=4, dropout_rate=0.1, deterministic=False)
      >>> y, _ = layer.init_with_output(jax.random.key(0), jnp.ones((2, 9, 8)))

    Paper:
      Vaswani et al. 2017, "Attention is all you need".
    """

    broadcast_dropout: bool = False
    attention_fn: Callable[..., jax.Array] = attention_fn


class SelfAttention(MultiHeadDotProductAttention):
    """`jdrop.linen.MultiHeadDotProductAttention` of one input, called as `flax.linen.SelfAttention` is.

    ``y = (keep * softmax(q k^T / sqrt(H)) / (1 - dropout_rate)) v`` for each head, of one projected input.

    Attributes:
      num_heads: number of heads.
      dropout_rate: the probability that a weight is dropped, in [0, 1].
      deterministic: True at evaluation; give it here or at the call.
      broadcast_dropout: whether one decision is shared by batch and heads; here False, independent ones.
      attention_fn: here `jdrop.linen.attention_fn`.

    Raises:
      flax.errors.InvalidRngError: the stream "dropout" was not passed to apply.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.SelfAttention(num_heads=4, dropout_rate=0.1, deterministic=False)
      >>> y, _ = layer.init_with_output(jax.random.key(0), jnp.ones((2, 9, 8)))

    Paper:
      Vaswani et al. 2017, "Attention is all you need".
    """

    @nn.compact
    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]  # as in Flax
        self,
        inputs_q: jax.Array,
        mask: ArrayLike | None = None,
        deterministic: Flag | None = None,
        dropout_rng: jax.Array | None = None,
        sow_weights: bool = False,
    ) -> jax.Array:
        """Apply attention.

        Args:
          inputs_q: (batch..., length, features).
          mask: not 0 where a query sees a key, broadcasts against (batch..., heads, queries, keys).
          deterministic: True at evaluation.
          dropout_rng: a key to use instead of the module's stream.
          sow_weights: whether to sow the weights into the collection "intermediates".
        """
        given: dict[str, Any] = {"mask": mask, "deterministic": deterministic, "dropout_rng": dropout_rng}
        return super().__call__(inputs_q, **given, sow_weights=sow_weights)

"""Dropout in texts: of tokens, of words, and of all places of a word."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import to_array
from jdrop._types import Flag, Save, Scaling
from jdrop.functional._dropout import drawn, dropout
from jdrop.functional._structured import with_axes
from jdrop.masks._drop import chosen


def token_dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    padding: ArrayLike | None = None,
    scaling: Scaling = "inverted",
    save: Save = "key",
) -> jax.Array:
    """Set each token, a vector of a sequence, to zero with probability `rate`.

    ``y[..., t, :] = keep[..., t] * x[..., t, :] / (1 - rate)``; ``y = x`` at evaluation, and at padding.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: a floating-point or complex array of shape (..., length, features).
      rate: the probability that a token is dropped, in [0, 1]; a number or an array, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      padding: True at tokens that are padding, boolean of shape (..., length): these stay as they are.
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.
      save: "key" or "mask", as in `jdrop.dropout`.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      TypeError: integer input, no key where one is needed, a rate, flag or padding of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN; fewer than two axes, or padding of another shape.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> y = jdrop.token_dropout(jax.random.key(0), jnp.ones((2, 6, 4)), 0.5)
      >>> bool((y == y[:, :, :1]).all())
      True

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """
    x = with_axes(x, rate, 2, "(..., length, features)")
    y = dropout(key, x, rate, deterministic, broadcast_dims=(-1,), scaling=scaling, save=save)
    return y if padding is None else jnp.where(_padding(padding, x.shape[:-1])[..., None], x, y)


def word_dropout(
    key: jax.Array | None,
    tokens: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    replacement: int,
    padding: ArrayLike | None = None,
) -> jax.Array:
    """Replace each token of a text, a number, by another one with probability `rate`.

    ``y[..., t] = tokens[..., t] where keep[..., t] else replacement``; ``y = tokens`` at evaluation, and at padding.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      tokens: an integer array of shape (..., length).
      rate: the probability that a token is replaced, in [0, 1]; a number or an array, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      replacement: what stands for a dropped token, such as the number of the unknown word.
      padding: True at tokens that are padding, boolean of the shape of `tokens`: these stay as they are.

    Returns:
      An array of the shape and dtype of `tokens`. A traced rate that is NaN or outside [0, 1] replaces all.

    Raises:
      TypeError: tokens that are no integers, no key where one is needed, a rate, flag or padding of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN; padding of another shape; a replacement that the dtype of
        `tokens` does not hold.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> tokens = jnp.array([[5, 6, 7, 8]])
      >>> set(jdrop.word_dropout(jax.random.key(0), tokens, 0.5, replacement=1).ravel().tolist()) <= {1, 5, 6, 7, 8}
      True

    Paper:
      Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods for text classification"; Bowman et al.
      2016, "Generating sentences from a continuous space".
    """
    tokens = _tokens(tokens)
    if isinstance(replacement, bool) or not isinstance(replacement, (int, np.integer)):
        raise TypeError(f"replacement is {replacement!r}, but the number of a token is needed: write replacement=1.")
    info = jnp.iinfo(tokens.dtype)
    if not info.min <= replacement <= info.max:
        raise ValueError(
            f"replacement is {replacement}, but tokens of {tokens.dtype} are in [{info.min}, {info.max}]: write one of "
            "these."
        )
    mask = drawn(key, tokens.shape, rate, deterministic)
    if padding is not None:
        padding = _padding(padding, tokens.shape)
    y = chosen(mask, tokens, jnp.asarray(replacement, tokens.dtype)) if mask else tokens
    if mask and mask.limit.valid is not None:
        y = jnp.where(mask.limit.valid, y, jnp.asarray(replacement, tokens.dtype))
    return y if padding is None else jnp.where(padding, tokens, y)


def embedding_dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    tokens: ArrayLike,
    scaling: Scaling = "inverted",
) -> jax.Array:
    """Set the vectors of each word type of a sequence to zero with probability `rate`, wherever in it the word stands.

    ``y[..., t, :] = keep[..., word of t] * x[..., t, :] / (1 - rate)``, which drops rows of the embedding matrix,
    others for each sequence; ``y = x`` at evaluation. No mask of the size of the vocabulary is drawn.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: the embedded tokens, a floating-point or complex array of shape (..., length, features).
      rate: the probability that a word type is dropped, in [0, 1]; a number, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      tokens: the numbers of the words, an integer array of shape (..., length).
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      TypeError: `x` of integers, or tokens that are none; no key where one is needed, a rate or flag of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, or an array of rates; tokens of another shape than that of
        `x` without its last axis.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> tokens = jnp.array([[5, 6, 5, 7, 5]])
      >>> y = jdrop.embedding_dropout(jax.random.key(0), jnp.ones((1, 5, 4)), 0.5, tokens=tokens)
      >>> bool((y[0, 0] == y[0, 2]).all() and (y[0, 0] == y[0, 4]).all())
      True

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """
    x, tokens = with_axes(x, rate, 2, "(..., length, features)"), _tokens(tokens)
    if tokens.shape != x.shape[:-1]:
        raise ValueError(
            f"tokens has shape {tokens.shape}, but one number for each vector of x is needed: shape {x.shape[:-1]}."
        )
    if np.ndim(rate):
        raise ValueError(f"rate has shape {np.shape(rate)}, but word types share one rate: give a number.")
    # A slot for each word type: its first place among the sorted tokens.
    slots = jnp.vectorize(lambda row: jnp.searchsorted(jnp.sort(row), row), signature="(n)->(n)")(tokens)
    share = dropout(key, jnp.ones((*tokens.shape, 1), x.dtype), rate, deterministic, scaling=scaling)
    share = jnp.take_along_axis(share, slots[..., None], -2)
    return _chosen_or_scaled(x, share)


@jax.checkpoint
def _chosen_or_scaled(x, share):
    """``x * share``, but 0 where that is: so that a NaN which is dropped reaches nothing."""
    return jnp.where(share == 0, jnp.zeros((), x.dtype), x * share)


def _tokens(tokens):
    tokens = jnp.asarray(to_array("tokens", tokens))
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(
            f"tokens has dtype {tokens.dtype}, but the numbers of words are needed: tokens.astype(jnp.int32)."
        )
    return tokens


def _padding(padding, shape):
    padding = jnp.asarray(to_array("padding", padding))
    if padding.dtype != jnp.bool_:
        raise TypeError(f"padding has dtype {padding.dtype}, but booleans are needed: write tokens == 0, say.")
    if padding.shape != shape:
        raise ValueError(f"padding has shape {padding.shape}, but one boolean for each token is needed: {shape}.")
    return padding

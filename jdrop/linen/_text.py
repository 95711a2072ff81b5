"""Dropout of tokens and words for Flax Linen."""

from jax.typing import ArrayLike

from jdrop._types import Flag
from jdrop.functional import embedding_dropout, token_dropout, word_dropout
from jdrop.linen._layer import Layer


class EmbeddingDropout(Layer):
    """`jdrop.embedding_dropout` as a module: dropout of word types, wherever in a sequence they stand.

    The call takes `tokens` too: the numbers of the words, an integer array of shape (..., length).

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> tokens = jnp.array([[5, 6, 5, 7, 5]])
      >>> layer = jdrop.linen.EmbeddingDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((1, 5, 4)), tokens=tokens, rngs={"dropout": jax.random.key(0)})

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """

    _function = staticmethod(embedding_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"


class TokenDropout(Layer):
    """`jdrop.token_dropout` as a module: dropout of whole tokens of a sequence.

    The call takes `padding` too: True at tokens that are padding, boolean of shape (..., length).

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.TokenDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 6, 4)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """

    _function = staticmethod(token_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"


class WordDropout(Layer):
    """`jdrop.word_dropout` as a module: dropout of the words of a text, numbers that another one stands for.

    The call takes `padding` too: True at words that are padding, boolean of the shape of `inputs`.

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".
      replacement: what stands for a dropped word, such as the number of the unknown one.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.WordDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.array([[5, 6, 7]]), rngs={"dropout": jax.random.key(0)})

    Paper:
      Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods for text classification".
    """

    _function = staticmethod(word_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"
    replacement: int = 1

"""Dropout of tokens and words for Flax NNX."""

import jax
from flax import nnx
from jax.typing import ArrayLike

from jdrop._types import Flag
from jdrop.functional import embedding_dropout, token_dropout, word_dropout
from jdrop.nnx._layer import Layer


class EmbeddingDropout(Layer):
    """`jdrop.embedding_dropout` as a module: dropout of word types, wherever in a sequence they stand.

    The call takes `tokens` too: the numbers of the words, an integer array of shape (..., length).

    Args:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> tokens = jnp.array([[5, 6, 5, 7, 5]])
      >>> y = jdrop.nnx.EmbeddingDropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((1, 5, 4)), tokens=tokens)

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """

    _function = staticmethod(embedding_dropout)


class TokenDropout(Layer):
    """`jdrop.token_dropout` as a module: dropout of whole tokens of a sequence.

    The call takes `padding` too: True at tokens that are padding, boolean of shape (..., length).

    Args:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.TokenDropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 6, 4)))

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """

    _function = staticmethod(token_dropout)


class WordDropout(Layer):
    """`jdrop.word_dropout` as a module: dropout of the words of a text, numbers that another one stands for.

    The call takes `padding` too: True at words that are padding, boolean of the shape of `inputs`.

    Args:
      rate: as that of the function, in [0, 1].
      replacement: what stands for a dropped word, such as the number of the unknown one.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.WordDropout(0.5, rngs=nnx.Rngs(0))(jnp.array([[5, 6, 7]]))

    Paper:
      Iyyer et al. 2015, "Deep unordered composition rivals syntactic methods for text classification".
    """

    _function = staticmethod(word_dropout)
    _options = ("replacement",)

    def __init__(
        self,
        rate: ArrayLike,
        *,
        replacement: int = 1,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(rate, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)
        self.replacement: int = replacement

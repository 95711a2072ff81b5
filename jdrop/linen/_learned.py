"""Dropout with parameters or masks of its own for Flax Linen."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._flax.modes import logit
from jdrop._keys import fold_in
from jdrop._types import Flag
from jdrop.functional import concrete_dropout, masksembles, masksembles_masks, variational_dropout
from jdrop.linen._layer import Drawing


class ConcreteDropout(Drawing):
    """`jdrop.concrete_dropout` as a module that learns its rate, ``sigmoid(logit)``.

    Add `jdrop.concrete_regularizer` of the next layer's kernel and of ``jax.nn.sigmoid(params["logit"])`` to the loss.

    Attributes:
      rate: the rate that learning starts from, in (0, 1).
      temperature: how far a decision is from 0 or 1, positive.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.ConcreteDropout(0.2, deterministic=False)
      >>> y, variables = layer.init_with_output({"params": jax.random.key(0)}, jnp.ones((2, 3)))

    Paper:
      Gal, Hron & Kendall 2017, "Concrete dropout".
    """

    rate: float = 0.1
    temperature: float = 0.1
    deterministic: Flag | None = None
    rng_collection: str = "dropout"

    @nn.compact
    def __call__(self, inputs: ArrayLike, deterministic: Flag | None = None, rng: jax.Array | None = None) -> jax.Array:
        """Apply it.

        Args:
          inputs: a real floating-point array.
          deterministic: True at evaluation; a boolean, traced or not.
          rng: a key to use instead of the module's stream.
        """
        rate = jax.nn.sigmoid(self.param("logit", lambda _: logit(self.rate)))
        key, mode = self._draw(deterministic, rng)
        return concrete_dropout(key, inputs, rate, mode, temperature=self.temperature)


class VariationalDropout(Drawing):
    """A dense layer by `jdrop.variational_dropout`, which learns the noise of each weight.

    Add `jdrop.variational_kl` of ``params["log_alpha"]`` to the loss, and `jdrop.prune` its kernel in the end.

    Attributes:
      features: how many outputs.
      use_bias: whether to add a bias.
      log_alpha: where the logarithms of the noise-to-signal ratios start.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.VariationalDropout(4, deterministic=False)
      >>> y, variables = layer.init_with_output({"params": jax.random.key(0)}, jnp.ones((2, 3)))

    Paper:
      Molchanov, Ashukha & Vetrov 2017, "Variational dropout sparsifies deep neural networks".
    """

    features: int
    use_bias: bool = True
    log_alpha: float = -4.0
    deterministic: Flag | None = None
    rng_collection: str = "dropout"

    @nn.compact
    def __call__(self, inputs: ArrayLike, deterministic: Flag | None = None, rng: jax.Array | None = None) -> jax.Array:
        """Apply it.

        Args:
          inputs: a real floating-point array of shape (..., inputs).
          deterministic: True at evaluation; a boolean, traced or not.
          rng: a key to use instead of the module's stream.
        """
        x = jnp.asarray(inputs)
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(x.dtype)
        log_alpha = self.param("log_alpha", nn.initializers.constant(self.log_alpha), shape)
        key, mode = self._draw(deterministic, rng)
        y = variational_dropout(key, x, kernel, log_alpha, mode)
        return y + self.param("bias", nn.initializers.zeros, (self.features,)).astype(y.dtype) if self.use_bias else y


class Masksembles(nn.Module):
    """`jdrop.masksembles` as a module with masks of its own, which its seed and its place in the model decide.

    Attributes:
      num_masks: the members of the ensemble, at least 2.
      scale: how little the masks overlap, at least 1.
      seed: of the masks.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.linen.Masksembles(4).apply({}, jnp.ones((8, 16)), 2).shape
      (8, 16)

    Paper:
      Durasov et al. 2021, "Masksembles for uncertainty estimation".
    """

    num_masks: int = 4
    scale: float = 2.0
    seed: int = 0

    @nn.compact
    def __call__(self, inputs: ArrayLike, index: ArrayLike | None = None) -> jax.Array:
        """Apply it.

        Args:
          inputs: an array of shape (batch, ..., channels).
          index: the member of a prediction; None while training, where each has its part of the batch.
        """
        x: Any = jnp.asarray(inputs)
        with jax.ensure_compile_time_eval():  # the masks are no part of the program
            key = fold_in(jax.random.key(self.seed), "masksembles", *self.path)
            masks = masksembles_masks(key, self.num_masks, x.shape[-1], self.scale)
        return masksembles(x, masks, index)

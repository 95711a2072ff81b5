"""Dropout with parameters or masks of its own for Flax NNX."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from jdrop._flax.modes import logit
from jdrop._types import Flag
from jdrop.functional import concrete_dropout, masksembles, masksembles_masks, variational_dropout
from jdrop.nnx._layer import Drawing


class ConcreteDropout(Drawing):
    """`jdrop.concrete_dropout` as a module that learns its rate, ``sigmoid(logit)``.

    Add `jdrop.concrete_regularizer` of the next layer's kernel and of ``jax.nn.sigmoid(layer.logit)`` to the loss.

    Args:
      rate: the rate that learning starts from, in (0, 1).
      temperature: how far a decision is from 0 or 1, positive.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.ConcreteDropout(0.2, rngs=nnx.Rngs(0))(jnp.ones((2, 3)))

    Paper:
      Gal, Hron & Kendall 2017, "Concrete dropout".
    """

    def __init__(
        self,
        rate: float = 0.1,
        *,
        temperature: float = 0.1,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(deterministic, rng_collection, rngs)
        self.logit: nnx.Param[Any] = nnx.Param(logit(rate))
        self.temperature: float = temperature

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        deterministic: Flag | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> jax.Array:
        """Apply it.

        Args:
          inputs: a real floating-point array.
          deterministic: True at evaluation; goes before the module's own.
          rngs: a key, stream or Rngs to use instead of the module's stream.
        """
        rate = jax.nn.sigmoid(self.logit[...])
        key, mode = self._draw(deterministic, rngs)
        return concrete_dropout(key, inputs, rate, mode, temperature=self.temperature)


class VariationalDropout(Drawing):
    """A dense layer by `jdrop.variational_dropout`, which learns the noise of each weight.

    Add `jdrop.variational_kl` of its `log_alpha` to the loss, and `jdrop.prune` its kernel in the end.

    Args:
      in_features: how many inputs.
      out_features: how many outputs.
      use_bias: whether to add a bias.
      log_alpha: where the logarithms of the noise-to-signal ratios start.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` for the weights, from which the module forks its own stream too.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> jdrop.nnx.VariationalDropout(3, 4, rngs=nnx.Rngs(0))(jnp.ones((2, 3))).shape
      (2, 4)

    Paper:
      Molchanov, Ashukha & Vetrov 2017, "Variational dropout sparsifies deep neural networks".
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        log_alpha: float = -4.0,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(deterministic, rng_collection, rngs)
        shape = (in_features, out_features)
        self.kernel: nnx.Param[Any] = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))
        self.log_alpha: nnx.Param[Any] = nnx.Param(jnp.full(shape, log_alpha, jnp.float32))
        self.bias: nnx.Param[Any] | None = nnx.Param(jnp.zeros(out_features)) if use_bias else None

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        deterministic: Flag | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> jax.Array:
        """Apply it.

        Args:
          inputs: a real floating-point array of shape (..., inputs).
          deterministic: True at evaluation; goes before the module's own.
          rngs: a key, stream or Rngs to use instead of the module's stream.
        """
        x = jnp.asarray(inputs)
        key, mode = self._draw(deterministic, rngs)
        y = variational_dropout(key, x, self.kernel[...].astype(x.dtype), self.log_alpha[...], mode)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class Masksembles(nnx.Module):
    """`jdrop.masksembles` as a module with masks of its own.

    Args:
      num_features: the channels of the input.
      num_masks: the members of the ensemble, at least 2.
      scale: how little the masks overlap, at least 1.
      rngs: an `nnx.Rngs`, whose "params" stream the masks are drawn from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> jdrop.nnx.Masksembles(16, 4, rngs=nnx.Rngs(0))(jnp.ones((8, 16)), 2).shape
      (8, 16)

    Paper:
      Durasov et al. 2021, "Masksembles for uncertainty estimation".
    """

    def __init__(self, num_features: int, num_masks: int = 4, scale: float = 2.0, *, rngs: nnx.Rngs) -> None:
        self.masks: nnx.Variable[Any] = nnx.Variable(masksembles_masks(rngs.params(), num_masks, num_features, scale))

    def __call__(self, inputs: ArrayLike, index: ArrayLike | None = None) -> jax.Array:
        """Apply it.

        Args:
          inputs: an array of shape (batch, ..., channels).
          index: the member of a prediction; None while training, where each has its part of the batch.
        """
        return masksembles(inputs, self.masks[...], index)

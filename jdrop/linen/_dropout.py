"""Dropout for Flax Linen."""

import flax.linen as nn
import jax
from flax import errors
from jax.typing import ArrayLike

from jdrop._types import Flag, Save, Scaling
from jdrop.functional._dropout import draws, dropout


class MissingStreamError(errors.InvalidRngError, ValueError):
    """A module needs a random stream that `apply` or `init` was not given."""

    def __init__(self, message: str) -> None:
        Exception.__init__(self, message)  # Flax's own adds a link to its page of this class, which it has not


class Dropout(nn.Dropout):
    """`jdrop.dropout` as a Linen module, in the place of `flax.linen.Dropout`.

    ``y = keep * x / (1 - rate)`` with a key from the module's stream; ``y = x`` where deterministic.

    Attributes:
      rate: the probability that an element is dropped, in [0, 1].
      broadcast_dims: axes along which one decision is shared.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.
      save: "key" or "mask": what the backward pass keeps, as in `jdrop.dropout`.

    Raises:
      ValueError: `deterministic` missing or given twice.
      MissingStreamError: the stream was not passed to apply. (`init` draws from "params" without it, as Flax does.)

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.Dropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 3)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    scaling: Scaling = "inverted"
    save: Save = "key"

    @nn.compact
    def __call__(
        self,
        inputs: ArrayLike,
        deterministic: Flag | None = None,
        rng: jax.Array | None = None,
        rate: ArrayLike | None = None,
    ) -> jax.Array:
        """Apply dropout.

        Args:
          inputs: a floating-point or complex array.
          deterministic: True at evaluation; a boolean, traced or not.
          rng: a key to use instead of the module's stream.
          rate: a rate, traced or not, to use instead of the module's own.
        """
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        rate = self.rate if rate is None else rate
        if rng is None and draws(rate, deterministic):
            rng = stream_key(self)
        return dropout(
            rng,
            inputs,
            rate,
            deterministic,
            broadcast_dims=self.broadcast_dims,
            scaling=self.scaling,
            save=self.save,
        )


def stream_key(module):
    """The next key of the stream that a module draws from."""
    name = stream_of(module)
    if name is None:
        raise MissingStreamError(
            f"{type(module).__name__} at {'/'.join(module.path) or 'the top'} draws from the random stream "
            f"{module.rng_collection!r}, which was not given: pass rngs={{{module.rng_collection!r}: key}} to apply, "
            "or deterministic=True."
        )
    return module.make_rng(name)


def stream_of(module):
    """The name of the stream that a module draws from: its own, or "params" where init was given one key for all."""
    if module.scope is None:
        return None
    if module.has_rng(module.rng_collection):
        return module.rng_collection
    return "params" if module.is_initializing() and module.has_rng("params") else None

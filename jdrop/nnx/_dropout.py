"""Dropout for Flax NNX."""

from collections.abc import Sequence

import jax
from flax import nnx
from jax.typing import ArrayLike

from jdrop._types import Flag, Save, Scaling
from jdrop.functional._dropout import draws, dropout


class Dropout(nnx.Dropout):
    """`jdrop.dropout` as an NNX module, in the place of `flax.nnx.Dropout`.

    ``y = keep * x / (1 - rate)`` with a key from the module's stream; ``y = x`` where deterministic.

    Args:
      rate: the probability that an element is dropped, in [0, 1].
      broadcast_dims: axes along which one decision is shared.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.
      save: "key" or "mask": what the backward pass keeps, as in `jdrop.dropout`.
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Raises:
      ValueError: `rngs` has neither the named stream nor a default, or none came where one is needed.
      TypeError: `rngs` is neither an Rngs, a stream, a key nor None.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.Dropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 3)))

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    def __init__(
        self,
        rate: ArrayLike,
        *,
        broadcast_dims: Sequence[int] = (),
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        scaling: Scaling = "inverted",
        save: Save = "key",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(
            rate,  # pyright: ignore[reportArgumentType]  # Flax's rate is a float, and so on
            broadcast_dims=broadcast_dims,
            deterministic=deterministic,  # pyright: ignore[reportArgumentType]
            rng_collection=rng_collection,
            rngs=stream(rngs, rng_collection),  # pyright: ignore[reportArgumentType]
        )
        self.scaling: Scaling = scaling
        self.save: Save = save

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        deterministic: Flag | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
        rate: ArrayLike | None = None,
    ) -> jax.Array:
        """Apply dropout.

        Args:
          inputs: a floating-point or complex array.
          deterministic: True at evaluation; goes before the module's own.
          rngs: a key, stream or Rngs to use instead of the module's stream.
          rate: a rate, traced or not, to use instead of the module's own.
        """
        deterministic = self.deterministic if deterministic is None else deterministic
        if deterministic is None:
            raise ValueError(
                "No `deterministic` argument was provided to Dropout: pass it to the constructor or to the call, or "
                "set it with model.train(), model.eval() or nnx.view."
            )
        rate = self.rate if rate is None else rate
        key = stream_key(self, rngs) if draws(rate, deterministic) else None
        return dropout(
            key,
            inputs,
            rate,
            deterministic,
            broadcast_dims=self.broadcast_dims,
            scaling=self.scaling,
            save=self.save,
        )


def stream_key(module, rngs):
    """The next key of `rngs`, or of a module's own stream."""
    source = module.rngs if rngs is None else stream(rngs, module.rng_collection)
    if source is None:
        raise ValueError(
            f"`deterministic` is False, but no `rngs` argument was provided to {type(module).__name__} as either a "
            f"__call__ argument or class attribute: give it nnx.Rngs({module.rng_collection}=0), or deterministic=True."
        )
    return source() if isinstance(source, nnx.RngStream) else source


def stream(rngs, name):
    """The stream `name` of `rngs` (or its default stream); streams, keys and None pass as they are."""
    if isinstance(rngs, nnx.Rngs):
        try:
            return rngs[name]
        except (AttributeError, KeyError):
            raise ValueError(
                f"dropout draws from the random stream {name!r}, but the given Rngs has only "
                f"{sorted(rngs)} and no default: write nnx.Rngs({name}=0) or nnx.Rngs(0)."
            ) from None
    if rngs is None or isinstance(rngs, (nnx.RngStream, jax.Array)):
        return rngs
    raise TypeError(f"rngs must be a Rngs, RngStream or jax.Array, but got {type(rngs)}.")

"""What the NNX layers of the family share: the mode, the key from the module's stream, and the call."""

from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

from jdrop._types import Flag
from jdrop.functional._dropout import draws_at
from jdrop.nnx._dropout import stream, stream_key


class Drawing(nnx.Module):
    """A layer that draws from a stream, unless it is deterministic."""

    def __init__(self, deterministic: Any, rng_collection: str, rngs: Any) -> None:
        rngs = stream(rngs, rng_collection)
        self.deterministic: Any = deterministic
        self.rng_collection: str = rng_collection
        self.rngs: Any = rngs.fork() if isinstance(rngs, nnx.RngStream) else nnx.data(rngs)

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` sets.

        Args:
          deterministic: True at evaluation; None leaves it as it is.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def _draw(self, deterministic, rngs, rate=None) -> Any:
        """The key, None where none is needed (a `rate` that is known to be 0), and the mode."""
        deterministic = self.deterministic if deterministic is None else deterministic
        return stream_key(self, rngs) if draws_at(rate, deterministic) else None, deterministic


class Layer(Drawing):
    """A layer over a function of (key, x, rate, deterministic, ...); its other attributes are options of the function.

    Args:
      rate: that of the function.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.
    """

    _function: Any = None
    _strength = "rate"
    _options = ()

    def __init__(
        self,
        rate: ArrayLike,
        *,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(deterministic, rng_collection, rngs)
        setattr(self, self._strength, rate)

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        deterministic: Flag | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
        **given: Any,
    ) -> Any:
        """Apply the function.

        Args:
          inputs: its `x`.
          deterministic: True at evaluation; goes before the module's own.
          rngs: a key, stream or Rngs to use instead of the module's stream.
          **given: what else the function takes with each input, by its names; a rate, traced or not, goes before the
            module's own.
        """
        rate = given.pop(self._strength, None)
        rate = getattr(self, self._strength) if rate is None else rate
        deterministic = self.deterministic if deterministic is None else deterministic
        key = stream_key(self, rngs) if draws_at(rate, deterministic) else None
        return self._function(
            key, inputs, rate, deterministic, **{name: getattr(self, name) for name in self._options}, **given
        )

"""What the Linen layers of the family share: the mode, the key from the module's stream, and the call."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
from jax.typing import ArrayLike

from jdrop._types import Flag
from jdrop.functional._dropout import draws_at
from jdrop.linen._dropout import stream_key


class Drawing(nn.Module):
    """A layer that draws from a stream, unless it is deterministic."""

    @nn.nowrap
    def _draw(self, deterministic, rng, rate=None) -> Any:
        """The key, None where none is needed (a `rate` that is known to be 0), and the mode."""
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)  # pyright: ignore
        if rng is None and draws_at(rate, deterministic):
            rng = stream_key(self)
        return rng, deterministic


class Layer(Drawing):
    """A layer over a function of (key, x, rate, deterministic, ...); its other fields are options of the function."""

    _function: ClassVar[Any] = None
    _strength: ClassVar[str] = "rate"

    @nn.compact
    def __call__(
        self, inputs: ArrayLike, deterministic: Flag | None = None, rng: jax.Array | None = None, **given: Any
    ) -> Any:
        """Apply the function.

        Args:
          inputs: its `x`.
          deterministic: True at evaluation; a boolean, traced or not.
          rng: a key to use instead of the module's stream.
          **given: what else the function takes with each input, by its names; a rate, traced or not, goes before the
            module's own.
        """
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        options = {name: fields[name] for name in fields.keys() - {self._strength, *_OWN}}
        rate = given.pop(self._strength, None)
        rate = fields[self._strength] if rate is None else rate
        key, deterministic = self._draw(deterministic, rng, rate)
        return self._function(key, inputs, rate, deterministic, **options, **given)  # pyright: ignore


_OWN = ("deterministic", "rng_collection", "parent", "name")

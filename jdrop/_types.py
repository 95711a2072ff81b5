"""Types of what several rooms take."""

from typing import Any, Literal, Protocol

import jax

PyTree = Any  # of arrays
Flag = bool | jax.Array
Scaling = Literal["inverted", "classic", "none"]
Save = Literal["key", "mask"]
Implementation = Literal["xla", "pallas", "pallas_tpu"] | None


class Predict(Protocol):
    """A stochastic forward pass: a pure function of a key and inputs, such as `jdrop.linen.predictor` makes."""

    def __call__(self, key: jax.Array, x: PyTree, /) -> PyTree: ...

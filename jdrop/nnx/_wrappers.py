"""Dropout around another module for Flax NNX: of its weights, and by several masks of its input."""

from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

from jdrop._types import Flag, Scaling
from jdrop.functional import multi_sample_dropout
from jdrop.nnx._layer import Drawing, Layer
from jdrop.weights import drop_connect, mixout


class OfWeights(Drawing):
    """A module that is called with other weights; its parameters stay whole. A subclass has `_changed`, the weights."""

    layer: Any
    rate: Any
    _changed: Any

    def __call__(
        self,
        *inputs: Any,
        deterministic: Flag | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
        **given: Any,
    ) -> Any:
        """Call the module with the weights of this call.

        Args:
          *inputs: what the module takes.
          deterministic: True at evaluation; goes before the module's own.
          rngs: a key, stream or Rngs to use instead of the module's stream.
          **given: what the module takes by name.
        """
        key, mode = self._draw(deterministic, rngs, self.rate)
        graph, params, rest = nnx.split(self.layer, nnx.Param, ...)
        changed = self._changed(key, params, mode)
        return nnx.merge(graph, changed, rest)(*inputs, **given)  # which shares the variables of `rest`


class DropConnect(OfWeights):
    """A module whose weights are dropped by `jdrop.drop_connect`; its parameters stay whole.

    Args:
      layer: the module, such as a linear layer.
      rate: the probability that a weight is dropped, in [0, 1].
      scaling, kernels_only: as those of the function.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> jdrop.nnx.DropConnect(nnx.Linear(3, 4, rngs=rngs), 0.5, rngs=rngs)(jnp.ones((2, 3))).shape
      (2, 4)

    Paper:
      Wan et al. 2013, "Regularization of neural networks using DropConnect".
    """

    def __init__(
        self,
        layer: nnx.Module,
        rate: ArrayLike,
        *,
        scaling: Scaling = "inverted",
        kernels_only: bool = True,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(deterministic, rng_collection, rngs)
        self.layer: Any = layer
        self.rate: ArrayLike = rate
        self.scaling: Scaling = scaling
        self.kernels_only: bool = kernels_only

    def _changed(self, key, params, mode):
        return drop_connect(key, params, self.rate, mode, scaling=self.scaling, kernels_only=self.kernels_only)


class Mixout(OfWeights):
    """A module whose weights are set back to those before fine-tuning, some at each call, by `jdrop.mixout`.

    The weights before are the module's own when it is wrapped: load them first.

    Args:
      layer: the module, such as a linear layer.
      rate: the probability that a weight is set back, in [0, 1].
      kernels_only: as that of the function.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> jdrop.nnx.Mixout(nnx.Linear(3, 4, rngs=rngs), 0.5, rngs=rngs)(jnp.ones((2, 3))).shape
      (2, 4)

    Paper:
      Lee, Cho & Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained language models".
    """

    def __init__(
        self,
        layer: nnx.Module,
        rate: ArrayLike,
        *,
        kernels_only: bool = True,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(deterministic, rng_collection, rngs)
        self.layer: Any = layer
        self.rate: ArrayLike = rate
        self.kernels_only: bool = kernels_only
        self.pretrained: Any = nnx.Variable(nnx.to_pure_dict(nnx.state(layer, nnx.Param)))

    def _changed(self, key, params, mode):
        return mixout(key, params, self.pretrained.get_value(), self.rate, mode, kernels_only=self.kernels_only)


class MultiSampleDropout(Layer):
    """`jdrop.multi_sample_dropout` as a module: the outputs of a head for several masks of its input.

    They have a first axis of the samples; of one at evaluation.

    Args:
      head: the module that all samples share; it changes nothing of its own at a call.
      rate: as that of the function, in [0, 1].
      num_samples: how many masks, at least 1.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> jdrop.nnx.MultiSampleDropout(nnx.Linear(16, 3, rngs=rngs), 0.5, rngs=rngs)(jnp.ones((4, 16))).shape
      (8, 4, 3)

    Paper:
      Inoue 2019, "Multi-sample dropout for accelerated training and better generalization".
    """

    _function = staticmethod(multi_sample_dropout)
    _options = ("head", "num_samples")

    def __init__(
        self,
        head: nnx.Module,
        rate: ArrayLike,
        *,
        num_samples: int = 8,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(rate, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)
        self.head: Any = head
        self.num_samples: int = num_samples

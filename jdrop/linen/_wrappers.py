"""Dropout around another module for Flax Linen: of its weights, and by several masks of its input."""

from typing import Any

import flax.linen as nn
import jax
from jax.typing import ArrayLike

from jdrop._types import Flag, Scaling
from jdrop.functional import multi_sample_dropout
from jdrop.linen._layer import Drawing
from jdrop.weights import drop_connect, mixout


class OfWeights(Drawing):
    """A module that is called with other weights; its parameters stay whole. A subclass has `_changed`, the weights."""

    @nn.compact
    def __call__(
        self, *inputs: Any, deterministic: Flag | None = None, rng: jax.Array | None = None, **given: Any
    ) -> Any:
        """Call the module with the weights of this call.

        Args:
          *inputs: what the module takes.
          deterministic: True at evaluation; a boolean, traced or not.
          rng: a key to use instead of the module's stream.
          **given: what the module takes by name.
        """
        key, mode = self._draw(deterministic, rng, self.rate)
        if self.is_initializing():  # the weights, whole: Flax's own `init` would store those of this call
            self.layer(*inputs, **given)

        def changed(variables):
            return {"params": self._changed(key, variables["params"], mode)}

        return nn.map_variables(lambda layer: layer(*inputs, **given), "params", changed)(self.layer)


class DropConnect(OfWeights):
    """A module whose weights are dropped by `jdrop.drop_connect`; its parameters stay whole.

    Attributes:
      layer: the module, such as a dense layer.
      rate: the probability that a weight is dropped, in [0, 1].
      scaling, kernels_only: as those of the function.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.DropConnect(nn.Dense(4), 0.5, deterministic=False)
      >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 3)))
      >>> jax.tree.map(jnp.shape, variables)
      {'params': {'layer': {'bias': (4,), 'kernel': (3, 4)}}}

    Paper:
      Wan et al. 2013, "Regularization of neural networks using DropConnect".
    """

    layer: nn.Module
    rate: ArrayLike
    scaling: Scaling = "inverted"
    kernels_only: bool = True
    deterministic: Flag | None = None
    rng_collection: str = "dropout"

    @nn.nowrap
    def _changed(self, key, params, mode):
        return drop_connect(key, params, self.rate, mode, scaling=self.scaling, kernels_only=self.kernels_only)


class Mixout(OfWeights):
    """A module whose weights are set back to those before fine-tuning, some at each call, by `jdrop.mixout`.

    The weights before are the variables "pretrained", which `init` makes the initial parameters. Load a network as
    ``{"params": loaded, "pretrained": loaded}``, and optimize the first.

    Attributes:
      layer: the module, such as a dense layer.
      rate: the probability that a weight is set back, in [0, 1].
      kernels_only: as that of the function.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.Mixout(nn.Dense(4), 0.5, deterministic=False)
      >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((2, 3)))
      >>> jax.tree.map(jnp.shape, variables["pretrained"])
      {'layer': {'bias': (4,), 'kernel': (3, 4)}}

    Paper:
      Lee, Cho & Kang 2020, "Mixout: effective regularization to finetune large-scale pretrained language models".
    """

    layer: nn.Module
    rate: ArrayLike
    kernels_only: bool = True
    deterministic: Flag | None = None
    rng_collection: str = "dropout"

    @nn.nowrap
    def _changed(self, key, params, mode):
        if self.is_initializing():
            for name, initial in params.items():
                self.layer.put_variable("pretrained", name, initial)
        pretrained = self.layer.variables.get("pretrained", {})
        return mixout(key, params, pretrained, self.rate, mode, kernels_only=self.kernels_only)


class MultiSampleDropout(Drawing):
    """`jdrop.multi_sample_dropout` as a module: the outputs of a head for several masks of its input.

    Attributes:
      head: the module that all samples share; what it draws itself differs from sample to sample.
      rate: as that of the function, in [0, 1].
      num_samples: how many masks, at least 1.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.MultiSampleDropout(nn.Dense(3), 0.5, deterministic=False)
      >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones((4, 16)))
      >>> y.shape
      (8, 4, 3)

    Paper:
      Inoue 2019, "Multi-sample dropout for accelerated training and better generalization".
    """

    head: nn.Module
    rate: ArrayLike
    num_samples: int = 8
    deterministic: Flag | None = None
    rng_collection: str = "dropout"

    @nn.compact
    def __call__(self, inputs: ArrayLike, deterministic: Flag | None = None, rng: jax.Array | None = None) -> Any:
        """The head's outputs, with a first axis of the samples; of one at evaluation.

        Args:
          inputs: its `x`.
          deterministic: True at evaluation; a boolean, traced or not.
          rng: a key to use instead of the module's stream.
        """
        key, mode = self._draw(deterministic, rng, self.rate)
        samples = multi_sample_dropout(key, inputs, self.rate, mode, head=lambda x: x, num_samples=self.num_samples)
        streams = {"params": False, nn.DenyList("params"): True}
        call = nn.vmap(lambda head, x: head(x), variable_axes={True: None}, split_rngs=streams)
        return call(self.head, samples)

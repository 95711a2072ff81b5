"""The family of dropouts for Flax NNX: each a layer over the function of its name."""

import jax
from flax import nnx
from jax.typing import ArrayLike

from jdrop._types import Flag
from jdrop.functional import (
    alpha_dropout,
    channel_dropout,
    drop_block,
    drop_path,
    feature_alpha_dropout,
    gaussian_dropout,
    gaussian_noise,
    patch_dropout,
)
from jdrop.nnx._layer import Layer


class AlphaDropout(Layer):
    """`jdrop.alpha_dropout` as a module: dropout of single units of self-normalising networks.

    Args:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.AlphaDropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 3)))

    Paper:
      Klambauer et al. 2017, "Self-normalizing neural networks".
    """

    _function = staticmethod(alpha_dropout)


class ChannelDropout(Layer):
    """`jdrop.channel_dropout` as a module: dropout of whole channels of each example.

    Args:
      rate: as that of the function, in [0, 1].
      channel_axis: the axis of the channels, not the first.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.ChannelDropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 4, 8)))

    Paper:
      Tompson et al. 2015, "Efficient object localization using convolutional networks".
    """

    _function = staticmethod(channel_dropout)
    _options = ("channel_axis",)

    def __init__(
        self,
        rate: ArrayLike,
        *,
        channel_axis: int = -1,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(rate, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)
        self.channel_axis: int = channel_axis


class DropBlock(Layer):
    """`jdrop.drop_block` as a module: dropout of contiguous blocks of an image or a sequence.

    Args:
      rate: as that of the function, in [0, 1].
      block_size: the side of a block.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.DropBlock(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 8, 8, 3)))

    Paper:
      Ghiasi, Lin & Le 2018, "DropBlock: a regularization method for convolutional networks".
    """

    _function = staticmethod(drop_block)
    _options = ("block_size",)

    def __init__(
        self,
        rate: ArrayLike,
        *,
        block_size: int = 7,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(rate, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)
        self.block_size: int = block_size


class DropPath(Layer):
    """`jdrop.drop_path` as a module: dropout of whole examples, as in residual branches.

    Args:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.DropPath(0.5, rngs=nnx.Rngs(0))(jnp.ones((8, 3)))

    Paper:
      Huang et al. 2016, "Deep networks with stochastic depth".
    """

    _function = staticmethod(drop_path)


class FeatureAlphaDropout(Layer):
    """`jdrop.feature_alpha_dropout` as a module: dropout of whole channels for self-normalising networks.

    Args:
      rate: as that of the function, in [0, 1].
      channel_axis: the axis of the channels, not the first.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.FeatureAlphaDropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 4, 4, 8)))

    Paper:
      Klambauer et al. 2017, "Self-normalizing neural networks".
    """

    _function = staticmethod(feature_alpha_dropout)
    _options = ("channel_axis",)

    def __init__(
        self,
        rate: ArrayLike,
        *,
        channel_axis: int = -1,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(rate, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)
        self.channel_axis: int = channel_axis


class GaussianDropout(Layer):
    """`jdrop.gaussian_dropout` as a module: normal noise that is multiplied, of variance ``rate / (1 - rate)``.

    Args:
      rate: that of the dropout whose noise it stands for, in [0, 1).
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.GaussianDropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 3)))

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 10.
    """

    _function = staticmethod(gaussian_dropout)


class GaussianNoise(Layer):
    """`jdrop.gaussian_noise` as a module: normal noise that is added.

    Args:
      std: the standard deviation of the noise, not negative.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.GaussianNoise(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 3)))

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 10.
    """

    _function = staticmethod(gaussian_noise)
    _strength = "std"

    def __init__(
        self,
        std: ArrayLike,
        *,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(std, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)


class PatchDropout(Layer):
    """`jdrop.patch_dropout` as a module: dropout of patches of an image, of which an exact number is left.

    Args:
      rate: as that of the function, in [0, 1].
      prefix_tokens: how many tokens at the front are always kept.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> y = jdrop.nnx.PatchDropout(0.5, rngs=nnx.Rngs(0))(jnp.ones((2, 17, 4)))

    Paper:
      Liu et al. 2022, "PatchDropout: economizing vision transformers using patch dropout".
    """

    _function = staticmethod(patch_dropout)
    _options = ("prefix_tokens",)

    def __init__(
        self,
        rate: ArrayLike,
        *,
        prefix_tokens: int = 1,
        deterministic: Flag = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(rate, deterministic=deterministic, rng_collection=rng_collection, rngs=rngs)
        self.prefix_tokens: int = prefix_tokens

"""The family of dropouts for Flax Linen: each a layer over the function of its name."""

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
from jdrop.linen._layer import Layer


class AlphaDropout(Layer):
    """`jdrop.alpha_dropout` as a module: dropout of single units of self-normalising networks.

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.AlphaDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 3)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Klambauer et al. 2017, "Self-normalizing neural networks".
    """

    _function = staticmethod(alpha_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"


class ChannelDropout(Layer):
    """`jdrop.channel_dropout` as a module: dropout of whole channels of each example.

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".
      channel_axis: the axis of the channels, not the first.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.ChannelDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 4, 4, 8)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Tompson et al. 2015, "Efficient object localization using convolutional networks".
    """

    _function = staticmethod(channel_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"
    channel_axis: int = -1


class DropBlock(Layer):
    """`jdrop.drop_block` as a module: dropout of contiguous blocks of an image or a sequence.

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".
      block_size: the side of a block.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.DropBlock(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 8, 8, 3)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Ghiasi, Lin & Le 2018, "DropBlock: a regularization method for convolutional networks".
    """

    _function = staticmethod(drop_block)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"
    block_size: int = 7


class DropPath(Layer):
    """`jdrop.drop_path` as a module: dropout of whole examples, as in residual branches.

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.DropPath(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((8, 3)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Huang et al. 2016, "Deep networks with stochastic depth".
    """

    _function = staticmethod(drop_path)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"


class FeatureAlphaDropout(Layer):
    """`jdrop.feature_alpha_dropout` as a module: dropout of whole channels for self-normalising networks.

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".
      channel_axis: the axis of the channels, not the first.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.FeatureAlphaDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 4, 4, 8)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Klambauer et al. 2017, "Self-normalizing neural networks".
    """

    _function = staticmethod(feature_alpha_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"
    channel_axis: int = -1


class GaussianDropout(Layer):
    """`jdrop.gaussian_dropout` as a module: normal noise that is multiplied, of variance ``rate / (1 - rate)``.

    Attributes:
      rate: that of the dropout whose noise it stands for, in [0, 1).
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.GaussianDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 3)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 10.
    """

    _function = staticmethod(gaussian_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"


class GaussianNoise(Layer):
    """`jdrop.gaussian_noise` as a module: normal noise that is added.

    Attributes:
      std: the standard deviation of the noise, not negative.
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.GaussianNoise(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 3)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 10.
    """

    _function = staticmethod(gaussian_noise)
    _strength = "std"
    std: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"


class PatchDropout(Layer):
    """`jdrop.patch_dropout` as a module: dropout of patches of an image, of which an exact number is left.

    Attributes:
      rate: as that of the function, in [0, 1].
      deterministic: True at evaluation; give it here or at the call, not both.
      rng_collection: name of the random stream, "dropout".
      prefix_tokens: how many tokens at the front are always kept.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> layer = jdrop.linen.PatchDropout(0.5, deterministic=False)
      >>> y = layer.apply({}, jnp.ones((2, 17, 4)), rngs={"dropout": jax.random.key(0)})

    Paper:
      Liu et al. 2022, "PatchDropout: economizing vision transformers using patch dropout".
    """

    _function = staticmethod(patch_dropout)
    rate: ArrayLike
    deterministic: Flag | None = None
    rng_collection: str = "dropout"
    prefix_tokens: int = 1

"""Masksembles: a fixed ensemble of masks that overlap as much as one asks for."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_known, as_size, is_concrete, to_array
from jdrop._keys import as_typed_key
from jdrop.functional._structured import with_axes


def masksembles_masks(key: jax.Array, num_masks: int, width: int, scale: float = 2.0) -> jax.Array:
    """Draw the masks of a layer for `masksembles`, each with the same number of ones.

    Of ``total = ones * scale`` places each mask has `ones` at random, and the places that no mask has are left out:
    with `ones` such that about `width` of them remain, ``width = total * (1 - (1 - 1 / scale)**num_masks)``. They are
    drawn again until exactly `width` do. Two masks share about ``ones / scale`` places.

    Args:
      key: a PRNG key, shape (), that is known: masks are drawn once, before training, and not under `jax.jit`.
      num_masks: the members of the ensemble, at least 2.
      width: the channels of the layer, at least `num_masks`.
      scale: how little the masks overlap, at least 1: at 1 all are the same and keep everything, one network; at large
        ones no two masks share a place, an ensemble of smaller networks.

    Returns:
      A boolean array of shape (num_masks, width), True where a channel is kept, with at least one True in each column.

    Raises:
      TypeError: no key, a number of a wrong type.
      ValueError: a number that is too small, or a `scale` at which masks of that width have no ones, or do not exist.

    Example:
      >>> import jax, jdrop
      >>> masks = jdrop.masksembles_masks(jax.random.key(0), 4, 16, 2.0)
      >>> masks.shape, set(masks.sum(1).tolist())
      ((4, 16), {8})

    Paper:
      Durasov et al. 2021, "Masksembles for uncertainty estimation".
    """
    count, width = as_size("num_masks", num_masks, 2, write=4), as_size("width", width, 2, write=64)
    scale = as_known("scale", scale, 1, 1e6, "scale=2.0")
    key = as_typed_key(key)
    if not is_concrete(key):
        raise TypeError("key is traced, but masks are drawn once, before training: call this outside of jax.jit.")
    draw = np.random.default_rng(np.asarray(jax.random.bits(key, (4,), jnp.uint32)))
    if scale == 1:
        return jnp.ones((count, width), bool)
    # Whole numbers seldom fit: the number of ones that the formula has, and those near it.
    guess = width / (scale * (1 - (1 - 1 / scale) ** count))
    for ones in sorted(
        range(max(1, int(guess) - 2), min(width, int(guess) + 3) + 1), key=lambda ones: abs(ones - int(guess))
    ):
        if count * ones < width:
            continue
        expected = [abs(total * (1 - (1 - ones / total) ** count) - width) for total in range(ones, count * width + 1)]
        total = ones + int(np.argmin(expected))
        for _ in range(1000):
            masks = np.zeros((count, total), bool)
            for row in masks:
                row[draw.choice(total, ones, replace=False)] = True
            used = masks.any(0)
            if used.sum() == width:
                return jnp.asarray(masks[:, used])
    raise ValueError(
        f"scale is {scale}, at which no {count} masks of width {width} were found: write a smaller scale, or a greater "
        "width."
    )


def masksembles(x: ArrayLike, masks: ArrayLike, index: ArrayLike | None = None) -> jax.Array:
    """Keep the channels of one mask of a fixed ensemble for each example.

    ``y[i, ..., c] = masks[m, c] * x[i, ..., c]`` with ``m = index`` or, while training, ``m = i * num_masks // batch``:
    each part of the batch trains one member. There is no scale, and nothing else changes for a prediction: the outputs
    ``jax.vmap(lambda m: predict(m, x))(jnp.arange(num_masks))`` are samples for `jdrop.mc.uncertainty`.

    Args:
      x: a floating-point or complex array of shape (batch, ..., channels).
      masks: those of `masksembles_masks`, boolean of shape (num_masks, channels).
      index: the member, an integer in [0, num_masks); None while training. A traced one out of range gives NaN.

    Returns:
      An array of the shape and dtype of `x`.

    Raises:
      TypeError: `masks` that are no booleans, an `index` that is no integer.
      ValueError: masks of another width; a concrete `index` out of range; without one, a batch that is no multiple of
        the number of masks.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> masks = jdrop.masksembles_masks(jax.random.key(0), 4, 16)
      >>> jdrop.masksembles(jnp.ones((8, 16)), masks).shape
      (8, 16)

    Paper:
      Durasov et al. 2021, "Masksembles for uncertainty estimation".
    """
    x, masks = with_axes(x, 0, 2, "(batch, ..., channels)"), jnp.asarray(to_array("masks", masks))
    if masks.dtype != jnp.bool_:
        raise TypeError(f"masks has dtype {masks.dtype}, but booleans are needed: write those of masksembles_masks.")
    if masks.ndim != 2 or masks.shape[1] != x.shape[-1]:
        raise ValueError(f"masks has shape {masks.shape}, but (num_masks, {x.shape[-1]}) is needed, the channels of x.")
    count, batch = len(masks), len(x)
    if index is None:
        if batch % count:
            raise ValueError(
                f"x has {batch} examples, but each of the {count} masks needs as many while training: pad the batch, "
                "or give an index."
            )
        kept = jnp.repeat(masks, batch // count, 0, total_repeat_length=batch)
        kept = kept.reshape(batch, *(1,) * (x.ndim - 2), x.shape[-1])
        return jnp.where(kept, x, jnp.zeros((), x.dtype))
    index = _as_index(index, count)
    y = jnp.where(masks[index], x, jnp.zeros((), x.dtype))
    # JAX takes the nearest mask for a traced index out of range, which would pass unseen.
    return y if is_concrete(index) else jnp.where((index >= 0) & (index < count), y, jnp.asarray(jnp.nan, x.dtype))


def _as_index(index, count):
    value = to_array("index", index)
    if value.shape or not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"index is {index!r}, but an integer in [0, {count}) is needed: write index=0.")
    if is_concrete(value) and not 0 <= value < count:
        raise ValueError(f"index is {value}, but there are {count} masks: write one in [0, {count}).")
    return jnp.asarray(value)

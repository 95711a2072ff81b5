"""Dropout of the patches of an image, of which an exact number is left."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_flag, as_size, is_concrete, to_array
from jdrop._keys import as_typed_key
from jdrop.masks._rate import as_rate


def patch_dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: float,
    deterministic: bool = False,
    *,
    prefix_tokens: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Leave out patches of each example, the same number of each, so that a transformer has fewer to attend to.

    Of the `length` - `prefix_tokens` patches ``max(1, int(n * (1 - rate)))`` are kept, each subset with the same
    probability, in their order; all are kept at evaluation.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: an array of any dtype, shape (batch, length, features): tokens with their positions added.
      rate: the share of the patches that is left out, in [0, 1]; a number that is known, for the shape depends on it.
      deterministic: True at evaluation; a boolean that is known.
      prefix_tokens: how many tokens at the front, such as that of the class, are no patches and always kept.

    Returns:
      (kept tokens, their places in `x`): an array of shape (batch, prefix_tokens + kept, features) and one of int32,
      shape (batch, prefix_tokens + kept), that rises along each row.

    Raises:
      TypeError: a traced rate or flag, no key where one is needed, an argument of a wrong type.
      ValueError: a rate outside [0, 1] or NaN, an `x` of other than three axes, more prefix tokens than tokens.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> y, places = jdrop.patch_dropout(jax.random.key(0), jnp.ones((2, 17, 4)), 0.5)
      >>> y.shape, places.shape
      ((2, 9, 4), (2, 9))

    Paper:
      Liu et al. 2022, "PatchDropout: economizing vision transformers using patch dropout".
    """
    x, evaluation, checked = jnp.asarray(to_array("x", x)), as_flag(deterministic), as_rate(rate)
    if x.ndim != 3:
        raise ValueError(
            f"x has shape {x.shape}, but (batch, length, features) is needed: write x[None] for one image."
        )
    if checked.ndim or not (is_concrete(checked) and is_concrete(evaluation)):
        raise TypeError(
            "rate and deterministic must be known, and one number, since the shape of the result depends on them: give "
            "Python values, or make them static arguments of jax.jit."
        )
    batch, length, _ = x.shape
    prefix = as_size("prefix_tokens", prefix_tokens, 0, write=1)
    patches = length - prefix
    if patches < 0:
        raise ValueError(f"prefix_tokens is {prefix}, but x has {length} tokens in all: write prefix_tokens=1.")
    kept = patches if evaluation else min(patches, max(1, int(patches * (1 - float(rate)))))
    places = jnp.broadcast_to(jnp.arange(patches, dtype=jnp.int32), (batch, patches))
    if kept < patches:
        places = jax.random.permutation(as_typed_key(key), places, 1, independent=True)[:, :kept].sort(1)
    front = jnp.broadcast_to(jnp.arange(prefix, dtype=jnp.int32), (batch, prefix))
    places = jnp.concatenate([front, places + prefix], 1)
    return jnp.take_along_axis(x, places[..., None], 1), places

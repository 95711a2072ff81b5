"""Dropout of single units."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_flag, check_choice, is_concrete, to_array
from jdrop._types import Flag, Implementation, Save, Scaling
from jdrop.masks._drop import dropped, scaled
from jdrop.masks._mask import as_mask
from jdrop.masks._rate import as_rate, is_random, scales

_SCALINGS = ("inverted", "classic", "none")
_SAVES = ("key", "mask")
_IMPLEMENTATIONS = (None, "xla", "pallas", "pallas_tpu")


def dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    broadcast_dims: Sequence[int] = (),
    scaling: Scaling = "inverted",
    save: Save = "key",
    implementation: Implementation = None,
) -> jax.Array:
    """Set each element of `x` to zero with probability `rate`.

    ``y = keep * x / (1 - rate)`` with ``keep = keep_mask(key, x.shape, rate)``; ``y = x`` at evaluation.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn (evaluation, or a static rate of 0 or 1).
      x: a floating-point or complex array of any shape; of any dtype where it comes back as it is.
      rate: the probability that an element is dropped, in [0, 1]; a number or an array, traced or
        not, that broadcasts against `x`. It gets no gradient: the output's expectation does not depend on it.
      deterministic: True at evaluation; a boolean, traced or not.
      broadcast_dims: axes along which one decision is shared; negative ones count from the end.
      scaling: "inverted" divides kept elements by the keep probability while training; "classic"
        leaves them and multiplies by it at evaluation; "none" does neither.
      save: what JAX keeps for the backward pass: the "key", from which that draws the mask again, or the
        "mask", one bit an element. Where both passes are one program, XLA may merge both draws and hold those bits.
      implementation: None takes what is fastest where the program is compiled for, all with the very same result: on
        a GPU or TPU one kernel that reads `x` and writes the output, for one rate, real `x` of 8 to 32 bits,
        ``broadcast_dims=()`` and ``save="key"``; XLA elsewhere, and for the rest. "xla" goes without the kernel.
        "pallas" asks for it, and interprets the GPU's, slowly, where there is neither; "pallas_tpu" the TPU's. A
        program for several GPUs with a kernel in it has one mesh, which is concrete: write "xla" for others.

    Returns:
      An array of the shape and dtype of `x`. The scale is the inverse of the keep probability that
      the mask really has, so ``E[y] = x``. A NaN or infinity in a dropped element reaches neither the
      output nor a gradient. A traced rate that is NaN or outside [0, 1] makes the output NaN.

    Raises:
      TypeError: integer input, no key where one is needed, a rate or flag of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, an unknown `scaling`, `save` or
        `implementation`, an axis out of range, an array of keys.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> y = jdrop.dropout(jax.random.key(0), jnp.ones((2, 3)), 0.5)
      >>> sorted(set(y.ravel().tolist())) == [0.0, 2.0]
      True

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    x = as_input(x, rate)
    deterministic = as_flag(deterministic)
    check_choice("scaling", scaling, _SCALINGS)
    check_choice("save", save, _SAVES)
    check_choice("implementation", implementation, _IMPLEMENTATIONS)
    evaluation = deterministic is True
    mask = as_mask(key, x.shape, rate, broadcast_dims, drawn=not evaluation)
    if mask.keeps_all or (evaluation and scaling != "classic" and mask.limit.valid is None):
        return x
    check_dtype(x.dtype)
    train, evaluate = scales(mask.limit, x.dtype, scaling)
    if evaluation:
        return scaled(x, evaluate)
    if deterministic is not False:
        mask, train = mask.unless(deterministic), jnp.where(deterministic, evaluate, train)
    return dropped(mask, x, train, save, implementation)


def draws(rate, deterministic) -> bool:
    """Whether dropout needs a key: not at evaluation, nor at static rates of 0 and 1."""
    if as_flag(deterministic) is True:
        return False
    return is_random(as_rate(rate))


def draws_at(rate, deterministic) -> bool:
    """Whether noise needs a key: not at evaluation, nor at a rate that is known to be 0 (None stands for no rate)."""
    return as_flag(deterministic) is not True and (rate is None or not is_concrete(rate) or bool(np.any(rate)))


def drawn(key, shape, rate, deterministic, broadcast_dims=()):
    """The mask that is to be drawn, which keeps all where a traced `deterministic` is True; None where none is."""
    deterministic = as_flag(deterministic)
    mask = as_mask(key, shape, rate, broadcast_dims, drawn=deterministic is not True)
    if mask.keeps_all or deterministic is True:
        return None
    return mask if deterministic is False else mask.unless(deterministic)


def as_input(x, rate) -> jax.Array:
    """The input of a function of (key, x, rate) as an array; or a TypeError or ValueError."""
    if not isinstance(x, (jax.Array, np.ndarray, np.generic, float, complex, int)):
        raise TypeError(f"x is a {type(x).__name__}, but an array is needed: write jnp.asarray(x).")
    if np.ndim(x) == 0 and np.ndim(rate) > 0:
        raise ValueError(
            f"x is one number and rate has shape {np.shape(rate)}, but the order of the arguments is (key, x, rate): "
            "write jdrop.dropout(key, x, rate), not (key, rate, x)."
        )
    return jnp.asarray(to_array("x", x))


@functools.lru_cache
def check_dtype(dtype):
    """Raise a TypeError for numbers that can't be scaled, or not be zero."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"x has dtype {dtype}, but a kept element is divided by the keep probability, which "
            "needs a floating-point or complex array: write x.astype(jnp.float32)."
        )
    if dtype == jnp.float8_e8m0fnu:
        raise TypeError(f"x has dtype {dtype}, which has no zero to drop to: write x.astype(jnp.float8_e4m3fn).")

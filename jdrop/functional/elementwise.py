"""Dropout of single units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdrop.keys import as_typed_key
from jdrop.masks.packed import draw, opened
from jdrop.masks.primitives import drop, keep, scaled
from jdrop.masks.rate import as_rate, at_least_float32, static_bits, threshold
from jdrop.masks.shape import shared_shape

__all__ = ["dropout"]

_SCALINGS = ("inverted", "classic", "none")
_SAVES = ("key", "mask")
_IMPLEMENTATIONS = (None, "xla", "pallas", "pallas_tpu")


def dropout(
    key, x, rate, deterministic=False, *, broadcast_dims=(), scaling="inverted", save="key", implementation=None
):
    """Set each element of `x` to zero with probability `rate`.

    ``y = keep * x / (1 - rate)`` with ``keep = keep_mask(key, x.shape, rate)``; ``y = x`` at evaluation.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn (evaluation, or a static rate of 0 or 1).
      x: a floating-point or complex array of any shape.
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
    x = _as_inexact(x)
    rate = as_rate(rate)
    drawn_shape = shared_shape(x.shape, rate.shape, broadcast_dims)
    rate = rate.reshape((1,) * (x.ndim - rate.ndim) + rate.shape) if rate.ndim else rate
    deterministic = as_flag(deterministic)
    _check_choice("scaling", scaling, _SCALINGS)
    _check_choice("save", save, _SAVES)
    _check_choice("implementation", implementation, _IMPLEMENTATIONS)
    static = isinstance(deterministic, bool)
    if static and isinstance(rate, np.ndarray) and (not rate.any() or (deterministic and scaling != "classic")):
        return x
    if key is None and not draws(rate, deterministic):
        key = jax.random.key(0)  # any key does: nothing is drawn from it
    if isinstance(rate, np.ndarray) and rate.ndim == 0:
        limit, scales, bits = _number_limits(rate.item(), rate.dtype.type, x.dtype, scaling)
    else:
        limit, scales, bits = _limits(rate, x.dtype, scaling)
    return _dropout(
        as_typed_key(key), x, limit, scales, None if static else deterministic,
        deterministic if static else None, drawn_shape, bits, save, implementation,
    )  # fmt: skip


def draws(rate, deterministic) -> bool:
    """Whether dropout needs a key: not at evaluation, nor at static rates of 0 and 1."""
    if as_flag(deterministic) is True:
        return False
    rate = as_rate(rate)
    return isinstance(rate, jax.Array) or not np.isin(rate, (0, 1)).all()


@functools.partial(jax.jit, static_argnums=(5, 6, 7, 8, 9))
def _dropout(key, x, limit, scales, flag, evaluate, shape, bits, save, implementation):
    """`dropout` with checked arguments; `evaluate` is None where the traced `flag` decides."""
    scale, evaluation = scales
    if evaluate:
        return scaled(x, evaluation)
    if evaluate is None:
        limit = jax.tree.map(lambda leaf: jnp.where(flag, jnp.zeros_like(leaf), leaf), limit)
        scale = jnp.where(flag, evaluation, scale)
    if save == "mask":
        shape = jnp.broadcast_shapes(shape, limit.low.shape)
        data, impl, limit = jax.random.key_data(key), str(jax.random.key_impl(key)), limit._replace(valid=None)
        loop, unrolled = (functools.partial(draw, impl=impl, shape=shape, bits=bits, unroll=u) for u in (False, True))
        words = lax.platform_dependent(data, limit, cuda=unrolled, default=loop)
        return _masked(lambda words: opened(words, shape), (words,), x, scale)
    if limit.low.ndim == 0 and shape == x.shape:
        return drop(key, limit, scale, x, bits, implementation)
    return _masked(lambda key, limit: keep(key, limit, shape, bits), (key, limit), x, scale)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def _masked(mask, source, x, scale):
    """The scaled elements that `mask(*source)` keeps; a derivative keeps no more than these arguments."""
    return jnp.where(mask(*source), scaled(x, scale), jnp.zeros((), x.dtype))


def _limits(rate, dtype, scaling):
    """(threshold, scales, static bits) of a rate."""
    limit = threshold(rate)
    return limit, _scales(limit, dtype, scaling), static_bits(limit)


@functools.lru_cache
def _number_limits(rate, rate_dtype, dtype, scaling):
    return _limits(np.asarray(rate, rate_dtype), dtype, scaling)


def _scales(limit, dtype, scaling):
    """The factors of (training, evaluation), in at least float32; NaN for an invalid rate."""
    low, all_dropped, valid = limit
    xp, dtype = jnp if isinstance(low, jax.Array) else np, np.dtype(at_least_float32(dtype)).type
    one = xp.ones(low.shape, dtype) if valid is None else xp.where(valid, dtype(1), dtype(np.nan))
    # 2**32 - low exactly, then rounded once: one minus a rounded rate near 1 could be 0.
    left = 2.0**32 - low.astype(np.float64) if xp is np else np.uint32(0) - low
    keep = xp.where(low == 0, one, one * (left.astype(dtype) / dtype(2**32)))
    inverse = dtype(1) / keep
    if all_dropped is not None:
        keep, inverse = (xp.where(all_dropped, dtype(0), factor) for factor in (keep, inverse))
    return {"inverted": (inverse, one), "classic": (one, keep), "none": (one, one)}[scaling]


def _as_inexact(x):
    if not isinstance(x, (jax.Array, np.ndarray, np.generic, float, complex, int)):
        raise TypeError(f"x is a {type(x).__name__}, but an array is needed: write jnp.asarray(x).")
    if not isinstance(x, jax.Array):
        x = jnp.asarray(x)
    _check_dtype(x.dtype)
    return x


@functools.lru_cache
def _check_dtype(dtype):
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"x has dtype {dtype}, but a kept element is divided by the keep probability, which "
            "needs a floating-point or complex array: write x.astype(jnp.float32)."
        )
    if dtype == jnp.float8_e8m0fnu:
        raise TypeError(f"x has dtype {dtype}, which has no zero to drop to: write x.astype(jnp.float8_e4m3fn).")


def as_flag(deterministic):
    """Return a boolean flag as a Python bool, or as the traced scalar that it is.

    Raises:
      TypeError: not a boolean scalar.
    """
    if isinstance(deterministic, (jax.Array, np.ndarray, np.bool_)):
        if deterministic.dtype == jnp.bool_ and deterministic.shape == ():
            return deterministic if isinstance(deterministic, jax.core.Tracer) else bool(deterministic)
        came = f"an array of {deterministic.dtype} and shape {deterministic.shape}"
    elif isinstance(deterministic, bool):
        return deterministic
    else:
        came = repr(deterministic)
    raise TypeError(
        f"deterministic is {came}, but one boolean is needed: write deterministic=True at evaluation and "
        "deterministic=False while training."
    )


def _check_choice(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, allowed))}.")

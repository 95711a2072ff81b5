"""Sizes and shapes: checked, and with the axes that share one decision folded to 1."""

import operator
from typing import Any

import jax.numpy as jnp
from jax.export import is_symbolic_dim


def as_shape(shape) -> tuple[Any, ...]:
    """Return `shape` as a tuple of non-negative Python integers."""
    try:
        given = shape if hasattr(shape, "__len__") else (shape,)
        sizes = tuple(n if is_symbolic_dim(n) else operator.index(n) for n in given)
    except TypeError:
        raise TypeError(f"shape is {shape!r}, but a tuple of integers is needed: write shape=(128, 64).") from None
    if any(isinstance(n, int) and n < 0 for n in sizes):
        raise ValueError(f"shape is {sizes}, but no axis can be negative: write shape=(128, 64).")
    return sizes


def shared_shape(shape, rate_shape, broadcast_dims):
    """The shape in which decisions are drawn: `shape` with 1 on every axis of `broadcast_dims`.

    Raises:
      TypeError: `broadcast_dims` is not a sequence of integers.
      ValueError: an axis out of range, or a rate that does not broadcast against `shape`.
    """
    if isinstance(broadcast_dims, tuple) and broadcast_dims == () == rate_shape:
        return shape
    try:
        axes = tuple(operator.index(axis) for axis in broadcast_dims)
    except TypeError:
        raise TypeError(
            f"broadcast_dims is {broadcast_dims!r}, but a sequence of axes is needed: write broadcast_dims=(1,)."
        ) from None
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(
                f"broadcast_dims has axis {axis}, but an array of shape {shape} has axes "
                f"{-len(shape)} to {len(shape) - 1}: name one of these."
            )
    if not fits(rate_shape, shape):
        raise ValueError(
            f"rate has shape {rate_shape}, which does not broadcast to the shape {shape} of the mask: give one "
            "number, or reshape the rate so that each of its axes is 1 or that of the mask."
        )
    shared = {axis % len(shape) for axis in axes}
    return tuple(1 if axis in shared else size for axis, size in enumerate(shape))


def fits(part, shape) -> bool:
    """Whether an array of shape `part` broadcasts to exactly `shape`."""
    try:
        return jnp.broadcast_shapes(part, shape) == shape
    except ValueError:
        return False


def is_static(shape) -> bool:
    """Whether all sizes are known, and none is a symbol of `jax.export`."""
    return not any(is_symbolic_dim(size) for size in shape)

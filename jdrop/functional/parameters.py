"""The names of a tree's parameters, and the numbers that scale them."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, keystr, tree_leaves_with_path

from jdrop.masks.rate import at_least_float32

_VALUE = GetAttrKey("value")  # where an NNX variable, or a Linen box, has its array


def named(params):
    """[(path, name, array)] of a tree of parameters, with names such as "block/Dense_0/kernel".

    Raises:
      TypeError: a parameter that is not an array.
    """
    found = []
    for path, leaf in tree_leaves_with_path(params):
        name = keystr(path[:-1] if path and path[-1] == _VALUE else path, simple=True, separator="/")
        if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
            raise TypeError(f"the parameter {name!r} is a {type(leaf).__name__}, but an array is needed: jnp.asarray.")
        found.append((path, name, leaf))
    return found


def last(name):
    """The array's own name."""
    return name.rpartition("/")[2]


def wide(leaf):
    """An array in at least float32 or complex64: what scales and sums are computed in."""
    real = at_least_float32(leaf.dtype)
    if not jnp.iscomplexobj(leaf):
        return leaf.astype(real)
    return leaf.astype(jnp.complex128 if real == jnp.float64 else jnp.complex64)


def check_inexact(name, leaf):
    """Raise a TypeError unless a parameter can be scaled."""
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        raise TypeError(
            f"the parameter {name!r} has dtype {leaf.dtype}, but floating-point or complex weights are needed: give "
            "the trained parameters only."
        )


def as_scalar(name, value, valid, allowed, write):
    """`value` as a scalar in at least float32; NaN where a traced one is not `valid`.

    Raises:
      TypeError: not a real number.
      ValueError: a concrete value that is not valid.
    """
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if array.shape or not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} is {value!r}, but it must be a number {allowed}: write {write}.")
    array = array.astype(jax.dtypes.canonicalize_dtype(at_least_float32(array.dtype)))
    if isinstance(array, jax.core.Tracer):
        return jnp.where(valid(array), array, jnp.nan)
    if not valid(array):
        raise ValueError(f"{name} is {value}, but it must be a number {allowed}: write {write}.")
    return array

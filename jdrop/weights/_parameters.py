"""The names of a tree's parameters, and the numbers that scale them."""

import jax.numpy as jnp
from jax.tree_util import GetAttrKey, keystr, tree_leaves_with_path

from jdrop._checks import at_least_float32, refuse_masked

NOT_KERNELS = ("bias", "scale")
_VALUE = GetAttrKey("value")  # where an NNX variable, or a Linen box, has its array


def named(params, argument="params"):
    """[(path, name, array)] of a tree of parameters, with names such as "block/Dense_0/kernel".

    Raises:
      TypeError: a parameter that is not an array.
      ValueError: two of one name.
    """
    refuse_masked(argument, params)
    found, names = [], set()
    for path, leaf in tree_leaves_with_path(params):
        name = keystr(path[:-1] if path and path[-1] == _VALUE else path, simple=True, separator="/")
        if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
            raise TypeError(
                f"{argument}: the parameter {name!r} is a {type(leaf).__name__}, but an array is needed: jnp.asarray."
            )
        if name in names:
            raise ValueError(
                f"{argument} has two arrays of the same name, {name!r}, by different ways in the tree: rename a layer, "
                "so that each has one of its own."
            )
        names.add(name)
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
            f"params: the parameter {name!r} has dtype {leaf.dtype}, but floating-point or complex weights are "
            "needed: give "
            "the trained parameters only."
        )


def kernels(params, excluded, write):
    """[(path, name, array)] of the arrays of two axes or more with no excluded name; of all arrays if that is None."""
    arrays = named(params)
    found = [
        (path, name, leaf)
        for path, name, leaf in arrays
        if excluded is None or (leaf.ndim > 1 and last(name) not in excluded)
    ]
    if not found:
        raise ValueError(
            f"params: the parameters are {[name for _, name, _ in arrays]}, and none is a kernel, which has two "
            "axes or more "
            f"and is not named {', '.join(map(repr, excluded or NOT_KERNELS))}: give all parameters, or write {write}."
        )
    for _, name, leaf in found:
        check_inexact(name, leaf)
    return found


def square(x):
    return x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x**2

"""What every room checks, and the precision that every room computes in."""

import inspect
import operator
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


def as_size(name, value, least: int = 1, write=None, bits: int = 63) -> int:
    """Return a count as a Python int of at least `least` and so many bits; `write` is what an error advises."""
    write = least if write is None else write
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} is {value!r}, but an integer of at least {least} is needed: write {name}={write}."
        ) from None
    if size < least:
        raise ValueError(f"{name} is {size}, but it must be at least {least}: write {name}={write}.")
    if size >= 2**bits:
        raise ValueError(f"{name} is {size}, but nothing here counts as far as 2**{bits}: write {name}={write}.")
    return size


def as_flag(deterministic) -> bool | jax.Array:
    """Return a boolean flag as a Python bool, or as the traced scalar that it is.

    Raises:
      TypeError: not a boolean scalar.
    """
    if isinstance(deterministic, (jax.Array, np.ndarray, np.bool_)):
        if deterministic.dtype == jnp.bool_ and deterministic.shape == ():
            return bool(deterministic) if is_concrete(deterministic) else jnp.asarray(deterministic)
        came = f"an array of {deterministic.dtype} and shape {deterministic.shape}"
    elif isinstance(deterministic, bool):
        return deterministic
    else:
        came = repr(deterministic)
    raise TypeError(
        f"deterministic is {came}, but one boolean is needed: write deterministic=True at evaluation and "
        "deterministic=False while training."
    )


def to_array(name, value) -> Any:
    """`value` as an array, of JAX's if it is one and else of NumPy's, which holds what JAX would wrap or round.

    Raises:
      TypeError: it is no array, and no number or nested list of them.
      ValueError: a masked array, whose masked values are there but mean nothing.
    """
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            raise TypeError(f"{name} is made of PRNG keys, but an array of numbers is needed: look at the order.")
        return value
    refuse_masked(name, value)
    if value is None or isinstance(value, (str, bytes, dict, set)) or callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}, but an array of numbers is needed: jnp.asarray([...]).")
    try:
        try:
            array = np.asarray(value)
        except TypeError:  # such as PyTorch's bfloat16, which NumPy has not
            if not hasattr(value, "__dlpack__"):
                raise
            return jnp.from_dlpack(value)
    except Exception as error:  # whatever the library of `value` raises
        raise TypeError(
            f"{name} is a {type(value).__name__} that can't be read as an array ({error}): write np.asarray({name})."
        ) from None
    if not (array.dtype == bool or jnp.issubdtype(array.dtype, jnp.number)):
        raise TypeError(
            f"{name} is a {type(value).__name__} of {array.dtype}, but an array of numbers is needed, each of 64 "
            "bits or less: jnp.asarray([...])."
        )
    return array


def as_real(name, value) -> jax.Array:
    """`value` as JAX's array of real floating-point numbers.

    Raises:
      TypeError: it is none.
      ValueError: a masked array.
    """
    array = jnp.asarray(to_array(name, value))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {array.dtype}, but a floating-point array is needed: {name}.astype(float).")
    return array


def refuse_masked(name, value):
    """Raise a ValueError for one of NumPy's masked arrays, alone, in lists or in a tree."""
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, np.ma.MaskedArray):
            raise ValueError(
                f"{name} is a masked array, but jdrop knows no masks: pass what is not masked, {name}.compressed(), or "
                f"values in its place, {name}.filled(...)."
            )


def as_scalar(name, value, valid, allowed, write) -> Any:
    """`value` as a scalar in at least float32; NaN where a traced one is not `valid`.

    Raises:
      TypeError: not a real number.
      ValueError: a concrete value that is not valid.
    """
    array = to_array(name, value)
    if array.shape or not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} is {value!r}, but it must be a number {allowed}: write {write}.")
    array = array.astype(jax.dtypes.canonicalize_dtype(at_least_float32(array.dtype)))
    if not is_concrete(array):
        return jnp.where(valid(array), array, jnp.nan)
    if not valid(array):
        raise ValueError(f"{name} is {value}, but it must be a number {allowed}: write {write}.")
    return array


def as_known(name, value, low, high, write) -> float:
    """A number that is known, in [low, high], as a Python float.

    Raises:
      TypeError: not a number.
      ValueError: out of range.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} is {value!r}, but a number in [{low:g}, {high:g}] is needed: write {write}.")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, but it must be in [{low:g}, {high:g}]: write {write}.")
    return float(value)


def as_bool(name, value) -> bool:
    """A switch that is known, True or False."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{name} is {value!r}, but a boolean is needed: write {name}=True or {name}=False.")


def check_callable(name, value, arguments):
    """Raise a TypeError unless `value` can be called with these arguments, such as "(key, x)"."""
    if not callable(value):
        raise TypeError(f"{name} is {value!r}, but a function {arguments} -> ... is needed.")
    try:
        inspect.signature(value).bind(*arguments.split(","))
    except TypeError:
        raise TypeError(
            f"{name} is a {type(value).__name__} that can't be called with {arguments}: write a function of these."
        ) from None
    except ValueError:  # of some that are not written in Python nothing is known
        pass


def count_examples(
    name, tree, but="all need the same one, the examples, of at least 1: give arrays, not lists of numbers."
) -> int:
    """The examples in a tree of arrays: the size of their common first axis."""
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
    sizes = sorted({shape[0] if shape else 0 for shape in shapes})
    if len(sizes) != 1 or sizes[0] == 0:
        raise ValueError(f"{name} has arrays with first axes of {sizes}, but {but}")
    return sizes[0]


def check_choice(name, value, allowed):
    """Raise a ValueError unless `value` is one of those allowed."""
    if not any(isinstance(value, type(each)) and value == each for each in allowed):
        raise ValueError(f"{name} is {value!r}, but it must be one of {', '.join(map(repr, allowed))}.")


def is_concrete(value) -> bool:
    """Whether a value is known, so that a bad one can raise."""
    return not isinstance(value, jax.core.Tracer)


def at_least_float32(dtype):
    """float64 for a double-precision dtype, else float32: what scales and sums are computed in."""
    return jnp.float64 if dtype in (jnp.float64, jnp.complex128) else jnp.float32

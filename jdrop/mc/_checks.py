"""What the Monte Carlo toolbox takes: concrete bad values raise, also under a trace; traced ones become NaN."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from jdrop._checks import at_least_float32, is_concrete, to_array

# How far from 1 the sum of probabilities may lie: they may have been rounded to bfloat16, also where they came upcast.
ROUNDING = 2.0**-7


def require(array, valid, message) -> jax.Array:
    """Return `array`, whose values must be `valid`.

    Args:
      array: an array.
      valid: booleans that broadcast to it.
      message: (a value, its index) -> the text of the error, of the first value that is not valid.

    Returns:
      `array`; under a trace with NaN where it is not valid.

    Raises:
      ValueError: a concrete value that is not valid.
    """
    if not is_concrete(valid):
        return jnp.where(valid, array, jnp.nan)
    valid = np.asarray(valid)
    if not valid.all():
        at = tuple(int(i) for i in np.argwhere(~np.broadcast_to(valid, array.shape))[0])
        raise ValueError(message(np.asarray(array)[at], at))
    return array


def as_array(name, value, *axes) -> jax.Array:
    """`value` as a non-empty real array of at least float32, in which integers become floats.

    Args:
      name: what an error calls it.
      value: an array, a number or nested lists of them.
      axes: the names of the axes that it must have, "..." for any number; no matter which if there are none.
    """
    array = to_array(name, value)
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} has dtype {array.dtype}, but real numbers are needed: {name}.astype(jnp.float32).")
    if not array.size:
        raise ValueError(f"{name} has shape {array.shape}, which is empty, but at least one value is needed.")
    least = sum(axis != "..." for axis in axes)
    if array.ndim < least or (axes and array.ndim > least and "..." not in axes):
        advice = f"{name}[None] adds a first axis" if array.ndim < least else "index the others, or map over them"
        raise ValueError(f"{name} has shape {array.shape}, but ({', '.join(axes)}) is needed: {advice}.")
    dtype = jax.dtypes.canonicalize_dtype(at_least_float32(array.dtype))
    with np.errstate(over="ignore"):
        return jnp.asarray(array.astype(dtype))  # a float before it is JAX's, which would wrap integers of 64 bits


def as_finite(name, value, *axes) -> jax.Array:
    """Finite real numbers, such as outputs and targets of a regression; see `as_array`."""
    with jax.ensure_compile_time_eval():
        array = as_array(name, value, *axes)
        return require(
            array,
            jnp.isfinite(array),
            lambda bad, at: f"{name} is {bad} at {at}, but every value must be finite: find where it comes from.",
        )


def as_positive(name, value, write) -> jax.Array:
    """Finite real numbers above 0, such as variances and precisions; `write` is what an error advises."""
    with jax.ensure_compile_time_eval():
        array = as_array(name, value)
        return require(
            array,
            (array > 0) & jnp.isfinite(array),
            lambda bad, at: f"{name} is {bad} at {at}, but it must be positive and finite: write {write}.",
        )


def as_fraction(name, value, *, zero) -> jax.Array:
    """Numbers in [0, 1], or in (0, 1] unless `zero`."""
    with jax.ensure_compile_time_eval():
        array = as_array(name, value)
        above = array >= 0 if zero else array > 0
        interval = "[0, 1]" if zero else "(0, 1]"
        return require(
            array,
            above & (array <= 1),
            lambda bad, at: f"{name} is {bad}, but it must lie in {interval}: write {name}=0.95.",
        )


def decimal_of(value) -> Fraction:
    """The number that a concrete level means: 1/10 for 0.1 and for 1 - 0.9, in whatever precision it was computed."""
    dtype = getattr(value, "dtype", np.dtype(float))
    exact = Fraction(float(value))
    near = exact.limit_denominator(10**6)
    return near if abs(near - exact) <= 4 * Fraction(float(jnp.finfo(dtype).eps)) else exact


def as_sampled(outputs, targets, name="targets") -> tuple[jax.Array, ...]:
    """Finite outputs (num_samples, ...) and targets (...), in one dtype."""
    outputs, targets = as_finite("outputs", outputs, "num_samples", "..."), as_finite(name, targets)
    if targets.shape != outputs.shape[1:]:
        raise ValueError(
            f"{name} has shape {targets.shape}, but outputs of shape {outputs.shape} need {outputs.shape[1:]}: "
            "reshape one, such that they are equal."
        )
    return one_dtype(outputs, targets)


def as_probabilities(probabilities, *axes) -> jax.Array:
    """Class probabilities with these axes, (..., classes) if none are given.

    They must not be negative, and sum to 1 within `tolerance_of` their dtype.
    """
    axes = axes or ("...", "classes")
    with jax.ensure_compile_time_eval():
        given = to_array("probabilities", probabilities)
        array = as_array("probabilities", given, *axes)
        if array.shape[-1] < 2:
            raise ValueError(
                f"probabilities has shape {array.shape}, but ({', '.join(axes)}) with at least 2 classes is needed: "
                "write jnp.stack([1 - p, p], -1) for the probability p of a binary label."
            )

        def message(bad, at):
            row = np.asarray(array[at[:-1]])
            return (
                f"probabilities is {row} at {at[:-1]}, which sums to {row.sum():.6g}, but they must not be negative "
                "and must sum to 1 over the last axis: write jax.nn.softmax(logits)."
            )

        return require(array, on_simplex(array, tolerance_of(given.dtype)), message)


def tolerance_of(dtype) -> float:
    """How far from 1 the sum of probabilities of a dtype may lie."""
    return max(ROUNDING, float(jnp.finfo(dtype).eps) ** 0.5) if jnp.issubdtype(dtype, jnp.floating) else ROUNDING


@jax.jit
def on_simplex(array, tolerance):
    """Where the last axis, which stays with size 1, holds probabilities."""
    return (array >= 0).all(-1, keepdims=True) & (jnp.abs(array.sum(-1, keepdims=True) - 1) <= tolerance)


def as_labelled(probabilities, labels, *axes) -> tuple[jax.Array, jax.Array]:
    """Class probabilities with these axes, and a label for each row; see `with_labels`."""
    probabilities = as_probabilities(probabilities, *axes)
    return with_labels(probabilities, labels, probabilities.shape[:-1])


def with_labels(rows, labels, shape, name="probabilities") -> tuple[jax.Array, jax.Array]:
    """Checked rows (..., *shape, classes), and labels of `shape` for them, integers in [0, classes).

    A traced label out of range turns its row into NaN.
    """
    classes, labels, integer = rows.shape[-1], to_array("labels", labels), jax.dtypes.canonicalize_dtype(int)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels has dtype {labels.dtype}, but integers are needed: write labels.astype(int), or labels.argmax(-1) "
            "if they are one-hot."
        )
    if labels.shape != shape:
        raise ValueError(
            f"labels has shape {labels.shape}, but {name} of shape {rows.shape} need {shape}: one label for each row, "
            f"and {name} averaged over their samples where only a mean is taken."
        )
    with jax.ensure_compile_time_eval():
        # Compared as they are by NumPy, and by JAX in 32 bits, since 8 hold no number of 256 classes.
        if isinstance(labels, jax.Array) and labels.dtype.itemsize < 4:
            labels = labels.astype(jnp.int32)
        valid = (labels >= 0) & (labels < classes)
        if is_concrete(valid):
            require(
                labels,
                valid,
                lambda bad, at: (
                    f"labels is {bad} at {at}, but each must lie in [0, {classes - 1}] for {classes} classes: "
                    "number the classes from 0, and drop the examples without a label."
                ),
            )
            return rows, jnp.asarray(labels.astype(integer))
    return jnp.where(valid[..., None], rows, jnp.nan), labels.astype(integer)


def matching(**arrays) -> tuple[jax.Array, ...]:
    """Checked arrays that must have one shape, in one dtype and in the order given."""
    (first, wanted), *_ = ((name, array.shape) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.shape != wanted:
            raise ValueError(
                f"{name} has shape {array.shape}, but {first} has {wanted}: reshape one, such that they are equal."
            )
    return one_dtype(*arrays.values())


def one_dtype(*arrays) -> tuple[jax.Array, ...]:
    """Checked arrays in float64 if one of them is, else in float32."""
    dtype = jnp.float64 if any(array.dtype == jnp.float64 for array in arrays) else jnp.float32
    return tuple(array.astype(dtype) for array in arrays)

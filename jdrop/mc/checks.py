"""What a measure of uncertainty takes: concrete bad values raise, traced ones become NaN."""

import jax
import jax.numpy as jnp
import numpy as np

from jdrop.masks.rate import at_least_float32


def require(array, valid, message):
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
    if isinstance(valid, jax.core.Tracer):
        return jnp.where(valid, array, jnp.nan)
    valid = np.asarray(valid)
    if not valid.all():
        at = tuple(int(i) for i in np.argwhere(~np.broadcast_to(valid, array.shape))[0])
        raise ValueError(message(np.asarray(array)[at], at))
    return array


def as_array(name, value):
    """`value` as a non-empty real array of at least float32, in which integers become floats."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is a {type(value).__name__}, but an array of real numbers is needed.") from None
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} has dtype {array.dtype}, but real numbers are needed: {name}.astype(jnp.float32).")
    if not array.size:
        raise ValueError(f"{name} has shape {array.shape}, which is empty, but at least one value is needed.")
    return array.astype(at_least_float32(array.dtype))


def as_finite(name, value):
    """Finite real numbers, such as outputs and targets of a regression."""
    with jax.ensure_compile_time_eval():
        array = as_array(name, value)
        return require(
            array,
            jnp.isfinite(array),
            lambda bad, at: f"{name} is {bad} at {at}, but every value must be finite: find where it comes from.",
        )


def as_positive(name, value, write):
    """Finite real numbers above 0, such as variances and precisions; `write` is what an error advises."""
    with jax.ensure_compile_time_eval():
        array = as_array(name, value)
        return require(
            array,
            (array > 0) & jnp.isfinite(array),
            lambda bad, at: f"{name} is {bad} at {at}, but it must be positive and finite: write {write}.",
        )


def as_samples(name, value):
    """Finite real numbers with a first axis of samples."""
    array = as_finite(name, value)
    if not array.ndim:
        raise ValueError(f"{name} has shape (), but a first axis of samples is needed: write {name}[None].")
    return array


def as_sampled(outputs, targets):
    """Finite outputs (num_samples, ...) and targets (...), in one dtype."""
    outputs, targets = as_samples("outputs", outputs), as_finite("targets", targets)
    if targets.shape != outputs.shape[1:]:
        raise ValueError(
            f"targets has shape {targets.shape}, but outputs of shape {outputs.shape} need {outputs.shape[1:]}: "
            "reshape one, such that they are equal."
        )
    return one_dtype(outputs, targets)


def as_fraction(name, value, *, zero):
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


def as_probabilities(probabilities, *, sampled=False):
    """Class probabilities (..., classes), with a first axis of samples if `sampled`.

    They must not be negative, and sum to 1 within the square root of float32's precision, or a coarser dtype's own.
    """
    with jax.ensure_compile_time_eval():
        array = as_array("probabilities", probabilities)
        axes = "(num_samples, ..., classes)" if sampled else "(..., classes)"
        if array.ndim < 1 + sampled or array.shape[-1] < 2:
            raise ValueError(
                f"probabilities has shape {array.shape}, but {axes} with at least 2 classes is needed: write "
                "jnp.stack([1 - p, p], -1) for the probability p of a binary label."
            )
        given = getattr(probabilities, "dtype", array.dtype)
        coarse = jnp.issubdtype(given, jnp.floating) and jnp.finfo(given).bits < 32
        tolerance = float(jnp.finfo(given if coarse else jnp.float32).eps) ** 0.5
        total = array.sum(-1, keepdims=True)
        valid = (array >= 0).all(-1, keepdims=True) & (jnp.abs(total - 1) <= tolerance)

        def message(bad, at):
            row = np.asarray(array[at[:-1]])
            return (
                f"probabilities is {row} at {at[:-1]}, which sums to {row.sum():.6g}, but they must not be negative "
                "and must sum to 1 over the last axis: write jax.nn.softmax(logits)."
            )

        return require(array, valid, message)


def as_labelled(probabilities, labels):
    """Class probabilities (..., classes) and their labels (...), integers in [0, classes).

    A traced label out of range turns its row of the probabilities into NaN.
    """
    probabilities = as_probabilities(probabilities)
    return with_labels(probabilities, labels, probabilities.shape[:-1])


def with_labels(probabilities, labels, shape):
    """Checked probabilities (..., *shape, classes), and labels of `shape` for them."""
    classes = probabilities.shape[-1]
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)  # not jnp: it wraps integers that do not fit
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels has dtype {labels.dtype}, but integers are needed: write labels.astype(int).")
    if labels.shape != shape:
        raise ValueError(
            f"labels has shape {labels.shape}, but probabilities of shape {probabilities.shape} need {shape}: "
            "one label for each row, and probabilities averaged over their samples where a metric takes those."
        )
    with jax.ensure_compile_time_eval():
        valid = (labels >= 0) & (labels < classes)
        if not isinstance(valid, jax.core.Tracer):
            require(
                labels,
                valid,
                lambda bad, at: (
                    f"labels is {bad} at {at}, but each must lie in [0, {classes - 1}] for {classes} classes: "
                    "drop the examples without a label."
                ),
            )
            return probabilities, jnp.asarray(labels).astype(int)
    return jnp.where(valid[..., None], probabilities, jnp.nan), labels.astype(int)


def matching(**arrays):
    """Checked arrays that must have one shape, in one dtype and in the order given."""
    (first, wanted), *_ = ((name, array.shape) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.shape != wanted:
            raise ValueError(
                f"{name} has shape {array.shape}, but {first} has {wanted}: reshape one, such that they are equal."
            )
    return one_dtype(*arrays.values())


def one_dtype(*arrays):
    """Checked arrays in float64 if one of them is, else in float32."""
    dtype = jnp.float64 if any(array.dtype == jnp.float64 for array in arrays) else jnp.float32
    return tuple(array.astype(dtype) for array in arrays)

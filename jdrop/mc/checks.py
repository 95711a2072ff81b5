"""Input of the uncertainty toolbox: concrete bad values raise, traced ones become NaN."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from jdrop.masks.rate import at_least_float32


def as_finite(name, x):
    """Return `x` as an array of at least float32, or say what is wrong with it; a traced inf becomes NaN."""
    x = _as_array(name, x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name} has dtype {x.dtype}, but floats are needed: write {name}.astype(float).")
    with _eager(x):
        x = jnp.asarray(x)
        x = x.astype(at_least_float32(x.dtype))
        finite = jnp.isfinite(x)
    for bad in _bad(x, finite):
        raise ValueError(f"{name} holds {bad}, but it must be finite: look for it with jnp.isfinite({name}).")
    return _where(finite, x, jnp.nan)


def as_positive(name, x):
    """Return `x` as a finite array of at least float32 above 0; what is not becomes NaN under a trace."""
    x = as_finite(name, x)
    with _eager(x):
        positive = x > 0
    for bad in _bad(x, positive):
        raise ValueError(f"{name} holds {bad}, but it must be above 0: add a floor of your own, {name} + 1e-3.")
    return _where(positive, x, jnp.nan)


def as_probabilities(name, p):
    """Return class probabilities (on the last axis) as at least float32; a traced row that is none becomes NaN."""
    exact = as_finite(name, p)
    if exact.ndim == 0:
        raise ValueError(f"{name} has shape (), but a last axis of classes is needed.")
    tolerance = max(float(jnp.finfo(dtype).eps) for dtype in (p.dtype, exact.dtype)) ** 0.5
    with _eager(exact):
        simplex = (exact >= 0).all(-1) & (jnp.abs(exact.sum(-1) - 1) <= tolerance)
    for row in _bad(exact, simplex):
        raise ValueError(
            f"{name} has a row with the sum {row.sum():.6g} and the minimum {row.min():.6g}, but probabilities are not "
            f"negative and sum to 1 on the last axis: write jax.nn.softmax({name}) if they are logits."
        )
    return _where(jnp.expand_dims(simplex, -1), exact, jnp.nan)


def as_labels(labels, classes):
    """Return labels as int32; a traced one outside [0, classes) becomes `classes`, where a gather reads NaN."""
    labels = _as_array("labels", labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels has dtype {labels.dtype}, but class numbers are integers: write labels.astype(int), or "
            "labels.argmax(-1) if they are one-hot."
        )
    with _eager(labels):
        valid = (labels >= 0) & (labels <= min(classes - 1, jnp.iinfo(labels.dtype).max))
    for bad in _bad(labels, valid):
        raise ValueError(
            f"labels holds {bad}, but {classes} classes are numbered from 0 to {classes - 1}: subtract the first "
            "class's number, or give a column of probabilities for each class."
        )
    with _eager(labels):
        labels = jnp.asarray(labels, jnp.int32)
    return _where(valid, labels, classes)


def check_axes(name, x, *axes):
    """Say that `x` has not the axes of these names."""
    if x.ndim != len(axes):
        raise ValueError(f"{name} has shape {x.shape}, but ({', '.join(axes)}) is needed.")


def check_rows(name, x, shape, of):
    """Say that `x` has not one element for each row of what is called `of`."""
    if x.shape != shape:
        raise ValueError(f"{name} has shape {x.shape}, but {shape} is needed, one for each row of {of}.")


def is_concrete(x) -> bool:
    """Whether the values of `x` are known, so that bad ones can raise."""
    return not isinstance(x, jax.core.Tracer)


def _as_array(name, x):
    if not isinstance(x, (np.ndarray, np.generic, jax.Array)):
        raise TypeError(f"{name} is a {type(x).__name__}, but an array is needed: write {name}=jnp.asarray(...).")
    if x.size == 0:
        raise ValueError(f"{name} has shape {x.shape}, but it is empty: give at least one row.")
    return x


def _eager(x):
    """Where operations on a concrete `x` are concrete too, as those on a constant inside of `jax.jit` are not."""
    return jax.ensure_compile_time_eval() if is_concrete(x) else contextlib.nullcontext()


def _bad(x, valid):
    """The first element (or row) of a concrete `x` that is not valid, if any."""
    return np.asarray(x)[~np.asarray(valid)][:1] if is_concrete(x) else ()


def _where(valid, x, otherwise):
    return x if is_concrete(x) else jnp.where(valid, x, jnp.full_like(x, otherwise))

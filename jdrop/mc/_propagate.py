"""Mean and variance of a network with dropout without sampling: each operation of its program on the moments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from jax.scipy.stats import norm

from jdrop._checks import check_callable, to_array
from jdrop._types import Predict, PyTree


class Moments(NamedTuple):
    """The mean and the variance of each output, of its shape.

    Attributes:
      mean: of each output.
      variance: of each output.
    """

    mean: jax.Array
    variance: jax.Array


class _Keep(NamedTuple):
    """A mask that JAX draws: the probability of True, of the mask's shape."""

    probability: jax.Array


def propagate(predict: Predict, x: PyTree) -> Any:
    """Mean and variance of a prediction with dropout, by one pass of moments in the place of samples.

    Each element is taken for a normal number that is independent of the others. Then a dense or convolutional layer
    maps ``(m, v) -> (W m + b, W**2 v)``; dropout with keep probability q, inverted,
    ``(m, v) -> (m, (v + m**2) / q - m**2)``; a ReLU to the moments of a rectified normal number, exactly; average
    pooling is linear; max pooling is by Clark's formula for two numbers, one after another. Both assumptions are
    exact for one layer of dropout and all that is linear before the next: mean and variance of such a network are those
    of all its masks. After a ReLU units depend on each other, through the masks they share, and sums of them are not
    quite normal: hold the result against `jdrop.mc.samples` where it matters.

    Args:
      predict: `(key, x) -> outputs`, such as `jdrop.linen.predictor` makes, of layers that are dense, convolutions,
        dropout (jdrop's, or JAX's `bernoulli`, each element with its own decision), ReLU, pooling, batch
        normalisation in evaluation, and what moves or scales elements. Return the logits: softmax is none of these.
      x: the inputs, an array or a tree of arrays.

    Returns:
      `Moments` in the place of each output of `predict`.

    Raises:
      TypeError: `predict` is not a function of (key, x).
      NotImplementedError: an operation that is not covered, by its name: two random arrays that are added, as in
        residual networks, whose dependence would be lost; a nonlinearity other than ReLU; loops.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> moments = jdrop.mc.propagate(lambda key, x: jdrop.dropout(key, x, 0.5) @ jnp.ones((3, 1)), jnp.ones((1, 3)))
      >>> moments.mean.tolist(), moments.variance.tolist()
      ([[3.0]], [[3.0]])

    Paper:
      Wang & Manning 2013, "Fast dropout training"; Frey & Hinton 1999, "Variational learning in nonlinear Gaussian
      belief networks"; Clark 1961, "The greatest of a finite set of random variables".
    """
    check_callable("predict", predict, "key,x")
    x = jax.tree.map(lambda leaf: jnp.asarray(to_array("x", leaf)), x)
    program, shape = jax.make_jaxpr(predict, return_shape=True)(jax.random.key(0), x)
    given = [jax.random.key(0), *jax.tree.leaves(x)]
    outputs = [_as_moments(value) for value in _run(program, given)]
    return jax.tree.unflatten(jax.tree.structure(shape), outputs)


def _run(program, given):
    """The values of a program's outputs: arrays that are known, moments of those that are random."""
    jaxpr, consts = (program.jaxpr, program.consts) if isinstance(program, ClosedJaxpr) else (program, [])
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *given]))

    def read(var):
        return var.val if isinstance(var, Literal) else values[var]

    for eqn in jaxpr.eqns:
        results = _results(eqn, [read(var) for var in eqn.invars])
        values |= zip(eqn.outvars, results)
    return [read(var) for var in jaxpr.outvars]


def _results(eqn, operands):
    name, called = eqn.primitive.name, eqn.params.get("name")
    if name == "jdrop_keep":
        return [_Keep(jnp.broadcast_to(_kept(*operands[1:3]), eqn.outvars[0].aval.shape))]
    if name.startswith("jdrop_drop"):
        *_, low, all_dropped, scale, _, x = operands
        return [_dropped(x, _kept(low, all_dropped), scale)]
    if called == "_bernoulli":
        return [_of_jax(eqn, operands)]
    if not any(isinstance(each, (Moments, _Keep)) for each in operands):
        inner = [value for value in eqn.params.values() if isinstance(value, (Jaxpr, ClosedJaxpr))]
        if name not in ("scan", "while", "cond") and len(inner) == 1 and not eqn.params.get("num_consts"):
            return _run(inner[0], operands)  # which may draw masks of its own
        results = eqn.primitive.bind(*operands, **eqn.params)
        return results if eqn.primitive.multiple_results else [results]
    if name in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint", "closed_call"):
        inner = next(value for value in eqn.params.values() if isinstance(value, (Jaxpr, ClosedJaxpr)))
        return _run(inner, operands)
    if name not in _RULES:
        raise _uncovered(eqn)
    return [_RULES[name](eqn, *operands)]


def _uncovered(eqn, what=""):
    covered = "dense layers, convolutions, dropout, ReLU, pooling and what moves or scales elements"
    return NotImplementedError(
        f"predict computes {eqn.primitive.name}{what} of a random array, but only moments through {covered} are "
        "propagated: return what comes before it, or draw jdrop.mc.samples."
    )


def _as_moments(value):
    if isinstance(value, Moments):
        return value
    return Moments(jnp.asarray(value), jnp.zeros_like(value))


def _dropped(x, keep, scale):
    """The moments of x where it is kept, times a scale, and 0 where not."""
    mean, variance = _as_moments(x)
    after = scale * keep * mean
    return Moments(after, scale**2 * keep * (variance + (1 - keep) * mean**2))


def _kept(low, all_dropped):
    """The probability that a mask of jdrop keeps, of its threshold."""
    keep = jnp.where(low == 0, 1.0, (np.uint32(0) - jnp.asarray(low)).astype(jnp.float32) / 2.0**32)
    return jnp.where(all_dropped, 0.0, keep)


def _of_jax(eqn, operands):
    probability = next(
        value for value, var in zip(operands, eqn.invars) if jnp.issubdtype(var.aval.dtype, jnp.floating)
    )
    return _Keep(jnp.broadcast_to(probability, eqn.outvars[0].aval.shape))


def _linear(eqn, *operands):
    """An operation that is linear in its one random operand, such as a product with weights."""
    random = [isinstance(each, Moments) for each in operands]
    if sum(random) != 1:
        raise _uncovered(eqn, " of two random arrays")
    mean = [each.mean if isinstance(each, Moments) else each for each in operands]
    square = [each.variance if isinstance(each, Moments) else each**2 for each in operands]
    return Moments(eqn.primitive.bind(*mean, **eqn.params), eqn.primitive.bind(*square, **eqn.params))


def _moved(eqn, *operands):
    """An operation that moves elements, or sums them up."""
    if any(isinstance(each, _Keep) for each in operands):
        (keep,) = operands
        if eqn.outvars[0].aval.size != keep.probability.size:
            raise _uncovered(eqn, " of one mask for several elements")
        return _Keep(eqn.primitive.bind(keep.probability, **eqn.params))
    parts = zip(*(_as_moments(each) for each in operands))
    return Moments(*(eqn.primitive.bind(*part, **eqn.params) for part in parts))


def _padded(eqn, x, value):
    zero = jnp.zeros_like(value)
    return Moments(eqn.primitive.bind(x.mean, value, **eqn.params), eqn.primitive.bind(x.variance, zero, **eqn.params))


def _added(eqn, a, b):
    """A sum or difference with a known array."""
    if isinstance(a, Moments) and isinstance(b, Moments):
        raise _uncovered(eqn, " of two random arrays, which may depend on each other,")
    mean = eqn.primitive.bind(*(each.mean if isinstance(each, Moments) else each for each in (a, b)), **eqn.params)
    variance = a.variance if isinstance(a, Moments) else b.variance
    return Moments(mean, jnp.broadcast_to(variance, mean.shape))


def _divided(eqn, a, b):
    if isinstance(b, Moments):
        raise _uncovered(eqn, " by a random array")
    return Moments(a.mean / b, a.variance / b**2)


def _maximum(eqn, a, b):
    """The larger of two: a ReLU, where one is 0."""
    return _larger(_as_moments(a), _as_moments(b))


def _larger(a, b):
    """Clark's formula for two independent normal numbers."""
    spread = jnp.sqrt(a.variance + b.variance)
    random = spread > 0
    theta = jnp.where(random, spread, 1)
    alpha = jnp.where(random, (a.mean - b.mean) / theta, 0)
    first, second, density = norm.cdf(alpha), norm.cdf(-alpha), norm.pdf(alpha)
    mean = a.mean * first + b.mean * second + theta * density
    square = (a.mean**2 + a.variance) * first + (b.mean**2 + b.variance) * second
    square += (a.mean + b.mean) * theta * density
    variance = jnp.maximum(square - mean**2, 0)
    return Moments(
        jnp.where(random, mean, jnp.maximum(a.mean, b.mean)), jnp.where(random, variance, jnp.zeros_like(variance))
    )


def _pooled(eqn, x):
    """The largest of each window, two by two."""
    window, strides = eqn.params["window_dimensions"], eqn.params["window_strides"]
    plain = all(pair == (0, 0) for pair in eqn.params["padding"]) and set(eqn.params["window_dilation"]) <= {1}
    if not plain or set(eqn.params["base_dilation"]) > {1}:
        raise _uncovered(eqn, " with padding or dilation")
    shape, result = eqn.outvars[0].aval.shape, None
    for start in np.ndindex(*window):
        stop = [s + (size - 1) * stride + 1 for s, size, stride in zip(start, shape, strides)]
        part = Moments(*(lax.slice(each, start, stop, strides) for each in x))
        result = part if result is None else _larger(result, part)
    return result


def _selected(eqn, which, *cases):
    """Case 1 where a mask of JAX is True, and else case 0, which is known."""
    if not isinstance(which, _Keep):
        if isinstance(which, Moments) or len(cases) != 2:
            raise _uncovered(eqn)
        parts = zip(*(_as_moments(each) for each in cases))
        return Moments(*(lax.select_n(which, *part) for part in parts))
    other, kept = cases
    if isinstance(other, Moments):
        raise _uncovered(eqn, " of two random arrays")
    (mean, variance), p = _as_moments(kept), which.probability
    after = p * mean + (1 - p) * other
    return Moments(after, p * (variance + mean**2) + (1 - p) * other**2 - after**2)


_RULES = {
    **dict.fromkeys(("mul", "dot_general", "conv_general_dilated"), _linear),
    **dict.fromkeys(
        (
            "broadcast_in_dim", "concatenate", "convert_element_type", "copy", "expand_dims", "reduce_sum",
            "reduce_window_sum", "reshape", "rev", "slice", "squeeze", "stop_gradient", "transpose",
        ),
        _moved,
    ),
    **dict.fromkeys(("add", "sub", "add_any"), _added),
    "neg": lambda eqn, x: Moments(-x.mean, x.variance),
    "div": _divided,
    "max": _maximum,
    "pad": _padded,
    "reduce_window_max": _pooled,
    "select_n": _selected,
}  # fmt: skip

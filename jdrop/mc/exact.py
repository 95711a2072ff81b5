"""A `vmap` that is exact: each result is, to the bit, what the function gives alone."""

import itertools

import jax
import jax.numpy as jnp
from jax.extend.core import Literal

_PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")


def exact_vmap(function, example):
    """Map `function` over the first axis of an array, without a change in rounding.

    `jax.vmap` folds the mapped axis into the rows of matrix products and convolutions, and how a library sums these
    depends on the number of rows. Here products run one element after another and everything else is vmapped. What does
    not depend on the mapped argument is computed once, outside of the function that is returned.

    Args:
      function: a pure function of one array.
      example: one element, for its shape and dtype.

    Returns:
      (run, size): a function of an array of elements, which may be called under a loop and with any number of them;
      and the bytes that its hungriest operation needs an element.
    """
    closed, structure = jax.make_jaxpr(function, return_shape=True)(example)
    numbers, values = itertools.count(), {}
    source = next(numbers)
    steps, outputs = _flatten(closed, [source], numbers, values)
    varying = []
    for equation, inputs, results in steps:
        if all(slot in values for slot in inputs):
            values.update(zip(results, _bind(equation, *(values[slot] for slot in inputs))))
        else:
            varying.append((equation, inputs, results))

    def run(elements):
        mapped = {source: elements}
        for equation, inputs, results in varying:
            axes = [0 if slot in mapped else None for slot in inputs]
            arguments = [mapped[slot] if slot in mapped else values[slot] for slot in inputs]
            mapped.update(zip(results, _map(equation, axes, arguments)))
        leaves = [
            mapped[slot] if slot in mapped else jnp.broadcast_to(values[slot], (len(elements), *values[slot].shape))
            for slot in outputs
        ]
        return jax.tree.unflatten(jax.tree.structure(structure), leaves)

    return run, max((_bytes(equation) for equation, _, _ in varying), default=0)


def _bytes(equation) -> int:
    return sum(var.aval.size * var.aval.dtype.itemsize for var in (*equation.invars, *equation.outvars))


def _flatten(closed, slots, numbers, values):
    """The equations of a jaxpr as (equation, input slots, output slots), with calls that hold products inlined.

    Args:
      closed: a closed jaxpr.
      slots: the slots of its arguments.
      numbers: a counter of free slots.
      values: slot -> value; constants are put in.

    Returns:
      (steps, output slots).
    """
    steps, slot_of = [], dict(zip(closed.jaxpr.invars, slots))

    def constant(value):
        slot = next(numbers)
        values[slot] = jnp.asarray(value) if not isinstance(value, jax.Array) else value
        return slot

    def read(atom):
        return constant(atom.val) if isinstance(atom, Literal) else slot_of[atom]

    slot_of.update((var, constant(value)) for var, value in zip(closed.jaxpr.constvars, closed.consts))
    for equation in closed.jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        if equation.primitive.name in ("jit", "pjit") and _has_products(equation):
            inner, results = _flatten(equation.params["jaxpr"], inputs, numbers, values)
            steps += inner
        else:
            results = [next(numbers) for _ in equation.outvars]
            steps.append((equation, inputs, results))
        slot_of.update(zip(equation.outvars, results))
    return steps, [read(atom) for atom in closed.jaxpr.outvars]


def _has_products(equation) -> bool:
    if equation.primitive.name in _PRODUCTS:
        return True
    return any(_has_products(inner) for jaxpr in _jaxprs(equation.params) for inner in jaxpr.eqns)


def _jaxprs(params):
    for leaf in jax.tree.leaves(list(params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
        if hasattr(leaf, "eqns"):
            yield leaf


def _bind(equation, *arguments):
    results = equation.primitive.bind(*arguments, **equation.primitive.get_bind_params(equation.params))
    return results if equation.primitive.multiple_results else [results]


def _map(equation, axes, arguments):
    """One equation over the first axis of those arguments whose axis is 0."""
    if not _has_products(equation):
        return jax.vmap(lambda *inputs: _bind(equation, *inputs), axes)(*arguments)

    def one(mapped):
        mapped = iter(mapped)
        return _bind(equation, *(next(mapped) if axis == 0 else value for axis, value in zip(axes, arguments)))

    return jax.lax.map(one, [value for axis, value in zip(axes, arguments) if axis == 0])

"""A function as the program that it is now: what it closes over is an argument, and equal programs compile once."""

import dataclasses
import hashlib
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from jdrop._checks import is_concrete


def as_program(function, *args) -> jax.tree_util.Partial:
    """`function` traced for such arguments, as a pytree of the arrays that it closes over.

    jax.jit knows a function by its identity: it would keep the parameters that a closure had at its first call, and
    compile again what is defined afresh. A `jax.tree_util.Partial` says itself what may change, and passes as it is.
    """
    if isinstance(function, jax.tree_util.Partial):
        return function
    program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    return jax.tree_util.Partial(_Program(_text(program), jax.tree.structure(shape), program.jaxpr), program.consts)


@dataclasses.dataclass(frozen=True)
class _Program:
    """Programs of one text are equal."""

    text: str
    out: Any  # the structure of the result
    jaxpr: Any = dataclasses.field(compare=False)

    def __call__(self, constants, *args):
        return self.out.unflatten(jaxpr_as_fun(ClosedJaxpr(self.jaxpr, constants))(*jax.tree.leaves(args)))


def _text(program):
    """A program in full, without the addresses of the functions that differentiate parts of it."""
    with np.printoptions(threshold=sys.maxsize):
        text = re.sub(r" at 0x[0-9a-f]+", "", str(program.jaxpr))
    held = [_content(constant) for inner in inner_programs(program.jaxpr) for constant in inner.consts]
    return f"{text} {held}"


def _content(constant) -> str:
    """What tells an array that a part of a program holds, and its text does not show, from others."""
    if not is_concrete(constant) or (isinstance(constant, jax.Array) and constant.nbytes > 2**20):
        return f"id {id(constant)}"  # which the program keeps alive, and nobody can change
    is_key = isinstance(constant, jax.Array) and jnp.issubdtype(constant.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(constant) if is_key else constant)
    return f"{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


def inner_programs(jaxpr):
    """All programs, closed ones, that are parts of one."""
    for equation in jaxpr.eqns:
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                closed = part if hasattr(part, "consts") else ClosedJaxpr(part, ())
                yield closed
                yield from inner_programs(closed.jaxpr)

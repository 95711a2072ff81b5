"""The dropout of a program that exists, drawn by jdrop: its Bernoulli draws are found in its jaxpr and replaced."""

import dataclasses
import functools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from jdrop._checks import at_least_float32
from jdrop._compat import place_of
from jdrop.masks import keep_mask


@dataclasses.dataclass(frozen=True)
class Draw:
    """A draw of a program: where, of what shape, and how often a call makes it.

    Attributes:
      place: the names of the modules that it is in, by JAX's name stack.
      line: the line of code that asked for it.
      shape: of the mask.
      times: how often a call of the program draws it; None in a loop of no known length.
      why: why it was left as it was; None for a draw that is jdrop's now.
    """

    place: str
    line: str
    shape: tuple[int, ...]
    times: int | None
    why: str | None = None

    def __str__(self) -> str:
        times = "in a loop" if self.times is None else "once" if self.times == 1 else f"{self.times} times"
        place = " ".join(part for part in (self.place, self.line) if part)
        return f"{self.shape} {times}, {place}{f': {self.why}' if self.why else ''}"


@dataclasses.dataclass
class Report:
    """What the programs that were run draw.

    Attributes:
      draws: what is drawn by jdrop now.
      left: what was left as it was, and why.
    """

    draws: list[Draw] = dataclasses.field(default_factory=list)
    left: list[Draw] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{len(self.draws)} drawn by jdrop"]
        lines += [f"  {draw}" for draw in self.draws]
        lines += [f"{len(self.left)} left as they were"] + [f"  {draw}" for draw in self.left]
        return "\n".join(lines)


class accelerate:
    """Have an existing function draw its dropout masks by jdrop, without a change to its code.

    Every ``jax.random.bernoulli(key, p, shape)`` in the program of `function`, which is what the dropout of Flax,
    Equinox, Haiku and of hand-written code is made of, becomes ``keep_mask(key, shape, 1 - p)``: the same keys and the
    same probabilities, but other masks than before. It is found in what JAX traces: in functions that were jitted
    before, and in scans, loops, branches, `jax.checkpoint`, `jax.custom_jvp` and `jax.shard_map`. Nothing else changes,
    and `function` itself stays as it is. Take gradients inside of it: those that are taken of the result follow rules
    of `jax.custom_jvp` and `jax.custom_vjp` that are no part of the program yet, and these draw as before.

    Args:
      function: a function of arrays and trees of them, such as a train step. If it is jitted so is the result, with the
        same arguments donated; if not, put `jax.jit` around the result, or it is traced at each call.

    Attributes:
      report: what is drawn by jdrop now, where and how often, and what was left as it was, and why, of all calls.

    Raises:
      TypeError: `function` can't be called.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> layer = nn.Dropout(0.5, deterministic=False)
      >>> fast = jdrop.accelerate(lambda key, x: layer.apply({}, x, rngs={"dropout": key}))
      >>> y = fast(jax.random.key(0), jnp.ones((4, 8)))
      >>> len(fast.report.draws)
      1

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"function is {function!r}, but a function is needed: write jdrop.accelerate(train_step).")
        self.function, self.report = function, Report()
        self._programs, self._donated = weakref.WeakKeyDictionary(), {}
        self._jitted = jax.jit(self._run, static_argnums=0, donate_argnums=1)
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        is_array = tuple(isinstance(leaf, jax.Array) or hasattr(leaf, "__array__") for leaf in leaves)
        arrays = [leaf for leaf, array in zip(leaves, is_array) if array]
        call = _Call(tree, is_array, tuple(leaf for leaf, array in zip(leaves, is_array) if not array))
        # A number may be a static argument or not, which a jitted function tells nobody: it is then traced each time.
        if not hasattr(self.function, "trace") or any(isinstance(leaf, (int, float, complex)) for leaf in call.others):
            return self._run(call, [None] * len(arrays), arrays)
        if call not in self._donated:
            info = self.function.trace(*args, **kwargs).args_info
            self._donated[call] = [argument.donated for argument in jax.tree.leaves(info)]
        split = [(leaf, None) if gone else (None, leaf) for leaf, gone in zip(arrays, self._donated[call])]
        return self._jitted(call, *(list(part) for part in zip(*split)) if split else ([], []))

    def _run(self, call, donated, kept):
        """The results of a call whose arrays are in either of two lists."""
        arrays = [first if second is None else second for first, second in zip(donated, kept)]

        def function(arrays):
            args, kwargs = call.arguments(arrays)
            return self.function(*args, **kwargs)

        program, result = jax.make_jaxpr(function, return_shape=True)(arrays)
        jaxpr, draws = self._rewritten(program.jaxpr)
        for draw in _counted(draws):
            known = self.report.draws if draw.why is None else self.report.left
            if draw not in known:
                known.append(draw)
        return jax.tree.unflatten(jax.tree.structure(result), jaxpr_as_fun(ClosedJaxpr(jaxpr, program.consts))(*arrays))

    def _program(self, closed):
        """A part of a program with its draws replaced, and these; each part once, so that JAX knows it again."""
        if closed not in self._programs:
            jaxpr, draws = self._rewritten(closed.jaxpr)
            # Without the part itself, which would never be forgotten then.
            self._programs[closed] = (ClosedJaxpr(jaxpr, closed.consts) if draws else None), draws
        new, draws = self._programs[closed]
        return closed if new is None else new, draws

    def _rewritten(self, jaxpr):
        eqns, draws = [], []
        for eqn in jaxpr.eqns:
            name, inside = eqn.primitive.name, []
            if _is_bernoulli(eqn):
                new, why = _replaced(eqn)
                draws.append(Draw(*place_of(eqn), eqn.outvars[0].aval.shape, 1, why))
                eqns.append(new)
                continue
            if name == "random_bits":
                shape = eqn.outvars[0].aval.shape
                draws.append(Draw(*place_of(eqn), shape, 1, "random numbers that are no Bernoulli draw"))
            params = self._parameters(eqn, inside)
            times = {"scan": eqn.params.get("length"), "while": None}.get(name, 1)
            around = place_of(eqn)[0] if inside else ""
            for draw in inside:
                counted = None if times is None or draw.times is None else times * draw.times
                place = "/".join(part for part in (around, draw.place) if part)
                draws.append(dataclasses.replace(draw, times=counted, place=place))
            eqns.append(eqn.replace(params=params) if inside else eqn)
        return (jaxpr.replace(eqns=eqns) if draws else jaxpr), draws

    def _parameters(self, eqn, draws):
        """The parameters of an operation, with the programs in them rewritten; appends their draws."""
        params = eqn.params
        if eqn.primitive.name != "shard_map":
            return {key: self._parameter(value, draws) for key, value in params.items()}
        made = {}

        def inside():  # where the mesh's axes have names, which a draw in it is traced with
            made["jaxpr"] = self._parameter(params["jaxpr"], draws)

        axes = params.get("newly_manual_axes", params.get("manual_axes"))  # JAX 0.10 and later, and before
        options = {"axis_names": axes, "in_specs": (), "out_specs": None, "check_vma": params["check_vma"]}
        jax.make_jaxpr(jax.shard_map(inside, mesh=params["mesh"], **options))()
        return params | made

    def _parameter(self, value, draws):
        if isinstance(value, ClosedJaxpr):
            value, inside = self._program(value)
            draws += inside
        elif isinstance(value, Jaxpr):
            value, inside = self._rewritten(value)
            draws += inside
        elif isinstance(value, (tuple, list)) and any(isinstance(part, (Jaxpr, ClosedJaxpr)) for part in value):
            value = type(value)(self._parameter(part, draws) for part in value)
        return value


def _counted(draws):
    """Draws of one place and shape as one, as often as all of them."""
    times = {}
    for draw in draws:
        where = dataclasses.replace(draw, times=None)
        before = times.get(where, 0)
        times[where] = None if draw.times is None or before is None else before + draw.times
    return [dataclasses.replace(draw, times=times[draw]) for draw in times]


class _Call(NamedTuple):
    """A call without its arrays."""

    tree: Any
    is_array: tuple[bool, ...]
    others: tuple[Any, ...]

    def arguments(self, arrays):
        arrays, others = iter(arrays), iter(self.others)
        return jax.tree.unflatten(self.tree, [next(arrays) if array else next(others) for array in self.is_array])


def _is_bernoulli(eqn) -> bool:
    """Whether an operation is `jax.random.bernoulli`, or what JAX's partial evaluation left of it, with its key."""
    named = eqn.primitive.name in ("jit", "pjit") and eqn.params.get("name") == "_bernoulli"
    return named and any(_is_key(var) for var in eqn.invars)


def _is_key(var) -> bool:
    return jnp.issubdtype(var.aval.dtype, jax.dtypes.prng_key)


def _replaced(eqn):
    """The draw by `keep_mask`, and why not where it can't be."""
    inner = eqn.params["jaxpr"]
    jaxpr, (place, *others) = inner.jaxpr, [i for i, var in enumerate(eqn.invars) if _is_key(var)]
    random, made = {jaxpr.invars[place]}, {}
    for each in jaxpr.eqns:
        made |= dict.fromkeys(each.outvars, each)
        if any(var in random for var in each.invars if not hasattr(var, "val")):
            random |= set(each.outvars)
    last = made.get(jaxpr.outvars[0])
    if others or len(jaxpr.outvars) > 1 or last is None or last.primitive.name != "lt":
        return eqn, "more than one draw in a bernoulli of JAX, of an unknown version"
    p = last.invars[1]
    if not hasattr(p, "val") and p in random:
        return eqn, "mode='high', a probability finer than jdrop's"
    keys, shape, whole = eqn.invars[place].aval.shape, _shape_a_key(jaxpr), eqn.outvars[0].aval.shape
    mapped = whole[: len(whole) - len(shape or ())]  # by `jax.vmap`: keys, probabilities, or both
    if shape is None or whole != (*mapped, *shape) or keys not in ((), mapped):
        return eqn, f"a mask of shape {whole} from keys of shape {keys}"
    of_probability = jaxpr.replace(eqns=[each for each in jaxpr.eqns if not random & {*each.outvars}], outvars=[p])
    probability = jaxpr_as_fun(ClosedJaxpr(of_probability, inner.consts))

    def draw(*operands):
        (p,) = probability(*operands)
        rate = jnp.clip(1 - p.astype(at_least_float32(p.dtype)), 0, 1)
        rate = jnp.where(jnp.isnan(p), jnp.ones_like(rate), rate)

        def draw(key, rate):
            return keep_mask(key, shape, rate)

        for _ in mapped:
            draw = jax.vmap(draw, (0 if keys else None, 0 if rate.ndim else None))
        return draw(operands[place], rate)

    try:
        program = jax.make_jaxpr(draw)(*(var.aval for var in eqn.invars))
    except Exception as error:  # whatever a transform that is not known here may refuse: the draw stays as it was
        return eqn, f"{type(error).__name__}: {str(error).splitlines()[0]}"
    if program.out_avals != [eqn.outvars[0].aval]:
        return eqn, f"a mask of type {program.out_avals[0]}, where {eqn.outvars[0].aval} was"
    return eqn.replace(params=eqn.params | {"jaxpr": program, "name": "jdrop_bernoulli"}), None


def _shape_a_key(jaxpr):
    """The shape of the bits that a key draws in a program; None where it draws other than once."""
    found = [eqn.params["shape"] for eqn in jaxpr.eqns if eqn.primitive.name == "random_bits"]
    inside = [value.jaxpr for eqn in jaxpr.eqns for value in eqn.params.values() if isinstance(value, ClosedJaxpr)]
    found += [shape for shape in map(_shape_a_key, inside) if shape is not None]
    return found[0] if len(found) == 1 else None

"""The dropout of a program that exists, drawn by jdrop: `jax.random.bernoulli` draws its masks where it is told to."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr

from jdrop._checks import at_least_float32
from jdrop._compat import place_of, replace_in_random
from jdrop.masks import keep_mask


@dataclasses.dataclass(frozen=True)
class Draw:
    """A draw of a program: where, of what shape, and how often a call makes it.

    Attributes:
      place: the names of the modules that it is in, by JAX's name stack.
      line: the line of code that asked for it.
      shape: of the mask.
      times: how often a call of the program draws it; None where that is not known: in a loop of no known length, and
        of what was not given to `accelerate` as a jitted function.
      why: why it was left as it was; None for a draw that is jdrop's now.
    """

    place: str
    line: str
    shape: tuple[int, ...]
    times: int | None
    why: str | None = None

    def __str__(self) -> str:
        times = "" if self.times is None else " once" if self.times == 1 else f" {self.times} times"
        place = " ".join(part for part in (self.place, self.line) if part)
        return f"{self.shape}{times}, {place}{f': {self.why}' if self.why else ''}"


@dataclasses.dataclass(eq=False)
class Report:
    """What the programs that were traced draw.

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

    def _add(self, draw):
        """One of each: a body of a loop is traced more than once, and so are functions of other shapes."""
        known = self.draws if draw.why is None else self.left
        if draw not in known:
            known.append(draw)


HIGH = "mode='high', a probability finer than jdrop's"
NO_BERNOULLI = "random numbers that are no Bernoulli draw"

# Whose report the draws go to; None draws as JAX does. It is part of the key of all of JAX's caches, so that a function
# that was traced outside is traced again inside, and the other way round.
_report = jax.make_user_context()


class accelerate:
    """Have a program that exists draw its dropout masks by jdrop, without a change to its code.

    Every ``jax.random.bernoulli(key, p, shape)``, which is what the dropout of Flax, Equinox, Haiku and of hand-written
    code is made of, becomes ``keep_mask(key, shape, 1 - p)``: the same keys and the same probabilities, but other masks
    than before. Functions that were jitted before are compiled again, and stay what they were outside. Nothing else
    changes. What was compiled ahead of time, by ``lower(...).compile()``, draws as it did.

    Either a function is given, which draws by jdrop at each call, or ``with jdrop.accelerate() as report:`` has all
    that this thread calls in the block do so. Make it once: each one compiles what it calls anew. Take gradients inside
    of it: the backward function of a `jax.custom_vjp` draws as where the gradient is taken.

    Args:
      function: any function, such as a train step, jitted or not; None for a block.

    Attributes:
      report: what is drawn by jdrop now, where and how often, and what was left as it was, and why, of all calls.

    Raises:
      TypeError: `function` can't be called.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> layer = nn.Dropout(0.5, deterministic=False)
      >>> fast = jdrop.accelerate(jax.jit(lambda key, x: layer.apply({}, x, rngs={"dropout": key})))
      >>> y = fast(jax.random.key(0), jnp.ones((4, 8)))
      >>> len(fast.report.draws)
      1
      >>> with jdrop.accelerate() as report:
      ...     z = layer.apply({}, jnp.ones((4, 8)), rngs={"dropout": jax.random.key(0)})
      >>> bool((y == z).all()), len(report.draws)
      (True, 1)

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        if function is not None:
            if not callable(function):
                raise TypeError(
                    f"function is {function!r}, but a function is needed: write jdrop.accelerate(train_step)."
                )
            functools.update_wrapper(self, function)
        self.function: Callable[..., Any] | None = function
        self.report: Report = Report()
        self._traced, self._blocks = Report(), []
        _hook()

    def __enter__(self) -> Report:
        self._blocks.append(_report(self.report))
        self._blocks[-1].__enter__()
        return self.report

    def __exit__(self, *error: Any) -> None:
        self._blocks.pop().__exit__(*error)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.function is None:
            raise TypeError(
                "This accelerate was given no function to call: write jdrop.accelerate(train_step), or call in a "
                "block, with jdrop.accelerate() as report."
            )
        with _report(self._traced):
            result = self.function(*args, **kwargs)
            found = self._traced.draws + self._traced.left
            if found and isinstance(self.function, jax.stages.Wrapped):  # JAX has just traced it, and kept that
                traced = self.function.trace(*args, **kwargs)
                traced = getattr(traced, "traced", traced)  # `nnx.jit` has JAX's in its own
                found = _counted(_drawn(traced.jaxpr.jaxpr))
        self._traced.draws.clear()
        self._traced.left.clear()
        for draw in found:
            self.report._add(draw)
        return result


@functools.cache
def _hook():
    """Have JAX's own draws ask for a report; not at import, which changes nothing of JAX."""
    source_info_util.register_exclusion(__file__)
    replace_in_random("_bernoulli", _bernoulli)
    replace_in_random("_random_bits", _random_bits)


def _random_bits(original):
    def random_bits(key, bit_width, shape):
        if (report := _report.value) is not None:
            report._add(Draw(*place_of(source_info_util.current()), tuple(shape), None, NO_BERNOULLI))
        return original(key, bit_width, shape)

    return random_bits


def _bernoulli(original):
    def bernoulli(key, p, shape, mode):
        if (report := _report.value) is None:
            return original(key, p, shape=shape, mode=mode)
        whole = np.shape(p) if shape is None else tuple(shape)
        with _report(None):
            report._add(Draw(*place_of(source_info_util.current()), whole, None, HIGH if mode == "high" else None))
            return original(key, p, shape=shape, mode=mode) if mode == "high" else jdrop_bernoulli(key, p, whole)

    return bernoulli


@functools.partial(jax.jit, static_argnames="shape")
def jdrop_bernoulli(key, p, shape):
    rate = jnp.clip(1 - p.astype(at_least_float32(p.dtype)), 0, 1)
    return keep_mask(key, shape, jnp.where(jnp.isnan(p), jnp.ones_like(rate), rate))


def _drawn(jaxpr):
    """The draws of a program, in their order."""
    draws = []
    for eqn in jaxpr.eqns:
        name, called = eqn.primitive.name, eqn.params.get("name")
        place = place_of(eqn.source_info)
        if name == "random_bits":
            draws.append(Draw(*place, eqn.outvars[0].aval.shape, 1, NO_BERNOULLI))
        elif called in ("_bernoulli", "jdrop_bernoulli") and _has_key(eqn):
            why = None if called == "jdrop_bernoulli" else HIGH
            draws.append(Draw(*place, eqn.outvars[0].aval.shape, 1, why))
        else:
            times = {"scan": eqn.params.get("length"), "while": None}.get(name, 1)
            for draw in itertools.chain(*map(_drawn, _programs(eqn.params))):
                counted = None if times is None or draw.times is None else times * draw.times
                around = "/".join(part for part in (place[0], draw.place) if part)
                draws.append(dataclasses.replace(draw, times=counted, place=around))
    return draws


def _has_key(eqn) -> bool:
    """Whether an operation is the draw itself, not what the partial evaluation of a gradient left of one."""
    return any(jnp.issubdtype(var.aval.dtype, jax.dtypes.prng_key) for var in eqn.invars)


def _programs(params):
    for value in jax.tree.leaves(params, is_leaf=lambda each: isinstance(each, (Jaxpr, ClosedJaxpr))):
        if isinstance(value, (Jaxpr, ClosedJaxpr)):
            yield getattr(value, "jaxpr", value)


def _counted(draws):
    """Draws of one place and shape as one, as often as all of them."""
    times = {}
    for draw in draws:
        where = dataclasses.replace(draw, times=None)
        before = times.get(where, 0)
        times[where] = None if draw.times is None or before is None else before + draw.times
    return [dataclasses.replace(draw, times=times[draw]) for draw in times]

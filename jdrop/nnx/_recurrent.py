"""Dropout for Flax NNX's recurrent cells."""

import inspect
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

from jdrop._checks import as_bool, as_flag
from jdrop._compat import in_a_table
from jdrop._flax.cells import (
    DropoutCarry,
    advance,
    begin,
    check_carry,
    drop_state,
    innermost,
    mask_key,
    nested,
    part_names,
    part_rates,
    unread,
    zone,
)
from jdrop._types import Flag
from jdrop.functional._dropout import draws, dropout
from jdrop.nnx._dropout import stream


class _Wrapper(nnx.RNNCellBase):
    """A cell around a cell."""

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        deterministic: Flag | None,
        rng_collection: str,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None,
    ) -> None:
        if isinstance(cell, _Wrapper) and not (isinstance(self, Zoneout) and isinstance(cell, RecurrentDropout)):
            raise nested(self, cell)
        rngs = stream(rngs, rng_collection)
        self.cell = cell
        self.deterministic: Any = deterministic
        self.rng_collection = rng_collection
        self.rngs: Any = rngs.fork() if isinstance(rngs, nnx.RngStream) else nnx.data(rngs)

    @property
    def num_feature_axes(self) -> int:
        return self.cell.num_feature_axes

    def initialize_carry(self, input_shape: Sequence[int], rngs: Any = None, carry_init: Any = None) -> DropoutCarry:
        """The wrapped cell's first carry, and the keys of the masks from the module's stream unless deterministic.

        Args:
          input_shape: shape of the input of one step.
          rngs: a stream for the wrapped cell's carry; the masks do not come from it.
          carry_init: an initializer of the wrapped cell's carry.
        """
        cell = self.cell.initialize_carry(tuple(input_shape), rngs, carry_init)
        idle = self.rngs is None or (self.deterministic is not None and as_flag(self.deterministic) is True)
        key = None if idle else self.rngs() if isinstance(self.rngs, nnx.RngStream) else self.rngs
        return begin(cell, key, self._names(cell), tuple(input_shape[: -self.num_feature_axes]))

    def set_view(self, deterministic: bool | None = None) -> None:
        """What `nnx.view` sets.

        Args:
          deterministic: True at evaluation; None leaves it as it is.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    def _names(self, state) -> Sequence[str]:
        """The names of the masks: one for each part of the state, where a wrapper has no others."""
        return part_names(innermost(state))

    def _flag(self, deterministic) -> Any:
        deterministic = self.deterministic if deterministic is None else deterministic
        if deterministic is None:
            raise ValueError(
                f"No `deterministic` argument was provided to {type(self).__name__}: pass it to the constructor or to "
                "the call, or set it with model.train(), model.eval() or nnx.view."
            )
        return deterministic

    def _check(self, carry, rates, deterministic):
        name = type(self).__name__
        check_carry(name, carry, self._names(getattr(carry, "cell", None)))
        if carry.keys is None and any(draws(rate, deterministic) for rate in rates):
            raise ValueError(
                f"`deterministic` is False, but {name} had no `rngs` or was deterministic when its carry was made: "
                f"give its constructor rngs=nnx.Rngs({self.rng_collection}=0) and make the carry in training mode, or "
                "pass deterministic=True."
            )


class RecurrentDropout(_Wrapper):
    """A recurrent cell whose inputs and recurrent state are dropped, by the same masks at all time steps.

    ``c_t, h_t = cell((c_{t-1}, m_h * h_{t-1}), m_x * x_t)`` with ``m = keep / (1 - rate)`` drawn once a sequence. The
    memory c of an LSTM is not dropped; nor is the path on which a cell of one state (GRU, a residual one) hands h on:
    there ``m_h * h`` is what its layers are called with. At evaluation it is the cell.

    The wrapper goes where the cell went, ``nnx.RNN(RecurrentDropout(cell, 0.25, rngs=rngs))``. The keys are drawn where
    the carry is made, before the loop over time, and travel in the carry, whose `cell` is the wrapped cell's.

    Args:
      cell: a `flax.nnx.RNNCellBase`.
      rate: the probability that an element of the inputs is dropped, in [0, 1].
      recurrent_rate: that of the recurrent state; None takes `rate`.
      fresh: True draws new masks at each step.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Raises:
      ValueError: `rngs` has neither the named stream nor a default, or none came where one is needed; a cell of one
        state that calls no layer with it.
      TypeError: a carry that another cell made; a cell that is wrapped already; `rngs` is neither an Rngs, a stream,
        a key nor None.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> rnn = nnx.RNN(jdrop.nnx.RecurrentDropout(nnx.GRUCell(3, 4, rngs=rngs), 0.25, 0.5, rngs=rngs))
      >>> rnn(jnp.ones((2, 10, 3))).shape
      (2, 10, 4)

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        rate: ArrayLike,
        recurrent_rate: ArrayLike | None = None,
        *,
        fresh: bool = False,
        deterministic: Flag | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(cell, deterministic, rng_collection, rngs)
        self.rate: ArrayLike = rate
        self.recurrent_rate: ArrayLike = rate if recurrent_rate is None else recurrent_rate
        self.fresh: bool = as_bool("fresh", fresh)

    def _names(self, state):
        return ("inputs", "recurrent")

    def __call__(self, carry: Any, inputs: Any, *, deterministic: Flag | None = None) -> tuple[DropoutCarry, jax.Array]:
        """Make one step.

        Args:
          carry: that of `initialize_carry` or of the step before.
          inputs: the input of one step.
          deterministic: True at evaluation; goes before the module's own.

        Returns:
          The new carry and the output.
        """
        deterministic = self._flag(deterministic)
        self._check(carry, (self.rate, self.recurrent_rate), deterministic)
        inputs = dropout(mask_key(carry, "inputs", self.fresh), inputs, self.rate, deterministic)  # pyright: ignore
        key = mask_key(carry, "recurrent", self.fresh)
        state, read = drop_state(key, carry.cell, self.recurrent_rate, deterministic)
        cell = self.cell if read is None else _reading(self.cell, state, read)
        cell, output = cell(state, inputs)
        return advance(carry, cell), output


def _reading(cell, state, dropped):
    """A view of `cell` in which the layers that are called with the state read the dropped one."""
    (h,), found = jax.tree.leaves(state), []

    def read(value):
        return dropped if value is h else value

    def reader(kind):
        def __call__(self, *args, **kwargs):
            if any(value is h for value in (*args, *kwargs.values())):
                found.append(self)
                args, kwargs = [read(value) for value in args], {name: read(value) for name, value in kwargs.items()}
            return kind.__call__(self, *args, **kwargs)

        return type(kind.__name__, (kind,), {"__call__": __call__})

    view = nnx.recursive_map(lambda path, node: node, cell)  # the same variables in other modules
    for path, module in nnx.iter_modules(view):
        if path and not isinstance(module, nnx.RNNCellBase) and callable(module):
            module.__class__ = reader(type(module))

    call = type(view).__call__
    if in_a_table(cell):  # jitted, so that no array in it is the state itself
        call = inspect.unwrap(call)

    def step(state, inputs):
        result = call(view, state, inputs)
        if not found:
            raise unread(cell)
        return result

    return step


class Zoneout(_Wrapper):
    """A recurrent cell in which each unit of the state keeps its previous value with probability `rate`.

    ``h_t = new_t where keep else h_{t-1}``, with new masks at each step; at evaluation the expectation,
    ``(1 - rate) * new_t + rate * h_{t-1}``. The output of the cell, a part of its state, follows.

    The wrapper goes where the cell went, ``nnx.RNN(Zoneout(cell, (0.5, 0.05), rngs=rngs))``. The keys are drawn where
    the carry is made, before the loop over time, and travel in the carry, whose `cell` is the wrapped cell's.

    Args:
      cell: a `flax.nnx.RNNCellBase` whose output is a part of its new carry, as in all of Flax's; or a
        `RecurrentDropout` around one.
      rate: the probability that a unit keeps its previous value, in [0, 1]; one for all parts of the carry, or one for
        each in its order, (c, h) for an LSTM.
      deterministic: True at evaluation; `model.train()` and `model.eval()` set it.
      rng_collection: name of the random stream, "dropout".
      rngs: an `nnx.Rngs` or `nnx.RngStream` that the module forks its own stream from.

    Raises:
      ValueError: `rngs` has neither the named stream nor a default, or none came where one is needed; a wrong number of
        rates; an output that is no part of the carry.
      TypeError: a carry that another cell made; a cell that is wrapped already; `rngs` is neither an Rngs, a stream,
        a key nor None.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> from flax import nnx
      >>> rngs = nnx.Rngs(0)
      >>> rnn = nnx.RNN(jdrop.nnx.Zoneout(nnx.LSTMCell(3, 4, rngs=rngs), (0.5, 0.05), rngs=rngs))
      >>> rnn(jnp.ones((2, 10, 3))).shape
      (2, 10, 4)

    Paper:
      Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations".
    """

    def __init__(
        self,
        cell: nnx.RNNCellBase,
        rate: ArrayLike | Sequence[ArrayLike],
        *,
        deterministic: Flag | None = False,
        rng_collection: str = "dropout",
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> None:
        super().__init__(cell, deterministic, rng_collection, rngs)
        self.rate: ArrayLike | Sequence[ArrayLike] = tuple(rate) if isinstance(rate, list) else rate

    def __call__(self, carry: Any, inputs: Any, *, deterministic: Flag | None = None) -> tuple[DropoutCarry, jax.Array]:
        """Make one step.

        Args:
          carry: that of `initialize_carry` or of the step before.
          inputs: the input of one step.
          deterministic: True at evaluation; goes before the module's own.

        Returns:
          The new carry and the output.
        """
        deterministic = self._flag(deterministic)
        rates = part_rates(self.rate, innermost(carry))
        self._check(carry, rates, deterministic)
        new, output = self.cell(carry.cell, inputs)
        cell, output = zone(self.cell, carry, new, output, rates, deterministic)
        return advance(carry, cell), output

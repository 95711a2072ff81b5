"""Dropout for Flax Linen's recurrent cells."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from jdrop._checks import as_bool
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
from jdrop.linen._dropout import MissingStreamError, stream_of


class _Wrapper(nn.RNNCellBase):
    """A cell around a cell, with its parameters in the same place of the tree as without it."""

    def setup(self) -> None:
        cell = self.cell
        if isinstance(cell, _Wrapper):
            if not (isinstance(self, Zoneout) and isinstance(cell, RecurrentDropout)):
                raise nested(self, cell)
            _ = cell.num_feature_axes  # reading it sets the wrapper up, which binds its own cell
            cell = cell.cell
        nn.share_scope(self, cell)

    @property
    def num_feature_axes(self) -> int:
        return self.cell.num_feature_axes

    def initialize_carry(self, rng: jax.Array, input_shape: Sequence[int]) -> DropoutCarry:
        """The wrapped cell's first carry, and the keys of the masks where the module has its stream.

        Args:
          rng: a key for the wrapped cell's carry; the masks do not come from it.
          input_shape: shape of the input of one step.
        """
        cell = self.cell.initialize_carry(rng, input_shape)
        name = stream_of(self)
        key = None if name is None else self.make_rng(name)
        return begin(cell, key, self._names(cell), tuple(input_shape[: -self.num_feature_axes]))

    @nn.nowrap
    def _names(self, state):
        """The names of the masks: one for each part of the state, where a wrapper has no others."""
        return part_names(innermost(state))

    @nn.nowrap
    def _check(self, carry, rates, deterministic):
        name = type(self).__name__
        check_carry(name, carry, self._names(getattr(carry, "cell", None)))
        if carry.keys is None and any(draws(rate, deterministic) for rate in rates):
            raise MissingStreamError(
                f"{name} at {'/'.join(self.path) or 'the top'} draws from the random stream {self.rng_collection!r}, "
                "which was not there when its carry was made: pass "
                f"rngs={{{self.rng_collection!r}: key}} to apply (to init: as a dict beside 'params'), or "
                "deterministic=True. Outside of a model make the carry with cell.apply({}, rng, input_shape, "
                f"method='initialize_carry', rngs={{{self.rng_collection!r}: key}})."
            )


class RecurrentDropout(_Wrapper):
    """A recurrent cell whose inputs and recurrent state are dropped, by the same masks at all time steps.

    ``c_t, h_t = cell((c_{t-1}, m_h * h_{t-1}), m_x * x_t)`` with ``m = keep / (1 - rate)`` drawn once a sequence. The
    memory c of an LSTM is not dropped; nor is the path on which a cell of one state (GRU, MGU, a residual one) hands
    h on: there ``m_h * h`` is what its layers are called with. At evaluation it is the cell.

    The wrapper goes where the cell went, with the same parameters:
    ``nn.RNN(RecurrentDropout(nn.LSTMCell(64), 0.25, deterministic=not train))``. `split_rngs` need not name its stream:
    the keys are drawn before the loop over time, and travel in the carry, whose `cell` is the wrapped cell's.

    Attributes:
      cell: a `flax.linen.RNNCellBase`.
      rate: the probability that an element of the inputs is dropped, in [0, 1].
      recurrent_rate: that of the recurrent state; None takes `rate`.
      fresh: True draws new masks at each step.
      deterministic: True at evaluation; give it here (in `nn.RNN`) or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Raises:
      ValueError: `deterministic` missing or given twice; a cell of one state that calls no layer with it.
      TypeError: a carry that another cell made; a cell that is wrapped already.
      MissingStreamError: the stream was not passed where the carry was made.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> cell = jdrop.linen.RecurrentDropout(nn.GRUCell(4), 0.25, 0.5, deterministic=False)
      >>> rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
      >>> y, variables = nn.RNN(cell).init_with_output(rngs, jnp.ones((2, 10, 3)))
      >>> y.shape
      (2, 10, 4)

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """

    cell: nn.RNNCellBase
    rate: float
    recurrent_rate: float | None = None
    fresh: bool = False
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    @nn.nowrap
    def _names(self, state):
        return ("inputs", "recurrent")

    def __call__(self, carry: Any, inputs: Any, deterministic: Flag | None = None) -> tuple[DropoutCarry, jax.Array]:
        """Make one step.

        Args:
          carry: that of `initialize_carry` or of the step before.
          inputs: the input of one step.
          deterministic: True at evaluation; a boolean, traced or not.

        Returns:
          The new carry and the output.
        """
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        recurrent_rate = self.rate if self.recurrent_rate is None else self.recurrent_rate
        as_bool("fresh", self.fresh)
        self._check(carry, (self.rate, recurrent_rate), deterministic)
        inputs = dropout(mask_key(carry, "inputs", self.fresh), inputs, self.rate, deterministic)
        key = mask_key(carry, "recurrent", self.fresh)
        state, read = drop_state(key, carry.cell, recurrent_rate, deterministic)
        if read is None:
            cell, output = self.cell(state, inputs)
        else:
            reader = _Reader(state, read)
            with nn.intercept_methods(reader):
                cell, output = self.cell(state, inputs)
            if not reader.found:
                raise unread(self.cell)
        return advance(carry, cell), output


class _Reader:
    """Let a cell's layers read the dropped state where they are called with the state."""

    def __init__(self, state, dropped):
        (self.h,), self.dropped, self.found = jax.tree.leaves(state), dropped, False

    def __call__(self, next_fun, args, kwargs, context):
        is_read = any(value is self.h for value in (*args, *kwargs.values()))
        if is_read and not isinstance(context.module, nn.RNNCellBase):
            self.found, args = True, [self._read(value) for value in args]
            kwargs = {name: self._read(value) for name, value in kwargs.items()}
        return next_fun(*args, **kwargs)

    def _read(self, value):
        return self.dropped if value is self.h else value


class Zoneout(_Wrapper):
    """A recurrent cell in which each unit of the state keeps its previous value with probability `rate`.

    ``h_t = new_t where keep else h_{t-1}``, with new masks at each step; at evaluation the expectation,
    ``(1 - rate) * new_t + rate * h_{t-1}``. The output of the cell, a part of its state, follows.

    The wrapper goes where the cell went, with the same parameters:
    ``nn.RNN(Zoneout(nn.LSTMCell(64), (0.5, 0.05), deterministic=not train))``. `split_rngs` need not name its stream:
    the keys are drawn before the loop over time, and travel in the carry, whose `cell` is the wrapped cell's.

    Attributes:
      cell: a `flax.linen.RNNCellBase` whose output is a part of its new carry, as in all of Flax's; or a
        `RecurrentDropout` around one.
      rate: the probability that a unit keeps its previous value, in [0, 1]; one for all parts of the carry, or one for
        each in its order, (c, h) for an LSTM.
      deterministic: True at evaluation; give it here (in `nn.RNN`) or at the call, not both.
      rng_collection: name of the random stream, "dropout".

    Raises:
      ValueError: `deterministic` missing or given twice; a wrong number of rates; an output that is no part of the
        carry.
      TypeError: a carry that another cell made; a cell that is wrapped already.
      MissingStreamError: the stream was not passed where the carry was made.

    Example:
      >>> import flax.linen as nn, jax, jax.numpy as jnp, jdrop
      >>> cell = jdrop.linen.Zoneout(nn.LSTMCell(4), (0.5, 0.05), deterministic=False)
      >>> rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
      >>> y, variables = nn.RNN(cell).init_with_output(rngs, jnp.ones((2, 10, 3)))
      >>> y.shape
      (2, 10, 4)

    Paper:
      Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations".
    """

    cell: nn.RNNCellBase
    rate: float | tuple[float, ...]
    deterministic: bool | None = None
    rng_collection: str = "dropout"

    def __call__(self, carry: Any, inputs: Any, deterministic: Flag | None = None) -> tuple[DropoutCarry, jax.Array]:
        """Make one step.

        Args:
          carry: that of `initialize_carry` or of the step before.
          inputs: the input of one step.
          deterministic: True at evaluation; a boolean, traced or not.

        Returns:
          The new carry and the output.
        """
        deterministic = nn.merge_param("deterministic", self.deterministic, deterministic)
        rates = part_rates(self.rate, innermost(carry))
        self._check(carry, rates, deterministic)
        new, output = self.cell(carry.cell, inputs)
        cell, output = zone(self.cell, carry, new, output, rates, deterministic)
        return advance(carry, cell), output

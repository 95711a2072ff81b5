"""Dropout for recurrent networks: one mask for all time steps, and zoneout."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jdrop._checks import at_least_float32, to_array
from jdrop._keys import used_once
from jdrop._types import Flag, Scaling
from jdrop.functional._dropout import draws, dropout
from jdrop.masks._shape import as_shape


def variational_mask(
    key: jax.Array | None,
    shape: Sequence[int],
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    dtype: DTypeLike = jnp.float32,
    scaling: Scaling = "inverted",
) -> jax.Array:
    """Draw one multiplicative mask, to be used at every time step of a sequence.

    ``m = keep_mask(key, shape, rate) / (1 - rate)``, and ``h_t = cell(m_x * x_t, m_h * h_{t-1})`` for all t with the
    same m_x and m_h. It is ``dropout(key, ones, rate)``; at evaluation it is 1 (``1 - rate`` with classic scaling).

    Args:
      key: a PRNG key, shape (); of its own for the inputs and for the recurrent state.
      shape: that of one time step, such as (batch, features).
      rate: the probability that a unit is dropped, in [0, 1]; a number or an array, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      dtype: a floating-point or complex dtype.
      scaling: "inverted", "classic" or "none", as in `jdrop.dropout`.

    Returns:
      An array of that shape. Unlike `jdrop.dropout` the product with it lets a NaN in a dropped element pass.

    Raises:
      TypeError: no key where one is needed, an integer dtype, a rate or flag of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, an unknown `scaling`, an array of keys.

    Example:
      >>> import jax, jdrop
      >>> mask = jdrop.variational_mask(jax.random.key(0), (2, 3), 0.5)
      >>> set(mask.ravel().tolist()) <= {0.0, 2.0}
      True

    Paper:
      Gal & Ghahramani 2016, "A theoretically grounded application of dropout in recurrent neural networks".
    """
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype is {dtype!r}, but a floating-point type is needed: write dtype=jnp.float32.") from None
    if not jnp.issubdtype(kind, jnp.inexact):
        raise TypeError(f"dtype is {kind}, but a mask is 0 or 1 / (1 - rate): write dtype=jnp.float32.")
    return dropout(key, jnp.ones(as_shape(shape), kind), rate, deterministic, scaling=scaling)


def zoneout(
    key: jax.Array | None, new: ArrayLike, previous: ArrayLike, rate: ArrayLike, deterministic: Flag = False
) -> jax.Array:
    """Keep the previous value of each unit of a recurrent state with probability `rate`.

    ``h_t = new where keep_mask(key, new.shape, rate) else previous``; at evaluation its expectation,
    ``h_t = (1 - rate) * new + rate * previous``.

    Args:
      key: a PRNG key, shape (); of its own for each time step. May be None where nothing is drawn.
      new: the state that the cell computed, a floating-point or complex array of any shape.
      previous: the state before, of the same shape and dtype.
      rate: the probability that a unit keeps its previous value, in [0, 1]; a number or an array, traced or not. It
        gets no gradient, at evaluation neither.
      deterministic: True at evaluation; a boolean, traced or not.

    Returns:
      An array of the shape and dtype of `new`.

    Raises:
      TypeError: no key where one is needed, integer states, a rate or flag of a wrong type.
      ValueError: states that differ in shape or dtype, a concrete rate outside [0, 1] or NaN.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> h = jdrop.zoneout(jax.random.key(0), jnp.ones((2, 3)), jnp.zeros((2, 3)), 0.5)
      >>> set(h.ravel().tolist()) <= {0.0, 1.0}
      True

    Paper:
      Krueger et al. 2017, "Zoneout: regularizing RNNs by randomly preserving hidden activations".
    """
    new, previous = jnp.asarray(to_array("new", new)), jnp.asarray(to_array("previous", previous))
    if not jnp.issubdtype(new.dtype, jnp.inexact):
        raise TypeError(f"new has dtype {new.dtype}, but a state of floating-point or complex numbers is needed.")
    if new.shape != previous.shape or new.dtype != previous.dtype:
        raise ValueError(
            f"new is {new.dtype}{list(new.shape)} and previous is {previous.dtype}{list(previous.shape)}, but zoneout "
            "chooses between the same units: give both the same shape and dtype."
        )

    if draws(rate, deterministic):
        key = used_once(key)

    # Without the checkpoint a loop over time would keep the masks of all its steps for the backward pass.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def choose(new, previous):
        # 0 or 1 while training, the probability to take the new value at evaluation, NaN for an invalid traced rate.
        share = dropout(key, jnp.ones(new.shape, at_least_float32(new.dtype)), rate, deterministic, scaling="classic")
        # Chosen, not multiplied, where it is decided: so a NaN in the state that is not taken stays out.
        return jnp.where(share == 1, new, jnp.where(share == 0, previous, _mixed(share, new, previous)))

    return choose(new, previous)


def _mixed(share, new, previous):
    """``share * new + (1 - share) * previous``, rounded to their dtype once."""
    if jnp.iscomplexobj(new):
        return lax.complex(_mixed(share, new.real, previous.real), _mixed(share, new.imag, previous.imag))
    wide = share.dtype
    return (share * new.astype(wide) + (1 - share) * previous.astype(wide)).astype(new.dtype)

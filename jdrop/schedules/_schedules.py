"""Curriculum, early and late dropout."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_bool, as_known, as_size


def curriculum(rate: float, speed: float) -> Callable[[ArrayLike], jax.Array]:
    """A rate that rises from 0 to `rate`, first fast and then ever slower: the task gets harder.

    ``rate * (1 - exp(-speed * step))``

    Args:
      rate: the last rate, in [0, 1].
      speed: above 0; the paper's is 10 over the number of steps of the training.

    Returns:
      A function of the step, a number or an array, that returns the rate in float32.

    Raises:
      TypeError: an argument that is no number.
      ValueError: a rate outside [0, 1], a speed that is not above 0.

    Example:
      >>> import jdrop
      >>> float(jdrop.schedules.curriculum(0.5, 10 / 1000)(0))
      0.0

    Paper:
      Morerio et al. 2017, "Curriculum dropout".
    """
    rate = as_known("rate", rate, 0, 1, "rate=0.5")
    speed = as_known("speed", speed, 1e-30, 1e30, "speed=10 / steps")
    return lambda step: jnp.float32(rate) * -jnp.expm1(-jnp.float32(speed) * jnp.asarray(step, jnp.float32))


def early(rate: float, steps: int, *, decay: bool = False) -> Callable[[ArrayLike], jax.Array]:
    """A rate for the first steps only, against underfitting.

    ``rate if step < steps else 0``, or with `decay` ``rate * max(0, 1 - step / steps)``.

    Args:
      rate: the first rate, in [0, 1].
      steps: how many steps have dropout, at least 1.
      decay: whether the rate falls linearly to 0 over them.

    Returns:
      A function of the step, a number or an array, that returns the rate in float32.

    Raises:
      TypeError: an argument of a wrong type.
      ValueError: a rate outside [0, 1], fewer than one step.

    Example:
      >>> import jdrop
      >>> schedule = jdrop.schedules.early(0.5, 100)
      >>> float(schedule(99)), float(schedule(100))
      (0.5, 0.0)

    Paper:
      Liu et al. 2023, "Dropout reduces underfitting".
    """
    rate, steps, decay = (
        as_known("rate", rate, 0, 1, "rate=0.5"),
        as_size("steps", steps, write=1000),
        as_bool("decay", decay),
    )
    if decay:
        return lambda step: jnp.float32(rate) * jnp.clip(1 - jnp.asarray(step, jnp.float32) / steps, 0, 1)
    return lambda step: jnp.where(jnp.asarray(step) < steps, jnp.float32(rate), jnp.float32(0))


def late(rate: float, start: int) -> Callable[[ArrayLike], jax.Array]:
    """A rate for the last steps only, against overfitting.

    ``0 if step < start else rate``

    Args:
      rate: the last rate, in [0, 1].
      start: the first step with dropout, at least 0.

    Returns:
      A function of the step, a number or an array, that returns the rate in float32.

    Raises:
      TypeError: an argument of a wrong type.
      ValueError: a rate outside [0, 1], a negative start.

    Example:
      >>> import jdrop
      >>> schedule = jdrop.schedules.late(0.5, 100)
      >>> float(schedule(99)), float(schedule(100))
      (0.0, 0.5)

    Paper:
      Liu et al. 2023, "Dropout reduces underfitting".
    """
    rate, start = as_known("rate", rate, 0, 1, "rate=0.5"), as_size("start", start, 0, write=1000)
    return lambda step: jnp.where(jnp.asarray(step) < start, jnp.float32(0), jnp.float32(rate))

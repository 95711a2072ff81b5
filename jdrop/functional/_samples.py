"""Several masks for one input: multi-sample dropout, and the loss that has two passes agree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_flag, as_real, as_size, at_least_float32, check_callable
from jdrop._keys import fold_in
from jdrop._types import Flag
from jdrop.functional._dropout import as_input, draws, dropout


def multi_sample_dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    head: Callable[[jax.Array], Any],
    num_samples: int = 8,
) -> Any:
    """The outputs of a network's last part for several masks of its input, of which the loss is the mean.

    ``y[i] = head(dropout(fold_in(key, i), x, rate))`` for i < `num_samples`; ``y = head(x)[None]`` at evaluation. The
    part before is computed once.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn.
      x: a floating-point or complex array of any shape, the features.
      rate: the probability that an element is dropped, in [0, 1]; a number or an array, traced or not.
      deterministic: True at evaluation; a boolean, traced or not.
      head: the last part, a function of an array like `x`; all samples share its parameters.
      num_samples: how many masks, at least 1.

    Returns:
      The outputs of `head`, an array or a tree of them, each with a first axis of `num_samples`; of 1 where
      `deterministic` is known to be True. Take the mean of the loss over it.

    Raises:
      TypeError: integer input, no key where one is needed, a `head` that is no function of one array.
      ValueError: a concrete rate outside [0, 1] or NaN, fewer than one sample.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> x, kernel = jnp.ones((4, 8)), jnp.ones((8, 3))
      >>> jdrop.multi_sample_dropout(jax.random.key(0), x, 0.5, head=lambda x: x @ kernel).shape
      (8, 4, 3)

    Paper:
      Inoue 2019, "Multi-sample dropout for accelerated training and better generalization".
    """
    x, deterministic, count = as_input(x, rate), as_flag(deterministic), as_size("num_samples", num_samples, write=8)
    check_callable("head", head, "(x)")
    if deterministic is True:
        return jax.tree.map(lambda leaf: leaf[None], head(dropout(key, x, rate, True)))

    def one(i):
        drawn = fold_in(key, i) if key is not None and draws(rate, deterministic) else key
        return head(dropout(drawn, x, rate, deterministic))

    return jax.vmap(one)(jnp.arange(count))


def r_drop(logits: ArrayLike, other: ArrayLike) -> jax.Array:
    """How far two passes of a network with dropout differ for each example, to be added to a loss.

    ``0.5 * (KL(p || q) + KL(q || p)) = 0.5 * sum((p - q) * (log p - log q))`` with ``p = softmax(logits)`` and
    ``q = softmax(other)``. The loss is the mean over the examples of
    ``0.5 * (nll(logits) + nll(other)) + strength * r_drop(logits, other)``.

    Args:
      logits: of one pass, a floating-point array of shape (..., classes).
      other: of another pass of the same examples, with another key.

    Returns:
      An array of shape (...,), in nats and at least float32.

    Raises:
      TypeError: arrays that are not of real floating-point numbers.
      ValueError: arrays of different shapes, or without an axis.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.r_drop(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 2.0]])).tolist()
      [0.0]

    Paper:
      Liang et al. 2021, "R-Drop: regularized dropout for neural networks".
    """
    first, second = as_real("logits", logits), as_real("other", other)
    if first.shape != second.shape or not first.ndim:
        raise ValueError(
            f"logits has shape {first.shape} and other {second.shape}, but both need the same (..., classes)."
        )
    dtype = at_least_float32(jnp.promote_types(first.dtype, second.dtype))
    p, q = (jax.nn.log_softmax(array.astype(dtype)) for array in (first, second))
    # A class that both exclude, of logits -inf, says nothing; its difference would be NaN.
    difference = jnp.where(p == q, 0, p - jnp.where(p == q, 0, q))
    return 0.5 * jnp.sum((jnp.exp(p) - jnp.exp(q)) * difference, -1)

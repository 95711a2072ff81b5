"""The rate of dropout, chosen on held-out data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop._checks import as_size, check_callable
from jdrop._keys import as_typed_key, fold_in
from jdrop._types import PyTree
from jdrop.masks._rate import as_rate
from jdrop.mc import metrics


class RateSelection(NamedTuple):
    """The scores of rates, and the best one.

    Attributes:
      rate: the rate of the lowest score, shape (); the first of equal ones.
      rates: all rates, shape (rates,).
      scores: of each, shape (rates,).
    """

    rate: jax.Array
    rates: jax.Array
    scores: jax.Array


def select_rate(
    predict: Callable[..., Any],
    key: jax.Array,
    x: PyTree,
    labels: ArrayLike,
    rates: ArrayLike,
    *,
    num_samples: int | None = 50,
    score: Callable[[Any, Any], Any] = metrics.nll,
    stacked: PyTree | None = None,
) -> RateSelection:
    """Choose a rate by a score on held-out data, all rates in one program.

    ``argmin_r score(mean_i predict(fold_in(key, i), x, r), labels)``. All rates have the same keys, so nested masks.

    Args:
      predict: `(key, x, rate) -> outputs`, a pure function, such as class probabilities; traced once, with a traced
        rate. With `num_samples=None` its key is None: write ``deterministic=key is None``.
      key: a PRNG key, shape ().
      x: held-out inputs, an array or a tree of arrays.
      labels: what `score` compares with, such as integers of shape (n,).
      rates: in [0, 1], shape (rates,), at least one.
      num_samples: how many passes are averaged, at least 1; None makes one without dropout.
      score: `(mean outputs, labels) -> number`, the lower the better, such as `jdrop.mc.metrics.nll` or
        `jdrop.mc.metrics.ece`; it runs outside of the program.
      stacked: a tree of arrays whose first axis is that of `rates`, such as the parameters of a network trained at
        each: `predict` gets its part as a fourth argument.

    Returns:
      A `RateSelection`; `jdrop.mc.plots.rate_curve` draws it.

    Raises:
      TypeError: no key, a `predict` that can't be called so, rates that are no numbers.
      ValueError: a rate outside [0, 1], none at all, a `stacked` array of another first axis, a score that is NaN.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> predict = lambda key, x, rate: jax.nn.softmax(jdrop.dropout(key, x, rate))
      >>> x, labels = 5 * jnp.eye(3), jnp.arange(3)
      >>> float(jdrop.mc.calibration.select_rate(predict, jax.random.key(0), x, labels, [0.0, 0.9]).rate)
      0.0

    Paper:
      Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting", section 7.3.
    """
    check_callable("predict", predict, "key,x,rate" if stacked is None else "key,x,rate,part")
    check_callable("score", score, "outputs,labels")
    key = as_typed_key(key)
    try:
        checked = as_rate(np.asarray(rates) if isinstance(rates, (list, tuple)) else rates)
    except (TypeError, ValueError) as error:
        raise type(error)(f"rates: {error}") from None
    if checked.ndim != 1 or not checked.size:
        raise ValueError(f"rates has shape {checked.shape}, but a list of at least one is needed: [0.1, 0.3, 0.5].")
    for leaf in jax.tree.leaves(stacked):
        if np.shape(leaf)[:1] != checked.shape:
            raise ValueError(
                f"stacked has an array of shape {np.shape(leaf)}, but its first axis must be that of the rates, "
                f"{checked.size}."
            )
    count = None if num_samples is None else as_size("num_samples", num_samples, write=50)

    def one(rate, part):
        given = (x, rate) if stacked is None else (x, rate, part)
        if count is None:
            return predict(None, *given)
        drawn = jax.lax.map(lambda i: predict(fold_in(key, i), *given), jnp.arange(count), batch_size=8)
        return jax.tree.map(lambda leaf: leaf.mean(0), drawn)

    outputs = jax.jit(jax.vmap(one))(jnp.asarray(checked), stacked)
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i], outputs) for i in range(checked.size)]
    scores = jnp.stack([jnp.asarray(score(part, labels), jnp.float32) for part in parts])
    if scores.shape != checked.shape or jnp.isnan(scores).any():
        raise ValueError(f"score gave {scores.tolist()}, but one number that is not NaN is needed for each rate.")
    return RateSelection(jnp.asarray(checked)[jnp.argmin(scores)], jnp.asarray(checked), scores)

"""Monte Carlo dropout over data that come in batches."""

from collections.abc import Iterable, Sized
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from jdrop._keys import as_typed_key, fold_in
from jdrop._types import Predict, PyTree
from jdrop.mc._prediction import MCPrediction, mc_dropout


def mc_dropout_batches(
    predict: Predict,
    key: jax.Array,
    batches: Iterable[PyTree],
    num_samples: int | None = None,
    *,
    progress: bool = True,
    **options: Any,
) -> MCPrediction:
    """Predict with Monte Carlo dropout, batch after batch, for data that do not fit in memory.

    Batch b is ``mc_dropout(predict, fold_in(key, "batch", b), x_b, num_samples, ...)``; only one is on the device.

    Args:
      predict: `(key, x) -> outputs`, as for `jdrop.mc_dropout`.
      key: a PRNG key, shape ().
      batches: an iterable of inputs, whose outputs agree in all but the first axis.
      num_samples: how many passes, at least 1; None takes 100, or with a `tolerance` what each batch needs.
      progress: whether to show a progress bar, on standard error where that is a terminal.
      **options: further arguments of `jdrop.mc_dropout`.

    Returns:
      An `MCPrediction` of NumPy arrays over all inputs; `num_samples` has one number an input with a `tolerance`.

    Raises:
      TypeError, ValueError: as `jdrop.mc_dropout`; ValueError where there is no batch.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> predict = lambda key, x: jdrop.dropout(key, x, 0.5)
      >>> batches = (jnp.ones((n, 3)) for n in (4, 4, 2))
      >>> jdrop.mc.mc_dropout_batches(predict, jax.random.key(0), batches, 10).mean.shape
      (10, 3)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    key, parts = as_typed_key(key), []
    console = Console(stderr=True)
    with Progress(console=console, disable=not (progress and console.is_terminal)) as bar:
        total = len(batches) if isinstance(batches, Sized) else None
        task = bar.add_task("Monte Carlo", total=total)
        for b, x in enumerate(batches):
            part = mc_dropout(predict, fold_in(key, "batch", b), x, num_samples, **options)
            parts.append(part.replace(mean_entropy=jax.tree.map(_each, part.mean, part.mean_entropy)))
            parts[-1] = jax.tree.map(np.asarray, parts[-1])
            bar.advance(task)
    if not parts:
        raise ValueError("batches is empty, but at least one batch of inputs is needed.")
    mean, variance, entropy = (
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *(getattr(part, name) for part in parts))
        for name in ("mean", "variance", "mean_entropy")
    )
    taken = [part.num_samples for part in parts]
    if options.get("tolerance") is None:
        return MCPrediction(mean, variance, entropy, int(taken[0]))
    sizes = [len(jax.tree.leaves(part.mean)[0]) for part in parts]
    return MCPrediction(mean, variance, entropy, np.repeat(taken, sizes))


def _each(mean, entropy):
    """An entropy an input: NaN where an input's output is one number, and no distribution."""
    if mean.ndim == 0:
        raise ValueError(
            "predict returned one number for a batch, but the first axis of its outputs must be the batch's: "
            "return an output an input."
        )
    return np.full(len(mean), np.nan) if mean.ndim == 1 else entropy

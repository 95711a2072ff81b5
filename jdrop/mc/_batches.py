"""Monte Carlo dropout over data that come in batches."""

import warnings
from collections.abc import Iterable, Mapping, Sized
from typing import Any

import jax
import numpy as np

from jdrop._checks import as_bool
from jdrop._keys import as_typed_key, fold_in
from jdrop._progress import is_watched, progress_bar
from jdrop._types import Predict, PyTree
from jdrop.mc._prediction import MCPrediction, has_no_spread, mc_dropout
from jdrop.mc._sampling import check_inputs, warn_if_equal


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

    Batch b is ``mc_dropout(predict, fold_in(key, "batch", b), x_b, num_samples, ...)``; only one is on the device. With
    ``consistent=True`` it is ``mc_dropout(predict, key, x_b, num_samples, consistent=True, ...)``: one mask a sample
    for the examples of all batches, as whatever joins them needs, such as `jdrop.mc.acquisition.batch_bald`.

    Args:
      predict: `(key, x) -> outputs`, as for `jdrop.mc_dropout`.
      key: a PRNG key, shape ().
      batches: an iterable of inputs, arrays or trees of them, whose outputs agree in all but the first axis.
      num_samples: how many passes, at least 1; None takes 100, or with a `tolerance` what each batch needs.
      progress: whether to show a progress bar, on standard error where that is a terminal.
      **options: further arguments of `jdrop.mc_dropout`.

    Returns:
      An `MCPrediction` of NumPy arrays over all inputs; `num_samples` has one number an input with a `tolerance`.

    Raises:
      TypeError, ValueError: as `jdrop.mc_dropout`; TypeError for one array or dict in the place of batches, ValueError
        where there is no batch.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> predict = lambda key, x: jdrop.dropout(key, x, 0.5)
      >>> batches = (jnp.ones((n, 3)) for n in (4, 4, 2))
      >>> jdrop.mc.mc_dropout_batches(predict, jax.random.key(0), batches, 10).mean.shape
      (10, 3)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    key, parts, consistent = as_typed_key(key), [], options.get("consistent", False)
    if hasattr(batches, "shape") or isinstance(batches, (Mapping, str, bytes)) or not isinstance(batches, Iterable):
        raise TypeError(
            f"batches is a {type(batches).__name__}, but an iterable of batches is needed, not one of them: write "
            "[batch], or (x[i : i + 256] for i in range(0, len(x), 256))."
        )
    with progress_bar(as_bool("progress", progress) and is_watched()) as bar:
        total = len(batches) if isinstance(batches, Sized) else None
        task = bar.add_task("Monte Carlo", total=total)
        for b, x in enumerate(batches):
            check_inputs(f"batches[{b}]", x)
            of_batch = key if consistent else fold_in(key, "batch", b)
            with warnings.catch_warnings():  # a batch of padding alone may well have equal samples
                warnings.filterwarnings("ignore", "all .* Monte Carlo samples are equal", UserWarning)
                part = jax.tree.map(np.asarray, mc_dropout(predict, of_batch, x, num_samples, **options))
            parts.append(part.replace(entropies=jax.tree.map(_each, part.mean, part.entropies)))
            bar.advance(task)
    if not parts:
        raise ValueError("batches is empty, but at least one batch of inputs is needed.")
    mean, std, entropies = (
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *(getattr(part, name) for part in parts))
        for name in ("mean", "std", "entropies")
    )
    taken = [part.num_samples for part in parts]
    warn_if_equal(max(taken), has_no_spread(std))
    if options.get("tolerance") is None:
        return MCPrediction(mean, std, int(taken[0]), entropies)
    sizes = [len(jax.tree.leaves(part.mean)[0]) for part in parts]
    return MCPrediction(mean, std, np.repeat(taken, sizes), entropies)


def _each(mean, entropies):
    """An entropy an input: none where an input's output is one number, and no distribution."""
    if mean.ndim == 0:
        raise ValueError(
            "predict returned one number for a batch, but the first axis of its outputs must be the batch's: "
            "return an output an input."
        )
    return jax.tree.map(lambda entropy: np.zeros(len(mean), entropy.dtype) if mean.ndim == 1 else entropy, entropies)

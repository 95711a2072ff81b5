"""What Monte Carlo dropout returns: the predictive distribution's moments and entropies."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jdrop._checks import as_size, is_concrete
from jdrop._compat import zeros_of
from jdrop._types import Predict, PyTree
from jdrop.mc._moments import Entropies, merged, moments_of
from jdrop.mc._sampling import as_arguments, in_chunks, warn_if_equal, warn_if_not_finite
from jdrop.mc.uncertainty._classification import entropy_of

_STEP = 10  # samples after which a tolerance looks at their spread


class MCPrediction(struct.PyTreeNode):
    """The mean and spread of stochastic forward passes.

    Attributes:
      mean: mean over the samples, ``(1/S) sum_i y_i``; the shape (or tree) of one output, at least float32.
      std: standard deviation over the samples, ``sqrt((1/S) sum_i (y_i - mean)**2)``.
      num_samples: the number of samples S.

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """

    mean: Any
    std: Any
    num_samples: Any  # int; of batches with a tolerance, one an input
    entropies: Any  # an `Entropies` for each array of `mean`; read through the properties below

    @property
    def variance(self) -> PyTree:
        """Variance over the samples, ``std**2``; it overflows or vanishes before `std` does."""
        return jax.tree.map(jnp.square, self.std)

    @property
    def standard_error(self) -> PyTree:
        """Standard error of the mean, ``std / sqrt(S - 1)``; NaN for one sample."""

        def error(std):
            count = jnp.asarray(self.num_samples, std.dtype)
            return std / jnp.sqrt(count.reshape(*count.shape, *(1,) * (std.ndim - count.ndim)) - 1)

        return jax.tree.map(error, self.std)

    @property
    def predictive_entropy(self) -> PyTree:
        """Total uncertainty ``H[mean]`` in nats, over the last axis of class probabilities; see `expected_entropy`."""
        return self._read(lambda mean, found: entropy_of(jnp.where(found.known[..., None], mean, 0)))

    @property
    def expected_entropy(self) -> PyTree:
        """Aleatoric uncertainty ``(1/S) sum_i H[y_i]`` in nats, over the last axis of class probabilities.

        NaN where a row's samples are not all probabilities (finite, not negative, and of sum 1 on the last axis).

        Raises:
          ValueError: no row of any output is (NaN instead under a trace).
        """
        return self._read(lambda mean, found: found.expected)

    @property
    def mutual_information(self) -> PyTree:
        """Epistemic uncertainty ``H[mean] - (1/S) sum_i H[y_i]`` in nats, at least 0 (Houlsby et al. 2011).

        See `expected_entropy`.
        """
        return self._read(lambda mean, found: found.information)

    def _read(self, read):
        """What `read(mean, entropies)` gives of each output, NaN where that has no entropy."""

        def is_entropies(node):
            return isinstance(node, Entropies)

        known = [found.known for found in jax.tree.leaves(self.entropies, is_leaf=is_entropies)]
        if all(map(is_concrete, known)) and any(each.size for each in known) and not any(map(np.any, known)):
            raise ValueError(
                "the samples are not probabilities (on the last axis they must be finite, not negative, and sum to 1), "
                "so they have no entropy: pass transform=jax.nn.softmax to mc_dropout if they are logits."
            )

        def of_output(mean, found):
            if is_concrete(found.known) and np.asarray(found.known).all():
                return read(mean, found)
            return jnp.where(found.known, read(mean, found), jnp.nan)

        return jax.tree.map(of_output, self.mean, self.entropies, is_leaf=is_entropies)


def mc_dropout(
    predict: Predict,
    key: jax.Array,
    x: PyTree,
    num_samples: int | None = None,
    *,
    transform: Callable[[Any], Any] | None = None,
    consistent: bool = False,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    tolerance: float | None = None,
    max_samples: int = 10_000,
) -> MCPrediction:
    """Predict with Monte Carlo dropout.

    ``mean = (1/S) sum_i f(predict(fold_in(key, i), x))`` with ``f = transform``, and likewise the variance. The
    moments of one chunk of samples after another are merged, so that memory does not grow with their number. It waits
    for the result, which it looks at to warn.

    Args:
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make;
        see `jdrop.mc.samples` for what it may close over.
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes.
      num_samples: how many passes S, at least 1; None takes 100, or as many as `tolerance` needs.
      transform: a function of each sample, such as `jax.nn.softmax` where the outputs are logits.
      consistent: whether all examples share the masks of a sample, see `jdrop.mc.samples`.
      chunk_size: how many passes run at once, see `jdrop.mc.samples`.
      mesh: a `jax.sharding.Mesh`, see `jdrop.mc.samples`.
      tolerance: takes ten passes after ten others, until the standard error of every mean is at most this; a positive
        number in the unit of the outputs.
      max_samples: how many passes a tolerance takes at most.

    Returns:
      An `MCPrediction`.

    Raises:
      TypeError: no key, or arguments of a wrong type.
      ValueError: a size below 1, a tolerance that is not positive, or beside a number of samples.

    Warns:
      UserWarning: all samples are equal, the outputs are not finite, or `max_samples` end above the tolerance.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> predict = lambda key, x: jdrop.dropout(key, x, 0.5)
      >>> prediction = jdrop.mc_dropout(predict, jax.random.key(0), jnp.ones((2, 3)), transform=jax.nn.softmax)
      >>> prediction.mutual_information.shape
      (2,)

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """
    auto, limit = tolerance is not None, _most_samples(num_samples, tolerance, max_samples)
    predict, key, x, chunk_size, mesh = as_arguments(predict, key, x, consistent, chunk_size, mesh, transform)
    result = _stream(predict, key, x, np.float32(tolerance or 0), limit, chunk_size, mesh, auto)
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves(result)):
        return result if auto else result.replace(num_samples=limit)
    taken = int(result.num_samples)
    result = result.replace(num_samples=taken)
    if tolerance is not None and taken == limit:
        worst = max(float(leaf.max(initial=0)) for leaf in jax.tree.leaves(result.standard_error))
        if worst > tolerance:
            warnings.warn(
                f"{taken} samples leave a standard error of {worst:.3g}, above the tolerance {tolerance}: raise "
                "max_samples or the tolerance.",
                stacklevel=2,
            )
    leaves = [leaf for leaf in jax.tree.leaves(result.std) if leaf.size]
    warn_if_not_finite(all(bool(jnp.isfinite(leaf).all()) for leaf in leaves))
    warn_if_equal(taken, has_no_spread(result.std))
    return result


def has_no_spread(std) -> bool:
    """Whether there are outputs, and all samples of them are equal."""
    leaves = [leaf for leaf in jax.tree.leaves(std) if leaf.size]
    return bool(leaves) and not any(bool((leaf != 0).any()) for leaf in leaves)


def _most_samples(num_samples, tolerance, max_samples):
    """How many passes are made, or with a tolerance at most."""
    if tolerance is None:
        return as_size("num_samples", 100 if num_samples is None else num_samples, write=100, bits=31)
    if num_samples is not None:
        raise ValueError(
            f"num_samples={num_samples!r} and tolerance={tolerance!r} were given, but one of them decides how many "
            "passes are made: write max_samples=... to bound those of a tolerance."
        )
    if not (isinstance(tolerance, (int, float, np.number)) and 0 < tolerance < 1e38):
        raise ValueError(
            f"tolerance is {tolerance!r}, but it bounds the standard error of the mean, in the unit of the outputs: "
            "write tolerance=0.01."
        )
    return as_size("max_samples", max_samples, write=10_000, bits=31)


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _stream(predict, key, x, tolerance, num_samples, chunk_size, mesh, auto):
    """The moments of all samples, a chunk of them after another."""
    step = min(num_samples, _STEP) if auto else num_samples

    def of_all(run, chunk):
        def of_chunk(start, stop):
            indices = start + jnp.arange(chunk, dtype=jnp.uint32)
            return moments_of(run(indices), indices < stop)

        def of_step(start):
            stop = jnp.minimum(start + np.uint32(step), np.uint32(num_samples))
            if chunk >= step:
                return of_chunk(start, stop)
            zero = jax.tree.map(zeros_of, jax.eval_shape(of_chunk, start, stop))
            starts = start + jnp.arange(0, step, chunk, dtype=jnp.uint32)
            return jax.lax.scan(lambda sums, at: (merged(sums, of_chunk(at, stop)), None), zero, starts)[0]

        def goes_on(moments):
            count = moments.count
            bound = tolerance * jnp.sqrt(count * (count - 1))
            precise = jnp.stack([(leaf <= bound).all() for leaf in jax.tree.leaves(moments.root)]).all()
            return (count < num_samples) & ~precise

        moments = of_step(jnp.uint32(0))
        if not auto:
            return moments

        def add(moments):
            return merged(moments, of_step(moments.count.astype(jnp.uint32)))

        return jax.lax.while_loop(goes_on, add, moments)

    moments = in_chunks(of_all, predict, key, x, step, chunk_size, mesh)
    count = moments.count
    mean = jax.tree.map(lambda first, low: first + low, moments.first, moments.low)
    std = jax.tree.map(lambda root: root / jnp.sqrt(count.astype(root.dtype)), moments.root)
    return MCPrediction(mean, std, count.astype(jnp.uint32), moments.entropies)

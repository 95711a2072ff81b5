"""What Monte Carlo dropout returns: the predictive distribution's moments and entropies."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jdrop._checks import as_size, at_least_float32, is_concrete
from jdrop._types import Predict, PyTree
from jdrop.mc._checks import on_simplex
from jdrop.mc._sampling import as_arguments, as_partial, in_chunks, on_mesh, warn_if_equal, warn_if_not_finite
from jdrop.mc.uncertainty import entropy

_STEP = 10  # samples after which a tolerance looks at their spread


class MCPrediction(struct.PyTreeNode):
    """The mean and spread of stochastic forward passes.

    Attributes:
      mean: mean over the samples, ``(1/S) sum_i y_i``; the shape (or tree) of one output, at least float32.
      variance: variance over the samples, ``(1/S) sum_i (y_i - mean)**2``.
      num_samples: the number of samples S.

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """

    mean: Any
    variance: Any
    mean_entropy: Any  # NaN where the outputs are not probabilities; read through `expected_entropy`
    num_samples: Any  # int; of batches with a tolerance, one an input

    @property
    def standard_error(self) -> PyTree:
        """Standard error of the mean, ``sqrt(variance / (S - 1))``; NaN for one sample."""

        def error(variance):
            count = jnp.asarray(self.num_samples, variance.dtype)
            return jnp.sqrt(variance / (count.reshape(*count.shape, *(1,) * (variance.ndim - count.ndim)) - 1))

        return jax.tree.map(error, self.variance)

    @property
    def predictive_entropy(self) -> PyTree:
        """Total uncertainty ``H[mean]`` in nats, over the last axis of class probabilities."""
        return jax.tree.map(
            lambda mean, aleatoric: jnp.where(jnp.isnan(aleatoric), jnp.nan, entropy(mean)),
            self.mean,
            self.expected_entropy,
        )

    @property
    def expected_entropy(self) -> PyTree:
        """Aleatoric uncertainty ``(1/S) sum_i H[y_i]`` in nats, over the last axis of class probabilities.

        Raises:
          ValueError: the outputs are not probabilities (NaN instead under a trace).
        """
        for leaf in jax.tree.leaves(self.mean_entropy):
            if is_concrete(leaf) and bool(jnp.isnan(leaf).any()):
                raise ValueError(
                    "the samples are not probabilities (on the last axis they must be finite, not negative, and sum to "
                    "1), so they have no entropy: pass transform=jax.nn.softmax to mc_dropout if they are logits."
                )
        return self.mean_entropy

    @property
    def mutual_information(self) -> PyTree:
        """Epistemic uncertainty ``H[mean] - (1/S) sum_i H[y_i]`` in nats, never negative (Houlsby et al. 2011)."""
        return jax.tree.map(
            lambda total, aleatoric: jnp.maximum(total - aleatoric, 0), self.predictive_entropy, self.expected_entropy
        )


def mc_dropout(
    predict: Predict,
    key: jax.Array,
    x: PyTree,
    num_samples: int | None = None,
    *,
    transform: Callable[[Any], Any] | None = None,
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
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make.
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes.
      num_samples: how many passes S, at least 1; None takes 100, or as many as `tolerance` needs.
      transform: a function of each sample, such as `jax.nn.softmax` where the outputs are logits.
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
    if transform is not None and not callable(transform):
        raise TypeError(f"transform is {transform!r}, but a function is needed: write transform=jax.nn.softmax.")
    predict, key, chunk_size, mesh = as_arguments(predict, key, chunk_size, mesh)
    auto, limit = tolerance is not None, _most_samples(num_samples, tolerance, max_samples)
    predict = predict if transform is None else jax.tree_util.Partial(_transformed, as_partial(transform), predict)
    result = _stream(predict, key, on_mesh(x, mesh), np.float32(tolerance or 0), limit, chunk_size, mesh, auto)
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
    leaves = [leaf for leaf in jax.tree.leaves(result.variance) if leaf.size]
    warn_if_not_finite(all(bool(jnp.isfinite(leaf).all()) for leaf in leaves))
    warn_if_equal(taken, bool(leaves) and not any(bool((leaf != 0).any()) for leaf in leaves))
    return result


def _most_samples(num_samples, tolerance, max_samples):
    """How many passes are made, or with a tolerance at most."""
    if tolerance is None:
        return as_size("num_samples", 100 if num_samples is None else num_samples, write=100)
    if num_samples is not None:
        raise ValueError(
            f"num_samples={num_samples!r} and tolerance={tolerance!r} were given, but one of them decides how many "
            "passes are made: write max_samples=... to bound those of a tolerance."
        )
    if not (isinstance(tolerance, (int, float, np.number)) and 0 < tolerance < float("inf")):
        raise ValueError(
            f"tolerance is {tolerance!r}, but it bounds the standard error of the mean, in the unit of the outputs: "
            "write tolerance=0.01."
        )
    return as_size("max_samples", max_samples, write=10_000)


def _transformed(transform, predict, key, x):
    return transform(predict(key, x))


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _stream(predict, key, x, tolerance, num_samples, chunk_size, mesh, auto):
    """The moments of all samples, a chunk of them after another."""
    step = min(num_samples, _STEP) if auto else num_samples

    def moments_of(run, chunk):
        def of_chunk(start, stop):
            indices = start + jnp.arange(chunk, dtype=jnp.uint32)
            return _moments(run(indices), indices < stop)

        def of_step(start):
            stop = jnp.minimum(start + np.uint32(step), np.uint32(num_samples))
            if chunk >= step:
                return of_chunk(start, stop)
            zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(of_chunk, start, stop))
            starts = start + jnp.arange(0, step, chunk, dtype=jnp.uint32)
            return jax.lax.scan(lambda sums, at: (_merged(sums, of_chunk(at, stop)), None), zero, starts)[0]

        def goes_on(moments):
            count = moments[0]
            bound = tolerance**2 * count * (count - 1)
            precise = jnp.stack([(leaf <= bound).all() for leaf in jax.tree.leaves(moments[2])]).all()
            return (count < num_samples) & ~precise

        moments = of_step(jnp.uint32(0))
        if not auto:
            return moments

        def add(moments):
            return _merged(moments, of_step(moments[0].astype(jnp.uint32)))

        return jax.lax.while_loop(goes_on, add, moments)

    count, mean, square, aleatoric = in_chunks(moments_of, predict, key, x, step, chunk_size, mesh)
    variance = jax.tree.map(lambda q: q / count.astype(q.dtype), square)
    return MCPrediction(mean, variance, aleatoric, count.astype(jnp.uint32))


def _moments(drawn, taken):
    """(count, means, sums of squared deviations, mean entropies) of those of the samples that are `taken`."""
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(drawn)):
        raise TypeError(
            f"predict returned {jax.tree.map(lambda leaf: leaf.dtype, drawn)}, but mc_dropout averages "
            "floating-point arrays: return these, or draw any outputs with jdrop.mc.samples."
        )
    entropies = jax.tree.map(jax.vmap(_entropy_of_one), drawn)
    drawn = jax.tree.map(lambda leaf: leaf.astype(at_least_float32(leaf.dtype)), drawn)

    def total(leaf):
        return jnp.where(taken.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, jnp.zeros((), leaf.dtype)).sum(0)

    count = taken.sum(dtype=jnp.float32)
    average = functools.partial(jax.tree.map, lambda leaf: total(leaf) / count.astype(leaf.dtype))
    mean = average(drawn)
    return count, mean, jax.tree.map(lambda y, m: total((y - m) ** 2), drawn, mean), average(entropies)


def _merged(these, those):
    """The moments of two sets of samples together (Chan, Golub & LeVeque 1979); the second is not empty."""
    (n, *_), (m, *_) = these, those
    share = m / (n + m)

    def mean(a, b):
        return a + (b - a) * share.astype(a.dtype)

    def square(q, r, a, b):
        return q + r + (b - a) ** 2 * (n * share).astype(q.dtype)

    means, aleatoric = (jax.tree.map(mean, these[i], those[i]) for i in (1, 3))
    return n + m, means, jax.tree.map(square, these[2], those[2], these[1], those[1]), aleatoric


def _entropy_of_one(sample):
    """The entropy over the last axis, NaN where that holds something other than probabilities."""
    tolerance = float(jnp.finfo(sample.dtype).eps) ** 0.5
    sample = sample.astype(at_least_float32(sample.dtype))
    if sample.ndim == 0:
        return jnp.full((), jnp.nan, sample.dtype)
    return jnp.where(on_simplex(sample, tolerance)[..., 0], entropy(sample), jnp.nan)

"""What Monte Carlo dropout returns: the predictive distribution's moments and entropies."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from jdrop.masks.rate import at_least_float32
from jdrop.masks.shape import as_size
from jdrop.mc.checks import on_simplex
from jdrop.mc.sampling import as_arguments, as_partial, chunk_function, on_mesh, warn_if_equal, warn_if_not_finite
from jdrop.mc.uncertainty import entropy

_LEAST = 10  # samples before "auto" trusts their spread


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
    mean_entropy: Any  # NaN where the outputs are no probabilities; read through `expected_entropy`
    num_samples: int | jax.Array

    @property
    def std(self):
        """Standard deviation over the samples."""
        return jax.tree.map(jnp.sqrt, self.variance)

    @property
    def standard_error(self):
        """Standard error of the mean, ``sqrt(variance / (S - 1))``; NaN for one sample."""

        def error(variance):
            count = jnp.asarray(self.num_samples, variance.dtype)
            return jnp.sqrt(variance / (count.reshape(*count.shape, *(1,) * (variance.ndim - count.ndim)) - 1))

        return jax.tree.map(error, self.variance)

    @property
    def predictive_entropy(self):
        """Total uncertainty ``H[mean]`` in nats, over the last axis of class probabilities."""
        return jax.tree.map(
            lambda mean, aleatoric: jnp.where(jnp.isnan(aleatoric), jnp.nan, entropy(mean)),
            self.mean,
            self.expected_entropy,
        )

    @property
    def expected_entropy(self):
        """Aleatoric uncertainty ``(1/S) sum_i H[y_i]`` in nats, over the last axis of class probabilities.

        Raises:
          ValueError: the outputs are no probabilities (NaN instead under a trace).
        """
        for leaf in jax.tree.leaves(self.mean_entropy):
            if not isinstance(leaf, jax.core.Tracer) and bool(jnp.isnan(leaf).any()):
                raise ValueError(
                    "the samples are no probabilities (on the last axis they must be finite, not negative, and sum to "
                    "1), so they have no entropy: pass transform=jax.nn.softmax to mc_dropout if they are logits."
                )
        return self.mean_entropy

    @property
    def mutual_information(self):
        """Epistemic uncertainty ``H[mean] - (1/S) sum_i H[y_i]`` in nats, never negative (Houlsby et al. 2011)."""
        return jax.tree.map(
            lambda total, aleatoric: jnp.maximum(total - aleatoric, 0), self.predictive_entropy, self.expected_entropy
        )


def mc_dropout(
    predict, key, x, num_samples=100, *, transform=None, chunk_size=None, mesh=None, tolerance=None, max_samples=10_000
):
    """Predict with Monte Carlo dropout.

    ``mean = (1/S) sum_i f(predict(fold_in(key, i), x))`` with ``f = transform``, and likewise the variance. The
    samples are summed up one after another (Welford 1962), so that memory does not grow with their number.

    Args:
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make.
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes.
      num_samples: how many passes S, at least 1; or "auto": until the standard error of every mean is at most
        `tolerance` (10 samples at least, `max_samples` at most).
      transform: a function of each sample, such as `jax.nn.softmax` where the outputs are logits.
      chunk_size: how many passes run at once; None takes 50, or as many as keep an operation to 4 MiB. It bounds the
        memory and never changes the result.
      mesh: a `jax.sharding.Mesh`, see `jdrop.mc.samples`.
      tolerance: a positive number in the unit of the outputs, for "auto".
      max_samples: how many passes "auto" takes at most.

    Returns:
      An `MCPrediction`.

    Raises:
      TypeError: no key, or arguments of a wrong type.
      ValueError: a size below 1, a tolerance without "auto" or one that is not positive.

    Warns:
      UserWarning: all samples are equal, the outputs are not finite, or "auto" ended above its tolerance.

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
    auto = isinstance(num_samples, str) and num_samples == "auto"
    limit = as_size("max_samples", max_samples) if auto else as_size("num_samples", num_samples)
    _check_tolerance(auto, tolerance)
    predict = predict if transform is None else jax.tree_util.Partial(_transformed, as_partial(transform), predict)
    result = _stream(predict, key, on_mesh(x, mesh), np.float32(tolerance or 0), limit, chunk_size, mesh, auto)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(result)):
        return result if auto else result.replace(num_samples=limit)
    taken = int(result.num_samples)
    result = result.replace(num_samples=taken)
    if auto and taken == limit:
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


def _check_tolerance(auto, tolerance):
    if auto and not (isinstance(tolerance, (int, float, np.number)) and 0 < tolerance < float("inf")):
        raise ValueError(
            f'tolerance is {tolerance!r}, but num_samples="auto" samples until the standard error of the mean is at '
            "most that: write tolerance=0.01."
        )
    if not auto and tolerance is not None:
        raise ValueError(f'tolerance={tolerance!r} was given with a number of samples: write num_samples="auto".')


def _transformed(transform, predict, key, x):
    return transform(predict(key, x))


@functools.partial(jax.jit, static_argnums=(4, 5, 6, 7))
def _stream(predict, key, x, tolerance, num_samples, chunk_size, mesh, auto):
    """Sum up samples one after another, in the same order whatever the chunk size and mesh."""
    # Two at once at least: XLA would fuse a loop over one with the model, and round otherwise.
    chunk_size = chunk_size and max(2, chunk_size)
    run, chunk = chunk_function(predict, key, x, num_samples, chunk_size, mesh)
    outputs = jax.eval_shape(run, jax.ShapeDtypeStruct((chunk,), jnp.uint32))
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(outputs)):
        raise TypeError(
            f"predict returned {jax.tree.map(lambda leaf: leaf.dtype, outputs)}, but mc_dropout averages "
            "floating-point arrays: return these, or draw any outputs with jdrop.mc.samples."
        )
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[1:], at_least_float32(leaf.dtype)), outputs)
    start = jnp.uint32(0), zero, zero, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[:-1], leaf.dtype), zero)

    def precise(moments):
        if not auto:
            return False
        count = moments[0].astype(jnp.float32)
        bound = tolerance**2 * count * (count - 1)
        within = [(leaf <= bound).all() for leaf in jax.tree.leaves(moments[2])]
        return (moments[0] >= _LEAST) & jnp.stack(within).all()

    def add(moments, drawn):
        (count, mean, square, aleatoric), (sample, entropies) = moments, drawn
        n = (count + np.uint32(1)).astype(jnp.float32)
        sample = jax.tree.map(lambda y, m: y.astype(m.dtype), sample, mean)
        step = jax.tree.map(lambda y, m: y - m, sample, mean)
        mean = jax.tree.map(lambda m, d: m + d / n.astype(m.dtype), mean, step)
        square = jax.tree.map(lambda q, d, y, m: q + d * (y - m), square, step, sample, mean)
        aleatoric = jax.tree.map(lambda h, e: h + (e - h) / n.astype(h.dtype), aleatoric, entropies)
        active = (count < num_samples) & ~jnp.asarray(precise(moments))
        added = count + np.uint32(1), mean, square, aleatoric
        return jax.tree.map(lambda new, old: jnp.where(active, new, old), added, moments), None

    def add_chunk(moments, c):
        drawn = run(c * np.uint32(chunk) + jnp.arange(chunk, dtype=jnp.uint32))
        return jax.lax.scan(add, moments, (drawn, jax.tree.map(jax.vmap(_entropy_of_one), drawn)))

    chunks = np.uint32(-(-num_samples // chunk))
    if auto:
        _, moments = jax.lax.while_loop(
            lambda state: (state[0] < chunks) & ~precise(state[1]),
            lambda state: (state[0] + np.uint32(1), add_chunk(state[1], state[0])[0]),
            (jnp.uint32(0), start),
        )
    else:
        moments, _ = jax.lax.scan(add_chunk, start, jnp.arange(chunks))
    count, mean, square, aleatoric = moments
    return MCPrediction(mean, jax.tree.map(lambda q: q / count.astype(q.dtype), square), aleatoric, count)


def _entropy_of_one(sample):
    """The entropy over the last axis, NaN where that holds no probabilities."""
    tolerance = float(jnp.finfo(sample.dtype).eps) ** 0.5
    sample = sample.astype(at_least_float32(sample.dtype))
    if sample.ndim == 0:
        return jnp.full((), jnp.nan, sample.dtype)
    return jnp.where(on_simplex(sample, tolerance)[..., 0], entropy(sample), jnp.nan)

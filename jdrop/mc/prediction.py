"""What Monte Carlo dropout returns: the predictive distribution's moments and entropies."""

import jax
import jax.numpy as jnp
from flax import struct

from jdrop.masks.rate import at_least_float32
from jdrop.mc.sampling import as_partial, samples
from jdrop.mc.uncertainty import entropy


class MCPrediction(struct.PyTreeNode):
    """The mean and spread of stochastic forward passes.

    Attributes:
      mean: mean over the samples, ``(1/S) sum_i y_i``; the shape of one output, at least float32.
      variance: variance over the samples, ``(1/S) sum_i (y_i - mean)**2``.
      num_samples: the number of samples S.

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation".
    """

    mean: jax.Array
    variance: jax.Array
    mean_entropy: jax.Array  # NaN where the outputs are no probabilities; read through `expected_entropy`
    num_samples: int = struct.field(pytree_node=False)

    @property
    def std(self):
        """Standard deviation over the samples."""
        return jnp.sqrt(self.variance)

    @property
    def predictive_entropy(self):
        """Total uncertainty ``H[mean]`` in nats, over the last axis of class probabilities."""
        return jnp.where(jnp.isnan(self.expected_entropy), jnp.nan, entropy(self.mean))

    @property
    def expected_entropy(self):
        """Aleatoric uncertainty ``(1/S) sum_i H[y_i]`` in nats, over the last axis of class probabilities.

        Raises:
          ValueError: the outputs are no probabilities (NaN instead under a trace).
        """
        if not isinstance(self.mean_entropy, jax.core.Tracer) and bool(jnp.isnan(self.mean_entropy).any()):
            raise ValueError(
                "the samples are no probabilities (on the last axis they must be finite, not negative, and sum to 1), "
                "so they have no entropy: pass transform=jax.nn.softmax to mc_dropout if they are logits."
            )
        return self.mean_entropy

    @property
    def mutual_information(self):
        """Epistemic uncertainty ``H[mean] - (1/S) sum_i H[y_i]`` in nats, never negative (Houlsby et al. 2011)."""
        return jnp.maximum(self.predictive_entropy - self.expected_entropy, 0)


def mc_dropout(predict, key, x, num_samples=100, *, transform=None, chunk_size=None):
    """Predict with Monte Carlo dropout.

    ``mean = (1/S) sum_i f(predict(fold_in(key, i), x))`` with ``f = transform``, and likewise the variance.

    Args:
      predict: `(key, x) -> outputs`, a pure function, such as `jdrop.linen.predictor` and `jdrop.nnx.predictor` make.
      key: a PRNG key, shape ().
      x: the inputs that `predict` takes.
      num_samples: how many passes S, at least 1.
      transform: a function of each sample, such as `jax.nn.softmax` where the outputs are logits.
      chunk_size: how many passes run at once; it bounds the memory and never changes the result.

    Returns:
      An `MCPrediction`.

    Raises:
      TypeError: no key, or arguments of a wrong type.
      ValueError: a size below 1.

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
    if callable(predict) and transform is not None:
        predict = jax.tree_util.Partial(_transformed, as_partial(transform), as_partial(predict))
    outputs = samples(predict, key, x, num_samples, chunk_size=chunk_size)
    if not isinstance(outputs, jax.Array) or not jnp.issubdtype(outputs.dtype, jnp.floating):
        raise TypeError(
            f"predict returned {jax.tree.map(jnp.result_type, outputs)}, but mc_dropout averages one floating-point "
            "array: return that, or draw a tree of outputs with jdrop.mc.samples."
        )
    return MCPrediction(*_moments(outputs), num_samples=outputs.shape[0])


def _transformed(transform, predict, key, x):
    return transform(predict(key, x))


@jax.jit
def _moments(outputs):
    """Mean, variance and mean entropy over the first axis, in at least float32."""
    exact = outputs.astype(at_least_float32(outputs.dtype))
    mean = exact.mean(0)
    if exact.ndim < 2:
        return mean, exact.var(0), jnp.full(mean.shape, jnp.nan)
    tolerance = jnp.sqrt(jnp.finfo(outputs.dtype).eps).astype(exact.dtype)
    simplex = (exact >= 0).all(-1) & (jnp.abs(exact.sum(-1) - 1) <= tolerance)
    return mean, exact.var(0), jnp.where(simplex, entropy(exact), jnp.nan).mean(0)

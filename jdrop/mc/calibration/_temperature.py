"""The temperature of a classifier."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jdrop.mc._checks import as_finite, with_labels
from jdrop.mc.calibration._minimum import fitted, log_mean_exp, minimum


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Fit the temperature T that minimises the negative log-likelihood of held-out labels.

    ``T = argmin -(1/n) sum_i log (1/S) sum_s softmax(logits[s, i] / T)[labels[i]]``, over log T by L-BFGS from the
    geometric mean of the highest logit's lead. The calibrated probabilities are ``jax.nn.softmax(logits / T)``, with
    ``.mean(0)`` over Monte Carlo samples.

    To scale Monte Carlo mean probabilities instead, let their logarithms act as logits (``softmax(log(p) / T)`` is
    ``p**(1 / T)``, normalised): pass ``jnp.log(jnp.maximum(p, 1e-12))``.

    Args:
      logits: finite, shape (n, classes), or (num_samples, n, classes) with one sample for each stochastic pass.
      labels: integers in [0, classes), shape (n,); data that the model was not trained on.

    Returns:
      T > 0, shape (), at least float32: above 1 where the model is overconfident. NaN under a trace where it would
      raise.

    Raises:
      TypeError: logits or labels of a wrong dtype.
      ValueError: empty input, a logit that is not finite, a label out of range, shapes that don't match, or no minimum
        at a finite T > 0 (as where every label has the highest logit already).

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> logits = 10 * jax.random.normal(jax.random.key(0), (500, 3))
      >>> labels = jax.random.categorical(jax.random.key(1), logits / 5)
      >>> temperature = jdrop.mc.calibration.fit_temperature(logits, labels)
      >>> bool(4 < temperature < 6)
      True

    Paper:
      Guo et al. 2017, "On calibration of modern neural networks".
    """
    sampled = ("num_samples",) * (np.ndim(logits) == 3)
    logits = as_finite("logits", logits, *sampled, "n", "classes")
    logits = logits if sampled else logits[None]
    logits, labels = with_labels(logits, labels, logits.shape[1:2], "logits")
    return fitted(
        "temperature",
        _temperature(logits, labels),
        "is it measured on held-out data, with errors, and better than chance?",
    )


@jax.jit
def _temperature(logits, labels):
    # By the two highest alone, since classes may be masked by logits such as -1e9.
    first, second = jnp.moveaxis(jax.lax.top_k(logits, 2)[0], -1, 0)
    leads = first > second
    scale = jnp.exp(jnp.log(jnp.where(leads, first - second, 1)).sum() / jnp.maximum(leads.sum(dtype=logits.dtype), 1))
    logits = (logits - logits.max(-1, keepdims=True)) / scale  # a slope of exactly 0 where all are certain
    chance = jnp.log(jnp.asarray(logits.shape[-1], logits.dtype))

    def loss(log_temperature):  # less that of chance, which would round small differences away
        log_p = jax.nn.log_softmax(logits * jnp.exp(-log_temperature)) + chance
        return -log_mean_exp(jnp.take_along_axis(log_p, labels[None, :, None], -1)[..., 0]).mean()

    return jnp.exp(minimum(loss, logits.dtype)) * scale

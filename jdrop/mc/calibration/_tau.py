"""The precision of a regression."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_size
from jdrop.masks._rate import as_rate
from jdrop.mc._checks import as_positive, as_sampled, one_dtype, require
from jdrop.mc.calibration._minimum import fitted, log_mean_exp, minimum


def fit_tau(outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """Fit the observation precision tau that maximises the log-likelihood of held-out targets.

    ``tau = argmax (1/n) sum_i log (1/S) sum_s Normal(targets[i]; outputs[s, i], 1 / tau)``, over log tau by L-BFGS from
    the mean squared error's inverse; of several maxima, the one that this leads to. The predictive variance is
    `jdrop.mc.uncertainty.total_variance` with it.

    Args:
      outputs: Monte Carlo samples, finite, shape (num_samples, ...), in the target's unit.
      targets: finite, shape (...); data that the model was not trained on.

    Returns:
      tau > 0, shape (), at least float32, in one over the target's unit squared. NaN under a trace where it would
      raise.

    Raises:
      TypeError: no arrays of real numbers.
      ValueError: empty input, a number that is not finite, shapes that don't match, or no maximum at a finite tau > 0
        (as where every target is met exactly).

    Example:
      >>> import jax, jdrop
      >>> targets = 0.5 * jax.random.normal(jax.random.key(0), (500,))
      >>> outputs = 0.1 * jax.random.normal(jax.random.key(1), (50, 500))
      >>> tau = jdrop.mc.calibration.fit_tau(outputs, targets)
      >>> bool(3 < tau < 5)
      True

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation" (there tau is tuned on a grid).
    """
    outputs, targets = as_sampled(outputs, targets)
    return fitted("tau", _tau(outputs, targets), "are the targets held out, and not met exactly?")


@jax.jit
def _tau(outputs, targets):
    squares = (outputs - targets[None]) ** 2
    mean = squares.mean()
    squares = squares / mean

    def loss(log_tau):  # of errors in units of their root mean square, without the constant
        return -log_mean_exp((log_tau - jnp.exp(log_tau) * squares) / 2).mean()

    return jnp.exp(minimum(loss, outputs.dtype)) / mean


def prior_tau(rate: ArrayLike, length_scale: ArrayLike, num_examples: int, weight_decay: ArrayLike) -> jax.Array:
    """Precision of the noise that a network's regularization implies, ``tau = (1 - rate) l**2 / (2 N lambda)``.

    It holds for the training loss ``(1/N) sum_n (y_n - f(x_n))**2 / 2 + lambda ||W||**2``. Where decay is added to the
    gradient as ``weight_decay * W``, as optax does, lambda is half of it.

    Args:
      rate: drop probability of the weights' inputs, in [0, 1).
      length_scale: prior length scale l, positive, in the unit of the inputs.
      num_examples: number of training examples N, an integer of at least 1.
      weight_decay: lambda, positive.

    Returns:
      The precision tau, shape ().

    Raises:
      TypeError: arguments of a wrong type.
      ValueError: arguments out of range.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> round(float(jdrop.mc.calibration.prior_tau(0.5, length_scale=0.1, num_examples=1000, weight_decay=1e-6)), 3)
      2.5

    Paper:
      Gal & Ghahramani 2016, "Dropout as a Bayesian approximation", equation 7, whose p is 1 - rate.
    """
    with jax.ensure_compile_time_eval():
        rate = jnp.asarray(as_rate(rate))
        valid = (rate >= 0) & (rate < 1)
        rate = require(rate, valid, lambda bad, at: "rate is 1, but it must lie in [0, 1) here: write rate=0.5.")
    length_scale = as_positive("length_scale", length_scale, "length_scale=1.0")
    weight_decay = as_positive("weight_decay", weight_decay, "weight_decay=1e-4")
    rate, length_scale, weight_decay = one_dtype(rate, length_scale, weight_decay)
    examples = float(as_size("num_examples", num_examples, write="len(x_train)"))
    return (1 - rate) * length_scale**2 / (2 * examples * weight_decay)

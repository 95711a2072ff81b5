"""Calibration on held-out data: the temperature of a classifier, the precision of a regression."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdrop.mc.checks import as_finite, as_sampled, is_concrete, with_labels

_STEPS = 100  # of L-BFGS; it needs about ten


def fit_temperature(logits, labels):
    """Fit the temperature T that minimises the negative log-likelihood of held-out labels.

    ``T = argmin -(1/n) sum_i log (1/S) sum_s softmax(logits[s, i] / T)[labels[i]]``, over log T by L-BFGS from the
    logits' standard deviation. The calibrated probabilities are ``jax.nn.softmax(logits / T)``, with ``.mean(0)`` over
    Monte Carlo samples.

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
    return _fitted(
        "temperature",
        _temperature(logits, labels),
        "is it measured on held-out data, with errors, and better than chance?",
    )


@jax.jit
def _temperature(logits, labels):
    scale = logits.std(-1).mean()
    logits = (logits - logits.max(-1, keepdims=True)) / scale  # a slope of exactly 0 where all are certain
    chance = jnp.log(jnp.asarray(logits.shape[-1], logits.dtype))

    def loss(log_temperature):  # less that of chance, which would round small differences away
        log_p = jax.nn.log_softmax(logits * jnp.exp(-log_temperature)) + chance
        return -_log_mean_exp(jnp.take_along_axis(log_p, labels[None, :, None], -1)[..., 0]).mean()

    return jnp.exp(_minimum(loss, logits.dtype)) * scale


def fit_tau(outputs, targets):
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
    return _fitted("tau", _tau(outputs, targets), "are the targets held out, and not met exactly?")


@jax.jit
def _tau(outputs, targets):
    squares = (outputs - targets) ** 2
    mean = squares.mean()
    squares = squares / mean

    def loss(log_tau):  # of errors in units of their root mean square, without the constant
        return -_log_mean_exp((log_tau - jnp.exp(log_tau) * squares) / 2).mean()

    return jnp.exp(_minimum(loss, outputs.dtype)) / mean


def _log_mean_exp(x):
    return jax.nn.logsumexp(x, 0) - jnp.log(jnp.asarray(len(x), x.dtype))


def _minimum(loss, dtype):
    """Where a smooth function of one number has the minimum that L-BFGS finds from 0; NaN if it finds none."""
    solver, evaluate = optax.lbfgs(), optax.value_and_grad_from_state(loss)
    tolerance = 8 * float(jnp.finfo(dtype).eps)

    def step(carry):
        x, state, _, count = carry
        value, slope = evaluate(x, state=state)
        update, state = solver.update(slope, state, x, value=value, grad=slope, value_fn=loss)
        return x + update, state, optax.tree.get(state, "grad"), count + 1

    def unfinished(carry):
        return (carry[3] < _STEPS) & (jnp.abs(carry[2]) > tolerance)

    start = jnp.zeros((), dtype)
    x = jax.lax.while_loop(unfinished, step, (start, solver.init(start), jnp.full_like(start, jnp.inf), 0))[0]
    slope = jax.grad(loss)  # a function without a minimum is flat in the end, or falls on
    return jnp.where((slope(x - 0.01) < 0) & (slope(x + 0.01) > 0), x, jnp.nan)


def _fitted(name, value, question):
    if is_concrete(value) and not jnp.isfinite(value):
        raise ValueError(f"the likelihood has no maximum at a finite {name} above 0: {question}")
    return value

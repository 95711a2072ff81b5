"""Dropout whose rates are learned: concrete dropout, and variational dropout of weights."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._checks import as_flag, as_real, as_scalar, at_least_float32
from jdrop._keys import used_once
from jdrop._types import Flag
from jdrop.functional._dropout import as_input, check_dtype, draws_at
from jdrop.functional._inlined import inlined
from jdrop.masks._rate import as_rate
from jdrop.masks._shape import fits


def concrete_dropout(
    key: jax.Array | None,
    x: ArrayLike,
    rate: ArrayLike,
    deterministic: Flag = False,
    *,
    temperature: float = 0.1,
) -> jax.Array:
    """Drop each element of `x` by a relaxed decision, so that the rate has a gradient and can be learned.

    ``y = x * (1 - z) / (1 - rate)`` with ``z = sigmoid((logit(rate) + logit(u)) / temperature)`` and u uniform;
    ``y = x`` at evaluation. Learn ``rate = sigmoid(parameter)``, and add `concrete_regularizer` to the loss.

    Args:
      key: a PRNG key, shape (); may be None where nothing is drawn (evaluation, or a static rate of 0).
      x: a real floating-point array of any shape.
      rate: the probability that an element is dropped, in [0, 1]; a number or an array that broadcasts against `x`.
      deterministic: True at evaluation; a boolean, traced or not.
      temperature: how far the decision is from 0 or 1, positive.

    Returns:
      An array of the shape and dtype of `x`, NaN for a traced rate that is NaN or outside [0, 1].

    Raises:
      TypeError: integer or complex input, no key where one is needed, a rate, flag or temperature of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, or a temperature that is not positive.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> x = jnp.ones((4, 3))
      >>> slope = jax.grad(lambda rate: (jdrop.concrete_dropout(jax.random.key(0), x, rate) ** 2).sum())(0.2)

    Paper:
      Gal, Hron & Kendall 2017, "Concrete dropout".
    """
    x, rate, deterministic = as_input(x, rate), as_rate(rate), as_flag(deterministic)
    temperature = as_scalar("temperature", temperature, lambda t: (t > 0) & (t < jnp.inf), "above 0", "temperature=0.1")
    if not draws_at(rate, deterministic):
        return x
    check_dtype(x.dtype)
    if jnp.iscomplexobj(x):
        raise TypeError(f"x has dtype {x.dtype}, but a floating-point array of real numbers is needed.")
    dtype = at_least_float32(x.dtype)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def relaxed(key, x, rate):
        rate = jnp.where((rate >= 0) & (rate <= 1), jnp.asarray(rate, dtype), jnp.nan)
        edge = (rate == 0) | (rate == 1)
        inner = jnp.where(edge, jnp.asarray(0.5, dtype), rate)  # so that no derivative at an edge is infinite
        u = jax.random.uniform(inlined(key), x.shape, dtype, minval=jnp.finfo(dtype).tiny)
        kept = jax.nn.sigmoid(-(_logit(inner) + _logit(u)) / jnp.asarray(temperature, dtype)) / (1 - inner)
        kept = jnp.where(edge, jnp.where(rate == 0, 1, 0), kept)
        if deterministic is not False:
            kept = jnp.where(deterministic, 1, kept)
        return (x.astype(dtype) * kept).astype(x.dtype)

    return relaxed(used_once(key), x, rate)


def _logit(p):
    return jnp.log(p) - jnp.log1p(-p)


def concrete_regularizer(kernel: ArrayLike, rate: ArrayLike, *, weight: ArrayLike, dropout: ArrayLike) -> jax.Array:
    """The penalty of a layer with concrete dropout at its input, to be added to a loss that is a mean over examples.

    ``weight * sum(kernel**2) / (1 - rate) - dropout * n * H(rate)`` with the entropy
    ``H(p) = -p * log(p) - (1 - p) * log(1 - p)`` in nats and n the inputs of the layer.

    Args:
      kernel: the layer's weights, shape (..., n, outputs), of which all axes but the last count the inputs.
      rate: of the layer's input, in [0, 1]; a number.
      weight: ``length_scale**2 / (tau * N)`` for N examples and the model's precision tau, with tau = 1 for classes.
      dropout: ``2 / (tau * N)``; ``1 / N`` for classes.

    Returns:
      A scalar; infinite at rate 1, where there are weights.

    Raises:
      TypeError: arguments of a wrong type.
      ValueError: a concrete rate outside [0, 1] or NaN, a negative strength, a kernel without two axes.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> float(jdrop.concrete_regularizer(jnp.ones((2, 3)), 0.5, weight=1.0, dropout=0.0))
      12.0

    Paper:
      Gal, Hron & Kendall 2017, "Concrete dropout".
    """
    kernel, rate = as_real("kernel", kernel), as_rate(rate)
    if kernel.ndim < 2 or rate.ndim:
        raise ValueError(
            f"kernel has shape {kernel.shape} and rate {rate.shape}, but (..., inputs, outputs) and one number are "
            "needed."
        )
    strengths = [
        as_scalar(name, value, lambda s: (s >= 0) & (s < jnp.inf), "of at least 0", f"{name}=1e-4")
        for name, value in (("weight", weight), ("dropout", dropout))
    ]
    dtype = at_least_float32(kernel.dtype)
    weight, dropout = (jnp.asarray(value, dtype) for value in strengths)
    rate = jnp.where((rate >= 0) & (rate <= 1), jnp.asarray(rate, dtype), jnp.nan)
    entropy = jax.scipy.special.entr(rate) + jax.scipy.special.entr(1 - rate)
    inputs = kernel.size // kernel.shape[-1] if kernel.shape[-1] else 0
    return weight * jnp.sum(kernel.astype(dtype) ** 2) / (1 - rate) - dropout * inputs * entropy


def variational_dropout(
    key: jax.Array | None, x: ArrayLike, kernel: ArrayLike, log_alpha: ArrayLike, deterministic: Flag = False
) -> jax.Array:
    """A dense layer whose weights are normal with learned variances, by local reparameterisation.

    ``y = x @ W + sqrt(x**2 @ (alpha * W**2)) * e`` with ``alpha = exp(log_alpha)`` and normal e, of
    `jax.random.normal`: the outputs of weights drawn from ``N(W, alpha * W**2)`` for each example; ``y = x @ W`` at
    evaluation. Add `variational_kl` to the loss, and take out weights by `prune`.

    Args:
      key: a PRNG key, shape (); may be None at evaluation.
      x: a real floating-point array of shape (..., inputs).
      kernel: W, shape (inputs, outputs), of the dtype of `x`.
      log_alpha: the logarithm of the noise-to-signal ratio of each weight, ``rate / (1 - rate)`` in dropout's terms; of
        a shape that broadcasts to that of `kernel`.
      deterministic: True at evaluation; a boolean, traced or not.

    Returns:
      An array of shape (..., outputs) and the dtype of `x`; add a bias to it.

    Raises:
      TypeError: arrays that are not of real floating-point numbers, no key where one is needed.
      ValueError: shapes that do not fit.

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> x, kernel, log_alpha = jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.full((3, 4), -3.0)
      >>> jdrop.variational_dropout(jax.random.key(0), x, kernel, log_alpha).shape
      (2, 4)

    Paper:
      Kingma, Salimans & Welling 2015, "Variational dropout and the local reparameterization trick"; Molchanov, Ashukha
      & Vetrov 2017, "Variational dropout sparsifies deep neural networks".
    """
    x, kernel, log_alpha = (as_real(name, v) for name, v in (("x", x), ("kernel", kernel), ("log_alpha", log_alpha)))
    deterministic = as_flag(deterministic)
    if kernel.ndim != 2 or not x.ndim or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"x has shape {x.shape} and kernel {kernel.shape}, but (..., inputs) and (inputs, outputs) fit."
        )
    _check_ratios(log_alpha, kernel)
    mean = x @ kernel
    if deterministic is True:
        return mean
    dtype = at_least_float32(x.dtype)
    variance = (x.astype(dtype) ** 2) @ (jnp.exp(log_alpha.astype(dtype)) * kernel.astype(dtype) ** 2)
    noise = jax.random.normal(inlined(used_once(key)), mean.shape, dtype)
    if deterministic is not False:
        noise = jnp.where(deterministic, 0, noise)
    # The root has no derivative at 0, where there is no input or no weight, and then no noise either.
    std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    return (mean.astype(dtype) + std * noise).astype(x.dtype)


def variational_kl(log_alpha: ArrayLike) -> jax.Array:
    """The Kullback-Leibler divergence of variational dropout's weights from the log-uniform prior, up to a constant.

    ``KL = sum(0.5 * log(1 + 1 / alpha) - k1 * sigmoid(k2 + k3 * log_alpha) + k1)`` with k1 = 0.63576, k2 = 1.87320 and
    k3 = 1.48695, which is 0 for alpha without bound. Divide it by the number of training examples for a loss that is a
    mean over them.

    Args:
      log_alpha: the logarithms of the noise-to-signal ratios of all weights, any shape: broadcast it to the shape of
        the kernel first, where weights share one.

    Returns:
      A scalar, in nats.

    Raises:
      TypeError: `log_alpha` is not an array of real floating-point numbers.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> float(jdrop.variational_kl(jnp.full((2, 3), 20.0))) < 1e-5
      True

    Paper:
      Molchanov, Ashukha & Vetrov 2017, "Variational dropout sparsifies deep neural networks".
    """
    log_alpha = as_real("log_alpha", log_alpha)
    log_alpha = log_alpha.astype(at_least_float32(log_alpha.dtype))
    # k1 - k1 * sigmoid(z) as k1 * sigmoid(-z), which loses nothing near 0.
    return jnp.sum(0.5 * jax.nn.softplus(-log_alpha) + 0.63576 * jax.nn.sigmoid(-(1.87320 + 1.48695 * log_alpha)))


def prune(kernel: ArrayLike, log_alpha: ArrayLike, threshold: float = 3.0) -> jax.Array:
    """Set weights to zero that variational dropout made all but noise.

    ``W where log_alpha < threshold else 0``; 3 is a dropout rate of 0.95.

    Args:
      kernel: W, a real floating-point array of any shape.
      log_alpha: the logarithms of their noise-to-signal ratios, of a shape that broadcasts to that of `kernel`.
      threshold: a number.

    Returns:
      An array of the shape and dtype of `kernel`.

    Raises:
      TypeError: arrays that are not of real floating-point numbers, a threshold that is no number.
      ValueError: shapes that do not fit.

    Example:
      >>> import jax.numpy as jnp, jdrop
      >>> jdrop.prune(jnp.array([1.0, 2.0]), jnp.array([-1.0, 4.0])).tolist()
      [1.0, 0.0]

    Paper:
      Molchanov, Ashukha & Vetrov 2017, "Variational dropout sparsifies deep neural networks".
    """
    kernel, log_alpha = as_real("kernel", kernel), as_real("log_alpha", log_alpha)
    _check_ratios(log_alpha, kernel)
    bound = as_scalar("threshold", threshold, lambda t: ~jnp.isnan(t), "that is no NaN", "threshold=3.0")
    return jnp.where(log_alpha < bound, kernel, jnp.zeros((), kernel.dtype))


def _check_ratios(log_alpha, kernel):
    if not fits(log_alpha.shape, kernel.shape):
        raise ValueError(
            f"log_alpha has shape {log_alpha.shape}, which does not broadcast to kernel's, {kernel.shape}."
        )

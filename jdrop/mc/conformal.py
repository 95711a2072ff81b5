"""Split-conformal prediction: sets and intervals that cover the truth with a chosen probability, whatever the model.

A quantile is taken of the scores of n held-out examples, then it bounds the scores of new ones. If the n + 1 examples
are exchangeable (drawn independently from one distribution, say), the truth of a new one is covered with a probability
of at least ``1 - alpha``, over the draw of all of them.
"""

import math
import numbers
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from jdrop.keys import fold_in
from jdrop.mc.checks import as_finite, as_labelled, as_positive, as_probabilities, is_concrete, matching


def lac_quantile(probabilities, labels, alpha):
    """The quantile of least ambiguous set-valued classifiers, for `lac_sets`: sets as small as can be on average.

    ``quantile = the ceil((n + 1) (1 - alpha))-th smallest of 1 - probabilities[i, labels[i]]``.

    Args:
      probabilities: such as `MCPrediction.mean`, of held-out examples, shape (n, classes), rows that sum to 1.
      labels: integers in [0, classes), shape (n,).
      alpha: the probability that a set misses the label, a concrete number in (0, 1).

    Returns:
      The quantile, shape (), in [0, 1]; inf where n is too small for alpha, so that each set holds every class. NaN
      under a trace where it would raise.

    Raises:
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, no probabilities, a label out of range, shapes that don't match, or alpha outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> probabilities = jax.nn.softmax(3 * jnp.eye(4))
      >>> quantile = jdrop.mc.conformal.lac_quantile(probabilities, jnp.arange(4), 0.2)
      >>> jdrop.mc.conformal.lac_sets(probabilities, quantile).sum(-1)
      Array([1, 1, 1, 1], dtype=int32)

    Papers:
      Vovk, Gammerman & Shafer 2005, "Algorithmic learning in a random world"; Sadinle, Lei & Wasserman 2019, "Least
      ambiguous set-valued classifiers with bounded error levels".
    """
    probabilities, labels = as_labelled(probabilities, labels, "n", "classes")
    return _quantile(_of_label(1 - probabilities, labels), alpha)


def lac_sets(probabilities, quantile):
    """The prediction sets ``{c: 1 - probabilities[i, c] <= quantile}``.

    Args:
      probabilities: of new examples, shape (n, classes), rows that sum to 1.
      quantile: what `lac_quantile` returned, shape ().

    Returns:
      Booleans of shape (n, classes), True for a class in the set. A set may be empty. Under a trace an invalid row or
      quantile gives the set of all classes.

    Raises:
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, no probabilities, or a quantile that is NaN or not one number.

    Example: see `lac_quantile`.

    Paper:
      Sadinle, Lei & Wasserman 2019, "Least ambiguous set-valued classifiers with bounded error levels".
    """
    probabilities = as_probabilities(probabilities, "n", "classes")
    return _covered(1 - probabilities, quantile)


def aps_quantile(key, probabilities, labels, alpha):
    """The quantile of adaptive prediction sets, for `aps_sets`: larger sets for harder inputs.

    The score of class c is the probability of all likelier classes and a uniform part of its own,
    ``score[i, c] = sum(p[i, j] for j likelier than c) + u[i] p[i, c]`` with ``u[i] ~ U(0, 1)``, so that the coverage is
    ``1 - alpha`` on each input if p is right. ``quantile = the ceil((n + 1) (1 - alpha))-th smallest of
    score[i, labels[i]]``.

    Args:
      key: a PRNG key, shape (); the one given to `aps_sets` may be the same.
      probabilities: such as `MCPrediction.mean`, of held-out examples, shape (n, classes), rows that sum to 1.
      labels: integers in [0, classes), shape (n,).
      alpha: the probability that a set misses the label, a concrete number in (0, 1).

    Returns:
      The quantile, shape (), in [0, 1] up to rounding; inf where n is too small for alpha, so that each set holds every
      class. NaN under a trace where it would raise.

    Raises:
      TypeError: no key, or an argument of a wrong type or dtype.
      ValueError: empty input, no probabilities, a label out of range, shapes that don't match, or alpha outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> key, probabilities = jax.random.key(0), jax.nn.softmax(jax.random.normal(jax.random.key(1), (99, 4)))
      >>> labels = jax.random.categorical(jax.random.key(2), jnp.log(probabilities))
      >>> quantile = jdrop.mc.conformal.aps_quantile(key, probabilities, labels, 0.1)
      >>> jdrop.mc.conformal.aps_sets(key, probabilities, quantile).shape
      (99, 4)

    Papers:
      Romano, Sesia & Candès 2020, "Classification with valid and adaptive coverage"; Angelopoulos & Bates 2021, "A
      gentle introduction to conformal prediction and distribution-free uncertainty quantification".
    """
    probabilities, labels = as_labelled(probabilities, labels, "n", "classes")
    return _quantile(_of_label(_aps_scores(fold_in(key, "aps quantile"), probabilities), labels), alpha)


def aps_sets(key, probabilities, quantile):
    """The prediction sets ``{c: score[i, c] <= quantile}`` with the scores of `aps_quantile`.

    Args:
      key: a PRNG key, shape ().
      probabilities: of new examples, shape (n, classes), rows that sum to 1.
      quantile: what `aps_quantile` returned, shape ().

    Returns:
      Booleans of shape (n, classes), True for a class in the set. A set may be empty. Under a trace an invalid row or
      quantile gives the set of all classes.

    Raises:
      TypeError: no key, or an argument of a wrong type or dtype.
      ValueError: empty input, no probabilities, or a quantile that is NaN or not one number.

    Example: see `aps_quantile`.

    Paper:
      Romano, Sesia & Candès 2020, "Classification with valid and adaptive coverage".
    """
    probabilities = as_probabilities(probabilities, "n", "classes")
    return _covered(_aps_scores(fold_in(key, "aps sets"), probabilities), quantile)


def residual_quantile(mean, targets, alpha, std=None):
    """The quantile of absolute residuals, for `residual_intervals`.

    ``quantile = the ceil((n + 1) (1 - alpha))-th smallest of |targets[i] - mean[i]| / std[i]``.

    Args:
      mean: such as `MCPrediction.mean`, of held-out examples, shape (n,), in the target's unit.
      targets: shape (n,).
      alpha: the probability that an interval misses the target, a concrete number in (0, 1).
      std: above 0, such as `MCPrediction.std`, shape (n,), so that intervals are wide where the model is uncertain; all
        1 if None, for intervals of one width.

    Returns:
      The quantile, shape (), at least 0; inf where n is too small for alpha. NaN under a trace where it would raise.

    Raises:
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, a number that is not finite, a std that is not above 0, shapes that don't match, or alpha
        outside (0, 1).

    Example:
      >>> import jax, jax.numpy as jnp, jdrop
      >>> targets = jax.random.normal(jax.random.key(0), (99,))
      >>> quantile = jdrop.mc.conformal.residual_quantile(jnp.zeros(99), targets, 0.1)
      >>> lower, upper = jdrop.mc.conformal.residual_intervals(jnp.array([5.0]), quantile)

    Papers:
      Papadopoulos et al. 2002, "Inductive confidence machines for regression"; Lei et al. 2018, "Distribution-free
      predictive inference for regression".
    """
    mean, std, targets = _regressed(mean, std, targets=as_finite("targets", targets))
    return _quantile(jnp.abs(targets - mean) / std, alpha)


def residual_intervals(mean, quantile, std=None):
    """The prediction intervals ``mean[i] ± quantile * std[i]``.

    Args:
      mean: of new examples, shape (n,), in the target's unit.
      quantile: what `residual_quantile` returned, shape ().
      std: above 0, shape (n,), if `residual_quantile` had one.

    Returns:
      (lower, upper), each of shape (n,), in the target's unit. NaN under a trace where it would raise.

    Raises:
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, a number that is not finite, a std that is not above 0, shapes that don't match, or a
        quantile that is negative, NaN or not one number.

    Example: see `residual_quantile`.

    Paper:
      Lei et al. 2018, "Distribution-free predictive inference for regression".
    """
    mean, std = _regressed(mean, std)
    if is_concrete(quantile) and np.any(np.asarray(quantile) < 0):
        raise ValueError(f"quantile is {quantile}, but a residual is at least 0: pass what residual_quantile returned.")
    quantile = _as_quantile(quantile, mean.dtype)
    width = jnp.where(quantile < 0, jnp.nan, quantile) * std
    return mean - width, mean + width


def _aps_scores(key, probabilities):
    order = jnp.argsort(-probabilities, -1)
    likelier = jnp.cumsum(jnp.take_along_axis(probabilities, order, -1), -1)
    through = jnp.take_along_axis(likelier, jnp.argsort(order, -1), -1)
    outside = jax.random.uniform(key, (len(probabilities), 1), probabilities.dtype)  # 1 - u
    return through - outside * probabilities


def _of_label(scores, labels):
    return jnp.take_along_axis(scores, labels[:, None], -1)[:, 0]


def _quantile(scores, alpha):
    """The ceil((n + 1) (1 - alpha))-th smallest score, with alpha as the decimal that is written."""
    if not isinstance(alpha, (numbers.Real, np.ndarray, jax.Array)) or not is_concrete(alpha) or np.shape(alpha):
        raise TypeError(f"alpha is {alpha!r}, but a concrete number in (0, 1) is needed: write alpha=0.1.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}, but the probability of a miss lies in (0, 1): write alpha=0.1.")
    rank = math.ceil((len(scores) + 1) * (1 - Fraction(str(alpha))))
    return _ranked(scores, rank)


@jax.jit
def _ranked(scores, rank):
    """The score of a rank from 1 to n, and inf of rank n + 1; NaN if a score is."""
    ranked = jnp.append(jnp.sort(scores), jnp.full(1, jnp.inf, scores.dtype))
    return jnp.where(jnp.isnan(scores).any(), jnp.nan, ranked[rank - 1])


def _as_quantile(quantile, dtype):
    if np.shape(quantile) != ():
        raise ValueError(f"quantile has shape {np.shape(quantile)}, but one number is needed: see jax.vmap for more.")
    if is_concrete(quantile) and np.isnan(quantile):
        raise ValueError("quantile is NaN, but a score of held-out examples is needed: what went into its calibration?")
    return jnp.asarray(quantile, dtype)


def _covered(scores, quantile):
    return ~(scores > _as_quantile(quantile, scores.dtype))  # what is NaN is covered


def _regressed(mean, std, **others):
    mean = as_finite("mean", mean, "n")
    std = jnp.ones_like(mean) if std is None else as_positive("std", std, "std + 1e-3")
    return matching(mean=mean, std=std, **others)

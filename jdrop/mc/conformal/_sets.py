"""Sets of classes that cover the label."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jdrop._keys import fold_in
from jdrop.mc._checks import as_labelled, as_probabilities
from jdrop.mc.conformal._quantile import as_quantile, quantile_of


def lac_quantile(probabilities: ArrayLike, labels: ArrayLike, alpha: float) -> jax.Array:
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
      ValueError: empty input, not probabilities, a label out of range, shapes that don't match, or alpha outside
        (0, 1).

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
    return quantile_of(_of_label(1 - probabilities, labels), alpha)


def lac_sets(probabilities: ArrayLike, quantile: ArrayLike) -> jax.Array:
    """The prediction sets ``{c: 1 - probabilities[i, c] <= quantile}``.

    Args:
      probabilities: of new examples, shape (n, classes), rows that sum to 1.
      quantile: what `lac_quantile` returned, shape ().

    Returns:
      Booleans of shape (n, classes), True for a class in the set. A set may be empty. Under a trace an invalid row or
      quantile gives the set of all classes.

    Raises:
      TypeError: an argument of a wrong type or dtype.
      ValueError: empty input, not probabilities, or a quantile that is NaN or not one number.

    Example: see `lac_quantile`.

    Paper:
      Sadinle, Lei & Wasserman 2019, "Least ambiguous set-valued classifiers with bounded error levels".
    """
    probabilities = as_probabilities(probabilities, "n", "classes")
    return _covered(1 - probabilities, quantile)


def aps_quantile(key: jax.Array, probabilities: ArrayLike, labels: ArrayLike, alpha: float) -> jax.Array:
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
      ValueError: empty input, not probabilities, a label out of range, shapes that don't match, or alpha outside
        (0, 1).

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
    return quantile_of(_of_label(_aps_scores(fold_in(key, "aps quantile"), probabilities), labels), alpha)


def aps_sets(key: jax.Array, probabilities: ArrayLike, quantile: ArrayLike) -> jax.Array:
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
      ValueError: empty input, not probabilities, or a quantile that is NaN or not one number.

    Example: see `aps_quantile`.

    Paper:
      Romano, Sesia & Candès 2020, "Classification with valid and adaptive coverage".
    """
    probabilities = as_probabilities(probabilities, "n", "classes")
    return _covered(_aps_scores(fold_in(key, "aps sets"), probabilities), quantile)


def _aps_scores(key, probabilities):
    order = jnp.argsort(-probabilities, -1)
    likelier = jnp.cumsum(jnp.take_along_axis(probabilities, order, -1), -1)
    through = jnp.take_along_axis(likelier, jnp.argsort(order, -1), -1)
    outside = jax.random.uniform(key, (len(probabilities), 1), probabilities.dtype)  # 1 - u
    return through - outside * probabilities


def _of_label(scores, labels):
    return jnp.take_along_axis(scores, labels[:, None], -1)[:, 0]


def _covered(scores, quantile):
    return ~(scores > as_quantile(quantile, scores.dtype))  # what is NaN is covered

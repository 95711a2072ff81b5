"""Claims of the source articles, and the numbers that settle them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments._report import Estimate

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "not separable at this size"
LEVEL = 0.95


class Findings(NamedTuple):
    """Rows of the table of systems, rows of the table of claims, and functions that each draw on an `Axes`."""

    systems: list[dict] = ()
    claims: list[dict] = ()
    panels: list[Callable] = ()


def paired(a, b) -> Estimate:
    """The mean of a - b, shape (seeds, examples) each, and its standard error.

    ``error**2 = var(seeds' means) / seeds + var(examples' means) / examples``: that of new seeds and new examples.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    of_seeds, of_examples = difference.mean(1), difference.mean(0)
    variance = sum(part.var(ddof=1) / len(part) for part in (of_seeds, of_examples))
    return Estimate(float(difference.mean()), float(np.sqrt(variance)))


def interval(value, seeds) -> tuple[float, float]:
    """Student's interval around an `Estimate` from so many seeds."""
    half = stats.t.ppf((1 + LEVEL) / 2, seeds - 1) * value.error
    return value.mean - half, value.mean + half


def below(value, seeds, bound=0.0) -> str:
    """The verdict on the claim that an `Estimate` is below `bound`: its interval must lie wholly on one side."""
    low, high = interval(value, seeds)
    return CONFIRMED if high < bound else REFUTED if low > bound else OPEN


def above(value, seeds, bound=0.0) -> str:
    """The verdict on the claim that an `Estimate` is above `bound`."""
    return below(Estimate(-value.mean, value.error), seeds, -bound)


def exactly(holds) -> str:
    """The verdict on a claim about what can be computed exactly."""
    return CONFIRMED if holds else REFUTED


def claim(article, text, measured, figure, verdict, unit="") -> dict:
    """A row of the table: the figure is an `Estimate`, or a number without an error."""
    mean, error = figure if isinstance(figure, Estimate) else (figure, None)
    return {
        "article": article,
        "claim": text,
        "measured": measured,
        "figure": f"{float(mean):.6g}",
        "standard error": "-" if error is None else f"{error:.3g}",
        "unit": unit,
        "verdict": verdict,
    }

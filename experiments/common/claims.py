"""Claims of the source articles, and the numbers that settle them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from experiments.common.tables import Estimate

CONFIRMED, REFUTED, OPEN = "confirmed", "refuted", "not separable at this size"
LEVEL = 0.95


class Findings(NamedTuple):
    """Rows of the table of systems, rows of the table of claims, and functions that each draw on an `Axes`."""

    systems: list[dict] = ()
    claims: list[dict] = ()
    panels: list[Callable] = ()


def paired(a, b) -> Estimate:
    """The mean of a - b, shape (seeds, examples) each."""
    return total(np.asarray(a, np.float64) - np.asarray(b, np.float64))


def errors(a, b) -> Estimate:
    """How much larger the error is of the first of two `Outcome`s, in per cent."""
    return paired(100 * a.wrong, 100 * b.wrong)


def total(*parts) -> Estimate:
    """The sum of the means of arrays of shape (seeds, examples), each with examples of its own, and its standard error.

    ``error**2 = var(seeds' sums of means) / seeds + sum_parts var(examples' means) / examples``: over new seeds and new
    examples.
    """
    of_seeds = sum(part.mean(1) for part in parts)
    variances = [of_seeds.var(ddof=1) / len(of_seeds)]
    variances += [part.mean(0).var(ddof=1) / part.shape[1] for part in parts]
    return Estimate(float(of_seeds.mean()), float(np.sqrt(sum(variances))))


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


def differs(value, seeds) -> str:
    """The verdict on the claim that an `Estimate` is not 0, which can't be refuted."""
    return OPEN if below(value, seeds) == OPEN else CONFIRMED


def exactly(holds) -> str:
    """The verdict on a claim about what can be computed exactly."""
    return CONFIRMED if holds else REFUTED


def by_both(text, what, a, b, verdict):
    """Rows for `judge` about the difference of two `Outcome`s on test images: by their error, and by their NLL."""
    yield text, f"test error, {what}", errors(a, b), verdict, "%"
    yield text, f"test NLL, {what}", paired(a.nll, b.nll), verdict, "nats"


def judge(article, seeds, *rows) -> list[dict]:
    """Rows of the table from (claim, what was measured, an `Estimate` of so many seeds, `below` or `above`, unit)."""
    return [
        claim(article, text, measured, value, verdict(value, seeds), unit, interval(value, seeds))
        for text, measured, value, verdict, unit in rows
    ]


def claim(article, text, measured, figure, verdict, unit="", limits=()) -> dict:
    """A row of the table: the figure is a number, or an `Estimate` with the limits of its interval."""
    mean, error = figure if isinstance(figure, Estimate) else (figure, None)
    if not np.isfinite(mean):
        raise ValueError(f"the figure of the claim {text!r} is {mean}, which settles nothing.")
    return {
        "article": article,
        "claim": text,
        "measured": measured,
        "figure": f"{float(mean):.6g}",
        "standard error": "-" if error is None else f"{error:.3g}",
        "95 % interval": " to ".join(f"{limit:.3g}" for limit in limits) or "-",
        "unit": unit,
        "verdict": verdict,
    }

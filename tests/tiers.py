"""Which points of a matrix the quick tier takes."""

import itertools

import pytest


def some(names, cases, *quick, ids=None):
    """`pytest.mark.parametrize` with the cases at the places `quick` in the quick tier, and the others in the slow one.

    For a matrix whose points hold by one line of reasoning: the quick ones are its edges.
    """
    cases, alone = list(cases), isinstance(names, str)
    chosen = {place % len(cases) for place in quick}

    def point(place, case):
        values = (case,) if alone else case
        return pytest.param(*values, marks=() if place in chosen else pytest.mark.slow)

    return pytest.mark.parametrize(names, [point(*each) for each in enumerate(cases)], ids=ids)


def diagonal(*axes):
    """The points of a matrix in which each value of an axis comes up, and not each with each of the others.

    For axes that meet in the code nowhere, or in one line.
    """
    return list(itertools.islice(zip(*map(itertools.cycle, axes)), max(map(len, axes))))

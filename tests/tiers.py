"""Which points of a matrix the quick tier takes."""

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

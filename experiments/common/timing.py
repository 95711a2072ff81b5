"""Times of functions side by side: the best of a block of calls, the median over interleaved blocks.

A fresh large output costs page faults that dwarf the work, so calls are timed in blocks, of which the fastest counts;
and a machine's pace changes from second to second, so blocks of all cases take turns.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

MIN_CALLS = 3


class Case(NamedTuple):
    """A function to time on its arguments, and what waits for its result."""

    function: Callable
    arguments: tuple = ()
    wait: Callable = jax.block_until_ready


def best_of(case, calls, queued=1, clock=time.perf_counter) -> float:
    """Seconds of the fastest of `calls` calls; each is the mean of `queued` calls that are waited for together."""
    function, arguments, wait = case
    best = math.inf
    for _ in range(calls):
        start = clock()
        for _ in range(queued):
            result = function(*arguments)
        wait(result)
        best = min(best, clock() - start)
    return best / queued


def compiled(function, arguments, clock=time.perf_counter):
    """The program of a jitted function, and the seconds that it takes to trace, lower and compile it from nothing."""
    jax.clear_caches()
    start = clock()
    program = function.trace(*arguments).lower().compile()
    return program, clock() - start


def measure(cases, blocks=7, seconds=0.05, queued=1, clock=time.perf_counter) -> dict:
    """Seconds a call of each case in the dict `cases`: the median of the best of each of `blocks` interleaved blocks.

    A block takes about `seconds`, and at least `MIN_CALLS` calls. Two calls before the first block compile and warm up.
    """
    calls, best = {}, {name: [] for name in cases}
    for name, case in cases.items():
        best_of(case, 1, queued, clock)
        calls[name] = max(MIN_CALLS, math.ceil(seconds / (queued * best_of(case, 1, queued, clock))))
    for _ in range(blocks):
        for name, case in cases.items():
            best[name].append(best_of(case, calls[name], queued, clock))
    return {name: statistics.median(values) for name, values in best.items()}

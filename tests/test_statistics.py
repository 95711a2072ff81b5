"""The statistics of masks, with exact binomial bounds.

Every test below rejects a true stream with probability at most ALPHA; the module makes fewer than 1,000 of them, so a
run raises a false alarm with probability below 1e-6. The keys are fixed, so a stream that passes does so always. Each
kind of test has a negative control: a fault of the size that it is meant to find, put in on purpose.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import IMPLEMENTATIONS, key
from scipy.stats import binom
from tiers import some

import jdrop

ALPHA = 1e-9
RATES = (0.005, 0.1, 1 / 3, 0.5, 0.9, 0.999)


def plausible(count, trials, probability) -> bool:
    """Whether a binomial count lies within its exact two-sided interval of error probability ALPHA."""
    low, high = binom.cdf(count, trials, probability), binom.sf(count - 1, trials, probability)
    return min(low, high) > ALPHA / 2


def agreement(rate):
    """Probability that two independent elements are both kept or both dropped."""
    return rate**2 + (1 - rate) ** 2


@some("impl", IMPLEMENTATIONS, 0)
@some("rate", RATES, 1, 3)
def test_the_drop_probability_is_the_rate(impl, rate):
    dropped = ~np.asarray(jdrop.keep_mask(key(21, impl), (2048, 2048), rate))
    assert plausible(dropped.sum(), dropped.size, rate)
    lanes = dropped.reshape(-1, 32).sum(0)
    assert all(plausible(count, dropped.size // 32, rate) for count in lanes)


def test_a_rate_off_by_one_in_256_would_be_found():
    dropped = ~np.asarray(jdrop.keep_mask(key(21), (2048, 2048), 26 / 256))
    assert not plausible(dropped.sum(), dropped.size, 0.1)


@some("impl", IMPLEMENTATIONS, 0)
@some("rate", [0.1, 0.5], 0)
def test_elements_are_independent(impl, rate):
    """Disjoint pairs at a distance agree as often as independent ones: lanes, words, rows and blocks apart."""
    kept = np.asarray(jdrop.keep_mask(key(22, impl), (512, 4096), rate)).ravel()
    for distance in (1, 2, 16, 31, 32, 33, 64, 1024, 4096, 131072):
        pairs = kept[: kept.size // (2 * distance) * 2 * distance].reshape(-1, 2, distance)
        agree = pairs[:, 0] == pairs[:, 1]
        assert plausible(agree.sum(), agree.size, agreement(rate)), distance


@some("impl", IMPLEMENTATIONS, 0)
def test_derived_keys_are_independent(impl):
    derived = [jdrop.fold_in(key(23, impl), "dropout", step) for step in range(4)]
    derived += [jdrop.fold_in(key(23, impl), "dropout"), *jax.random.split(key(23, impl), 2), key(23, impl)]
    masks = [np.asarray(jdrop.keep_mask(k, (1 << 18,), 0.3)) for k in derived]
    for i in range(len(masks)):
        for j in range(i):
            assert plausible((masks[i] == masks[j]).sum(), masks[i].size, agreement(0.3)), (i, j)


def test_a_weak_dependence_would_be_found():
    """One pair in 64 that copies its neighbour is caught by the pair test."""
    kept = np.array(jdrop.keep_mask(key(22), (2097152,), 0.5)).reshape(-1, 2)
    kept[::64, 1] = kept[::64, 0]
    agree = kept[:, 0] == kept[:, 1]
    assert not plausible(agree.sum(), agree.size, agreement(0.5))


def test_the_low_bits_are_shared_as_the_specification_says_and_no_more():
    """At a threshold below 2**17 the high 15 bits must all be zero and the shared bits decide: the worst case.

    With T = 2**16 two elements of a position are dropped together with probability 2**-30 / 2 instead of 2**-32; the
    bound 2**-32 on the covariance is what the docstring of `jdrop.masks` derives. Enumerated, not sampled.
    """
    for threshold in (2**16, 3 * 2**15, 2**17 - 1, 5 * 2**17 + 2**16, 429496736, 2**31):
        high, low = divmod(threshold, 2**17)
        fraction = low / 2**17
        both = ((1 - fraction) * high**2 + fraction * (high + 1) ** 2) / 2**30
        marginal = threshold / 2**32
        assert both - marginal**2 == pytest.approx(fraction * (1 - fraction) / 2**30, rel=1e-6, abs=1e-24)
        assert both - marginal**2 <= 2**-32 * (1 + 1e-9)


def test_the_scale_is_the_inverse_of_the_probability_used():
    """In float64 the kept value shows the keep probability to 2**-32 of the rate that was asked for."""
    with jax.enable_x64(True):
        for rate in (*RATES, 1e-9):
            for given in (rate, jnp.float64(rate)):
                y = np.asarray(jdrop.dropout(key(24), jnp.ones(4096, jnp.float64), given))
                kept = np.unique(y[y != 0])
                assert len(kept) == 1
                assert abs((1 - 1 / kept[0]) - rate) <= 2**-32

"""Intervals and comparisons, against scipy's, by hand, and where the truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from gan_runner.sweeps.report.statistics import Difference, Estimate, compare, differences, estimate, holm


def by_seed(values, first=0):
    return dict(enumerate(values, first))


def bounds(found):
    assert found is not None
    return found.mean - found.half_width, found.mean + found.half_width


def test_an_interval_by_hand():
    found = estimate([1.0, 2.0, 3.0])  # t of 2 degrees of freedom is 4.3027, the standard deviation is 1
    assert bounds(found) == pytest.approx((2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), rel=1e-4)


def test_intervals_are_scipy_s():
    for values in np.random.default_rng(0).normal(3, 2, (20, 7)):
        expected = stats.t.interval(0.95, 6, loc=values.mean(), scale=stats.sem(values))
        assert bounds(estimate(values.tolist())) == pytest.approx(expected)


def test_one_value_has_no_interval_and_what_is_undefined_has_no_mean():
    assert estimate([4.0]) == Estimate(4.0, None, 1)
    assert estimate([math.nan, 4.0, math.inf]) == Estimate(4.0, None, 1)
    assert estimate([math.nan]) is None


def test_shared_seeds_are_paired_as_scipy_does():
    a, b = np.random.default_rng(1).normal(0, 1, (2, 6))
    found, expected = compare("a", by_seed(a), "b", by_seed(b)), stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.paired
    assert found.estimate.n == 6
    assert found.p == pytest.approx(expected.pvalue)
    assert bounds(found.estimate) == pytest.approx(tuple(interval))


def test_other_seeds_are_compared_by_welch_as_scipy_does():
    noise = np.random.default_rng(2)
    a, b = noise.normal(0, 1, 5), noise.normal(0, 3, 8)
    found, expected = compare("a", by_seed(a), "b", by_seed(b, 100)), stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert not found.paired
    assert found.p == pytest.approx(expected.pvalue)
    assert bounds(found.estimate) == pytest.approx(tuple(interval))


def test_of_seeds_that_overlap_the_shared_ones_are_paired_and_undefined_ones_are_none():
    a, b = {0: 1.0, 1: 2.0, 2: 4.0, 3: math.nan}, {1: 5.0, 2: 6.0, 3: 7.0, 4: 0.0}
    found = compare("a", a, "b", b)
    assert (found.paired, found.estimate.n, found.estimate.mean) == (True, 2, -2.5)
    one_shared = compare("a", {0: 1.0, 1: 2.0}, "b", {1: 5.0, 2: 6.0})
    assert (one_shared.paired, one_shared.estimate.mean) == (False, -4.0)


@pytest.mark.parametrize(
    ("a", "b"), [([1.0], [9.0]), ([1.0], [9.0, 9.1]), ([], [9.0, 9.1]), ([math.nan] * 5, [1.0] * 5)]
)
def test_too_few_values_are_never_told_apart(a, b):
    (found,) = differences({"a": by_seed(a), "b": by_seed(b, 50)})
    assert found.p is None
    assert not found.beyond_chance


def test_without_any_spread_the_signs_are_counted():
    """As of whole numbers: t would be infinite, even of two seeds."""
    for n, p in ((2, 0.5), (5, 2**-4), (6, 2**-5)):
        assert compare("a", by_seed([8.0] * n), "b", by_seed([7.0] * n)).p == p
    assert compare("a", by_seed([0.3, 0.9]), "b", by_seed([0.2, 0.8])).p == 0.5  # but for rounding
    assert compare("a", by_seed([8.0] * 5), "b", by_seed([8.0] * 5)).p == 1.0
    assert compare("a", by_seed([8.0] * 3), "b", by_seed([7.0] * 3, 50)).p == pytest.approx(2 / 20)
    assert compare("a", by_seed([8.0] * 3), "b", by_seed([8.0] * 3, 50)).p == 1.0


def test_holm_by_hand():
    ps = [0.01, 0.04, None, 0.03, 0.005]
    tested = [Difference("a", "b", Estimate(0.0, 1.0, 3), paired=True, p=p) for p in ps]
    assert [d.adjusted for d in holm(tested)] == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert [d.beyond_chance for d in holm(tested)] == [True, False, False, False, True]


def test_a_planted_difference_is_called_one_and_no_other_is():
    noise = np.random.default_rng(3).normal(0, 1, (3, 5))
    found = differences({"a": by_seed(noise[0]), "b": by_seed(noise[1] + 10), "c": by_seed(noise[2])})
    assert {(d.first, d.second) for d in found if d.beyond_chance} == {("a", "b"), ("b", "c")}


@pytest.mark.parametrize("shared", [True, False])
def test_without_a_difference_few_sweeps_have_any(shared):
    """2,000 sweeps of three configurations and five seeds; in one of twenty, chance alone may look like more."""
    noise = np.random.default_rng(4)
    called = 0
    for _ in range(2000):
        luck = noise.normal(0, 1, 5)  # what a seed does to all configurations
        values = luck + noise.normal(0, 1, (3, 5)) if shared else noise.normal(0, 1, (3, 5))
        sweep = {str(n): by_seed(row, 0 if shared else 10 * n) for n, row in enumerate(values)}
        called += any(d.beyond_chance for d in differences(sweep))
    assert called / 2000 <= 0.065

"""Successive halving: who goes on, worked out by hand."""

import math

import pytest

from gan_runner.config.schema import Halving
from gan_runner.errors import UserError
from gan_runner.sweeps.halving import Rungs, rungs_of


@pytest.mark.parametrize(
    ("first", "factor", "steps", "rungs"),
    [
        (100, 3, 2700, [100, 300, 900]),  # the end is no rung
        (100, 3, 2701, [100, 300, 900, 2700]),
        (0.1, 3, 1000, [100, 300, 900]),
        (0.25, 2, 4000, [1000, 2000]),
        (500, 10, 501, [500]),
    ],
)
def test_rungs(first, factor, steps, rungs):
    assert rungs_of(Halving(factor=factor, first=first), steps, every=100) == rungs


@pytest.mark.parametrize("first", [99, 0.05, 1000, 2000])
def test_a_rung_at_which_nothing_is_known_is_refused(first):
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.halving\.first=.*evaluate_every=100.*steps=1000"):
        rungs_of(Halving(factor=3, first=first), steps=1000, every=100)


def test_the_best_third_of_those_so_far_goes_on():
    rungs, goes_on = Rungs(3, [100]), []
    for job, cost in zip("abcdefg", [5.0, 6.0, 4.0, 4.5, 7.0, 3.0, 1.0], strict=True):
        assert rungs.see(job, [(100, cost)])
        goes_on.append(rungs.may_go_on(job))
    # a is the first; b is worse; c is the best of 3; d is second of 4, e last of 5; f the best of 6, g of 7
    assert goes_on == [True, False, True, False, False, True, True]
    assert [job for job in "abcdefg" if rungs.may_go_on(job)] == ["f", "g"]  # two of seven


def test_a_job_is_promoted_when_more_have_come():
    rungs = Rungs(2, [10, 20])
    for job, cost in [("a", 1.0), ("b", 2.0), ("c", 3.0)]:
        rungs.see(job, [(10, cost)])
    assert not rungs.may_go_on("b")  # one of three
    rungs.see("d", [(10, 4.0)])
    assert rungs.may_go_on("b")  # two of four
    assert not rungs.may_go_on("c")
    rungs.see("a", [(10, 1.0), (20, 9.0)])
    rungs.see("b", [(10, 2.0), (20, 8.0)])
    assert [rungs.may_go_on(job) for job in "ab"] == [False, True]  # it counts where each has come to


def test_what_is_seen_is_the_first_evaluation_at_a_rung_or_later():
    rungs = Rungs(3, [100, 300])
    assert rungs.next("a") == 100
    assert not rungs.see("a", [(50, 1.0), (99, 2.0)])
    assert rungs.may_go_on("a")  # it has come to none
    assert rungs.see("a", [(50, 1.0), (120, 3.0), (180, 4.0)])
    assert not rungs.see("a", [(50, 1.0), (120, 3.0), (180, 4.0)])  # nothing new
    assert rungs.next("a") == 300
    assert rungs.see("a", [(120, 3.0), (360, 5.0), (420, 6.0)])
    assert rungs.of("a") == [(100, 3.0), (300, 5.0)]
    assert rungs.next("a") == math.inf


def test_an_undefined_figure_is_the_worst_and_the_first_of_two_as_good_goes_on():
    rungs = Rungs(2, [1])
    for job, cost in [("a", math.nan), ("b", math.inf), ("c", 1e9), ("d", 1e9)]:
        rungs.see(job, [(1, cost)])
    assert [job for job in "abcd" if rungs.may_go_on(job)] == ["c", "d"]
    rungs.see("e", [(1, 1e9)])
    assert [job for job in "abcde" if rungs.may_go_on(job)] == ["c", "d"]

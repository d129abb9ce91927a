"""Early stop, on planted numbers."""

import pytest

from tfcxr.training.early_stop import EarlyStop


def make(**values):
    return EarlyStop("distance", **{"patience": 2, "maximize": False} | values)


@pytest.mark.parametrize("sign", [1, -1])
def test_patience_counts_evaluations_that_do_not_improve(sign):
    early_stop = make(maximize=sign < 0)
    looks = [early_stop.look(sign * value, at) for at, value in enumerate([5.0, 3.0, 3.0, 4.0, 2.9, 9.0])]
    # The same distance again is no improvement.
    assert looks == [True, True, False, False, True, False]
    assert (early_stop.best, early_stop.best_at, early_stop.stale) == (sign * 2.9, 4, 1)


def test_patience_ends_after_so_many_evaluations_and_not_before_its_time():
    found = {"best": 1.0, "best_at": 0.0, "stale": 2}
    assert make(**found, not_before=10.0).is_due(10.0)
    assert not make(**found, not_before=10.0).is_due(9.9)
    assert not make(**found, patience=3).is_due(10.0)
    assert not make(**found, patience=0).is_due(10.0)
    # What was stale before counts; a better one then lets it go on.
    early_stop = make(**found)
    assert early_stop.look(0.5, 10.0)
    assert not early_stop.is_due(10.0)


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_what_is_no_number_is_never_the_best(maximize, nothing):
    early_stop = make(maximize=maximize, patience=1)
    assert not early_stop.look(nothing, 0.0)
    assert not early_stop.is_due(0.0)  # there is nothing yet that could be kept
    assert early_stop.look(7.0, 1.0)
    assert not early_stop.look(nothing, 2.0)
    assert (early_stop.best, early_stop.best_at, early_stop.stale) == (7.0, 1.0, 1)
    assert early_stop.is_due(2.0)

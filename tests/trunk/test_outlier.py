from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.analysis.outlier import MIN_VALUES, THRESHOLD, usual

some = st.floats(-1e9, 1e9, allow_nan=False)


@settings(max_examples=50, deadline=None)
@given(some, st.integers(MIN_VALUES, 50))
def test_of_a_constant_series_nothing_stands_out(value: float, points: int) -> None:
    known = usual([value] * points)
    assert known is not None
    assert known.score(value) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(90, 110), min_size=MIN_VALUES, max_size=60))
def test_a_spike_stands_out_and_says_which_way(values: list[float]) -> None:
    known = usual(values)
    assert known is not None
    assert (known.score(1e4) or 0) > THRESHOLD
    assert (known.score(-1e4) or 0) < -THRESHOLD


@settings(max_examples=50, deadline=None)
@given(st.lists(some, max_size=MIN_VALUES - 1))
def test_too_little_data_is_said(values: list[float]) -> None:
    assert usual(values) is None


def test_spikes_among_earlier_values_do_not_hide_the_next() -> None:
    known = usual([100, 101, 99, 100, 102, 98, 100, 5000, 5000, 5000, 101])
    assert known is not None
    assert (known.score(5000) or 0) > THRESHOLD


def test_what_differs_by_little_does_not_stand_out_of_equal_values() -> None:
    known = usual([100.0] * 30)
    assert known is not None
    assert abs(known.score(103.0) or 0) < THRESHOLD < abs(known.score(108.0) or 0)


def test_where_all_were_nothing_there_is_no_measure() -> None:
    known = usual([0.0] * 30)
    assert known is not None
    assert known.score(1.0) is None
    assert known.score(0.0) == 0.0


def test_where_most_are_equal_the_others_make_the_measure() -> None:
    known = usual([0.0] * 20 + [1.0] * 10)
    assert known is not None
    assert 0 < (known.score(1.0) or 0) < THRESHOLD

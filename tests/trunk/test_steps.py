from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.config import Aggregation, Width
from vibezen.metrics.steps import AUTO_POINTS, MAX_POINTS, plan

WIDTHS = Aggregation().widths
NOW = 1_763_985_635.0
HOUR = 3600.0
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("span", "step"), [(60, 10), (300, 10), (HOUR, 10), (2 * HOUR, 60), (6 * HOUR, 60), (DAY, 300)]
)
def test_automatic_step_is_the_finest_that_a_chart_can_show(span: float, step: int) -> None:
    planned = plan(WIDTHS, NOW - span, NOW, NOW)
    assert planned.step == step
    assert len(planned.steps()) <= AUTO_POINTS


def test_automatic_step_prefers_windows_that_are_still_kept() -> None:
    recent, older = plan(WIDTHS, NOW - HOUR, NOW, NOW), plan(WIDTHS, NOW - 4 * HOUR, NOW - 3 * HOUR, NOW)
    assert (recent.step, older.step) == (10, 60)


def test_range_older_than_everything_kept_has_the_finest_step() -> None:
    assert plan(WIDTHS, NOW - 3 * DAY, NOW - 3 * DAY + HOUR, NOW).step == 10


@given(st.floats(1, 20 * 365 * DAY), st.floats(0, DAY))
def test_automatic_step_always_gives_few_enough_points(span: float, ago: float) -> None:
    planned = plan(WIDTHS, NOW - ago - span, NOW - ago, NOW)
    assert 1 <= len(planned.steps()) <= AUTO_POINTS


@given(st.floats(1, 20 * 365 * DAY), st.floats(0, DAY), st.integers(1, 10 * 86_400))
def test_steps_hold_the_whole_range_and_follow_each_other(span: float, ago: float, step: int) -> None:
    since, until = NOW - ago - span, NOW - ago
    try:
        planned = plan(WIDTHS, since, until, NOW, step)
    except ValueError:
        assert span / step > MAX_POINTS - 2
        return
    assert planned.start <= since < planned.start + step
    assert planned.stop - step < until <= planned.stop
    assert planned.start % step == 0
    assert all(b - a == step for a, b in pairwise(planned.steps()))


@pytest.mark.parametrize("step", [1, 5, 15, 61])
def test_any_step_of_whole_seconds_may_be_asked_for(step: int) -> None:
    assert plan(WIDTHS, NOW - 60, NOW, NOW, step).step == step


def test_step_with_too_many_points_is_refused_with_the_least_that_would_do() -> None:
    with pytest.raises(ValueError, match="take 58 s or more"):
        plan(WIDTHS, NOW - DAY, NOW, NOW, 10)
    assert len(plan(WIDTHS, NOW - DAY, NOW, NOW, 60).steps()) <= MAX_POINTS


def test_range_is_floored_to_the_step_and_its_open_step_is_part_of_it() -> None:
    planned = plan(WIDTHS, NOW - 60, NOW, NOW, 10)
    assert (planned.start, planned.stop) == (1_763_985_570, 1_763_985_640)
    exact = plan(WIDTHS, 1_763_985_570, 1_763_985_600, NOW, 10)
    assert list(exact.steps()) == [1_763_985_570, 1_763_985_580, 1_763_985_590]


def test_other_widths_of_the_configuration_are_used() -> None:
    widths = (Width(seconds=5, keep_seconds=600), Width(seconds=30, keep_seconds=7200))
    assert plan(widths, NOW - 300, NOW, NOW).step == 5
    assert plan(widths, NOW - HOUR, NOW, NOW).step == 30

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.settings import Aggregation, Width
from vibezen.metrics.steps import AUTO_POINTS, MAX_POINTS, WEEK, Plan, plan
from vibezen.metrics.zone import Zone, zone_of

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
    assert (planned.start - (4 * 86_400 if step % WEEK == 0 else 0)) % step == 0
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


NAMES = (
    "Europe/Berlin America/New_York America/Havana America/Sao_Paulo Australia/Lord_Howe Africa/Casablanca "
    "Africa/Cairo Asia/Kolkata Asia/Kathmandu Pacific/Apia UTC -03:30"
)
ZONES = st.sampled_from(NAMES.split()).map(zone_of)
SINCE_2000 = st.floats(1e9, 2e9)


def in_zone(tz: str, since: str, until: str, step: int) -> Plan:
    zone = zone_of(tz)
    first, last = (zone.moment(datetime.fromisoformat(one)) for one in (since, until))
    return plan(WIDTHS, first, last, NOW, step, zone)


@given(ZONES, SINCE_2000, st.floats(1, 900 * DAY), st.sampled_from([86_400, 2 * 86_400, WEEK]))
def test_days_begin_at_the_first_moment_of_a_date(zone: Zone, since: float, span: float, step: int) -> None:
    planned = plan(WIDTHS, since, since + span, NOW, step, zone)
    spans = list(planned.spans())
    assert planned.start <= since < spans[0][1]
    assert spans[-1][0] < since + span <= planned.stop
    for start, stop in spans:
        dates = [datetime.fromtimestamp(at, zone.rules).date() for at in (start - 1, start, stop - 1, stop)]
        assert dates[0] < dates[1] <= dates[2] < dates[3]
        assert dates[3] - dates[1] == timedelta(seconds=step) or zone.name == "Pacific/Apia"
        assert step != WEEK or dates[1].isoweekday() == 1 or zone.name == "Pacific/Apia"


@given(ZONES, SINCE_2000, st.floats(0.01, 1), st.sampled_from([60, 420, 900, 1800, 3600, 7200, 6 * 3600, 12 * 3600]))
def test_shorter_steps_begin_where_the_clock_shows_a_multiple(
    zone: Zone, since: float, share: float, step: int
) -> None:
    until = since + share * step * (MAX_POINTS - 2)
    planned = plan(WIDTHS, since, until, NOW, step, zone)
    starts = planned.steps()
    assert starts[0] <= since
    assert starts[-1] < until <= planned.stop
    assert all((start + zone.offset(start)) % step == 0 for start in starts)
    assert all(stop > start for start, stop in planned.spans())
    assert len(starts) == len(set(starts))


@given(ZONES, SINCE_2000, st.floats(1, 40 * DAY), st.integers(0, 100))
def test_every_moment_has_its_step(zone: Zone, since: float, span: float, percent: int) -> None:
    planned = plan(WIDTHS, since, since + span, NOW, 6 * 3600, zone)
    moment = planned.start + (planned.stop - planned.start - 1) * percent / 100
    (held,) = [start for start, stop in planned.spans() if start <= moment < stop]
    assert planned.step_of(moment) == held
    (run,) = [run for run in planned.runs() if run.start <= moment < run.stop]
    assert run.start + (moment - run.start) // run.step * run.step == held


@given(ZONES, SINCE_2000, st.floats(1, 20 * 365 * DAY))
def test_automatic_step_in_any_zone_gives_few_enough_points(zone: Zone, since: float, span: float) -> None:
    assert 1 <= len(plan(WIDTHS, since, since + span, since + span, None, zone).steps()) <= AUTO_POINTS


def test_days_of_23_and_25_hours_are_days() -> None:
    spring = in_zone("Europe/Berlin", "2025-03-29", "2025-04-01", 86_400)
    assert [stop - start for start, stop in spring.spans()] == [86_400, 82_800, 86_400]
    autumn = in_zone("Europe/Berlin", "2025-10-25", "2025-10-28", 86_400)
    assert [stop - start for start, stop in autumn.spans()] == [86_400, 90_000, 86_400]
    assert (autumn.step, len(autumn.edges)) == (86_400, 4)


def test_midnight_that_the_clock_leaves_out_or_shows_twice() -> None:
    leap = in_zone("America/Sao_Paulo", "2018-11-03", "2018-11-06", 86_400)  # put forward at 00:00 on the 4th
    assert [stop - start for start, stop in leap.spans()] == [86_400, 82_800, 86_400]
    twice = in_zone("America/Havana", "2025-11-01", "2025-11-04", 86_400)  # put back to 00:00 on the 2nd
    assert [stop - start for start, stop in twice.spans()] == [86_400, 90_000, 86_400]


def test_day_that_the_calendar_leaves_out_is_no_step() -> None:
    planned = in_zone("Pacific/Apia", "2011-12-29", "2012-01-01", 86_400)  # the 30th never was
    assert [stop - start for start, stop in planned.spans()] == [86_400, 86_400]


def test_hours_where_the_clock_is_changed_by_hours_are_all_equal() -> None:
    assert in_zone("Europe/Berlin", "2025-10-25", "2025-10-28", 3600).edges == ()
    assert in_zone("Asia/Kolkata", "2025-10-25", "2025-10-28", 3600).start % 3600 == 1800


def test_quarters_of_a_day_follow_the_clock() -> None:
    planned = in_zone("Europe/Berlin", "2025-10-26", "2025-10-27", 6 * 3600)
    assert [(stop - start) / 3600 for start, stop in planned.spans()] == [7, 6, 6, 6]


def test_weeks_begin_on_monday_in_utc_too() -> None:
    planned = in_zone("UTC", "2025-11-20", "2025-11-27", WEEK)
    assert [datetime.fromtimestamp(start, UTC).isoweekday() for start in planned.steps()] == [1, 1]


def test_windows_of_a_minute_make_up_every_step_of_whole_minutes() -> None:
    assert in_zone("Asia/Kolkata", "2025-01-01", "2025-02-01", 86_400).grain() == 1800
    assert in_zone("Europe/Berlin", "2025-01-01", "2026-01-01", 86_400).grain() == 3600
    assert in_zone("Asia/Kolkata", "2025-01-01", "2025-01-02", 420).grain() == 60

"""Periods: where they begin and end, and what they are compared with."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.reports.period import Period, buckets, is_period, parse_period

NOW = datetime(2026, 11, 24, 15, 4, 30, tzinfo=ZoneInfo("UTC")).timestamp()  # a Tuesday


def told(period: Period) -> list[str]:
    """Start, stop, and those of the period before, as the zone's clock shows them."""
    zone = ZoneInfo(period.zone)
    moments = (period.start, period.stop, period.before, period.before_stop)
    return [f"{datetime.fromtimestamp(ts, zone):%m-%d %H:%M}" for ts in moments]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", ["11-23 15:05", "11-24 15:05", "11-22 15:05", "11-23 15:05"]),
        ("7d", ["11-17 15:05", "11-24 15:05", "11-10 15:05", "11-17 15:05"]),
        ("2w", ["11-10 15:05", "11-24 15:05", "10-27 15:05", "11-10 15:05"]),
        ("today", ["11-24 00:00", "11-24 15:05", "11-23 00:00", "11-23 15:05"]),
        ("yesterday", ["11-23 00:00", "11-24 00:00", "11-22 00:00", "11-23 00:00"]),
        ("this-week", ["11-23 00:00", "11-24 15:05", "11-16 00:00", "11-17 15:05"]),
        ("last-week", ["11-16 00:00", "11-23 00:00", "11-09 00:00", "11-16 00:00"]),
        ("this-month", ["11-01 00:00", "11-24 15:05", "10-01 00:00", "10-24 15:05"]),
        ("last-month", ["10-01 00:00", "11-01 00:00", "09-01 00:00", "10-01 00:00"]),
        ("last-7-days", ["11-18 00:00", "11-24 15:05", "11-11 00:00", "11-17 15:05"]),
        ("2026-11-01..2026-11-08", ["11-01 00:00", "11-08 00:00", "10-25 00:00", "11-01 00:00"]),
        ("2026-11-01T06:00..2026-11-01T09:30", ["11-01 06:00", "11-01 09:30", "11-01 02:30", "11-01 06:00"]),
        ("2026-11-24..2026-11-26", ["11-24 00:00", "11-24 15:05", "11-22 00:00", "11-22 15:05"]),
    ],
)
def test_period_and_the_one_before(text: str, expected: list[str]) -> None:
    assert is_period(text)
    assert told(parse_period(text, "UTC", NOW)) == expected


def test_days_begin_where_the_zone_says() -> None:
    found = parse_period("today", "Asia/Kolkata", NOW)
    assert told(found) == ["11-24 00:00", "11-24 20:35", "11-23 00:00", "11-23 20:35"]
    assert found.so_far
    assert parse_period("today", "+05:30", NOW).start == parse_period("today", " 05:30", NOW).start == found.start


def test_week_in_which_the_clock_changes_has_all_its_days() -> None:
    found = parse_period("2026-10-19..2026-10-26", "Europe/Berlin", NOW)
    assert (found.seconds, found.stretch) == (7 * 86_400 + 3600, 1)
    assert [bucket.stop - bucket.start for bucket in buckets(found)] == [86_400] * 6 + [25 * 3600]


def test_to_takes_the_place_of_now() -> None:
    assert told(parse_period("7d", "UTC", NOW, "2026-11-08"))[:2] == ["11-01 00:00", "11-08 00:00"]
    assert told(parse_period("last-week", "UTC", NOW, "2026-11-08T12:00"))[:2] == ["10-26 00:00", "11-02 00:00"]


def test_months_are_compared_by_the_day() -> None:
    assert parse_period("last-month", "UTC", NOW).stretch == pytest.approx(31 / 30)
    assert parse_period("7d", "UTC", NOW).stretch == 1


def test_days_become_weeks_and_months_where_there_are_many() -> None:
    def labels(text: str) -> list[str]:
        return [bucket.label for bucket in buckets(parse_period(text, "UTC", NOW))]

    assert labels("last-week")[0] == "Mon Nov 16"
    assert labels("2026-09-01..2026-11-01")[:2] == ["Mon Aug 31", "Mon Sep 7"]
    assert labels("2026-01-01..2026-11-01") == [
        f"{name} 2026" for name in ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct"]
    ]
    first, *others = buckets(parse_period("7d", "UTC", NOW))
    assert (first.whole, others[0].whole, others[-1].whole) == (False, True, False)


@pytest.mark.parametrize(
    ("text", "tz", "to", "field"),
    [
        ("", "UTC", None, "period"),
        ("7", "UTC", None, "period"),
        ("0d", "UTC", None, "period"),
        ("99999w", "UTC", None, "period"),
        ("last-0-days", "UTC", None, "period"),
        ("fortnight", "UTC", None, "period"),
        ("2026-11-08..2026-11-01", "UTC", None, "period"),
        ("2026-11-01..2026-11-01", "UTC", None, "period"),
        ("2026-02-30..2026-03-02", "UTC", None, "period"),
        ("0001-01-01..2026-03-02", "UTC", None, "period"),
        ("2026-12-01..2026-12-02", "UTC", None, "period"),
        ("2000-01-01..2000-01-02", "UTC", None, "period"),
        ("a..b", "UTC", None, "period"),
        ("7d", "Mars/Olympus", None, "tz"),
        ("7d", "../etc/passwd", None, "tz"),
        ("7d", "/etc/passwd", None, "tz"),
        ("7d", "+25:00", None, "tz"),
        ("7d", "UTC", "soon", "to"),
    ],
)
def test_mistakes_name_the_parameter(text: str, tz: str, to: str | None, field: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_period(text, tz, NOW, to)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)

"""The period a report is about, in a time zone, and the period before it that it is compared with."""

import re
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.clock import DAY, HOUR, floor_to
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import MIN_TS
from vibezen.metrics.question import MAX_TS, parse_time, parse_zone
from vibezen.metrics.zone import Zone

EXPECTED: Final = (
    "24h, 7d, 4w, today, yesterday, this-week, last-week, this-month, last-month, last-7-days "
    "or 2026-11-01..2026-11-08 (the end is not part of it)"
)
MAX_DAYS: Final = 3660
"""Ten years: beyond it no chart or table of a report says anything."""

_ROLLING = re.compile(r"(\d{1,5})([hdw])\Z")
_LAST_DAYS = re.compile(r"last-(\d{1,4})-days\Z")
_NAMES: Final = ("today", "yesterday", "this-week", "last-week", "this-month", "last-month")
_UNITS: Final = {"h": HOUR, "d": DAY, "w": 7 * DAY}
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z")


class Period(msgspec.Struct, frozen=True):
    """[start, stop) in whole minutes of Unix time, compared with [before, before_stop).

    `so_far`: it goes on after `stop`, which is now; then the period before is as long as this one has been so far.
    """

    name: str
    zone: str
    start: int
    stop: int
    before: int
    before_stop: int
    so_far: bool = False

    @property
    def seconds(self) -> int:
        return self.stop - self.start

    @property
    def stretch(self) -> float:
        """By what a sum of the period before is multiplied, so that a month of 31 days is compared with one of 30; 1
        where both are as long, but for the hour that a clock change makes."""
        factor = self.seconds / (self.before_stop - self.before)
        return factor if abs(factor - 1) > 0.01 else 1.0


class Bucket(NamedTuple):
    """A day, week or month, as far as the period covers it: [start, stop)."""

    start: int
    stop: int
    label: str
    whole: bool


def is_period(text: str) -> bool:
    """Whether it is one by its form."""
    return bool(text in _NAMES or _ROLLING.match(text) or _LAST_DAYS.match(text) or ".." in text)


def parse_period(text: str, tz: str, now: float, to: str | None = None) -> Period:
    """`to`: where the period ends, or from where days are counted, instead of now. Raises BadParameter."""
    zone = parse_zone(tz)
    moment = now if to is None else parse_time("to", to, now, zone)
    start, stop, before, before_stop = _bounds(text, moment, now, zone)
    limit = _minute(max(moment, now))
    cut = min(stop, limit)
    if cut <= start:
        raise BadParameter("period", f"{text[:50]!r} has not begun yet")
    if cut < stop:
        before_stop = min(before_stop, before + cut - start)
    if stop - start > MAX_DAYS * DAY:
        raise BadParameter("period", f"longer than {MAX_DAYS} days")
    if before < MIN_TS:
        raise BadParameter("period", "begins before the year 2000")
    return Period(text, zone.name, start, cut, before, before_stop, cut < stop)


def _minute(ts: float) -> int:
    return -floor_to(-ts, 60)


def _bounds(text: str, moment: float, now: float, zone: Zone) -> tuple[int, int, int, int]:
    """Start and end of the period, and of the one before."""
    if match := _ROLLING.match(text):
        amount, unit = int(match[1]), match[2]
        if not 0 < amount * _UNITS[unit] <= MAX_DAYS * DAY:
            raise BadParameter("period", f"{text!r}: expected between 1h and {MAX_DAYS}d")
        stop = _minute(moment)
        # Days of the calendar, as `now-7d` has them: they begin at this time of day.
        start, before = (int(parse_time("period", f"now-{n * amount}{unit}", stop, zone)) for n in (1, 2))
        return start, stop, before, start
    if ".." in text:
        return _between(text, now, zone)
    day = datetime.fromtimestamp(moment, zone.rules).date()
    first, last, earlier = _days(text, day)
    return midnight(first, zone), midnight(last, zone), midnight(earlier, zone), midnight(first, zone)


def _days(text: str, day: date) -> tuple[date, date, date]:
    """First day, the day after the last, and the first day of the period before."""
    one, monday, first = timedelta(1), day - timedelta(day.weekday()), day.replace(day=1)
    if match := _LAST_DAYS.match(text):
        length = timedelta(int(match[1]))
        if length and length.days <= MAX_DAYS:
            return day + one - length, day + one, day + one - 2 * length
    elif text == "today":
        return day, day + one, day - one
    elif text == "yesterday":
        return day - one, day, day - 2 * one
    elif text == "this-week":
        return monday, monday + 7 * one, monday - 7 * one
    elif text == "last-week":
        return monday - 7 * one, monday, monday - 14 * one
    elif text == "this-month":
        return first, _month_after(first), _month_before(first)
    elif text == "last-month":
        before = _month_before(first)
        return before, first, _month_before(before)
    raise BadParameter("period", f"{text[:50]!r}: expected {EXPECTED}")


def _month_before(first: date) -> date:
    return (first - timedelta(1)).replace(day=1)


def _month_after(first: date) -> date:
    return (first + timedelta(31)).replace(day=1)


def _between(text: str, now: float, zone: Zone) -> tuple[int, int, int, int]:
    since, _, until = text.partition("..")
    if _DATE.match(since) and _DATE.match(until):
        try:
            first, last = date.fromisoformat(since), date.fromisoformat(until)
            earlier = first - (last - first)
        except (ValueError, OverflowError):
            raise BadParameter("period", f"{text[:50]!r}: no such day") from None
        if first < last:
            return midnight(first, zone), midnight(last, zone), midnight(earlier, zone), midnight(first, zone)
    start, stop = (_minute(parse_time("period", part, now, zone)) for part in (since, until))
    if start >= stop:
        raise BadParameter("period", f"{text[:50]!r} is empty: it must end after it begins")
    return start, stop, 2 * start - stop, start


def midnight(day: date, zone: Zone) -> int:
    """When a day begins there, in Unix seconds."""
    if not 1990 <= day.year < 9999:
        raise BadParameter("period", "expected days between the years 2000 and 9999")
    found = int(zone.moment(datetime.combine(day, time())))
    assert found < MAX_TS
    return found


def buckets(period: Period) -> Sequence[Bucket]:
    """The period by days; by weeks (from Monday) beyond 31 days, by months beyond half a year."""
    zone = parse_zone(period.zone)
    day = datetime.fromtimestamp(period.start, zone.rules).date()
    days = period.seconds / DAY
    unit = "day" if days <= 32 else "week" if days <= 190 else "month"
    if unit != "day":
        day = day.replace(day=1) if unit == "month" else day - timedelta(day.weekday())
    found: list[Bucket] = []
    start = midnight(day, zone)
    while start < period.stop:
        following = _month_after(day) if unit == "month" else day + timedelta(7 if unit == "week" else 1)
        stop = midnight(following, zone)
        label = day.strftime("%b %Y") if unit == "month" else f"{day:%a %b} {day.day}"
        whole = start >= period.start and stop <= period.stop
        found.append(Bucket(max(start, period.start), min(stop, period.stop), label, whole))
        day, start = following, stop
    return found

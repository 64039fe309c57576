"""Times as files write them, as Unix seconds: ISO 8601, Unix time in four units, or a pattern of one's own.

Microseconds are kept, finer digits are cut off. A time without a zone is taken in the zone that was named. Where clocks
go forward, local times are missing: such a row is refused. Where they go back, an hour happens twice, and nothing in
the text says which one is meant: the row is refused too, unless the earlier or the later one was asked for.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vibezen.metrics.errors import BadParameter, InvalidEvent
from vibezen.metrics.event import MIN_TS, shown

ReadTime = Callable[[Any], float]
"""A cell as Unix seconds; InvalidEvent when it is no time."""

UNIX: Final = {"unix": 1, "unix_ms": 10**3, "unix_us": 10**6, "unix_ns": 10**9}
"""Units per second."""
AMBIGUOUS: Final = ("reject", "earlier", "later")
TIME_COLUMNS: Final = ("ts", "timestamp", "time", "date", "datetime")
"""Where the time is looked for when nobody says, in this order and in any case of letters."""

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local times are compared with it
_NUMBER: Final = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\Z", re.ASCII)
_MICRO: Final = timedelta(microseconds=1)


def time_reader(column: str, time_format: str = "auto", timezone: str = "UTC", ambiguous: str = "reject") -> ReadTime:
    """How the cells of `column` are read. Raises BadParameter for a format or zone that is none."""
    if ambiguous not in AMBIGUOUS:
        raise BadParameter("ambiguous", f"{ambiguous!r}: expected reject, earlier or later")
    local = _local(_zone(timezone), ambiguous)
    if time_format in UNIX:
        return _guarded(column, f"a number ({time_format})", lambda cell: _unix(cell, UNIX[time_format]))
    if time_format == "iso":
        return _guarded(column, "an ISO 8601 time", lambda cell: _iso(cell, local))
    if time_format == "auto":
        return _guarded(column, "an ISO 8601 time or Unix time", lambda cell: _any(cell, local))
    _check_pattern(time_format)
    return _guarded(column, f"like {time_format}", lambda cell: local(_parsed(cell, time_format)))


def _guarded(column: str, wanted: str, read: ReadTime) -> ReadTime:
    def guarded(cell: Any) -> float:
        try:
            return read(cell)
        except InvalidEvent as bad:
            raise InvalidEvent(column, bad.reason) from None
        except (ValueError, TypeError, AttributeError, OverflowError, InvalidOperation):
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                raise InvalidEvent(column, "has no time; history needs one") from None
            raise InvalidEvent(column, f"{shown(cell)} is not {wanted}") from None

    return guarded


def _zone(name: str) -> ZoneInfo | None:
    """None for UTC."""
    if name.upper() in ("UTC", "Z"):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadParameter(
            "timezone", f"{name!r} is not a known time zone; expected a name like Europe/Berlin"
        ) from None


def _local(zone: ZoneInfo | None, ambiguous: str) -> Callable[[datetime], float]:
    """A date and time, with its own zone or in `zone`, as Unix seconds."""

    def utc(when: datetime) -> float:
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()

    def local(when: datetime) -> float:
        if when.tzinfo:
            return when.timestamp()
        offset: Any = when.replace(tzinfo=zone).utcoffset()
        other: Any = when.replace(tzinfo=zone, fold=1).utcoffset()
        if other > offset:
            raise InvalidEvent("time", f"{when} does not exist in {zone}: clocks went forward")
        if other < offset:
            if ambiguous == "reject":
                raise InvalidEvent("time", f"{when} happened twice in {zone}: choose with --ambiguous earlier or later")
            offset = other if ambiguous == "later" else offset
        micros: int = (when - _EPOCH - offset) // _MICRO
        return micros / 1_000_000

    return local if zone else utc


def _iso(cell: str, local: Callable[[datetime], float]) -> float:
    try:
        return local(datetime.fromisoformat(cell))
    except ValueError:
        return local(datetime.fromisoformat(cell.strip().removesuffix(" UTC") + "Z" * cell.rstrip().endswith(" UTC")))


def _unix(cell: Any, per_second: int) -> float:
    """Whole numbers are computed as such: nanoseconds have more digits than a double."""
    if isinstance(cell, bool):
        raise TypeError
    text = str(cell).strip()
    if not _NUMBER.match(text) or len(text) > 40:
        raise ValueError(text)
    if per_second == 1:
        return float(text)
    micros = int(text) * 1_000_000 // per_second if text.isdigit() else Decimal(text) * 1_000_000 // per_second
    return int(micros) / 1_000_000


def _any(cell: Any, local: Callable[[datetime], float]) -> float:
    if isinstance(cell, str):
        if cell[4:5] == "-":
            return _iso(cell, local)
        if not _NUMBER.match(cell.strip()):
            return _iso(cell, local)
    number = float(cell)
    if isinstance(cell, str) and number < MIN_TS and number >= 0:
        return _iso(cell, local)  # 20231116
    return _unix(cell, _unit_of(number))


def _unit_of(number: float) -> int:
    """From 2000 on until far ahead, the four units do not overlap."""
    return next((unit for unit in UNIX.values() if number < 1e11 * unit), UNIX["unix_ns"])


def _parsed(cell: str, pattern: str) -> datetime:
    return datetime.strptime(cell.strip(), pattern)  # noqa: DTZ007 - without %z it is a local time


def _check_pattern(pattern: str) -> None:
    expected = f"expected auto, iso, {', '.join(UNIX)} or a pattern like '%d.%m.%Y %H:%M:%S'"
    try:
        sample = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
        datetime.strptime(sample.strftime(pattern), pattern)  # noqa: DTZ007 - only whether the pattern is one
    except ValueError as error:
        raise BadParameter("time_format", f"{pattern!r}: {error}; {expected}") from None
    if "%" not in pattern:
        raise BadParameter("time_format", f"{pattern!r}: {expected}")

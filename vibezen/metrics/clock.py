"""Time, as a plain callable that tests can replace.

Wall clock for what events say, monotonic clock for how long something took; never one for the other.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Unix seconds, UTC."""

wall: Clock = time.time
monotonic: Clock = time.monotonic

MIN_ISO = -62_135_596_800
"""The first second of the year 1."""
MAX_ISO = 253_402_300_800
"""The first second of the year 10000."""
HOUR = 3600
"""Seconds in a partition."""
DAY = 24 * HOUR
"""Seconds in a date."""


def iso(ts: float) -> str:
    """`ts` in Unix seconds as ISO 8601 in UTC, to the millisecond; what no calendar has, as the number."""
    if not MIN_ISO <= ts < MAX_ISO:
        return f"{ts:.3f}"
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def floor_to(ts: float, width: int) -> int:
    """The start of the window of `width` seconds that holds `ts`."""
    return int(ts // width) * width

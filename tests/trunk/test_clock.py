"""Times: where a window begins, and how a time is written for people."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.clock import floor_to, iso
from vibezen.metrics.event import MAX_TS, MIN_TS

LAW = settings(deadline=None, max_examples=200, database=None)


@LAW
@given(st.floats(MIN_TS, MAX_TS, exclude_max=True), st.sampled_from([1, 10, 60, 300, 3600, 86_400]))
def test_window_holds_its_times_and_begins_at_a_multiple_of_its_width(ts: float, width: int) -> None:
    start = floor_to(ts, width)
    assert start <= ts < start + width
    assert start % width == 0
    assert floor_to(start, width) == start
    assert floor_to(math.nextafter(start, 0), width) == start - width


def test_time_is_written_in_utc_to_the_millisecond() -> None:
    assert iso(0) == "1970-01-01T00:00:00.000Z"
    assert iso(1_763_985_600.123456) == "2025-11-24T12:00:00.123Z"
    assert iso(math.nextafter(MAX_TS, 0)) == "9999-12-31T23:59:59.999Z"

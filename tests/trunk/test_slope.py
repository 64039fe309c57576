import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.analysis.slope import MIN_POINTS, slope_of

START = 1_763_985_600.0
values = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 6))


def line(slope: float, level: float, points: int, step: float = 3600.0) -> list[tuple[float, float]]:
    return [(START + n * step, level + slope * n * step) for n in range(points)]


@settings(max_examples=30, deadline=None)
@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(MIN_POINTS, 40))
def test_slope_of_a_line_is_exact(slope: int, level: int, points: int) -> None:
    found = slope_of(line(slope, level, points))
    assert found is not None
    assert (found.per_second, found.low, found.high) == (slope, slope, slope)
    assert (found.first, found.last) == (level, level + slope * (points - 1) * 3600)
    assert (found.confidence > 0.99) == bool(slope)


@settings(max_examples=50, deadline=None)
@given(st.lists(values, min_size=MIN_POINTS, max_size=40))
def test_a_mirrored_series_falls_as_fast_as_it_rose(given_values: list[float]) -> None:
    points = [(START + n * 60, value) for n, value in enumerate(given_values)]
    up, down = slope_of(points), slope_of([(ts, -value) for ts, value in points])
    assert up is not None
    assert down is not None
    assert (down.per_second, down.low, down.high) == (-up.per_second, -up.high, -up.low)
    assert down.confidence == up.confidence
    assert up.low <= up.per_second <= up.high
    assert 0 <= up.confidence <= 1


def test_gaps_change_nothing_of_a_line() -> None:
    some = [point for n, point in enumerate(line(2.0, 5.0, 60)) if n % 7 and n % 5]
    found = slope_of(some)
    assert found is not None
    assert found.per_second == 2.0


def test_a_quarter_of_odd_points_does_not_turn_it() -> None:
    points = line(1.0, 0.0, 80, 1.0)
    odd = [(ts, value + 10_000.0) if n % 4 == 0 else (ts, value) for n, (ts, value) in enumerate(points)]
    found = slope_of(odd)
    assert found is not None
    assert found.per_second == pytest.approx(1.0, abs=0.2)


def test_too_few_points_have_no_slope() -> None:
    assert slope_of(line(1.0, 0.0, MIN_POINTS - 1)) is None
    assert slope_of([]) is None


def test_chance_alone_is_seldom_sure() -> None:
    rng = random.Random(3)
    sure = 0
    for _ in range(200):
        found = slope_of([(START + n, rng.gauss(0, 1)) for n in range(30)])
        assert found is not None
        sure += found.confidence >= 0.95
    assert sure <= 25, "one in twenty is 10"


def test_confidence_is_that_of_mann_and_kendall() -> None:
    found = slope_of([(START + n, value) for n, value in enumerate([10, 15, 14, 20, 17, 22, 21, 25])])
    assert found is not None
    score = 25 - 3  # pairs that rise, and that fall
    assert found.confidence == pytest.approx(math.erf((score - 1) / math.sqrt(2 * 8 * 7 * 21 / 18)))


def test_equal_values_say_less() -> None:
    found = slope_of([(START + n, float(n >= 5)) for n in range(10)])
    assert found is not None
    variance = (10 * 9 * 25 - 2 * (5 * 4 * 15)) / 18
    assert found.confidence == pytest.approx(math.erf((5 * 5 - 1) / math.sqrt(2 * variance)))

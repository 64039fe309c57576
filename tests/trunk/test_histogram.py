"""Percentiles from buckets, beside those of the samples themselves (linear rule over the sorted values)."""

import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vibezen.metrics.histogram import (
    MAX_RELATIVE_ERROR,
    SCALE,
    Buckets,
    Distribution,
    add_buckets,
    bucket_of,
    buckets_of,
    value_of,
)

LAW = settings(deadline=None, max_examples=200, database=None)
QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
PROMISED = 0.011
"""The relative error that is promised of every percentile shown."""

SMALLEST_NORMAL = 2.3e-308
magnitudes = st.floats(SMALLEST_NORMAL, 1.79e308)


def exact(values: Sequence[float], q: float) -> float:
    """In fractions: between two values far apart, doubles would err more than the histogram."""
    ordered = sorted(values)
    position = Fraction(q * (len(ordered) - 1))
    at = math.floor(position)
    low, high = Fraction(ordered[at]), Fraction(ordered[min(at + 1, len(ordered) - 1)])
    return float(low + (high - low) * (position - at))


def distribution(values: Sequence[float]) -> Distribution:
    positive = buckets_of(v for v in values if v > 0)
    negative = buckets_of(-v for v in values if v < 0)
    zero = sum(v == 0 for v in values)
    return Distribution(zero, positive, negative, min(values, default=math.inf), max(values, default=-math.inf))


def told(values: Sequence[float], q: float) -> float:
    answer = distribution(values).quantile(q)
    assert answer is not None
    return answer


def bimodal(source: random.Random) -> float:
    """A cache that answers in 3 ms or a model that takes two seconds."""
    return source.gauss(3, 0.2) if source.random() < 0.6 else source.gauss(2000, 150)


SHAPES: dict[str, Callable[[random.Random], float]] = {
    "lognormal": lambda source: source.lognormvariate(5, 1.2),
    "pareto": lambda source: 20 * source.paretovariate(1.1),
    "bimodal": bimodal,
    "tiny": lambda source: source.lognormvariate(-600, 2),
    "negative": lambda source: -source.lognormvariate(5, 1.2),
}


@pytest.mark.parametrize("q", QUANTILES)
@pytest.mark.parametrize("shape", SHAPES)
def test_percentile_is_within_the_promised_error(shape: str, q: float) -> None:
    source = random.Random(20261123)
    values = [SHAPES[shape](source) for _ in range(20_000)]
    truth = exact(values, q)
    assert abs(told(values, q) - truth) <= PROMISED * abs(truth)


@LAW
@given(st.lists(magnitudes, min_size=1, max_size=40), st.floats(0, 1))
def test_percentile_of_any_values_of_one_sign_is_within_the_bucket_error(values: list[float], q: float) -> None:
    truth = exact(values, q)
    assert math.isclose(told(values, q), truth, rel_tol=MAX_RELATIVE_ERROR * 1.0001)
    assert math.isclose(
        told([-v for v in values], q), exact([-v for v in values], q), rel_tol=MAX_RELATIVE_ERROR * 1.01
    )


@LAW
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.floats(0, 1))
def test_percentiles_rise_with_the_share_and_stay_between_the_extremes(values: list[float], q: float) -> None:
    answers = [told(values, share) for share in sorted((0.0, q, 0.5, 0.999, 1.0))]
    assert all(a <= b or math.isclose(a, b, rel_tol=1e-12) for a, b in pairwise(answers))
    assert all(min(values) <= answer <= max(values) for answer in answers)


@LAW
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=20))
def test_extremes_are_found_within_the_bucket_error(values: list[float]) -> None:
    assume(all(v == 0 or abs(v) > SMALLEST_NORMAL for v in values))
    assert math.isclose(told(values, 0.0), min(values), rel_tol=2 * MAX_RELATIVE_ERROR)
    assert math.isclose(told(values, 1.0), max(values), rel_tol=2 * MAX_RELATIVE_ERROR)


def test_no_samples_have_no_percentile() -> None:
    assert distribution([]).quantile(0.5) is None


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e-30, 1.0, 150.5, 1e30, 1.7976931348623157e308])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_value_is_its_own_percentile(value: float, sign: int) -> None:
    assert [told([sign * value], q) for q in (0, 0.5, 1)] == [sign * value] * 3


def test_zeros_stand_between_the_signs() -> None:
    values = [-5.0, 0.0, -0.0, 0.0, 5.0]
    assert [told(values, q) for q in (0.25, 0.5, 0.75)] == [0.0, 0.0, 0.0]
    assert told([-1.0, 0.0], 0.75) == pytest.approx(-0.25, rel=MAX_RELATIVE_ERROR * 1.0001)


@LAW
@given(magnitudes)
def test_value_lies_in_its_bucket_and_near_what_the_bucket_stands_for(value: float) -> None:
    bucket = bucket_of(value)
    log = math.log2(value) * 2**SCALE
    assert bucket - 1e-9 < log <= bucket + 1 + 1e-9
    assert math.isclose(value_of(bucket), value, rel_tol=MAX_RELATIVE_ERROR * 1.0001)


@pytest.mark.parametrize("power", [-1074, -1022, -1, 0, 1, 10, 1023])
def test_power_of_two_is_the_upper_bound_of_its_bucket(power: int) -> None:
    assert bucket_of(2.0**power) == power * 2**SCALE - 1


@LAW
@given(st.lists(magnitudes | st.floats(5e-324, 1e-300), max_size=30))
def test_buckets_of_many_are_the_buckets_of_each(values: list[float]) -> None:
    one_by_one: Buckets = {}
    for value in values:
        add_buckets(one_by_one, {bucket_of(value): 1})
    assert buckets_of(values) == one_by_one
    assert sum(one_by_one.values()) == len(values)


def test_weight_counts_like_as_many_samples() -> None:
    values = [1.0] * 30 + [10.0] * 60 + [100.0] * 10
    weighted = Distribution(0, {bucket_of(1.0): 30, bucket_of(10.0): 60, bucket_of(100.0): 10}, {}, 1.0, 100.0)
    assert [weighted.quantile(q) for q in QUANTILES] == [distribution(values).quantile(q) for q in QUANTILES]


@pytest.mark.parametrize("weight", [1e-3, 0.5, 1 / 0.3, 1e9, 2.0**32 * 1e9])
def test_weight_need_not_be_whole(weight: float) -> None:
    weighted = Distribution(weight, {bucket_of(8.0): weight}, {}, 0.0, 8.0)
    assert weighted.quantile(0) == 0.0
    last = weighted.quantile(1)
    assert last == (pytest.approx(8.0, rel=MAX_RELATIVE_ERROR * 1.0001) if 2 * weight - 1 > weight else 0.0)


def test_error_of_a_bucket_is_within_what_is_promised() -> None:
    assert pytest.approx(0.0108, rel=0.01) == MAX_RELATIVE_ERROR
    assert MAX_RELATIVE_ERROR <= PROMISED

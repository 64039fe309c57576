"""Verdicts: better, worse, unchanged, or too little data."""

import random
from statistics import pstdev

import pytest

from vibezen.metrics.catalogue import Better, Kind
from vibezen.metrics.reports.comparison import (
    MIN_SAMPLES,
    Measured,
    Verdict,
    compare,
    deviation,
    divided,
    measured,
)
from vibezen.metrics.window import window_of
from vibezen.metrics.window_reader import QUANTILES, aggregates

NAMES = ("count", "sum", "rate", "mean", "min", "max", *QUANTILES)


def told(values: list[float], agg: str) -> Measured:
    window = window_of(values, [float(n) for n in range(len(values))])
    kind = Kind.COUNTER if agg in ("sum", "rate") else Kind.DISTRIBUTION
    return measured(agg, dict(zip(NAMES, aggregates(window, NAMES, 60, kind), strict=True)), kind)


def latencies(seed: int, factor: float = 1.0, count: int = 2000) -> list[float]:
    dice = random.Random(seed)
    return [factor * dice.lognormvariate(5, 0.6) for _ in range(count)]


def verdict(now: list[float], before: list[float], agg: str, better: Better = Better.LOWER) -> Verdict:
    return compare(told(now, agg), told(before, agg), better).verdict


def test_direction_decides_between_better_and_worse() -> None:
    slow, fast = latencies(1, 1.5), latencies(2)
    assert verdict(fast, slow, "p50") is Verdict.BETTER
    assert verdict(slow, fast, "p50") is Verdict.WORSE
    assert verdict(slow, fast, "p50", Better.HIGHER) is Verdict.BETTER
    assert verdict(slow, fast, "mean", Better.NEITHER) is Verdict.HIGHER
    assert verdict(fast, slow, "mean", Better.NEITHER) is Verdict.LOWER


@pytest.mark.parametrize("agg", ["mean", "p50", "p95", "sum", "rate", "count"])
def test_chance_alone_is_seldom_called_a_change(agg: str) -> None:
    """Same work, other samples: of 200 comparisons chance makes about ten exceed two standard errors."""
    found = [verdict(latencies(2 * n, count=300), latencies(2 * n + 1, count=300), agg) for n in range(200)]
    assert sum(one is not Verdict.UNCHANGED for one in found) <= 20


@pytest.mark.parametrize(("agg", "count"), [("mean", 2000), ("p50", 2000), ("p95", 4000)])
def test_change_of_a_fifth_is_seen_in_enough_samples(agg: str, count: int) -> None:
    found = [verdict(latencies(2 * n, 1.2, count), latencies(2 * n + 1, 1.0, count), agg) for n in range(20)]
    assert found.count(Verdict.WORSE) >= 18


def test_two_per_cent_are_no_change_however_many_samples_there_are() -> None:
    now, before = Measured(102.0, 1e9, 1e-6, True), Measured(100.0, 1e9, 1e-6, True)
    assert compare(now, before, Better.LOWER).verdict is Verdict.UNCHANGED
    worse = compare(Measured(102.1, 1e9, 1e-6, True), before, Better.LOWER)
    assert worse.verdict is Verdict.WORSE
    assert worse.absolute == pytest.approx(2.1)
    assert worse.relative == pytest.approx(0.021)


def test_too_few_samples_are_judged_by_nobody() -> None:
    few, many = latencies(1, 9.0, MIN_SAMPLES - 1), latencies(2)
    assert verdict(few, many, "p50") is verdict(many, few, "p50") is Verdict.TOO_LITTLE_DATA
    assert verdict(latencies(1, 9.0, MIN_SAMPLES), many, "p50") is Verdict.WORSE
    assert verdict(latencies(1, 9.0, 99), many, "p95") is Verdict.TOO_LITTLE_DATA
    assert verdict(latencies(1, 9.0, 100), many, "p95") is Verdict.WORSE
    assert verdict(latencies(1, 9.0, 499), many, "p99") is Verdict.TOO_LITTLE_DATA


def test_nothing_on_either_side_is_too_little() -> None:
    nothing, some = Measured(None, 0), Measured(3.0, 100, 0.1, True)
    for now, before in ((nothing, some), (some, nothing), (nothing, nothing)):
        found = compare(now, before, Better.LOWER)
        assert (found.verdict, found.absolute, found.relative) == (Verdict.TOO_LITTLE_DATA, None, None)


def test_change_from_zero_has_no_share() -> None:
    found = compare(Measured(0.5, 400, 0.01, True), Measured(0.0, 400, 0.0, True), Better.LOWER)
    assert (found.verdict, found.absolute, found.relative) == (Verdict.WORSE, 0.5, None)
    same = compare(Measured(0.0, 400, 0.0, True), Measured(0.0, 400, 0.0, True), Better.LOWER)
    assert same.verdict is Verdict.UNCHANGED


def test_ratio_is_per_the_other_and_as_uncertain_as_both() -> None:
    found = divided(Measured(30.0, 50, 3.0, True), Measured(10.0, 40, 1.0, True))
    assert (found.value, found.samples) == (3.0, 50)
    assert found.error == pytest.approx(3.0 * (0.1**2 + 0.1**2) ** 0.5)
    assert divided(Measured(30.0, 50), Measured(0.0, 40)).value is None
    assert divided(Measured(30.0, 50), Measured(None, 0)).value is None


def test_deviation_from_percentiles_is_near_that_of_the_values() -> None:
    for values in (latencies(5), [random.Random(6).gauss(0.8, 0.1) for _ in range(1)] * 50, [0.0, 1.0] * 500):
        shares = {0.0: min(values), 1.0: max(values)}
        ordered = sorted(values)
        shares |= {share: ordered[round(share * (len(values) - 1))] for share in QUANTILES.values()}
        found = deviation(sorted(shares.items()), sum(values) / len(values))
        assert found == pytest.approx(pstdev(values), rel=0.35, abs=1e-9)


@pytest.mark.parametrize("agg", ["mean", "sum", "p95", "count", "rate"])
@pytest.mark.parametrize("huge", [1e200, 1e300, 1.7e308])
def test_values_near_the_end_of_numbers_are_compared_without_an_error(agg: str, huge: float) -> None:
    values = [huge, -huge, huge, 1.0, 5e-324] * 100
    names = ("count", "sum", "mean", "min", "max", "rate", *QUANTILES)
    told = dict(zip(names, aggregates(window_of(values, [0.0] * 500), names, 60, Kind.COUNTER), strict=True))
    number = measured(agg, told, Kind.COUNTER)
    other = measured(agg, {**told, agg: 1.0}, Kind.COUNTER)
    assert compare(number, other, Better.LOWER).verdict in Verdict

import math
import random
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.connection import connect_async
from vibezen.metrics.keys import Keys
from vibezen.metrics.series import overflow_key, series_key
from vibezen.metrics.settings import Aggregation
from vibezen.metrics.window import Window, from_blob, merged, to_blob, window_of
from vibezen.metrics.window_reader import (
    AGGREGATES,
    WINDOWS_PER_READ,
    Total,
    aggregates,
    fetch,
    shard_count,
    total,
)

WIDTHS = Aggregation().widths
NOW = 1_763_985_635.0
HOUR = 3600.0
DAY = 24 * HOUR
KEYS = Keys()
KIND = Kind.DISTRIBUTION


def sampled(values: Sequence[float], at: float) -> Window:
    return window_of(values, [at] * len(values))


def test_total_over_series_shards_and_time_is_that_of_all_samples() -> None:
    values = [random.Random(3).lognormvariate(4, 1) for _ in range(900)]
    parts = [(series_key("response_time", {"p": str(i)}), sampled(values[i::9], NOW + i)) for i in range(9)]
    whole, all_at_once = total(Kind.DISTRIBUTION, parts), sampled(values, NOW)
    assert whole.count == 900
    assert whole.sum == pytest.approx(math.fsum(values), rel=1e-12)
    assert (whole.min, whole.max) == (min(values), max(values))
    assert whole.distribution().quantile(0.95) == all_at_once.distribution().quantile(0.95)
    assert whole.last == parts[-1][1].last, "of the newest sample"


@pytest.mark.parametrize("kind", [Kind.DISTRIBUTION, Kind.GAUGE])
def test_totals_leave_their_parts_as_they_were(kind: Kind) -> None:
    part = sampled([1, 2, 3], NOW)
    before = to_blob(part)
    total(kind, [("a", part), ("a", part), ("b", part)])
    assert to_blob(part) == before


def test_gauge_is_the_sum_of_each_series_newest_value() -> None:
    parts = [("a", sampled([5], NOW)), ("b", sampled([7], NOW - 9)), ("a", sampled([2], NOW - 5))]
    gauge = total(Kind.GAUGE, parts)
    assert gauge.last == 12
    assert (gauge.min, gauge.max, gauge.last_ts) == (2, 7, NOW)


def test_total_can_be_looked_at_while_it_grows() -> None:
    growing = Total(Kind.GAUGE)
    growing.add("a", sampled([5], NOW))
    assert growing.window().last == 5
    growing.add("b", sampled([1], NOW - 1))
    assert growing.window().last == 6


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 7))
def test_how_samples_are_spread_over_windows_does_not_matter(values: list[float], parts: int) -> None:
    spread = [sampled(values[i::parts], NOW) for i in range(parts) if values[i::parts]]
    split, whole = merged(spread), sampled(values, NOW)
    names = [name for name in AGGREGATES if name not in ("sum", "mean", "last")]
    assert aggregates(split, names, 10, KIND) == aggregates(whole, names, 10, KIND)
    assert split.sum == pytest.approx(whole.sum, rel=1e-9, abs=1e-6)


def test_aggregates_of_known_samples() -> None:
    window = sampled([10, 20, 30, 40], NOW)
    found = dict(zip(AGGREGATES, aggregates(window, AGGREGATES, 8, KIND), strict=True))
    assert (found["count"], found["sum"], found["mean"], found["rate"]) == (4, 100, 25, 0.5)
    assert (found["min"], found["max"], found["last"]) == (10, 40, 40)
    assert found["p50"] == pytest.approx(25, rel=0.011)
    assert found["p99.9"] == pytest.approx(40, rel=0.011)


def test_rate_of_a_counter_is_its_increase_per_second() -> None:
    window = sampled([10, 20, 30], NOW)
    assert [aggregates(window, ["rate"], 10, kind) for kind in Kind] == [[0.3], [6], [0.3], [0.3]]


def test_histogram_holds_every_sample_between_its_bounds() -> None:
    values = [-300.0, -2, 0, 0, 5e-324, 0.1, 7, 7.05, 1.7e308]
    (buckets,) = aggregates(sampled(values, NOW), ["histogram"], 10, KIND)
    assert [(low, high) for low, high, _ in buckets] == sorted((low, high) for low, high, _ in buckets)
    assert sum(samples for _, _, samples in buckets) == len(values)
    for value in values:
        held = [samples for low, high, samples in buckets if low <= value <= high]
        assert held, value
    assert [0.0, 0.0, 2] in map(list, buckets)


def test_nothing_is_known_of_a_window_without_samples() -> None:
    assert aggregates(Window(), AGGREGATES, 10, KIND) == [None] * len(AGGREGATES)


def test_rate_of_a_step_that_has_not_begun_is_unknown() -> None:
    assert aggregates(sampled([1], NOW), ["rate"], -5, KIND) == [None]


def read(url: str, *arguments: Any) -> dict[tuple[int, int], dict[str, Window]]:
    async def run() -> dict[tuple[int, int], dict[str, Window]]:
        found = {}
        async with connect_async(url) as client:
            async for batch in fetch(client, KEYS, *arguments):
                for shard, start, series in batch:
                    found[shard, start] = {key.decode(): from_blob(blob) for key, blob in series.items()}
        return found

    return anyio.run(run)


def store(client: redis.Redis, shard: int, start: int, *series: str) -> None:
    for key in series:
        client.hset(KEYS.window(shard, 10, start), key, to_blob(sampled([1], start)))


@pytest.mark.server
def test_windows_of_all_shards_are_read_whole(redis_url: str, client: redis.Redis) -> None:
    a, b = series_key("cost", {"model": "a"}), series_key("tokens", {})
    store(client, 0, 100, a, b)
    store(client, 2, 110, b)
    assert read(redis_url, 3, 10, [100, 110, 120]) == {
        (0, 100): {a: sampled([1], 100), b: sampled([1], 100)},
        (2, 110): {b: sampled([1], 110)},
    }


@pytest.mark.server
def test_only_the_series_of_the_metric_asked_for_are_read(redis_url: str, client: redis.Redis) -> None:
    wanted = [series_key("cost", {}), series_key("cost", {"model": "a"}), overflow_key("cost")]
    others = [series_key("cost.day", {}), series_key("tokens", {"model": '","metric":"cost"}'})]
    store(client, 0, 100, *wanted, *others)
    assert set(read(redis_url, 1, 10, [100], "cost")[0, 100]) == set(wanted)


@pytest.mark.server
def test_many_windows_are_read_in_several_round_trips(redis_url: str, client: redis.Redis) -> None:
    starts = list(range(0, 25 * WINDOWS_PER_READ, 10))
    for start in starts:
        store(client, 0, start, series_key("cost", {}))
    assert [start for _, start in read(redis_url, 1, 10, starts)] == starts


@pytest.mark.server
def test_window_too_large_for_one_scan_is_read_whole(redis_url: str, client: redis.Redis) -> None:
    blob = to_blob(Window())
    series = {series_key("cost", {"agent": str(i)}): blob for i in range(25_000)}
    client.hset(KEYS.window(0, 10, 100), mapping=series)  # type: ignore[arg-type]  # its values may be bytes
    assert read(redis_url, 1, 10, [100], "cost")[0, 100].keys() == series.keys()


@pytest.mark.server
def test_shards_ever_used_count_even_when_fewer_are_configured(redis_url: str, client: redis.Redis) -> None:
    async def count(configured: int) -> int:
        async with connect_async(redis_url) as connection:
            return await shard_count(connection, KEYS, configured)

    assert anyio.run(count, 2) == 2
    client.set(KEYS.shards, 4)
    assert anyio.run(count, 2) == 4

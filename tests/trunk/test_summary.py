import math
import random
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline, sources_of
from vibezen.metrics.clock import HOUR, wall
from vibezen.metrics.histogram import MAX_RELATIVE_ERROR

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


def test_every_metric_is_told_against_the_range_before(pipeline: Pipeline) -> None:
    pipeline.take_in(
        [event(value, OLD + value) for value in range(1, 101)]
        + [event(value / 2, OLD - HOUR + value) for value in range(1, 101)]
        + [event(5, OLD + n, "tokens", type="input") for n in range(4)]
        + [event(10, OLD - 1, "tokens", type="input")]
        + [event(n % 2, OLD + n, "error_rate") for n in range(10)]
    )
    found = pipeline.summary(since=OLD, until=OLD + HOUR)
    assert (found.since, found.to, found.previous.since, found.previous.to) == (OLD, OLD + HOUR, OLD - HOUR, OLD)
    assert (sources_of(found), found.exact, found.as_of) == (["events"], True, OLD + 100)
    times, tokens, errors = (found.metrics[name] for name in ("response_time", "tokens", "error_rate"))
    assert (times.value, times.previous, times.change) == (50.5, 25.25, 1.0)
    assert (times.count, times.p95, times.min, times.max, times.last) == (100, 95.05, 1, 100, 100)
    assert (tokens.value, tokens.previous, tokens.change, tokens.unit, tokens.better) == (
        20,
        10,
        1.0,
        "tokens",
        "lower",
    )
    assert (tokens.rate, times.rate) == (20 / HOUR, 100 / HOUR)
    assert (errors.value, errors.previous, errors.change) == (0.5, None, None)
    assert list(found.metrics) == sorted(found.metrics)


def test_windows_and_events_agree(pipeline: Pipeline) -> None:
    now = math.floor(wall())
    rng = random.Random(4)
    for producer in ("a", "b"):
        pipeline.take_in(
            [
                event(rng.lognormvariate(3, 1), now - rng.uniform(1, 7000), provider=rng.choice("xyz"))
                for _ in range(400)
            ]
            + [event(rng.randrange(9), now - 30 + i, "queue_depth", producer=producer) for i in range(9)],
            producer,
        )
    asked: dict[str, Any] = {"since": now - 7200, "until": now + 60}
    windows, events = pipeline.summary(**asked), pipeline.summary(**asked, exact="true")
    assert (sources_of(windows), sources_of(events)) == (["windows"], ["events"])
    assert windows.metrics.keys() == events.metrics.keys() == {"response_time", "queue_depth"}
    for name, one in windows.metrics.items():
        other = events.metrics[name]
        for field in ("count", "sum", "mean", "min", "max", "last"):
            assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-9), (name, field)
        for field in ("p50", "p95", "p99"):
            assert getattr(one, field) == pytest.approx(getattr(other, field), rel=MAX_RELATIVE_ERROR, abs=0.05)


def test_gauge_is_the_sum_of_each_producers_newest(pipeline: Pipeline) -> None:
    pipeline.take_in(
        [
            event(value, OLD + at, "concurrency", producer=who)
            for who, at, value in [("a", 1, 3), ("a", 2, 4), ("b", 1, 10), ("b", 3, 8)]
        ]
    )
    found = pipeline.summary(since=OLD, until=OLD + HOUR).metrics["concurrency"]
    assert (found.value, found.last, found.max, found.count) == (12, 12, 10, 4)


def test_one_metric_and_conditions(pipeline: Pipeline) -> None:
    pipeline.take_in([event(n, OLD + n, session=f"s{n % 2}") for n in range(6)] + [event(9, OLD, "cost")])
    found = pipeline.summary(since=OLD, until=OLD + HOUR, metric="response_time", where="session=s1")
    assert {name: told.sum for name, told in found.metrics.items()} == {"response_time": 9}


def test_empty_range_has_no_metrics(pipeline: Pipeline) -> None:
    found = pipeline.summary(since=OLD, until=OLD + HOUR)
    assert (found.metrics, found.as_of) == ({}, None)

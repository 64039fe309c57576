"""What is answered about one metric: in any zone, by any key, from whichever source, always the same numbers."""

import math
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline, only, sources_of, values_of
from vibezen.metrics import history
from vibezen.metrics.clock import HOUR, wall
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import Event
from vibezen.metrics.histogram import MAX_RELATIVE_ERROR
from vibezen.metrics.history import History
from vibezen.metrics.zone import Zone, zone_of

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0
"""2023-11-16T18:00:00Z"""
CHANGE = datetime.fromisoformat("2023-10-29T01:00:00Z").timestamp()
"""When clocks were put back in Berlin."""


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


@pytest.fixture
def now() -> float:
    return math.floor(wall())


def points(answer: History, agg: str) -> dict[int, Any]:
    return dict(only(line.points for line in answer.series if line.agg == agg))


def by_clock(events: list[Event], zone: Zone, floor: Callable[[datetime], datetime]) -> dict[int, list[float]]:
    """Values by the moment at which their step begins, told by the calendar itself."""
    found: dict[int, list[float]] = {}
    for one in events:
        assert one.ts is not None
        local = floor(datetime.fromtimestamp(one.ts, zone.rules))
        found.setdefault(int(local.replace(fold=0).timestamp()), []).append(one.value)
    return found


def scattered(since: float, until: float, count: int) -> list[Event]:
    rng = random.Random(7)
    return [event(rng.lognormvariate(5, 1), round(rng.uniform(since, until), 6)) for _ in range(count)]


def midnight(when: datetime) -> datetime:
    return when.replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.mark.parametrize("tz", ["Europe/Berlin", "+05:30", "Asia/Kathmandu"])
def test_days_of_a_zone_are_told_exactly_from_events(pipeline: Pipeline, tz: str) -> None:
    events = scattered(CHANGE - 3 * 24 * HOUR, CHANGE + 3 * 24 * HOUR, 3000)
    pipeline.take_in(events)
    asked: dict[str, Any] = {"since": "2023-10-25", "until": "2023-11-03", "tz": tz, "step": "1d"}
    answer = pipeline.history(**asked, agg="count,sum,p95")
    assert (answer.tz, answer.exact, answer.step) == (tz, True, 86_400)
    expected = by_clock(events, zone_of(tz), midnight)
    counts, sums, p95 = (points(answer, agg) for agg in ("count", "sum", "p95"))
    assert {start: count for start, count in counts.items() if count is not None} == {
        start: len(values) for start, values in expected.items()
    }
    for start, values in expected.items():
        assert sums[start] == pytest.approx(math.fsum(values), rel=1e-12)
        assert p95[start] == pytest.approx(quantile(values, 0.95), rel=1e-12)
    lacking = [start for start in counts if start not in expected]
    assert lacking
    assert {answered[start] for start in lacking for answered in (counts, sums, p95)} == {None}


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (position - low)


@pytest.mark.parametrize(("tz", "step"), [("+05:30", "1h"), ("+05:45", "30m"), ("+05:30", "1d"), ("Asia/Tokyo", "6h")])
def test_windows_and_events_make_up_the_same_steps_of_a_zone(
    pipeline: Pipeline, now: float, tz: str, step: str
) -> None:
    """Also where windows answer for one part of the range and events for the other."""
    pipeline.take_in(scattered(now - 40 * HOUR, now, 2000))
    asked: dict[str, Any] = {"since": now - 41 * HOUR, "until": now, "tz": tz, "step": step, "agg": "count,sum,max,p50"}
    both, events = pipeline.history(**asked), pipeline.history(**asked, exact="true")
    assert (sources_of(both)[:2], sources_of(events)) == (["events", "windows"], ["events"])
    assert both.sources[0].to == both.sources[1].since
    assert both.sources[1].since % HOUR == 0, "each UTC hour from exactly one source"
    assert sum(filter(None, points(both, "count").values())) == 2000
    for agg, error in (("count", 0), ("max", 0), ("sum", 1e-9), ("p50", MAX_RELATIVE_ERROR * 1.01)):
        for start, value in points(events, agg).items():
            assert points(both, agg)[start] == (None if value is None else pytest.approx(value, rel=error)), agg
    offset = zone_of(tz).offset(now)
    assert {(start + offset) % both.step for start in points(both, "count")} == {0}


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin"])
def test_step_without_a_sample_is_null_whatever_is_asked_and_wherever_it_is_from(
    pipeline: Pipeline, now: float, tz: str
) -> None:
    for metric in ("response_time", "tokens", "concurrency", "error_rate"):
        pipeline.take_in([event(1, at, metric, producer="p") for at in (CHANGE - 30 * HOUR, now - 30)])
        asked: dict[str, Any] = {"tz": tz, "agg": "count,sum,mean,min,max,last,rate,p50,histogram"}
        for since, until, step in ((CHANGE - 72 * HOUR, CHANGE + 48 * HOUR, "1d"), (now - 600, now + 60, "60")):
            answer = pipeline.history(metric, since=since, until=until, step=step, **asked)
            for line in answer.series:
                assert len([value for _, value in line.points if value is not None]) == 1, (metric, line.agg)
                assert [value for _, value in line.points].count(None) >= 4


def test_rate_of_a_counter_is_its_increase_per_second_whatever_the_source(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(500, now - 120 + at, metric) for metric in ("tokens", "response_time") for at in range(60)])
    asked: dict[str, Any] = {"since": now - 3600, "until": now - 60, "step": "1h", "agg": "rate"}
    for exact in ("false", "true"):
        for metric, expected in (("tokens", 500 * 60), ("response_time", 60)):
            answer = pipeline.history(metric, **asked, exact=exact)
            told = math.fsum(
                rate * min(answer.step, now - start)
                for start, rate in points(answer, "rate").items()
                if rate is not None
            )
            assert told == pytest.approx(expected, rel=0.01), (metric, exact)


def test_rate_of_a_day_is_by_the_hours_it_had(pipeline: Pipeline) -> None:
    pipeline.take_in([event(90_000, CHANGE, "tokens")])
    answer = pipeline.history(
        "tokens", since="2023-10-29", until="2023-10-30", tz="Europe/Berlin", step="1d", agg="rate"
    )
    assert list(points(answer, "rate").values()) == [1.0]


@pytest.mark.parametrize("source", ["windows", "events"])
def test_histogram_has_every_sample_in_its_bucket(pipeline: Pipeline, now: float, source: str) -> None:
    values = [*(random.Random(3).lognormvariate(3, 2) for _ in range(500)), 0.0, 0.0, -5.0]
    pipeline.take_in([event(value, now - 60) for value in values])
    asked: dict[str, Any] = {"since": now - 600, "until": now + 600, "step": "1d", "agg": "histogram,p50,count"}
    answer = pipeline.history(**asked, exact="true" if source == "events" else "false")
    assert (sources_of(answer)[0], answer.exact) == (source, source == "events")
    ((buckets,),) = [[value for value in points(answer, "histogram").values() if value is not None]]
    assert sum(count for _, _, count in buckets) == len(values)
    for low, high, count in buckets:
        inside = [value for value in values if (low < value <= high if low >= 0 < high else low <= value < high)]
        assert count == len(inside) or (low, high, count) == (0, 0, 2)


def test_histograms_too_large_for_an_answer_are_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.take_in([event(2.0**number, OLD + number) for number in range(20)])
    monkeypatch.setattr(history, "MAX_ANSWER_BUCKETS", 19)
    with pytest.raises(BadParameter, match="20 buckets") as caught:
        pipeline.history(since=OLD, until=OLD + HOUR, step="60", agg="histogram")
    assert caught.value.field == "agg"


def test_top_groups_are_those_that_weigh_most_and_the_rest_is_counted(pipeline: Pipeline) -> None:
    weights = {"a": [7, 7], "b": [14], "c": [5, 5, 5], "d": [100]}
    for metric in ("tokens", "response_time"):
        pipeline.take_in(
            [
                event(v, OLD + n * 60, metric, session=name)
                for name, values in weights.items()
                for n, v in enumerate(values)
            ]
        )
    asked: dict[str, Any] = {"since": OLD, "until": OLD + HOUR, "step": "60", "group_by": "session", "agg": "max"}
    for metric, top, shown in (
        ("tokens", 2, "cd"),
        ("tokens", 3, "acd"),  # a and b weigh the same
        ("response_time", 2, "ac"),
        ("response_time", 3, "abc"),  # b and d weigh the same
        ("response_time", 9, "abcd"),
    ):
        answer = pipeline.history(metric, **asked, top=str(top))
        assert [line.labels["session"] for line in answer.series] == list(shown), (metric, top)
        assert answer.omitted == 4 - len(shown)
    assert pipeline.history("tokens", **asked).omitted == 0


def test_top_groups_fit_where_all_are_too_many(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.take_in([event(n, OLD, "tokens", session=f"s{n}") for n in range(50)])
    monkeypatch.setattr(history, "MAX_ANSWER_POINTS", 5 * 60)
    asked: dict[str, Any] = {"since": OLD, "until": OLD + HOUR, "step": "60", "group_by": "session"}
    with pytest.raises(BadParameter, match="50 series are too many"):
        pipeline.history("tokens", **asked)
    assert len(pipeline.history("tokens", **asked, top="5").series) == 5


def test_groups_by_any_metadata_key_are_told_by_events(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(value, now - 100, provider="x", session=f"s{value % 3}") for value in range(9)])
    answer = pipeline.history(since=now - 600, until=now + 600, step="1d", agg="sum", group_by="session,provider")
    assert sources_of(answer) == ["events"]
    assert {labels: sum(filter(None, values)) for labels, values in values_of(answer).items()} == {
        (("session", f"s{n}"), ("provider", "x")): n + n + 3 + n + 6 for n in range(3)
    }


def test_gauges_by_a_key_that_is_no_label(pipeline: Pipeline) -> None:
    for producer, queue, value in (("a", "q1", 3), ("b", "q1", 4), ("a", "q2", 5)):
        pipeline.take_in([event(value, OLD, "queue_depth", producer=producer, queue=queue)])
    answer = pipeline.history("queue_depth", since=OLD, until=OLD + HOUR, step="1h", agg="last", group_by="queue")
    assert values_of(answer) == {(("queue", "q1"),): [7], (("queue", "q2"),): [5]}


def test_metric_that_nobody_knows_is_told_from_one_that_is_silent(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 60, "build_minutes"), event(1, OLD, "response_time")])
    asked: dict[str, Any] = {"since": now - 600, "until": now}
    silent, mistyped = pipeline.history("response_time", **asked), pipeline.history("respose_time", **asked)
    assert (silent.series, silent.known, silent.similar) == ([], True, [])
    assert (mistyped.series, mistyped.known, mistyped.similar) == ([], False, ["response_time"])
    assert pipeline.history("build_minute", **asked).similar == ["build_minutes"]
    assert pipeline.history("build_minutes", **asked).known
    assert pipeline.history("zzz", **asked).similar == []


@pytest.mark.parametrize("metric", ["a" + "b" * 99, "a.b.c", "select", "events"])
def test_names_that_mean_something_elsewhere_are_only_names(pipeline: Pipeline, metric: str) -> None:
    pipeline.take_in([event(3, OLD, metric, select="from", where="x")])
    answer = pipeline.history(metric, since=OLD, until=OLD + HOUR, step="1h", agg="sum", group_by="select,where")
    assert values_of(answer) == {(("select", "from"), ("where", "x")): [3]}


def test_range_of_many_years_is_answered(pipeline: Pipeline) -> None:
    pipeline.take_in([event(3, OLD)])
    for tz in ("Europe/Berlin", "+14:00"):
        answer = pipeline.history(since="2000-01-02", until="9999-12-30", agg="count", tz=tz)
        assert sum(filter(None, points(answer, "count").values())) == 1

import random
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from vibezen.metrics.analysis.compare import Comparison, compare, parse_compare
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.settings import Settings

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0
"""2023-11-16T18:00:00Z."""


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


def ask(pipeline: Pipeline, **parameters: Any) -> Comparison:
    now = pipeline.now or OLD + DAY
    given = {name: value if isinstance(value, list) else str(value) for name, value in parameters.items()}
    given = {"from": str(OLD), "to": str(OLD + HOUR), "step": "10m", **given}
    asked = parse_compare(given, pipeline.settings, now)
    found: Comparison = pipeline.ask(lambda gatherer: compare(gatherer, asked, now), server=False)
    return found


def test_range_is_compared_with_the_one_before(pipeline: Pipeline) -> None:
    rng = random.Random(1)
    pipeline.take_in([event(200 + rng.random(), OLD + n * 30) for n in range(120)])
    pipeline.take_in([event(100 + rng.random(), OLD - HOUR + n * 60) for n in range(60)])
    found = ask(pipeline, metric="response_time", agg="mean")
    (line,) = found.series
    assert (found.since, found.to, found.against.since, found.against.to) == (OLD, OLD + HOUR, OLD - HOUR, OLD)
    assert [line.value, line.against] == pytest.approx([200.5, 100.5], abs=0.2)
    assert line.absolute == pytest.approx(100, abs=0.5)
    assert line.relative == pytest.approx(1, abs=0.01)
    assert (line.verdict, line.samples, line.against_samples) == ("worse", 120, 60)
    assert [(one[0], one[1]) for one in line.points] == [(OLD + n * 600, OLD - HOUR + n * 600) for n in range(6)]
    for _, _, value, against, absolute, relative in line.points:
        assert absolute == value - against  # type: ignore[operator]
        assert relative == pytest.approx(absolute / against)  # type: ignore[operator]
    assert (found.unit, found.better, found.known) == ("ms", "lower", True)


@pytest.mark.parametrize(
    ("metric", "values", "others", "verdict"),
    [
        ("response_time", (100, 102), (200, 202), "better"),
        ("confidence_score", (0.5, 0.6), (0.8, 0.9), "worse"),
        ("response_time", (100, 102), (100, 102), "unchanged"),
        ("thinking_steps", (9, 10), (4, 5), "higher"),
    ],
)
def test_verdict_is_plain(
    pipeline: Pipeline, metric: str, values: tuple[float, float], others: tuple[float, float], verdict: str
) -> None:
    pipeline.take_in([event(values[n % 2], OLD + n, metric) for n in range(40)])
    pipeline.take_in([event(others[n % 2], OLD - HOUR + n, metric) for n in range(40)])
    assert ask(pipeline, metric=metric, agg="mean").series[0].verdict == verdict


def test_too_little_data_is_said(pipeline: Pipeline) -> None:
    pipeline.take_in([event(1, OLD + n) for n in range(40)] + [event(9, OLD - n - 1) for n in range(5)])
    assert ask(pipeline, metric="response_time", agg="mean").series[0].verdict == "too little data"
    (alone,) = ask(pipeline, metric="response_time", agg="mean", against_from=OLD - DAY).series
    assert (alone.against, alone.absolute, alone.relative, alone.verdict) == (None, None, None, "too little data")


def test_other_events_of_the_same_range(pipeline: Pipeline) -> None:
    pipeline.take_in(
        [event(n % 7, OLD + n, "cost", model=model, project=f"p{n % 2}") for model in "ab" for n in range(60)]
        + [event(5, OLD + n, "cost", model="b", project="p1") for n in range(60)]
    )
    found = ask(pipeline, metric="cost", group_by="project", where=["model=a"], against_where=["model=b"])
    assert (found.against.since, found.against.where) == (OLD, ["model=b"])
    for line in found.series:
        own = [n % 7 for n in range(60) if f"p{n % 2}" == line.labels["project"]]
        assert line.value == sum(own)
        assert line.against == sum(own) + (300 if line.labels["project"] == "p1" else 0)


def test_sums_of_a_range_that_goes_on_are_compared_with_as_much_time(pipeline: Pipeline) -> None:
    pipeline.now = OLD + HOUR / 2
    pipeline.take_in([event(1, OLD + n * 60, "tokens") for n in range(-60, 30)])
    (line,) = ask(pipeline, metric="tokens", step="1h").series
    assert (line.value, line.against, line.verdict) == (30, 30, "unchanged")
    assert [one[2:4] for one in line.points] == [(30, 30)]


def test_another_range_may_be_longer(pipeline: Pipeline) -> None:
    pipeline.take_in([event(1, OLD + n * 60, "tokens") for n in range(-180, 60)])
    found = ask(pipeline, metric="tokens", against_from=OLD - 2 * HOUR, against_to=OLD)
    (line,) = found.series
    assert (found.against.since, found.against.to, line.value, line.against) == (OLD - 2 * HOUR, OLD, 60, 60)
    assert len(line.points) == 12
    assert [one[0] for one in line.points[6:]] == [None] * 6


def test_days_of_a_zone_are_compared_with_days_of_its_calendar(pipeline: Pipeline) -> None:
    found = ask(
        pipeline, metric="cost", **{"from": "2023-10-30", "to": "2023-11-06", "step": "1d", "tz": "Europe/Berlin"}
    )
    assert found.to - found.since == 7 * DAY
    assert found.since - found.against.since == 7 * DAY + HOUR, "the clock was put back on October 29"


def test_only_the_largest_groups_where_that_is_asked_for(pipeline: Pipeline) -> None:
    pipeline.take_in([event(1, OLD + n, model=f"m{n % (k + 1)}") for k in range(4) for n in range(20)])
    found = ask(pipeline, metric="response_time", group_by="model", top=2)
    assert ([line.labels["model"] for line in found.series], found.omitted) == (["m0", "m1"], 2)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"metric": "cost", "agg": "sum,count"}, "agg"),
        ({"metric": "cost", "agg": "histogram"}, "agg"),
        ({"metric": "cost", "against_to": "now"}, "against_from"),
        ({"metric": "cost", "against_from": "yesteryear"}, "against_from"),
        ({"metric": "cost", "against_from": "now", "against_to": "now-1h"}, "against_from"),
        ({"metric": "cost", "against_from": "now-1d", "against_to": "soon"}, "against_to"),
        ({"metric": "cost", "against_from": "2001-01-01", "against_to": "now"}, "against_to"),
        ({"metric": "cost", "against_where": "Nothing"}, "against_where"),
        ({"metric": "cost", "threshold": "3"}, "threshold"),
        ({"metric": "cost", "step": "1s", "from": "now-1d"}, "step"),
        ({}, "metric"),
    ],
)
def test_bad_parameter_is_named(parameters: dict[str, str], field: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_compare(parameters, Settings(), OLD)
    assert caught.value.field == field

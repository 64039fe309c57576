import random
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from vibezen.metrics.analysis import trend as module
from vibezen.metrics.analysis.trend import Trend, parse_trend, trend
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.errors import BadParameter

pytestmark = pytest.mark.server

OLD = 1_700_092_800.0
"""2023-11-16T00:00:00Z."""


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


def ask(pipeline: Pipeline, **parameters: Any) -> Trend:
    now = pipeline.now or OLD + 9 * DAY
    given = {"metric": "response_time", "from": str(OLD), "to": str(OLD + DAY), "step": "1h", "agg": "mean"}
    question = parse_trend({**given, **{name: str(one) for name, one in parameters.items()}}, pipeline.settings, now)
    found: Trend = pipeline.ask(lambda gatherer: trend(gatherer, question, now), server=False)
    return found


def test_line_is_told_exactly_with_its_gaps(pipeline: Pipeline) -> None:
    hours = [hour for hour in range(24) if hour % 5]
    pipeline.take_in([event(100 + 2 * hour, OLD + hour * HOUR + 60) for hour in hours])
    (found,) = ask(pipeline).series
    assert (found.points, found.direction, found.verdict) == (len(hours), "rising", "worse")
    assert [found.per_day, found.low, found.high] == pytest.approx([48, 48, 48])
    assert [found.first, found.last] == pytest.approx([102, 146])
    assert found.relative == pytest.approx(48 / 124)
    assert found.confidence is not None
    assert found.confidence > 0.999


def test_direction_and_verdict_follow_the_metric(pipeline: Pipeline) -> None:
    rng = random.Random(2)
    pipeline.take_in(
        [event(0.9 - hour / 100, OLD + hour * HOUR, "confidence_score", model="a") for hour in range(24)]
        + [event(0.5 + hour / 100, OLD + hour * HOUR, "confidence_score", model="b") for hour in range(24)]
        + [event(0.5 + rng.gauss(0, 0.1), OLD + hour * HOUR, "confidence_score", model="c") for hour in range(24)]
        + [event(0.5, OLD + hour * HOUR, "confidence_score", model="d") for hour in range(7)]
    )
    found = ask(pipeline, metric="confidence_score", group_by="model")
    assert {line.labels["model"]: (line.direction, line.verdict) for line in found.series} == {
        "a": ("falling", "worse"),
        "b": ("rising", "better"),
        "c": ("steady", "unchanged"),
        "d": ("too little data", "too little data"),
    }
    assert found.series[3].per_day is None


def test_sum_of_the_step_that_goes_on_is_no_fall(pipeline: Pipeline) -> None:
    pipeline.now = OLD + 10 * HOUR + 60
    pipeline.take_in([event(50 + hour, OLD + hour * HOUR + n, "tokens") for hour in range(10) for n in range(9)])
    pipeline.take_in([event(1, OLD + 10 * HOUR, "tokens")])
    (found,) = ask(pipeline, metric="tokens", agg="sum").series
    assert [found.points, found.per_day] == pytest.approx([10, 9 * 24])
    assert ask(pipeline, metric="tokens", agg="mean").series[0].points == 11


def test_metric_nobody_recorded_has_no_series_and_similar_names_are_told(pipeline: Pipeline) -> None:
    found = ask(pipeline, metric="respone_time")
    assert (found.series, found.known, found.similar) == ([], False, ["response_time"])


def test_too_many_pairs_are_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 24 * 23 // 2)
    pipeline.take_in([event(1, OLD, model=model) for model in "ab"])
    assert ask(pipeline).series
    with pytest.raises(BadParameter, match="coarser") as caught:
        ask(pipeline, group_by="model")
    assert caught.value.field == "step"

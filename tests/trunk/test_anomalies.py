import random
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.stored import archive
from vibezen.metrics.analysis.anomalies import Anomalies, anomalies, parse_anomalies
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import Event
from vibezen.metrics.settings import Settings

pytestmark = pytest.mark.server

OLD = 1_700_092_800.0
"""2023-11-16T00:00:00Z."""


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


def ask(pipeline: Pipeline, **parameters: Any) -> Anomalies:
    now = pipeline.now or OLD + 9 * DAY
    given = {"metric": "response_time", "from": str(OLD), "to": str(OLD + DAY), "step": "1h", "agg": "mean"}
    asked = parse_anomalies({**given, **{name: str(one) for name, one in parameters.items()}}, pipeline.settings, now)
    found: Anomalies = pipeline.ask(lambda gatherer: anomalies(gatherer, asked, now), server=False)
    return found


def hourly(value: float, hours: range, **metadata: Any) -> list[Event]:
    return [event(value, OLD + hour * HOUR + 5, **metadata) for hour in hours]


def test_planted_spike_is_found_and_told_in_a_sentence(pipeline: Pipeline) -> None:
    rng = random.Random(5)
    noise = [event(100 + rng.uniform(-5, 5), OLD + hour * HOUR) for hour in range(-100, 24) if hour != 9]
    archive(pipeline.layout, [*noise, event(180, OLD + 9 * HOUR), event(180, OLD + 9 * HOUR)])
    found = ask(pipeline, baseline="previous")
    (one,) = found.anomalies
    assert (one.since, one.to, one.value, one.samples) == (OLD + 9 * HOUR, OLD + 10 * HOUR, 180, 2)
    assert one.expected == pytest.approx(100, abs=3)
    assert one.score is not None
    assert one.score > found.threshold == 3.5
    assert (one.baseline, one.compared, one.verdict) == ("previous", 60, "worse")
    assert one.reason.startswith("180 ms, where ")
    assert "above the median of 60 values in the 60 steps before" in one.reason
    (judged,) = found.series
    assert (judged.judged, judged.too_little_data, judged.anomalies) == (24, 0, 1)
    assert found.compared_from == OLD - 60 * HOUR


def test_constant_series_has_none(pipeline: Pipeline) -> None:
    archive(pipeline.layout, hourly(7, range(-400, 24)))
    for baseline in ("auto", "hour", "previous"):
        found = ask(pipeline, baseline=baseline, threshold=1)
        assert (found.anomalies, found.series[0].judged) == ([], 24), baseline


def test_what_is_usual_at_this_hour_is_no_anomaly_and_what_is_usual_at_others_is_one(pipeline: Pipeline) -> None:
    night_and_day = [
        event((1000 if hour % 24 == 3 else 100) + day, OLD + day * DAY + hour * HOUR)
        for day in range(-14, 0)
        for hour in range(24)
    ]
    today = [event(1000 if hour in (3, 15) else 100, OLD + hour * HOUR) for hour in range(24)]
    archive(pipeline.layout, night_and_day + today)
    (one,) = ask(pipeline).anomalies
    assert (one.since, one.baseline, one.compared) == (OLD + 15 * HOUR, "hour", 14)
    assert "at this hour of the day" in one.reason
    assert {found.since for found in ask(pipeline, baseline="previous").anomalies} == {OLD + 3 * HOUR, OLD + 15 * HOUR}


def test_hours_are_those_of_the_zone_also_when_its_clock_is_changed(pipeline: Pipeline) -> None:
    change = 1_698_534_000.0  # midnight in Berlin of 2023-10-29, whose 3 o'clock comes twice
    noon = 12 * HOUR
    archive(
        pipeline.layout,
        [event(1000, change + day * DAY + noon) for day in range(-14, 0)]
        + [event(100, change + day * DAY + noon + HOUR) for day in range(-14, 0)]
        + [event(1000, change + HOUR + noon), event(1000, change + 2 * HOUR + noon)],
    )
    given = {"from": "2023-10-29", "to": "2023-10-30", "tz": "Europe/Berlin", "baseline": "hour"}
    assert [one.since for one in ask(pipeline, **given).anomalies] == [change + 2 * HOUR + noon]


def test_with_too_few_days_of_an_hour_the_steps_before_are_taken(pipeline: Pipeline) -> None:
    archive(pipeline.layout, [*hourly(100, range(-30, 23)), *hourly(200, range(23, 24))])
    (one,) = ask(pipeline).anomalies
    assert one.baseline == "previous"
    found = ask(pipeline, baseline="hour")
    assert (found.anomalies, found.series[0].judged, found.series[0].too_little_data) == ([], 0, 24)


def test_many_values_of_few_days_do_not_tell_what_is_usual_at_an_hour(pipeline: Pipeline) -> None:
    archive(pipeline.layout, [event(100, OLD + n * 300) for n in range(-4 * 288, 12)])
    few = ask(pipeline, baseline="hour", step="5m", to=OLD + HOUR)
    assert (few.series[0].judged, few.series[0].too_little_data) == (0, 12)
    archive(pipeline.layout, [event(100, OLD + n * 300) for n in range(-5 * 288, -4 * 288)], epoch=2)
    assert ask(pipeline, baseline="hour", step="5m", to=OLD + HOUR).series[0].judged == 12


def test_too_little_data_is_said_and_gaps_are_no_steps(pipeline: Pipeline) -> None:
    archive(pipeline.layout, hourly(100, range(0, 24, 2)))
    (judged,) = ask(pipeline).series
    assert (judged.judged, judged.too_little_data) == (2, 10)


def test_what_comes_where_there_was_nothing_has_no_score(pipeline: Pipeline) -> None:
    archive(
        pipeline.layout, [*hourly(0, range(-20, 5), metric="error_rate"), *hourly(1, range(5, 6), metric="error_rate")]
    )
    (one,) = ask(pipeline, metric="error_rate").anomalies
    assert (one.score, one.expected, one.verdict) == (None, 0, "worse")
    assert one.reason == "100%, where 0% is usual: all 25 values in the 60 steps before were 0."


def test_groups_are_judged_by_themselves_and_the_largest_come_first(pipeline: Pipeline) -> None:
    archive(
        pipeline.layout,
        [
            *hourly(100, range(-20, 20), model="a"),
            *hourly(1000, range(-20, 20), model="b"),
            *hourly(200, range(20, 21), model="a"),
            *hourly(100, range(21, 22), model="b"),
            *hourly(9000, range(22, 23), model="b"),
        ],
    )
    found = ask(pipeline, group_by="model")
    assert [(one.labels["model"], one.value, one.verdict) for one in found.anomalies] == [
        ("b", 9000, "worse"),
        ("a", 200, "worse"),
        ("b", 100, "better"),
    ]
    assert [(line.labels["model"], line.anomalies) for line in found.series] == [("a", 1), ("b", 2)]
    few = ask(pipeline, group_by="model", limit=1)
    assert (len(few.anomalies), few.more) == (1, 2)


def test_sum_of_the_step_that_goes_on_is_no_anomaly(pipeline: Pipeline) -> None:
    pipeline.now = OLD + 10 * HOUR + 60
    archive(
        pipeline.layout, [*hourly(100, range(-20, 10), metric="tokens"), *hourly(1, range(10, 11), metric="tokens")]
    )
    assert ask(pipeline, metric="tokens", agg="sum").anomalies == []
    assert len(ask(pipeline, metric="tokens", agg="mean").anomalies) == 1


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"threshold": "0"}, "threshold"),
        ({"threshold": "nan"}, "threshold"),
        ({"threshold": "101"}, "threshold"),
        ({"baseline": "yesterday"}, "baseline"),
        ({"baseline": "hour", "step": "1d"}, "baseline"),
        ({"baseline": "hour", "step": "7m"}, "baseline"),
        ({"baseline": "hour", "step": "10s", "from": "now-1h"}, "step"),
        ({"previous": "0"}, "previous"),
        ({"previous": "501"}, "previous"),
        ({"limit": "1001"}, "limit"),
        ({"against_from": "now-1d"}, "against_from"),
    ],
)
def test_bad_parameter_is_named(parameters: dict[str, str], field: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_anomalies({"metric": "cost", **parameters}, Settings(), OLD)
    assert caught.value.field == field

from pathlib import Path
from typing import Any

import anyio
import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from vibezen.metrics.catalogue import BUILT_IN
from vibezen.metrics.clock import HOUR
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.inventory import MAX_VALUES, Inventory, inventory, parse_inventory

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


def ask(pipeline: Pipeline, **parameters: Any) -> Inventory:
    hours = parse_inventory({"from": str(OLD), "to": str(OLD + HOUR), **parameters}, OLD)
    labels = pipeline.settings.aggregation.labels
    return anyio.run(inventory, pipeline.reader, pipeline.settings.catalogue(), labels, hours)


def test_metrics_are_told_with_units_labels_and_values(pipeline: Pipeline) -> None:
    pipeline.take_in(
        [event(n, OLD + n, provider="openai", model="a", session=f"s{n}") for n in range(5)]
        + [event(1, OLD + 9, provider="anthropic", status=200), event(1, OLD, "my.own", provider="x")]
    )
    found = {known.metric: known for known in ask(pipeline).metrics}
    times = found["response_time"]
    assert (times.unit, times.kind, times.better, times.declared) == ("ms", "distribution", "lower", True)
    assert (times.events, times.first, times.last) == (6, OLD, OLD + 9)
    assert times.labels == {"provider": ["openai", "anthropic"], "model": ["a"], "status": ["200"]}
    assert times.metadata == ["session"]
    assert (found["my.own"].declared, found["my.own"].events) == (False, 1)
    assert found.keys() == BUILT_IN.keys() | {"my.own"}
    assert (found["tokens"].events, found["tokens"].first) == (0, None)


def test_segments_add_up_open_ones_as_they_grow(pipeline: Pipeline) -> None:
    for number in range(3):
        pipeline.take_in([event(1, OLD + number, provider=f"p{number}")])
        (times,) = [known for known in ask(pipeline).metrics if known.events]
        assert (times.events, times.last) == (number + 1, OLD + number)
        assert sorted(times.labels["provider"]) == [f"p{one}" for one in range(number + 1)]


def test_hours_outside_the_range_are_not_told(pipeline: Pipeline) -> None:
    pipeline.take_in([event(1, OLD), event(1, OLD + HOUR)])
    (times,) = [known for known in ask(pipeline).metrics if known.events]
    assert times.events == 1


def test_values_are_bounded(pipeline: Pipeline) -> None:
    pipeline.take_in([event(1, OLD, model=f"m{n}") for n in range(MAX_VALUES + 50)])
    (times,) = [known for known in ask(pipeline).metrics if known.events]
    assert len(times.labels["model"]) == MAX_VALUES


def test_bad_parameter_is_named() -> None:
    with pytest.raises(BadParameter) as caught:
        parse_inventory({"metric": "x"}, OLD)
    assert caught.value.field == "metric"

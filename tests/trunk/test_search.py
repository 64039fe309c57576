"""Single events: in order, page by page, none twice and none missed."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from vibezen.metrics import search
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.search import Events, parse_search

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.now = OLD + 40_000
    return pipeline


def values(found: Events) -> list[float]:
    return [one.value for one in found.events]


def test_newest_come_first_and_say_all_their_line_says(pipeline: Pipeline) -> None:
    pipeline.take_in([event(number, OLD + number, session="s", number=number, flag=True) for number in range(5)])
    found = pipeline.search(since=OLD, limit="2")
    assert values(found) == [4, 3]
    assert json.loads(bytes(found.events[0].metadata)) == {"session": "s", "number": 4, "flag": True}
    assert (found.events[0].ts, found.events[0].metric) == (OLD + 4, "response_time")
    assert values(pipeline.search(since=OLD, limit="2", order="oldest")) == [0, 1]


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("limit", [1, 7, 50])
def test_pages_hold_every_event_once_in_order(pipeline: Pipeline, order: str, limit: int) -> None:
    """Many share a time, also at the beginning of an hour."""
    rng = random.Random(limit)
    times = [OLD + rng.choice([0, 3600, 7200, 7200.000001, rng.randrange(10_000)]) for _ in range(100)]
    pipeline.take_in([event(number, ts) for number, ts in enumerate(times)])
    found: list[float] = []
    cursor = ""
    while True:
        page = pipeline.search(since=OLD, order=order, limit=str(limit), cursor=cursor)
        found += values(page)
        if page.next is None:
            break
        cursor = page.next
    assert sorted(found) == list(range(100))
    in_time = [times[int(number)] for number in found]
    assert in_time == sorted(times, reverse=order == "newest")


def test_search_that_takes_too_long_goes_on_from_its_cursor(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECONDS", -1.0)
    pipeline.take_in([event(number, OLD + number * 1800) for number in range(8)])
    for order in ("newest", "oldest"):
        found: list[float] = []
        cursor, pages = "", 0
        while True:
            page = pipeline.search(since=OLD, order=order, cursor=cursor)
            found, pages = found + values(page), pages + 1
            if page.next is None:
                break
            cursor = page.next
        assert sorted(found) == list(range(8))
        assert pages == 5


def test_metric_range_and_conditions_choose(pipeline: Pipeline) -> None:
    pipeline.take_in(
        [event(n, OLD + n, session=f"s{n % 2}") for n in range(6)] + [event(9, OLD, "cost"), event(7, OLD - 9)]
    )
    assert values(pipeline.search(metric="cost", since=OLD)) == [9]
    assert values(pipeline.search(since=OLD + 1, until=OLD + 4, where="session=s1")) == [3, 1]
    assert values(pipeline.search(since=OLD, metric="response_time", where=["session!=s1", "session!=s0"])) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "9" * 30),
        ("limit", "٣"),
        ("order", "up"),
        ("cursor", "x"),
        ("cursor", "1:2:3"),
        ("cursor", "nan:1"),
        ("metric", "A"),
        ("where", "x"),
        ("offset", "1"),
        ("from", "now"),
    ],
)
def test_bad_parameter_is_named(field: str, value: str) -> None:
    with pytest.raises(BadParameter) as caught:
        parse_search({field: value}, OLD)
    assert caught.value.field == field


def test_damaged_metadata_of_foreign_numbers_is_told_as_it_stands(pipeline: Pipeline) -> None:
    fields: dict[Any, Any] = {"metric": "m", "value": "1", "ts": str(OLD), "n": "1e400"}
    pipeline.client.xadd("vibezen:{0}:events", fields)
    pipeline.archive()
    (one,) = pipeline.search(since=OLD).events
    assert json.loads(bytes(one.metadata)) == {"n": "1e400"}

"""Questions about files over HTTP: history, summary, catalogue, events."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.serving import Served, dashboard_in_thread
from tests.support.waiting import WaitUntil

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0
RANGE = {"from": "2023-11-16T18:00:00Z", "to": "2023-11-16T19:00:00Z"}


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(n, OLD + n, session=f"s{n % 2}", provider="ü") for n in range(10)])
    return pipeline


@pytest.fixture
def served(pipeline: Pipeline, redis_url: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Served]:
    with dashboard_in_thread(redis_url, tmp_path / "store") as served:
        wait_until(lambda: served.hub.trouble is None)
        yield served


def test_history_of_an_old_hour_is_exact(served: Served) -> None:
    answer = served.get("/api/metrics/history", metric="response_time", step="1h", agg="sum,p95", **RANGE)
    assert (answer["exact"], answer["sources"]) == (True, [{"from": OLD, "to": OLD + 3600, "source": "events"}])
    assert [line["points"] for line in answer["series"]] == [[[OLD, 45]], [[OLD, pytest.approx(8.55)]]]


def test_condition_may_be_repeated(served: Served) -> None:
    answer = served.http.get(
        "/api/metrics/history",
        params={
            "metric": "response_time",
            "step": "1h",
            "agg": "count",
            **RANGE,
            "where": ["session=s1", "provider=ü"],
        },
    )
    assert answer.json()["series"][0]["points"] == [[OLD, 5]]
    status, error = served.refused("/api/metrics/history", metric="response_time", where="x")
    assert (status, error["field"]) == (400, "where")
    twice = served.http.get("/api/metrics/history?metric=cost&metric=tokens")
    assert (twice.status_code, twice.json()["error"]["field"]) == (400, "metric")


def test_summary_tells_every_metric(served: Served) -> None:
    answer = served.get("/api/metrics/summary", **RANGE)
    assert answer["metrics"]["response_time"]["value"] == 4.5
    assert answer["metrics"]["response_time"]["previous"] is None
    assert answer["previous"] == {"from": OLD - 3600, "to": OLD}


def test_catalogue_tells_labels(served: Served) -> None:
    answer = served.get("/api/catalogue", **RANGE)
    (known,) = [known for known in answer["metrics"] if known["events"]]
    assert (known["metric"], known["labels"], known["metadata"]) == ("response_time", {"provider": ["ü"]}, ["session"])


def test_events_come_in_pages(served: Served) -> None:
    first = served.get("/api/events", limit="6", **RANGE)
    second = served.get("/api/events", limit="6", cursor=first["next"], **RANGE)
    assert [one["value"] for one in first["events"] + second["events"]] == list(range(9, -1, -1))
    assert first["events"][0] == {
        "ts": OLD + 9,
        "metric": "response_time",
        "value": 9,
        "metadata": {"session": "s1", "provider": "ü"},
    }
    assert second["next"] is None


@pytest.mark.parametrize("path", ["/api/metrics/summary", "/api/catalogue", "/api/events"])
def test_bad_parameter_is_400_and_named(served: Served, path: str) -> None:
    for parameters, field in (({"from": "x"}, "from"), ({"nonsense": "1"}, "nonsense")):
        status, error = served.refused(path, **parameters)
        assert (status, error["code"], error["field"]) == (400, "bad_parameter", field)


def test_damaged_lines_are_counted_where_the_store_is_told(served: Served, pipeline: Pipeline) -> None:
    pipeline.archive()  # a new owner seals what the one before left open
    (segment,) = pipeline.layout.segments()
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:3], b"\0 not an event\n", *lines[4:]]))
    answer = served.get("/api/metrics/history", metric="response_time", step="1h", agg="count", **RANGE)
    assert answer["series"][0]["points"] == [[OLD, 9]]
    assert served.get("/api/pipeline")["store"]["damaged_lines"] == 1
    assert json.loads(lines[3])["value"] == 3

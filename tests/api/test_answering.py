"""Answers about the past: kept where nothing can change any more, named otherwise, given up when nobody waits."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.serving import Served, dashboard_in_thread
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.api import answering, dashboard
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.settings import Queries
from vibezen.metrics.settled import KeptAnswers

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0
RANGE = {"from": "2023-11-16T18:00:00Z", "to": "2023-11-16T19:00:00Z"}
ROUTES = (
    ("/api/metrics/history", {"metric": "response_time", "step": "1h", "agg": "count", **RANGE}),
    ("/api/metrics/summary", RANGE),
)
LONG = Sql("SELECT max(a.range * b.range) FROM range(60000) a, range(60000) b", {})
"""Some ten seconds, and more of several at a time."""


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    """Of a store whose hours are closed."""
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(n, OLD + n) for n in range(10)])
    pipeline.archive()  # a new owner seals what the one before left open
    return pipeline


@pytest.fixture
def served(pipeline: Pipeline, redis_url: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Served]:
    with dashboard_in_thread(redis_url, tmp_path / "store") as served:
        wait_until(lambda: served.hub.trouble is None)
        yield served


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[Sql]:
    """Every query from now on."""
    run, made = EventReader._run, []

    def counted(reader: EventReader, sql: Sql) -> Any:
        made.append(sql)
        return run(reader, sql)

    monkeypatch.setattr(EventReader, "_run", counted)
    return made


@pytest.mark.parametrize(("path", "parameters"), ROUTES)
def test_what_cannot_change_any_more_is_computed_once(
    served: Served, queries: list[Sql], path: str, parameters: dict[str, str]
) -> None:
    first = served.http.get(path, params=parameters)
    assert first.headers["cache-control"] == f"private, max-age={answering.SETTLED_SECONDS}"
    needed = len(queries)
    assert needed
    second = served.http.get(path, params=parameters)
    known = served.http.get(path, params=parameters, headers={"if-none-match": f'"x", W/{first.headers["etag"]}'})
    assert len(queries) == needed
    assert (second.content, second.headers["etag"]) == (first.content, first.headers["etag"])
    assert (known.status_code, known.content) == (304, b"")
    assert known.headers["etag"].removeprefix("W/") == first.headers["etag"].removeprefix("W/")
    assert known.headers["cache-control"] == first.headers["cache-control"]
    assert served.http.get(path, params=parameters, headers={"if-none-match": '"x"'}).content == first.content


@pytest.mark.parametrize(("path", "parameters"), ROUTES)
def test_late_event_is_seen_at_once(served: Served, pipeline: Pipeline, path: str, parameters: dict[str, str]) -> None:
    first = served.http.get(path, params=parameters)
    pipeline.take_in([event(1, OLD + 20)])
    for is_sealed in (False, True):
        if is_sealed:
            pipeline.archive()
        later = served.http.get(path, params=parameters, headers={"if-none-match": first.headers["etag"]})
        assert later.status_code == 200, is_sealed
        assert later.headers["cache-control"].startswith("private, max-age") == is_sealed
        told = later.json()
        assert 11 in (
            told["series"][0]["points"][0][1:] if "series" in told else [told["metrics"]["response_time"]["count"]]
        )


def test_different_questions_have_different_answers(served: Served) -> None:
    path, parameters = ROUTES[0]
    asked = [
        {},
        {"agg": "sum"},
        {"where": "provider=x"},
        {"group_by": "provider"},
        {"exact": "true"},
        {"tz": "+05:30"},
        {"metric": "cost"},
        {"step": "30m"},
    ]
    tags = {served.http.get(path, params={**parameters, **more}).headers["etag"] for more in asked}
    assert len(tags) == len(asked)


def test_what_may_change_is_named_by_what_it_says(served: Served, pipeline: Pipeline, queries: list[Sql]) -> None:
    parameters = {
        "metric": "response_time",
        "from": "now-2h",
        "to": "now",
        "step": "1d",
        "agg": "count",
        "exact": "true",
    }
    first = served.http.get("/api/metrics/history", params=parameters)
    assert first.headers["cache-control"] == "private, no-cache"
    same = served.http.get("/api/metrics/history", params=parameters, headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    pipeline.take_in([event(1)])
    other = served.http.get("/api/metrics/history", params=parameters, headers={"if-none-match": first.headers["etag"]})
    assert (other.status_code, other.headers["etag"] != first.headers["etag"]) == (200, True)


def test_answers_kept_are_bounded_and_the_oldest_go_first() -> None:
    kept = KeptAnswers(10)
    for name in "abc":
        kept.put(name, name.encode() * 4)
        kept.get("a")
    assert [kept.get(name) for name in "abc"] == [b"aaaa", None, b"cccc"]
    kept.put("large", b"x" * 11)
    assert kept.get("large") is None
    kept.put("whole", b"x" * 10)
    assert [kept.get(name) for name in ("a", "c", "whole")] == [None, None, b"x" * 10]
    nothing = KeptAnswers(0)
    nothing.put("a", b"a")
    assert nothing.get("a") is None


class Slow:
    """Makes every reading of files take long, until it is let go. `through`: whether one came to its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.ended = threading.Semaphore(0), threading.Semaphore(0)
        self.is_slow, self.through = True, False
        run = EventReader._run

        def slowly(reader: EventReader, sql: Sql) -> Any:
            if not self.is_slow:
                return run(reader, sql)
            self.begun.release()
            try:
                answer = run(reader, LONG)
                self.through = True
                return answer
            finally:
                self.ended.release()

        monkeypatch.setattr(EventReader, "_run", slowly)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, served: Served) -> Slow:
    return Slow(monkeypatch)


@pytest.mark.parametrize("path", ["history?metric=cost&exact=true", "summary?exact=true"])
def test_query_of_a_client_that_goes_away_ends_and_others_are_answered(served: Served, slow: Slow, path: str) -> None:
    clients = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(dashboard.HISTORIES + 1)]
    for client in clients:
        client.sendall(
            f"GET /api/metrics/{path}&from=2023-11-16&to=2023-11-17 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
    for _ in range(dashboard.HISTORIES):
        assert slow.begun.acquire(timeout=DEADLINE)
    for client in clients:  # the last one has been waiting for its turn
        client.close()
    for _ in range(dashboard.HISTORIES):
        assert slow.ended.acquire(timeout=DEADLINE)
    assert not slow.through
    slow.is_slow = False
    assert served.get("/api/metrics/history", metric="response_time", step="1h", agg="count", **RANGE)["series"]
    assert not slow.begun.acquire(blocking=False), "nobody waits for the last one either"


@pytest.mark.usefixtures("pipeline")
def test_query_that_takes_too_long_is_an_error_that_says_what_to_ask_instead(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    with dashboard_in_thread(redis_url, tmp_path / "store", settings={"queries": Queries(seconds=0.05)}) as served:
        for path in ("metrics/history?metric=cost&", "metrics/summary?", "catalogue?", "events?"):
            answer = served.http.get(f"/api/{path}from=2023-11-16&to=2023-11-17")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_slow"), path
            assert "ask for less time" in answer.json()["error"]["message"]
            assert "retry-after" not in answer.headers, "it would take as long again"
    assert not slow.through

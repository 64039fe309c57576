"""Sessions over HTTP: their numbers against brute force, who is active, and names that are no harm."""

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.serving import Json, Served, dashboard_in_thread
from tests.support.waiting import WaitUntil
from vibezen.metrics.api.dashboard import MetricsDashboard
from vibezen.metrics.clock import HOUR, wall
from vibezen.metrics.event import Event
from vibezen.metrics.keys import Keys

pytestmark = pytest.mark.server

OLD = 1_700_157_600.0
RANGE = {"from": "2023-11-16T18:00:00Z", "to": "2023-11-16T21:00:00Z"}
HOSTILE = ("<script>alert(1)</script>", "a\x00b\n\x1b[31m", "'; DROP TABLE events; --", "é" * 1000, "../../etc", "%2e")


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


@pytest.fixture
def served(pipeline: Pipeline, redis_url: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Served]:
    with dashboard_in_thread(redis_url, tmp_path / "store") as served:
        wait_until(lambda: served.hub.trouble is None)
        yield served


def work(sessions: int, seed: int = 1) -> list[Event]:
    """What agents do in three hours; some events belong to no session."""
    rng = random.Random(seed)
    found = []
    for _ in range(2000):
        number = rng.randrange(sessions + 1)
        metric = rng.choice(["tokens", "cost", "response_time", "error_rate", "tool_calls"])
        value = rng.randrange(2) if metric == "error_rate" else rng.lognormvariate(2, 1)
        metadata: dict[str, Any] = {"project": f"p{number % 3}", "model": rng.choice("ab"), "provider": "x"}
        if number:
            metadata["session"] = f"s{number}"
        found.append(event(value, OLD + rng.randrange(3 * HOUR) + 0.25, metric, **metadata))
    return found


def told(events: Sequence[Event], session: str) -> Json:
    """By brute force."""
    own = [one for one in events if one.metadata.get("session") == session]
    times = [one.ts or 0.0 for one in own]
    slow = sorted(one.value for one in own if one.metric == "response_time")
    at = 0.95 * (len(slow) - 1)
    below, above = slow[math.floor(at)], slow[math.ceil(at)]
    return {
        "id": session,
        "active": False,
        "first": min(times),
        "last": max(times),
        "events": len(own),
        **{
            name: total(own, metric)
            for name, metric in (("tokens", "tokens"), ("cost", "cost"), ("errors", "error_rate"))
        },
        "response_time_p95": below + (above - below) * (at - math.floor(at)),
        "providers": ["x"],
        "models": sorted({str(one.metadata["model"]) for one in own}),
        "projects": sorted({str(one.metadata["project"]) for one in own}),
        "agents": [],
    }


def total(events: Sequence[Event], metric: str) -> float:
    return math.fsum(one.value for one in events if one.metric == metric)


def near(expected: Json) -> Any:
    return {name: pytest.approx(value, rel=1e-9) if type(value) is float else value for name, value in expected.items()}


def test_numbers_of_every_session_are_those_of_its_events(pipeline: Pipeline, served: Served) -> None:
    events = work(20)
    pipeline.take_in(events)
    found, page = [], served.get("/api/sessions", limit="7", **RANGE)
    found += page["sessions"]
    while page["next"] is not None:
        page = served.get("/api/sessions", limit="7", cursor=page["next"], **RANGE)
        found += page["sessions"]
    expected = sorted((told(events, f"s{n}") for n in range(1, 21)), key=lambda one: (-one["last"], one["id"]))
    assert [one["id"] for one in found] == [one["id"] for one in expected]
    for one, right in zip(found, expected, strict=True):
        assert one == near(right)


def test_conditions_choose_events(pipeline: Pipeline, served: Served) -> None:
    events = work(6)
    pipeline.take_in(events)
    for given, key, value in (({"project": "p1"}, "project", "p1"), ({"where": "model=a"}, "model", "a")):
        chosen = [one for one in events if one.metadata[key] == value]
        found = served.get("/api/sessions", **given, **RANGE)["sessions"]
        names = {str(one.metadata["session"]) for one in chosen if "session" in one.metadata}
        assert {one["id"]: one for one in found} == {name: near(told(chosen, name)) for name in names}
    assert served.get("/api/sessions", agent="nobody", **RANGE)["sessions"] == []


def test_weighted_lines_count_as_what_they_stand_for(pipeline: Pipeline, served: Served) -> None:
    pipeline.take_in(
        [
            Event("response_time", 100.0, OLD + 1, count=90, metadata={"session": "s"}),
            Event("response_time", 900.0, OLD + 2, count=10, metadata={"session": "s"}),
            Event("response_time", 50.0, OLD + 3, metadata={"session": "s"}),
            Event("cost", 2.0, OLD + 4, sample_rate=0.25, metadata={"session": "s"}),
        ]
    )
    (one,) = served.get("/api/sessions", **RANGE)["sessions"]
    assert (one["events"], one["cost"], one["response_time_p95"]) == (4, 8, 900)


def test_active_sessions_come_first_and_are_known_before_their_events_are_stored(
    pipeline: Pipeline, served: Served
) -> None:
    now = wall()
    pipeline.take_in([event(1, now - 3 * HOUR, session="slept"), event(5, now - 60, "cost", session="works")])
    pipeline.feed([event(1, now - 5, session="new"), event(7, now - 4, "cost", session="works")])
    pipeline.aggregate()
    found = served.get("/api/sessions")["sessions"]
    assert [(one["id"], one["active"], one["events"], one["cost"]) for one in found] == [
        ("works", True, 1, 5),
        ("new", True, 0, None),
        ("slept", False, 1, None),
    ]
    assert found[0]["last"] == pytest.approx(now - 4, abs=1e-3)
    assert [one["id"] for one in served.get("/api/sessions", where="session!=x")["sessions"]] == ["works", "slept"]
    assert served.get("/api/sessions/new")["session"]["events"] == 0
    pipeline.archive()
    assert [one["events"] for one in served.get("/api/sessions")["sessions"]] == [2, 1, 1]
    before = served.get("/api/sessions", **{"from": "now-4h", "to": "now-1h"})["sessions"]
    assert [(one["id"], one["active"]) for one in before] == [("slept", False)]


def test_session_at_work_comes_first_in_the_past_too_and_its_times_are_those_of_the_range(
    pipeline: Pipeline, served: Served
) -> None:
    now = wall()
    pipeline.take_in([event(1, now - HOUR * 3, session="works"), event(1, now - HOUR * 2, session="slept")])
    pipeline.take_in([event(1, now - 1, session="works")])
    found = served.get("/api/sessions", **{"from": "now-4h", "to": "now-1h"})["sessions"]
    assert [(one["id"], one["active"]) for one in found] == [("works", True), ("slept", False)]
    assert found[0]["last"] == pytest.approx(now - HOUR * 3, abs=1e-3)


def test_without_redis_files_answer_and_nobody_says_who_is_active(
    pipeline: Pipeline, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.take_in([event(1, OLD, session="s")])
    monkeypatch.setattr(MetricsDashboard, "trouble", "no Redis answers")
    (one,) = served.get("/api/sessions", **RANGE)["sessions"]
    assert (one["id"], one["active"]) == ("s", None)


def test_one_session_is_told_by_metric_model_and_time(pipeline: Pipeline, served: Served) -> None:
    events = work(5)
    pipeline.take_in(events)
    found = served.get("/api/sessions/s2", **RANGE)
    own = [one for one in events if one.metadata.get("session") == "s2"]
    assert found["session"] == near(told(events, "s2"))
    assert set(found["metrics"]) == {one.metric for one in own}
    for metric, numbers in found["metrics"].items():
        values = [one.value for one in own if one.metric == metric]
        assert numbers["count"] == len(values)
        assert (numbers["sum"], numbers["min"], numbers["max"]) == pytest.approx(
            (math.fsum(values), min(values), max(values)), rel=1e-9
        )
        assert numbers["last"] == max(one.ts for one in own if one.metric == metric)  # type: ignore[type-var]
    for model in found["models"]:
        of_model = [one for one in own if one.metadata["model"] == model["model"]]
        assert (model["provider"], model["events"]) == ("x", len(of_model))
        assert model["cost"] == pytest.approx(total(of_model, "cost"), rel=1e-9)
    assert sum(one["events"] for one in found["timeline"]) == len(own)
    for name, metric in (("tokens", "tokens"), ("cost", "cost"), ("errors", "error_rate")):
        parts = [one[name] for one in found["timeline"] if one[name] is not None]
        assert math.fsum(parts) == pytest.approx(total(own, metric), rel=1e-9)
    assert all(one["at"] % found["step"] == 0 for one in found["timeline"])


def test_session_that_nobody_knows_is_404(pipeline: Pipeline, served: Served) -> None:
    pipeline.take_in([event(1, OLD, session="s")])
    for path in ("nobody", "s", "x" * 1025):
        status, error = served.refused(f"/api/sessions/{path}")
        assert (status, error["code"]) == (404, "not_found")
    assert served.get("/api/sessions/s", **RANGE)["session"]["events"] == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_text_and_nothing_else(pipeline: Pipeline, served: Served, name: str) -> None:
    now = wall()
    pipeline.take_in([event(1, now - 9, "cost", session=name), event(2, now - 10, "cost", session="other")])
    answer = served.http.get("/api/sessions", params={"limit": "1"})
    assert answer.headers["content-type"] == "application/json"
    assert not any(byte < 32 for byte in answer.content)
    page = json.loads(answer.content)
    assert [(one["id"], one["active"], one["cost"]) for one in page["sessions"]] == [(name, True, 1)]
    (other,) = served.get("/api/sessions", cursor=page["next"])["sessions"]
    assert other["id"] == "other"
    (same,) = served.get("/api/sessions", where=f"session={name}")["sessions"]
    assert same["id"] == name
    if "/" not in name:  # which a path would be cut at
        assert served.get(f"/api/sessions/{quote(name, safe='')}")["session"]["id"] == name


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "W3RydWUsMWU5OTksImEiXQ"}, "cursor"),
        ({"cursor": "ä"}, "cursor"),
        ({"limit": "0"}, "limit"),
        ({"where": "Nothing"}, "where"),
        ({"metric": "cost"}, "metric"),
        ({"from": "now", "to": "now-1h"}, "from"),
    ],
)
def test_bad_parameter_is_400_and_named(served: Served, parameters: dict[str, str], field: str) -> None:
    status, error = served.refused("/api/sessions", **parameters)
    assert (status, error["code"], error["field"]) == (400, "bad_parameter", field)


def test_sessions_of_all_shards_are_one(pipeline: Pipeline, served: Served, client: redis.Redis) -> None:
    keys, now = Keys(), wall()
    pipeline.take_in([event(1, now - 50, session="s")])
    client.set(keys.shards, 2)
    client.zadd(keys.sessions(1), {"s": now - 2, "t": now - 4})
    found = served.get("/api/sessions")["sessions"]
    assert [(one["id"], one["last"]) for one in found] == [("s", now - 2), ("t", now - 4)]

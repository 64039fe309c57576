"""A live sample of events: at the rate asked for, drawn from all there were, and honest about how many."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis

from tests.support.feeding import Feed, event
from tests.support.serving import Served, StartDashboard, dashboard_in_thread
from tests.support.waiting import WaitUntil
from vibezen.metrics.api import watching
from vibezen.metrics.api.watching import Wanted, Watcher

pytestmark = pytest.mark.server


@contextmanager
def watched(served: Served, **parameters: Any) -> Iterator[Iterator[dict[str, Any]]]:
    with served.http.stream("GET", "/api/events", params={"live": "true", **parameters}) as answer:
        assert answer.status_code == 200, answer.read()
        yield (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: "))


def until_seen(samples: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while sum(sample["seen"] for sample in found) < count:
        found.append(next(samples))
    return found


@pytest.fixture
def live(redis_url: str, start_dashboard: StartDashboard) -> Served:
    return start_dashboard(redis_url)


def begin(samples: Iterator[dict[str, Any]]) -> None:
    """The first message says that from now on everything is seen."""
    first = next(samples)
    assert (first["seen"], first["missed"], first["events"]) == (0, 0, [])


def test_what_arrives_is_shown_as_it_stands(live: Served, client: redis.Redis) -> None:
    feed = Feed(client)
    with watched(live) as samples:
        begin(samples)
        feed.append([event(5, provider="openai")])
        (sample,) = until_seen(samples, 1)
        assert [(one["value"], one["metadata"]) for one in sample["events"]] == [(5, {"provider": "openai"})]
        assert sample["missed"] == 0


def test_more_than_the_rate_is_sampled_and_counted(live: Served, client: redis.Redis) -> None:
    feed = Feed(client)
    with watched(live, rate="4") as samples:
        begin(samples)
        for _ in range(10):
            feed.append([event(1)] * 500)
        found = until_seen(samples, 5000)
        assert sum(sample["seen"] for sample in found) == 5000
        assert max(len(sample["events"]) for sample in found) == 2


def test_metric_and_conditions_choose(live: Served, client: redis.Redis) -> None:
    feed = Feed(client)
    with watched(live, metric="cost", where=["provider=a", "model!=x"]) as samples:
        begin(samples)
        feed.append([event(1), event(2, metric="cost", provider="b"), event(4, metric="cost", provider="a", model="x")])
        feed.append([event(3, metric="cost", provider="a")])
        assert [one["value"] for sample in until_seen(samples, 1) for one in sample["events"]] == [3]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [({"live": "yes"}, "live"), ({"rate": "0"}, "rate"), ({"rate": "101"}, "rate"), ({"limit": "5"}, "limit")],
)
def test_bad_parameter_is_400_and_named(live: Served, parameters: dict[str, str], field: str) -> None:
    status, error = live.refused("/api/events", **{"live": "true", **parameters})
    assert (status, error["field"]) == (400, field)


def test_too_many_are_told_to_come_again(live: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MAX_WATCHERS", 1)
    with watched(live) as samples:
        next(samples)
        assert live.refused("/api/events", live="true")[0] == 503


def test_nobody_follows_once_the_last_has_left(live: Served, wait_until: WaitUntil) -> None:
    def threads() -> int:
        import threading

        return sum(thread.name == "event sample" for thread in threading.enumerate())

    with watched(live) as one, watched(live) as other:
        begin(one)
        begin(other)
        wait_until(lambda: threads() == 1)
    wait_until(lambda: threads() == 0)
    with watched(live) as again:
        begin(again)


def test_no_watcher_keeps_the_server_from_closing(redis_url: str, tmp_path: Path) -> None:
    with ExitStack() as watchers:
        with dashboard_in_thread(redis_url, tmp_path / "store") as served:
            samples = watchers.enter_context(watched(served))
            begin(samples)
            ending = monotonic()
        assert monotonic() - ending < 5


def test_sample_stands_for_all_of_what_was_seen() -> None:
    sums = []
    for _ in range(200):
        watcher = Watcher(Wanted(None, (), 10), lambda _: None)
        watcher.offer([event(value) for value in range(1000)], 0)
        sample = watcher.collect()
        assert (sample.seen, len(sample.events)) == (1000, 5)
        assert [one.value for one in sample.events] == sorted(one.value for one in sample.events)
        sums += [one.value for one in sample.events]
    assert sum(sums) / len(sums) == pytest.approx(499.5, abs=50)


def test_what_nobody_could_see_is_said(redis_url: str) -> None:
    watcher = Watcher(Wanted(None, (), 10), lambda _: None)
    watcher.offer([event(1)], 3)
    assert watcher.collect().missed == 3
    watcher.lose_sight()
    assert watcher.collect().missed is None
    assert watcher.collect().missed == 0

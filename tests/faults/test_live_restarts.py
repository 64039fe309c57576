"""Clients of the live feed across restarts of the API, and between two of its processes: line W3 of the house's
reliability. `make long` runs the long form."""

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.following import Follower
from tests.support.serving import NOW, OPEN, Json, Windows, dashboard_in_thread, samples
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.api.position import Position, parse_position
from vibezen.metrics.live import Change
from vibezen.metrics.series import series_key
from vibezen.metrics.settings import Live

pytestmark = pytest.mark.server

SERIES = series_key("response_time", {})
ALERT_EVERY = 7
"""Frames between two alerts."""


class Places:
    """Two APIs, of which one at a time is away. `ports` names those that are there."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self._redis_url, self._folder = redis_url, folder
        self._running = [ExitStack(), ExitStack()]
        self.ports: list[int | None] = [None, None]

    def __enter__(self) -> "Places":
        for place in range(len(self.ports)):
            self._start(place)
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            running.close()

    def restart(self, place: int) -> None:
        self.ports[place] = None
        self._running[place].close()
        self._start(place)

    def _start(self, place: int) -> None:
        settings = {"live": Live(interval_seconds=0.05)}
        folder = self._folder / f"store-{place}"
        started = dashboard_in_thread(self._redis_url, folder, lambda: NOW, settings)
        self.ports[place] = self._running[place].enter_context(started).port


def written(windows: Windows, numbers: range) -> str:
    """A frame for each number, which is the count it shows, and now and then an alert; the newest position."""
    alert = live = ""
    for number in numbers:
        live = windows.show([Change(OPEN, SERIES, replace(samples(1.0, at=NOW), count=number))])
        if number % ALERT_EVERY == 0 or number == numbers[-1]:
            alert = windows.alert(number)
    return f"{live}_{alert}"


def count(message: Json) -> int:
    (window,) = message["windows"] or [{"metrics": {"response_time": {"count": 0}}}]
    found: int = window["metrics"]["response_time"]["count"]
    return found


def check(messages: Sequence[Json], alerts: Sequence[int], frames: int) -> None:
    """Each id once, in order, nothing left out."""
    first, *others = messages
    assert first["type"] == "snapshot"
    told = [message for message in others if message["type"] != "snapshot"]  # one may follow for the slow
    assert {message["type"] for message in told} == {"frame", "alert"}, "nothing is gone, so nothing says so"
    positions = [position_of(first), *map(position_of, told)]
    for before, after in pairwise(positions):
        assert after.covers(before)
        assert after != before
    assert [message["alert"]["number"] for message in told if message["type"] == "alert"] == alerts
    counts = [count(message) for message in messages if message["type"] != "alert"]
    assert counts == sorted(counts)
    assert counts[-1] == frames


def position_of(message: Json) -> Position:
    found = parse_position(message["id"])
    assert found is not None
    return found


def run(redis_url: str, windows: Windows, folder: Path, wait_until: WaitUntil, frames: int, restarts: int) -> None:
    each = frames // restarts
    upto = windows.alert(0)
    with Places(redis_url, folder) as places:
        followers = [Follower(transport, places.ports) for transport in ("socket", "events")]
        for follower in followers:
            follower.start()
        wait_until(lambda: all(follower.messages for follower in followers))
        for number in range(restarts):
            written(windows, range(number * each + 1, number * each + each // 2 + 1))
            places.restart(number % 2)
            upto = written(windows, range(number * each + each // 2 + 1, number * each + each + 1))
        for follower in followers:
            follower.upto = upto
            follower.join(DEADLINE)
            assert follower.failure is None, follower.failure
            assert follower.is_done
    numbers = [n for n in range(1, frames + 1) if n % ALERT_EVERY == 0 or n % each in (0, each // 2)]
    for follower in followers:
        check(follower.messages, numbers, frames)
        assert follower.connections > restarts / 4


def test_clients_across_restarts_and_processes_see_each_id_once_in_order(
    redis_url: str, windows: Windows, tmp_path: Path, wait_until: WaitUntil
) -> None:
    run(redis_url, windows, tmp_path, wait_until, frames=240, restarts=12)


@pytest.mark.soak
def test_clients_see_each_of_ten_thousand_frames_across_restarts(
    redis_url: str, windows: Windows, tmp_path: Path, wait_until: WaitUntil
) -> None:
    run(redis_url, windows, tmp_path, wait_until, frames=10_000, restarts=20)

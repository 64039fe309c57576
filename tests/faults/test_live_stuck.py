"""Clients of the live feed that do not read: lines W1 and W2 of the house's reliability."""

import json
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.following import Reader, many, resident
from tests.support.processes import StartRole
from tests.support.servers import free_port
from tests.support.serving import NOW, OPEN, Windows, dashboard_in_thread, samples
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.api import fanout
from vibezen.metrics.live import Change
from vibezen.metrics.series import series_key
from vibezen.metrics.serving import listener

pytestmark = pytest.mark.server

STUCK = 200
"""Of each kind."""
GROWTH = 100e6
"""Bytes of memory that they may cost."""


def large(windows: Windows, start: int, number: int) -> str:
    """A frame of some 30 KB, so that buffers are soon full; its live id."""
    window = samples(*range(number), at=start)
    return windows.show([Change(start, series_key(f"metric_{i}", {}), window) for i in range(80)])


def test_clients_that_do_not_read_cost_little_slow_nobody_and_are_closed(
    redis_url: str, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(fanout, "QUEUE", 4)
    monkeypatch.setattr(listener, "USER_TIMEOUT_MS", 1500)
    with (
        dashboard_in_thread(redis_url, tmp_path / "store", lambda: NOW) as served,
        served.socket() as quick,
        ExitStack() as opened,
    ):
        served.hub.interval = 0.0
        quick.next()
        before = resident()
        many(served.port, STUCK, opened)
        wait_until(lambda: served.hub.subscribers == 1 + 2 * STUCK)
        number, growth = 0, 0
        while served.hub.subscribers > 1:
            number += 1
            position = large(windows, OPEN, number)
            assert quick.until_id(f"{position}_0-0"), "another client gets every frame meanwhile"
            growth = max(growth, resident() - before)
            assert number < 200, "they are never let go"
        assert growth < GROWTH
        wait_until(lambda: served.connections <= 2)  # ours, and the one that asks whether it is ready
        last = large(windows, OPEN, number + 1)
        assert quick.until_id(f"{last}_0-0")


def test_termination_among_many_clients_half_of_which_do_not_read_takes_seconds(
    start_role: StartRole, redis_url: str, windows: Windows, tmp_path: Path, wait_until: WaitUntil
) -> None:
    port = free_port()
    where = ("--redis-url", redis_url, "--storage-dir", str(tmp_path / "store"), "--port", str(port))
    role = start_role("api", *where, VIBEZEN_METRICS__LIVE__INTERVAL_SECONDS="0.05")
    wait_until(lambda: "Dashboard:" in role.said)
    start = int(httpx.get(f"http://127.0.0.1:{port}/api/metrics/realtime").json()["at"] // 10 * 10)
    with ExitStack() as opened:
        many(port, 50, opened)
        reader = Reader(many(port, 50, opened))
        reader.start()
        with connect(f"ws://127.0.0.1:{port}/ws") as one:
            for number in range(1, 13):
                position = large(windows, start, number)
                while not json.loads(one.recv(timeout=DEADLINE))["id"].startswith(position):
                    pass
            begun = time.monotonic()
            assert role.stop(DEADLINE) == 0
            assert time.monotonic() - begun < 10
        reader.join(DEADLINE)
        assert not reader.is_alive(), "those that read are told that it is over"
    assert "Traceback" not in role.said
    assert "without completing" not in role.said

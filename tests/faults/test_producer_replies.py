"""Replies lost, late, or none at all while events are sent: each event is in the stream once, in order."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import pytest
import redis

from tests.support.feeding import values_in_stream
from tests.support.proxy import StartProxy
from tests.support.servers import KINDS, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.connection import connect
from vibezen.metrics.settings import Settings

NEVER: Final = 3600.0
STALL: Final = 1.2
"""Seconds; longer than a reply is waited for here."""
PATIENCE: Final = 0.4


def collector_for(url: str, **settings: Any) -> MetricsCollector:
    return MetricsCollector(settings=Settings(**settings), redis_url=url)


def record(collector: MetricsCollector, values: range) -> None:
    for value in values:
        collector.record_nowait("m", value)


@pytest.mark.parametrize(
    ("size", "events"),
    [
        (1, 200),
        (100, 2000),
        (500, 10_000),
        pytest.param(1, 10_000, marks=pytest.mark.soak),
        pytest.param(100, 10_000, marks=pytest.mark.soak),
    ],
)
def test_with_a_fifth_of_all_replies_cut_every_event_is_there_once(
    any_redis_url: str, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch, size: int, events: int
) -> None:
    monkeypatch.setattr("vibezen.metrics.producers.uplink.FIRST_PAUSE", 0.002)
    proxy = start_proxy(any_redis_url)
    proxy.cut_share(0.2, seed=size)
    with collector_for(proxy.url, buffer_size=size, flush_interval_seconds=NEVER) as collector:
        for start in range(0, events, size):
            record(collector, range(start, start + size))
            collector.flush_sync(0.05)
        assert collector.flush_sync(60) == 0
        assert proxy.cuts > 3
        proxy.cut_share(0.0)
        assert collector.close_sync(30) == 0
    assert values_in_stream(any_redis_url) == list(range(events))


@contextmanager
def stalled(client: redis.Redis, how: str) -> Iterator[None]:
    """A server that answers nobody for a while, from the block's beginning on."""

    def stall() -> None:
        if how == "pause":
            client.client_pause(int(STALL * 1000))
        else:
            client.execute_command("DEBUG", "SLEEP", str(STALL))  # type: ignore[no-untyped-call]

    thread = threading.Thread(target=stall)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("how", ["pause", "sleep"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_stalls_during_a_thousand_sends_gets_each_event_once(
    kind: str, how: str, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibezen.metrics.producers.uplink.connect", partial(connect, read_timeout=PATIENCE))
    server = start_server(kind, "--enable-debug-command", "yes")
    with server.client() as client, ExitStack() as stall:
        collector = collector_for(server.url, buffer_size=1, flush_interval_seconds=NEVER)
        for value in range(1000):
            if value == 200:
                stall.enter_context(stalled(client, how))
            collector.record_nowait("m", value)
            collector.flush_sync(0.02)
        assert collector.close_sync(30) == 0
    assert values_in_stream(server.url) == list(range(1000))


def test_a_server_that_hangs_holds_up_neither_the_buffer_nor_the_end(
    start_server: StartServer, wait_until: WaitUntil
) -> None:
    """SIGSTOP: the kernel accepts connections, and nobody answers, for longer than a reply is waited for."""
    server = start_server()
    collector = collector_for(server.url, buffer_max_events=15_000)
    record(collector, range(10))
    assert collector.flush_sync() == 0
    os.kill(server.pid, signal.SIGSTOP)
    try:
        value = 10
        end = time.monotonic() + 2
        while time.monotonic() < end:
            record(collector, range(value, value + 100))
            value += 100
            time.sleep(0.005)
        stats = collector.stats()
        assert stats.dropped == {}, "the buffer is relieved"
        assert stats.spooled > 5_000
        start = time.monotonic()
        assert collector.close_sync(1) == value - 10
        assert time.monotonic() - start < 20
        stats = collector.stats()
        assert (stats.recorded, stats.appended, stats.spooled) == (value, 10, value - 10)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    with collector_for(server.url) as another:
        another.record_nowait("other", 1)
        wait_until(lambda: len(values_in_stream(server.url)) == value + 1)
    assert values_in_stream(server.url, "m") == list(range(value))

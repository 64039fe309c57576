"""A server that is away, or full, under load: `record()` never waits, memory keeps its bound, and all arrives after."""

import os
import signal
import statistics
import threading
import time
from typing import Final

import pytest
import redis

from tests.support.feeding import values_in_stream
from tests.support.servers import KINDS, SURE, Server, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.keys import Keys
from vibezen.metrics.settings import Durability, Settings

THREADS: Final = 2
RATE: Final = 3000
"""Events a second and thread; more than an application that talks to models ever records."""
DRAIN_SECONDS: Final = 30.0


class Load:
    """Threads that record values counted up, each its own range, at a steady rate until told to stop."""

    def __init__(self, collector: MetricsCollector) -> None:
        self._collector = collector
        self._stopping = False
        self.took: list[float] = []
        self.most_buffered = 0
        self.recorded: list[range] = []
        self._threads = [threading.Thread(target=self._run, args=(number * 10_000_000,)) for number in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        return sum(map(len, self.recorded))

    def _run(self, first: int) -> None:
        value, start = first, time.perf_counter()
        while not self._stopping:
            due = first + int((time.perf_counter() - start) * RATE)
            while value < due:
                before = time.perf_counter()
                self._collector.record_nowait("m", value, {"provider": "openai"})
                self.took.append(time.perf_counter() - before)
                value += 1
            self.most_buffered = max(self.most_buffered, self._collector.stats().buffered)
            time.sleep(0.002)
        self.recorded.append(range(first, value))


@pytest.mark.parametrize(
    ("kind", "how", "seconds"),
    [
        ("redis", "killed", 3.0),
        ("valkey", "stopped", 3.0),
        pytest.param("valkey", "killed", 60.0, marks=pytest.mark.soak),
        pytest.param("redis", "stopped", 60.0, marks=pytest.mark.soak),
    ],
)
def test_while_the_server_is_away_recording_takes_no_time_nor_memory_and_all_arrives_after(
    kind: str, how: str, seconds: float, start_server: StartServer, wait_until: WaitUntil
) -> None:
    server = start_server(kind, *SURE)
    settings = Settings(buffer_max_events=20_000)
    with MetricsCollector(settings=settings, redis_url=server.url) as collector:
        load = Load(collector)
        wait_until(lambda: collector.stats().appended > 0)
        away(server, how)
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, seconds + 5)
        back(server, how)
        wait_until(lambda: collector.stats().appended > RATE * seconds)
        load.stop()
        assert collector.flush_sync(DRAIN_SECONDS) == 0
        stats = collector.stats()
    assert statistics.quantiles(load.took, n=100)[98] < 0.001
    assert load.most_buffered <= 20_000 + THREADS
    assert (stats.recorded, stats.appended, stats.dropped) == (load.count, load.count, {})
    assert sorted(values_in_stream(server.url)) == sorted(value for values in load.recorded for value in values)


def test_without_a_spool_what_is_missing_is_exactly_what_was_dropped(
    start_server: StartServer, wait_until: WaitUntil
) -> None:
    server = start_server(None, *SURE)
    settings = Settings(buffer_max_events=2000, durability=Durability.MEMORY)
    with MetricsCollector(settings=settings, redis_url=server.url) as collector:
        load = Load(collector)
        wait_until(lambda: collector.stats().appended > 0)
        server.kill()
        wait_until(lambda: collector.stats().dropped.get("overflow", 0) > 2000)
        load.stop()
        server.start()
        assert collector.flush_sync(DRAIN_SECONDS) == 0
        dropped = collector.stats().dropped
        wait_until(lambda: told_dropped(server.url) == dropped["overflow"])
    found = values_in_stream(server.url, "m")
    assert len(found) == len(set(found))
    assert load.count - len(found) == sum(dropped.values())
    assert load.most_buffered <= 2000 + THREADS


def told_dropped(url: str) -> float:
    return sum(values_in_stream(url, "vibezen.events_dropped"))


def away(server: Server, how: str) -> None:
    if how == "killed":
        server.kill()
    else:
        os.kill(server.pid, signal.SIGSTOP)


def back(server: Server, how: str) -> None:
    if how == "killed":
        server.start()
    else:
        os.kill(server.pid, signal.SIGCONT)


FULL: Final = ("maxmemory", "stream")


def set_full(client: redis.Redis, what: str, *, full: bool) -> None:
    """The whole server, or this one stream by the archiver's bound."""
    if what == "maxmemory":
        client.config_set("maxmemory", "1" if full else "0")
    elif full:
        client.hset(Keys().books(0), "archive.max_bytes", 1)
    else:
        client.hdel(Keys().books(0), "archive.max_bytes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", FULL)
def test_a_full_server_is_kept_for_and_gets_everything_within_30_s_of_having_room_again(
    kind: str, what: str, start_server: StartServer, wait_until: WaitUntil
) -> None:
    server = start_server(kind, *SURE)
    settings = Settings(buffer_max_events=1000, flush_interval_seconds=0.05)
    with server.client() as client, MetricsCollector(settings=settings, redis_url=server.url) as collector:
        for value in range(2):  # one entry each: a stream of one alone is never over its bound
            collector.record_nowait("m", value)
            assert collector.flush_sync() == 0
        set_full(client, what, full=True)
        for value in range(2, 10_002):
            collector.record_nowait("m", value)
            if value % 500 == 0:
                wait_until(lambda: not collector.stats().buffered)
        wait_until(lambda: collector.stats().spooled == 10_000)  # ten times what the buffer holds
        set_full(client, what, full=False)
        assert collector.flush_sync(DRAIN_SECONDS) == 0
    assert values_in_stream(server.url) == list(range(10_002))

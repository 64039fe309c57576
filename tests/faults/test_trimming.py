"""R4: streams shrink to what every group has committed; what does not fit waits at the producer, never skipped."""

from collections import Counter
from pathlib import Path
from typing import Any, Final

import redis

from tests.support.feeding import lag, total, values_on_disk
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.balance import NEWEST, Books, books_of
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, GROUPS, Keys
from vibezen.metrics.producers.call_maker import CALL_EVENTS
from vibezen.metrics.settings import Settings

KEYS: Final = Keys()
EVENTS: Final = CALL_EVENTS + 500
BOUND: Final = 200_000
"""Bytes: a fraction of what these events take."""


def books(client: redis.Redis) -> Books:
    stored: Any = client.hgetall(KEYS.books(0))
    newest: Any = client.xrevrange(KEYS.events(0), count=NEWEST)
    return books_of(stored, newest)


def memory(client: redis.Redis) -> int:
    """Bytes that the stream takes."""
    used: Any = client.memory_usage(KEYS.events(0))
    return used or 0


def drained(client: redis.Redis) -> bool:
    return all(lag(client, group) == 0 for group in GROUPS)


def test_a_stopped_group_keeps_its_entries_and_the_producer_keeps_what_does_not_fit(
    client: redis.Redis, redis_url: str, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    store = tmp_path / "store"
    options = ("--redis-url", redis_url, "--storage-dir", str(store))
    bound = {"VIBEZEN_METRICS__STREAMS__MAX_BYTES": str(BOUND)}
    start_role("consume", ARCHIVE, *options, **bound)
    wait_until(lambda: client.hget(KEYS.books(0), "archive.max_bytes"))
    on_demand = Settings(storage_dir=tmp_path / "application", buffer_size=100_000, flush_interval_seconds=3600.0)
    with MetricsCollector(settings=on_demand, redis_url=redis_url) as collector:
        for value in range(CALL_EVENTS):
            collector.record_nowait("response_time", value)
        assert collector.flush_sync() == 0, "one call goes beyond the bound"
        for value in range(CALL_EVENTS, EVENTS):
            collector.record_nowait("response_time", value)
        # The archiver has read all there is and tries to trim; nothing of it may go, since the other group has not.
        wait_until(lambda: lag(client, ARCHIVE) == 0 and memory(client) > BOUND)
        assert collector.flush_sync(1) > 0
        assert books(client).groups[AGGREGATE].trimmed == 0
        assert memory(client) < 3 * BOUND, "and no other does"
        start_role("consume", AGGREGATE, *options)
        assert collector.flush_sync(60) == 0
    wait_until(lambda: drained(client), 60)
    assert values_on_disk(store) == Counter(map(float, range(EVENTS)))
    assert (total(client).count, total(client).sum) == (EVENTS, float(sum(range(EVENTS))))
    wait_until(lambda: client.xlen(KEYS.events(0)) <= 1)
    found = books(client)
    assert found.balances
    assert found.appended == EVENTS
    assert all(side.trimmed == side.unread == 0 for side in found.groups.values())


def test_what_somebody_else_trimmed_is_counted_as_lost(
    client: redis.Redis, redis_url: str, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    options = ("--redis-url", redis_url, "--storage-dir", str(tmp_path / "store"))
    with MetricsCollector(settings=Settings(), redis_url=redis_url) as collector:
        for value in range(1000):
            collector.record_nowait("response_time", value)
        assert collector.flush_sync() == 0
        client.xtrim(KEYS.events(0), maxlen=0)
        assert all(side.trimmed == 1000 for side in books(client).groups.values()), "told before anybody reads on"
        for group in GROUPS:
            start_role("consume", group, *options)
        collector.record_nowait("response_time", 1000)
        assert collector.flush_sync() == 0
    wait_until(lambda: drained(client) and not any(side.unread for side in books(client).groups.values()))
    found = books(client)
    assert {(side.accepted, side.trimmed, side.difference) for side in found.groups.values()} == {(1, 1000, 0)}
    assert found.balances

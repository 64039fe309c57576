"""The sender against servers that are away, full or lose replies: nothing blocks, nothing is doubled."""

import logging
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import redis

from tests.producers.conftest import Arrived, MakeCollector
from tests.support.proxy import StartProxy
from tests.support.servers import SURE, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.connection import connect
from vibezen.metrics.keys import Keys
from vibezen.metrics.settings import Durability

NEVER = 3600.0
AWAY = "redis://127.0.0.1:1/0"


def record(collector: MetricsCollector, values: range) -> None:
    for value in values:
        collector.record_nowait("m", value)


@pytest.fixture
def own_client(start_server: StartServer) -> Iterator[redis.Redis]:
    """A client of a server whose settings the test may change."""
    with start_server().client() as client:
        yield client


def url_of(client: redis.Redis) -> str:
    options: Any = client.connection_pool.connection_kwargs
    return f"redis://127.0.0.1:{options['port']}/0"


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.SERVER])
def test_with_no_server_recording_never_raises_nor_blocks_and_the_bound_holds(
    make_collector: MakeCollector, durability: Durability
) -> None:
    collector = make_collector(AWAY, buffer_max_events=2000, durability=durability)
    took = []
    for value in range(20_000):
        start = time.perf_counter()
        collector.record_nowait("m", value)
        took.append(time.perf_counter() - start)
    assert statistics.quantiles(took, n=100)[98] < 0.001
    stats = collector.stats()
    assert stats.buffered <= 2000
    assert 20_000 <= stats.recorded <= 20_001, "with an event about dropped ones"
    assert stats.recorded == stats.buffered + stats.in_flight + stats.spooled + stats.dropped.get("overflow", 0)


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.SERVER])
def test_what_is_missing_after_an_outage_is_exactly_what_was_counted_as_dropped(
    make_collector: MakeCollector, start_proxy: StartProxy, redis_url: str, arrived: Arrived, durability: Durability
) -> None:
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(proxy.url, buffer_max_events=1000, buffer_size=100, durability=durability)
    record(collector, range(5000))
    proxy.come_back()
    assert collector.flush_sync(20) == 0
    values, stats = arrived.values("m"), collector.stats()
    assert len(values) == len(set(values))
    assert stats.dropped.get("overflow", 0) == 5000 - len(values)
    assert values[-1] == 4999, "the oldest are dropped, never the newest"
    assert values == sorted(values)


def test_an_outage_is_told_once_without_the_password_and_its_end_too(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(proxy.url.replace("//", "//:secret@"), buffer_size=1)
    collector.record_nowait("m", 1)
    wait_until(lambda: caplog.records)
    assert collector.flush_sync(0.5) == 1
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("requirepass", "secret")
        try:
            proxy.come_back()
            assert collector.flush_sync(10) == 0
        finally:
            client.config_set("requirepass", "")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert proxy.url.partition("//")[2] in caplog.records[0].getMessage()
    assert "secret" not in caplog.text


@pytest.mark.parametrize("script", [b"EVALSHA", b"XADD", b"GET"])
def test_a_lost_reply_doubles_nothing(
    make_collector: MakeCollector, start_proxy: StartProxy, redis_url: str, arrived: Arrived, script: bytes
) -> None:
    proxy = start_proxy(redis_url)
    collector = make_collector(proxy.url, buffer_size=100_000, flush_interval_seconds=NEVER)
    proxy.cut(script, times=3)
    record(collector, range(700))
    assert collector.flush_sync(20) == 0
    assert proxy.cuts == 3 if script == b"EVALSHA" else proxy.cuts > 0
    assert arrived.values() == list(range(700))


def test_with_a_fifth_of_all_replies_lost_everything_arrives_once(
    make_collector: MakeCollector, start_proxy: StartProxy, any_redis_url: str
) -> None:
    proxy = start_proxy(any_redis_url)
    proxy.cut_share(0.2, seed=7)
    collector = make_collector(proxy.url, buffer_size=10, flush_interval_seconds=0.01)
    for start in range(0, 1000, 50):
        record(collector, range(start, start + 50))
        collector.flush_sync(0.02)
    assert collector.flush_sync(30) == 0
    assert proxy.cuts > 5
    with connect(any_redis_url) as client:
        assert Arrived(client).values() == list(range(1000))


def test_a_server_that_answers_too_late_doubles_nothing(
    make_collector: MakeCollector,
    redis_url: str,
    client: redis.Redis,
    arrived: Arrived,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vibezen.metrics.producers.uplink.connect", partial(connect, read_timeout=0.1))
    collector = make_collector(redis_url, buffer_size=100_000, flush_interval_seconds=NEVER)
    record(collector, range(10))
    assert collector.flush_sync() == 0
    client.client_pause(400)
    record(collector, range(10, 900))
    assert collector.flush_sync(0.05) == 890
    assert collector.flush_sync(20) == 0
    assert arrived.values() == list(range(900))


def test_a_full_server_gets_everything_once_it_has_room_again(
    make_collector: MakeCollector, own_client: redis.Redis
) -> None:
    collector = make_collector(url_of(own_client), buffer_size=10)
    record(collector, range(10))
    assert collector.flush_sync() == 0
    own_client.config_set("maxmemory", "1")
    record(collector, range(10, 500))
    assert collector.flush_sync(0.3) == 490
    own_client.config_set("maxmemory", "0")
    assert collector.flush_sync(20) == 0
    assert Arrived(own_client).values() == list(range(500))


def test_a_replica_that_refuses_writes_is_tried_until_it_accepts_them(
    make_collector: MakeCollector, own_client: redis.Redis
) -> None:
    own_client.replicaof("127.0.0.1", "1")
    collector = make_collector(url_of(own_client), buffer_size=1)
    collector.record_nowait("m", 1)
    assert collector.flush_sync(0.3) == 1
    own_client.replicaof("NO", "ONE")
    assert collector.flush_sync(20) == 0
    assert Arrived(own_client).values() == [1]


def test_a_killed_and_restarted_server_gets_the_rest(make_collector: MakeCollector, start_server: StartServer) -> None:
    server = start_server(None, *SURE)
    collector = make_collector(server.url, buffer_size=10)
    record(collector, range(100))
    assert collector.flush_sync() == 0
    server.kill()
    record(collector, range(100, 200))
    assert collector.flush_sync(0.3) == 100
    server.start()
    assert collector.flush_sync(20) == 0
    with server.client() as client:
        assert Arrived(client).values() == list(range(200))


def test_an_emptied_server_gets_its_stream_groups_and_shards_again(
    make_collector: MakeCollector, client: redis.Redis, redis_url: str, arrived: Arrived
) -> None:
    from vibezen.metrics.settings import Streams

    collector = make_collector(redis_url, streams=Streams(shards=3))
    keys = Keys()
    for _ in range(2):
        collector.record_nowait("m", 1)
        assert collector.flush_sync() == 0
        assert client.get(keys.shards) == b"3"
        (stream,) = client.keys("*:events")
        groups: Any = client.xinfo_groups(stream)
        assert len(groups) == 2
        client.flushall()


def test_without_a_spool_close_gives_up_after_its_deadline_and_says_how_much_is_not_safe(
    make_collector: MakeCollector,
) -> None:
    collector = make_collector(AWAY, durability=Durability.MEMORY)
    record(collector, range(250))
    start = time.monotonic()
    assert collector.close_sync(0.3) == 250
    assert time.monotonic() - start < 20
    stats = collector.stats()
    assert stats.recorded == 250
    assert stats.buffered + stats.in_flight + stats.dropped.get("closed", 0) == 250


def test_an_idle_sender_survives_a_server_that_closes_idle_connections(
    make_collector: MakeCollector, redis_url: str, client: redis.Redis, arrived: Arrived
) -> None:
    collector = make_collector(redis_url)
    collector.record_nowait("m", 1)
    collector.flush_sync()
    for connection in client.client_list():
        if connection["id"] != str(client.client_id()):
            client.client_kill_filter(_id=connection["id"])
    collector.record_nowait("m", 2)
    assert collector.flush_sync() == 0
    assert arrived.values() == [1, 2]


def test_a_server_that_is_too_old_is_named_in_one_line(
    make_collector: MakeCollector, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("vibezen.metrics.connection.MIN_VALKEY", (99, 0, 0))
    monkeypatch.setattr("vibezen.metrics.connection.MIN_REDIS", (99, 0, 0))
    collector = make_collector(redis_url, buffer_size=1)
    collector.record_nowait("m", 1)
    assert collector.flush_sync(0.3) == 1
    assert "is too old; 99" in caplog.text

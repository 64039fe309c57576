"""What an acknowledgement means by `durability`, with a primary and a replica, and at the gateway."""

import os
import signal
from pathlib import Path

import pytest
import redis

from tests.producers.conftest import Arrived, MakeCollector
from tests.support.gateways import StartGateway, lines
from tests.support.proxy import StartProxy
from tests.support.servers import Server, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.connection import connect
from vibezen.metrics.errors import NotReplicated
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.append import Batch, append
from vibezen.metrics.settings import Durability


class Pair:
    """A primary and its replica."""

    def __init__(self, start_server: StartServer, wait_until: WaitUntil) -> None:
        self.primary, self.replica = start_server(), start_server()
        self._wait_until = wait_until
        self.attach()

    def attach(self) -> None:
        with self.replica.client() as client:
            client.replicaof("127.0.0.1", str(self.primary.port))
            self._wait_until(lambda: client.info("replication")["master_link_status"] == "up")

    def lose_replica(self) -> None:
        self.replica.kill()

    def regain_replica(self) -> None:
        self.replica.start()
        self.attach()


@pytest.fixture
def pair(start_server: StartServer, wait_until: WaitUntil) -> Pair:
    return Pair(start_server, wait_until)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas, and the gateway's repetitions, are given up sooner than a user would."""
    monkeypatch.setattr("vibezen.metrics.producers.append.WAIT_MS", 100)
    monkeypatch.setattr("vibezen.metrics.producers.appender.PATIENCE", 0.3)


def record(collector: MetricsCollector, values: range) -> None:
    for value in values:
        collector.record_nowait("m", value)


def there(server: Server) -> list[float]:
    with server.client() as client:
        return Arrived(client).values("m")


def test_by_durability_replica_events_are_safe_only_where_the_replica_has_them(
    pair: Pair, make_collector: MakeCollector, tmp_path: Path
) -> None:
    collector = make_collector(pair.primary.url, durability=Durability.REPLICA)
    record(collector, range(100))
    assert collector.flush_sync(20) == 0
    assert there(pair.replica) == list(range(100))
    pair.lose_replica()
    record(collector, range(100, 200))
    assert collector.flush_sync(0.5) == 100
    assert there(pair.primary) == list(range(200)), "the primary has them, but that is not what was asked for"
    assert collector.stats().spooled == 100
    pair.regain_replica()
    assert collector.flush_sync(20) == 0
    assert there(pair.primary) == there(pair.replica) == list(range(200))
    assert collector.stats().spooled == 0


def test_a_connection_made_anew_confirms_nothing_of_the_one_before(pair: Pair, start_proxy: StartProxy) -> None:
    """It has written nothing itself, and nothing is what any replica has."""
    proxy = start_proxy(pair.primary.url)
    batch = Batch(1, b'{"metric":"m","value":1}\n')
    with connect(proxy.url) as client:
        assert append(client, Keys(), 0, "p", 1, [batch], replicas=1).last == 1
        os.kill(pair.replica.pid, signal.SIGSTOP)
        try:
            proxy.end_after(b"EVALSHA")
            with pytest.raises((redis.ConnectionError, NotReplicated)):
                append(client, Keys(), 0, "p", 2, [batch], replicas=1)
            with pytest.raises(NotReplicated):
                append(client, Keys(), 0, "p", 2, [batch], replicas=1)
        finally:
            os.kill(pair.replica.pid, signal.SIGCONT)
        assert append(client, Keys(), 0, "p", 2, [batch], replicas=1).duplicate


def test_a_primary_that_dies_unreplicated_costs_nothing_that_was_acknowledged_nor_spooled(
    pair: Pair, make_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = make_collector(pair.primary.url, durability=Durability.REPLICA)
    record(collector, range(100))
    assert collector.flush_sync(20) == 0
    with pair.replica.client() as client:
        client.replicaof("NO", "ONE")
    record(collector, range(100, 200))
    assert collector.flush_sync(0.5) == 100
    pair.primary.kill()
    with monkeypatch.context() as patched:  # as Sentinel would: the address now leads to the replica
        patched.setattr("vibezen.metrics.producers.uplink.redis_url", lambda settings: pair.replica.url)
        collector.flush_sync(1)
        assert there(pair.replica) == list(range(200))


def test_by_durability_replica_the_gateway_answers_200_only_where_the_replica_has_them(
    pair: Pair, start_gateway: StartGateway
) -> None:
    door = start_gateway(pair.primary.url, durability=Durability.REPLICA)
    assert door.post(lines(1), "client/1").status_code == 200
    assert there(pair.replica) == [1]
    pair.lose_replica()
    for key in (None, "client/2"):
        assert door.post(lines(2), key).status_code == 503
    pair.regain_replica()
    assert door.answer(lines(2), "client/2")[1]["duplicates"] == 1
    assert door.post(lines(3), None).status_code == 200
    assert there(pair.replica)[-1] == 3


def test_the_gateway_sends_what_applications_that_never_come_back_have_left(
    make_collector: MakeCollector,
    start_gateway: StartGateway,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    collector = make_collector("redis://127.0.0.1:1", storage_dir=tmp_path / "gateway-0")
    record(collector, range(300))
    assert collector.close_sync(0.2) == 300
    start_gateway(redis_url)
    wait_until(lambda: not list((tmp_path / "gateway-0" / "spool").iterdir()))
    assert arrived.values() == list(range(300))

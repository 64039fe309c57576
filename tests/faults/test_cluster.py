"""Several servers: the whole path over a Redis Cluster, and primaries that are killed, in a cluster and by Sentinel."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import redis
from msgspec.structs import replace

from tests.support.clusters import StartCluster
from tests.support.feeding import event, total, values_on_disk
from tests.support.gateways import gateway_in_thread, lines
from tests.support.processes import RoleProcess, StartRole
from tests.support.servers import KINDS
from tests.support.serving import dashboard_in_thread
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics import MetricsCollector, config
from vibezen.metrics.config import Settings, Streams
from vibezen.metrics.connection import connect, primaries
from vibezen.metrics.consumers.supervisor import run
from vibezen.metrics.event import encode_lines
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.producers.append import Batch, append, shard_of

KEYS = Keys()
SHARDS: Final = 4
"""Their slots lie on all three primaries."""
BATCH: Final = 10
BACK: Final = 30.0
"""Seconds in which producers and consumers must be back; the goal is 10."""
DRAIN: Final = 60.0


class Writer(threading.Thread):
    """Appends to one shard until told to stop, asking after each append whether a replica has it.

    `confirmed`: values of which a replica said so. After an error the same call is made again, as producers do.
    """

    def __init__(self, url: str, shard: int, first: int) -> None:
        super().__init__(name=f"writer-{shard}")
        self._url, self._shard, self._value = url, shard, first
        self.confirmed: list[float] = []
        self.appended = 0
        self.errors: Counter[str] = Counter()
        self.longest = 0.0
        """Seconds between two appends, at most."""
        self.asked = threading.Event()

    def run(self) -> None:
        seq, before = 1, time.monotonic()
        client = connect(self._url, read_timeout=3)
        while not self.asked.is_set():
            values = [float(self._value + n) for n in range(BATCH)]
            batch = Batch(BATCH, encode_lines([event(value, time.time()) for value in values]))
            try:
                append(client, KEYS, self._shard, f"w{self._shard}", seq, [batch])
                safe = int(client.wait(1, 200)) >= 1
            except redis.RedisError as error:
                self.errors[type(error).__name__] += 1
                self.asked.wait(0.05)
                continue
            self.longest, before = max(self.longest, time.monotonic() - before), time.monotonic()
            self.confirmed += values if safe else []
            self.appended += BATCH
            seq, self._value = seq + BATCH, self._value + BATCH
            self.asked.wait(0.01)
        client.close()


@contextmanager
def writing(url: str, shards: int) -> Iterator[list[Writer]]:
    writers = [Writer(url, shard, shard * 1_000_000) for shard in range(shards)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        end(writers)


def end(writers: list[Writer]) -> None:
    for writer in writers:
        writer.asked.set()
    for writer in writers:
        writer.join()


def start(start_role: StartRole, group: str, url: str, store: Path, shards: int) -> RoleProcess:
    told = {"VIBEZEN_METRICS__STREAMS__SHARDS": str(shards)}
    return start_role("consume", group, "--redis-url", url, "--storage-dir", str(store), **told)


def position(client: redis.Redis, shard: int, group: str) -> tuple[int, ...]:
    told = client.hget(KEYS.books(shard), f"{group}.position")
    return tuple(map(int, told.split(b"-"))) if isinstance(told, bytes) else (0,)


def drained(client: redis.Redis, shards: int) -> bool:
    for shard in range(shards):
        last = client.xinfo_stream(KEYS.events(shard))["last-generated-id"]
        for told in client.xinfo_groups(KEYS.events(shard)):
            if told["last-delivered-id"] != last:
                return False
    return True


def moves_on(client: redis.Redis, shard: int, wait_until: WaitUntil) -> None:
    """Wait until both groups have committed something new. Positions only grow, whatever server holds them."""
    for group in GROUPS:
        before = wait_until(partial(asked, client, shard, group), BACK)
        wait_until(partial(has_passed, client, shard, group, before), BACK)


def has_passed(client: redis.Redis, shard: int, group: str, before: tuple[int, ...]) -> bool:
    return asked(client, shard, group) > before


def asked(client: redis.Redis, shard: int, group: str) -> tuple[int, ...]:
    """The position; () while nobody can be asked."""
    with suppress(redis.RedisError):
        return position(client, shard, group)
    return ()


def assert_nothing_lost_or_doubled(client: redis.Redis, store: Path, writers: list[Writer], shards: int) -> None:
    on_disk = values_on_disk(store)
    assert [value for value, times in on_disk.items() if times > 1] == []
    lost = {value for writer in writers for value in writer.confirmed} - set(on_disk)
    assert lost == set()
    print(len(on_disk), sum(len(w.confirmed) for w in writers), [(w.longest, w.errors) for w in writers])
    for width in (10, 60):
        window = total(client, width, shards)
        assert (window.count, window.sum) == (len(on_disk), sum(on_disk))


def collectors(settings: Settings) -> list[MetricsCollector]:
    """One for each shard: its own is by chance."""
    found: dict[int, MetricsCollector] = {}
    while len(found) < settings.streams.shards:
        collector = MetricsCollector(settings=settings)
        found.setdefault(shard_of(str(collector.producer), settings.streams.shards), collector)
    return list(found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_path_runs_on_a_cluster(
    kind: str, start_cluster: StartCluster, wait_until: WaitUntil, tmp_path: Path
) -> None:
    """Collectors and a gateway append to every shard; what is archived and aggregated is read, live and stored."""
    cluster = start_cluster(kind, replicas=0)
    settings = config.load(redis_url=cluster.url, storage_dir=tmp_path, environ={})
    settings = replace(settings, streams=Streams(shards=SHARDS))
    for number, collector in enumerate(collectors(settings)):
        for value in range(100):
            collector.record_nowait("response_time", 100 * number + value)
        assert collector.close_sync(DEADLINE) == 0
    with gateway_in_thread(cluster.url, tmp_path, streams=settings.streams) as door:
        for number in range(8):  # each on the shard of its key
            for known in (0, 1):
                status, told = door.answer(lines(1000 + number), f"client-{number}/1")
                assert (status, told["duplicates"]) == (200, known)
    values = [*range(100 * SHARDS), *range(1000, 1008)]
    with (
        connect(cluster.url) as client,
        dashboard_in_thread(cluster.url, tmp_path, settings={"streams": settings.streams}) as served,
    ):
        assert len({cluster.primary_of(KEYS.events(shard)).port for shard in range(SHARDS)}) == len(primaries(client))
        wait_until(lambda: served.hub.trouble is None)
        with served.socket() as socket:
            for group in GROUPS:
                assert run(group, settings, once=True) == 0
            socket.until(lambda message: "response_time" in str(message))
        assert values_on_disk(tmp_path) == Counter(map(float, values))
        for width in (10, 60):
            window = total(client, width, SHARDS)
            assert (window.count, window.sum) == (len(values), sum(values))
        assert drained(client, SHARDS)
        answer = served.get(
            "/api/metrics/history", metric="response_time", agg="count", step="60", **{"from": "now-1h"}
        )
        assert sum(value or 0 for _, value in answer["series"][0]["points"]) == 100 * SHARDS
        assert all(shard["groups"]["archive"]["events"] for shard in served.get("/api/pipeline")["shards"])
        assert served.http.get("/readyz").status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_primary_killed_under_load_costs_nothing_that_a_replica_had(
    kind: str, start_cluster: StartCluster, start_role: StartRole, wait_until: WaitUntil, tmp_path: Path
) -> None:
    cluster = start_cluster(kind)
    roles = [start(start_role, group, cluster.url, tmp_path / "store", SHARDS) for group in GROUPS]
    with connect(cluster.url) as client, writing(cluster.url, SHARDS) as writers:
        wait_until(lambda: all(position(client, shard, group) > (0,) for shard in range(SHARDS) for group in GROUPS))
        primary = cluster.primary_of(KEYS.events(0))
        primary.kill()
        killed = time.monotonic()
        appended = [writer.appended for writer in writers]
        wait_until(lambda: all(w.appended > before for w, before in zip(writers, appended, strict=True)), BACK)
        moves_on(client, 0, wait_until)
        print("back", time.monotonic() - killed)
        primary.start()
        wait_until(cluster.is_whole)
        confirmed = [len(writer.confirmed) for writer in writers]
        wait_until(lambda: all(len(w.confirmed) > before for w, before in zip(writers, confirmed, strict=True)), BACK)
        end(writers)
        wait_until(lambda: drained(client, SHARDS), DRAIN)
        assert_nothing_lost_or_doubled(client, tmp_path / "store", writers, SHARDS)
    for role in roles:
        assert role.running()
        assert role.stop() == 0

"""Several servers: the whole path over a Redis Cluster, and primaries that are killed, in a cluster and by Sentinel."""

import random
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from tests.support.clusters import StartCluster, StartSentinel
from tests.support.feeding import total, values_on_disk
from tests.support.gateways import gateway_in_thread, lines
from tests.support.processes import StartRole
from tests.support.servers import KINDS
from tests.support.serving import dashboard_in_thread
from tests.support.waiting import DEADLINE, WaitUntil
from tests.support.writers import (
    DRAIN,
    all_append,
    all_are_confirmed,
    assert_all_kept_once,
    assert_books_balance,
    both_commit,
    consuming,
    drained,
    writing,
)
from vibezen.metrics import MetricsCollector, config
from vibezen.metrics.connection import connect, primaries
from vibezen.metrics.consumers.supervisor import run
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.producers.append import shard_of
from vibezen.metrics.settings import Durability, Settings, Streams

KEYS = Keys()
SHARDS: Final = 4
"""Their slots lie on all three primaries."""
MOSTLY_ONE: Final = [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.soak)]
"""A fail-over takes seconds, and is the servers' own."""


def collectors(settings: Settings) -> list[MetricsCollector]:
    """One for each shard: its own is by chance."""
    found: dict[int, MetricsCollector] = {}
    while len(found) < settings.streams.shards:
        collector = MetricsCollector(settings=settings)
        found.setdefault(shard_of(str(collector.producer), settings.streams.shards), collector)
    return list(found.values())


def record(collectors: list[MetricsCollector], before: int) -> int:
    """Fifty events in each; their values go on below -`before`, and how far is answered."""
    for collector in collectors:
        for _ in range(50):
            before += 1
            collector.record_nowait("response_time", -before)
    return before


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


@pytest.mark.parametrize("kind", MOSTLY_ONE)
def test_a_primary_killed_under_load_costs_nothing_that_a_replica_had(
    kind: str, start_cluster: StartCluster, start_role: StartRole, wait_until: WaitUntil, tmp_path: Path
) -> None:
    cluster, store = start_cluster(kind), tmp_path / "store"
    settings = config.load(redis_url=cluster.url, storage_dir=store, environ={})
    settings = replace(settings, streams=Streams(shards=SHARDS), durability=Durability.REPLICA)
    ours = collectors(settings)
    roles = consuming(start_role, cluster.url, store, SHARDS)
    with connect(cluster.url) as client, writing(cluster.url, SHARDS) as writers:
        both_commit(client, SHARDS)
        recorded = record(ours, 0)
        primary = cluster.primary_of(KEYS.events(0))
        primary.kill()
        recorded = record(ours, recorded)
        all_append(writers)
        both_commit(client, SHARDS)
        recorded = record(ours, recorded)
        primary.start()  # as a replica of the one that took its place: only then can anything be confirmed
        wait_until(cluster.is_whole)
        all_are_confirmed(writers)
        assert [collector.close_sync(DEADLINE) for collector in ours] == [0] * SHARDS
        for writer in writers:
            writer.end()
        wait_until(lambda: drained(client, SHARDS), DRAIN)
        assert_all_kept_once(client, store, writers, SHARDS)
        assert {float(-value) for value in range(1, recorded + 1)} <= set(values_on_disk(store))
        assert_books_balance(start_role, cluster.url, store)
    for role in roles:
        assert role.running()
        assert role.stop() == 0


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_primaries_killed_one_after_the_other_cost_nothing_that_a_replica_had(
    kind: str, start_cluster: StartCluster, start_role: StartRole, wait_until: WaitUntil, tmp_path: Path
) -> None:
    chance = random.Random(4)
    cluster, store = start_cluster(kind), tmp_path / "store"
    roles = consuming(start_role, cluster.url, store, SHARDS)
    with connect(cluster.url) as client, writing(cluster.url, SHARDS) as writers:
        for _ in range(8):
            both_commit(client, SHARDS)
            primary = cluster.primary_of(KEYS.events(chance.randrange(SHARDS)))
            primary.kill()
            all_append(writers)
            primary.start()
            wait_until(cluster.is_whole)
            all_are_confirmed(writers)
        for writer in writers:
            writer.end()
        wait_until(lambda: drained(client, SHARDS), DRAIN)
        assert_all_kept_once(client, store, writers, SHARDS)
        assert_books_balance(start_role, cluster.url, store)
    for role in roles:
        assert role.running()
        assert role.stop() == 0


@pytest.mark.parametrize("kind", MOSTLY_ONE)
def test_a_primary_that_sentinel_replaces_costs_nothing_that_its_replica_had(
    kind: str, start_sentinel: StartSentinel, start_role: StartRole, wait_until: WaitUntil, tmp_path: Path
) -> None:
    watched, store = start_sentinel(kind), tmp_path / "store"
    roles = consuming(start_role, watched.url, store)
    with connect(watched.url) as client, writing(watched.url) as writers:
        both_commit(client)
        watched.one.kill()
        all_append(writers)
        both_commit(client)
        assert watched.primary() == watched.other.port
        watched.one.start()
        with watched.one.client() as back:  # the Sentinel would tell it the same, some 10 s later
            back.replicaof("127.0.0.1", watched.other.port)
        all_are_confirmed(writers)
        for writer in writers:
            writer.end()
        wait_until(lambda: drained(client), DRAIN)
        assert_all_kept_once(client, store, writers)
        assert_books_balance(start_role, watched.url, store)
    for role in roles:
        assert role.running()
        assert role.stop() == 0

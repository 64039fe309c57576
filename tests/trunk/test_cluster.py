"""Clients of a Redis Cluster: each command at its server, and none sent twice."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import ConnectionError, ResponseError, TryAgainError

from tests.support.clusters import Cluster
from tests.support.feeding import Feed, event
from tests.support.proxy import StartProxy
from tests.support.servers import default_kind
from tests.support.waiting import wait_until
from vibezen.metrics import scripts
from vibezen.metrics.config import load
from vibezen.metrics.connection import (
    UNREACHABLE,
    check_server,
    connect,
    connect_async,
    primaries,
    readable_together,
    redacted,
)
from vibezen.metrics.doctor import Finding, Status, examine
from vibezen.metrics.errors import ServerUnavailable, ServerUnsuitable
from vibezen.metrics.following import Following, newest
from vibezen.metrics.keys import Keys
from vibezen.metrics.slots import ServerReplaced

KEYS = Keys()
NAMES = [f"x:{{{number}}}" for number in range(4)]
"""Keys on all three servers."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Shared by this file's tests, without replicas."""
    made = Cluster(default_kind(), lambda: tmp_path_factory.mktemp("cluster"), replicas=0)
    try:
        made.start()
        yield made
    finally:
        made.kill()


@pytest.fixture
def client(cluster: Cluster) -> Iterator[redis.Redis]:
    with connect(cluster.url) as client:
        for server in primaries(client):
            server.flushall()
            server.script_flush()
        yield client


def in_loop(cluster: Cluster, question: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
    async def ask() -> Any:
        async with connect_async(cluster.url) as client:
            return await question(client)

    return asyncio.run(ask())


@contextmanager
def through_a_proxy(cluster: Cluster, key: str, start_proxy: StartProxy) -> Iterator[Any]:
    """Let clients reach the server of `key` through a proxy, for as long as the block runs."""
    server = cluster.primary_of(key)
    proxy = start_proxy(server.url)
    with server.client() as told:
        told.config_set("cluster-announce-port", proxy.port)
        try:
            wait_until(lambda: cluster.names(proxy.port))
            yield proxy
        finally:
            told.config_set("cluster-announce-port", 0)
            wait_until(lambda: cluster.names(server.port))


def test_making_a_client_asks_nobody() -> None:
    for make in (connect, connect_async):
        make("redis+cluster://127.0.0.1:1")


def test_nobody_there_is_one_line() -> None:
    url = "redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2"
    with pytest.raises(ServerUnavailable) as refused, connect(url) as client:
        check_server(client, url)
    assert str(refused.value) == f"{redacted(url)}: no Redis or Valkey answers: connection refused"


def test_a_server_that_is_no_cluster_is_one_line(redis_url: str) -> None:
    url = redis_url.replace("redis://", "redis+cluster://")
    with pytest.raises(ServerUnsuitable, match="cluster support disabled"), connect(url) as client:
        check_server(client, url)


def test_one_node_that_answers_is_enough(cluster: Cluster) -> None:
    _, _, last = cluster.servers
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{last.port}"
    with connect(url) as client:
        assert check_server(client, url).kind == last.kind
        assert len(primaries(client)) == 3


def test_every_server_must_be_suitable(cluster: Cluster, client: redis.Redis) -> None:
    *_, last = primaries(client)
    last.config_set("maxmemory-policy", "allkeys-lru")
    last.config_set("maxmemory", "100mb")
    try:
        with pytest.raises(ServerUnsuitable, match="noeviction"):
            check_server(client, cluster.url)
    finally:
        last.config_set("maxmemory-policy", "noeviction")
        last.config_set("maxmemory", 0)


def test_the_doctor_looks_at_every_server(cluster: Cluster, client: redis.Redis, tmp_path: Path) -> None:
    def look() -> dict[str, Finding]:
        settings = load(redis_url=cluster.url, storage_dir=tmp_path, environ={})
        return {finding.name: finding for finding in examine(lambda: settings)}

    well = look()
    assert well["eviction"].seen == "3 of 3 servers; the first: noeviction"
    assert well["cluster"].status is Status.WARN  # these have no replicas
    assert well["stream"].status is Status.OK
    bad, *_ = primaries(client)
    bad.config_set("maxmemory-policy", "allkeys-lru")
    try:
        ill = look()
    finally:
        bad.config_set("maxmemory-policy", "noeviction")
    (name,) = {name for name in ill if name.startswith("eviction, 127.0.0.1:")}
    assert ill[name].status is Status.WARN
    assert ill["eviction"].seen.startswith("2 of 3 servers")


def test_commands_scripts_and_pipelines_find_their_servers(client: redis.Redis) -> None:
    script = scripts.Script(b"return redis.call('INCR', KEYS[1])", "2bab3b661081db58bd2341920e0ba7cf5dc77b25")
    for name in NAMES:
        assert scripts.run(client, script, [name], []) == 1
        assert client.incr(name) == 2
    pipe = client.pipeline(transaction=False)
    for name in NAMES:
        pipe.incr(name)
        pipe.lpush(name, "wrong kind of key")
    answers = pipe.execute(raise_on_error=False)
    assert answers[::2] == [3] * 4
    assert all(isinstance(answer, ResponseError) for answer in answers[1::2])
    for name in NAMES:
        pipe.get(name)
    assert pipe.execute() == [b"3"] * 4
    pipe.lpush(NAMES[0], "x")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        pipe.execute()
    assert pipe.execute() == []
    transaction = client.pipeline(transaction=True)
    transaction.incr(NAMES[0])
    transaction.get(NAMES[0])
    assert transaction.execute() == [4, b"4"]


def test_an_event_loop_finds_them_too(cluster: Cluster, client: redis.Redis) -> None:
    async def count(ours: Any) -> Any:
        alone = [await ours.incr(name) for name in NAMES]
        pipe = ours.pipeline(transaction=False)
        for name in NAMES:
            pipe.incr(name)
            pipe.lpush(name, "wrong kind of key")
        together = await pipe.execute(raise_on_error=False)
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await pipe.lpush(NAMES[0], "x").execute()
        return alone, together[::2], [type(answer) for answer in together[1::2]]

    assert in_loop(cluster, count) == ([1] * 4, [2] * 4, [ResponseError] * 4)


def test_lost_reply_is_told_and_nothing_is_sent_again(
    cluster: Cluster, client: redis.Redis, start_proxy: StartProxy
) -> None:
    name = NAMES[0]
    with through_a_proxy(cluster, name, start_proxy) as proxy:
        with connect(cluster.url) as ours:
            proxy.cut(b"INCR")
            with pytest.raises(ConnectionError):
                ours.incr(name)
            assert client.get(name) == b"1"
            proxy.cut(b"INCR")
            pipe = ours.pipeline(transaction=False)
            for each in NAMES:
                pipe.incr(each)
            with pytest.raises(ConnectionError):
                pipe.execute()
            assert client.get(name) == b"2"

        async def increment(ours: Any) -> None:
            proxy.cut(b"INCR")
            with pytest.raises(ConnectionError):
                await ours.incr(name)
            proxy.cut(b"INCR")
            with pytest.raises(ConnectionError):
                await ours.pipeline(transaction=False).incr(name).execute()

        in_loop(cluster, increment)
        assert proxy.cuts == 4
    assert client.get(name) == b"4"


def test_a_slot_that_moved_is_followed_where_nothing_was_learnt_from_the_other(
    cluster: Cluster, client: redis.Redis
) -> None:
    name = "moved:{a}"
    with connect(cluster.url) as alone, connect(cluster.url) as together:
        for ours in (alone, together):
            ours.get(NAMES[0])  # they know the map from now on
        cluster.move(name)
        assert alone.incr(name) == 1
        pipe = together.pipeline(transaction=False)
        pipe.incr(name)
        pipe.incr(NAMES[0])
        assert pipe.execute() == [2, 1]


def test_a_server_in_the_place_of_another_is_told_once_as_a_lost_connection(
    cluster: Cluster, client: redis.Redis
) -> None:
    name = "moved:{b}"
    assert client.incr(name) == 1
    cluster.move(name)
    with pytest.raises(ServerReplaced) as told:
        client.incr(name)
    assert isinstance(told.value, UNREACHABLE)
    assert client.incr(name) == 2
    cluster.move(name)
    pipe = client.pipeline(transaction=False)
    pipe.incr(name)
    with pytest.raises(ServerReplaced):
        pipe.execute()
    assert client.incr(name) == 3


def test_an_event_loop_follows_without_a_word(cluster: Cluster, client: redis.Redis) -> None:
    name = "moved:{c}"

    async def count(ours: Any) -> list[int]:
        found = [await ours.incr(name)]
        cluster.move(name)
        found.append(await ours.incr(name))
        cluster.move(name)
        return [*found, *await ours.pipeline(transaction=False).incr(name).incr(name).execute()]

    assert in_loop(cluster, count) == [1, 2, 3, 4]


def test_a_slot_on_its_way_is_written_at_its_new_place(cluster: Cluster, client: redis.Redis) -> None:
    """And what concerns keys here and there is waited for."""
    here, there = "asked:{d}:here", "asked:{d}:there"
    client.set(here, 1)
    _, target = cluster.begin_move(there)
    try:
        assert client.incr(there) == 1
        pipe = client.pipeline(transaction=False)
        pipe.incr(there)
        pipe.incr(here)
        assert pipe.execute() == [2, 2]

        async def count(ours: Any) -> list[int]:
            return [await ours.incr(there), *await ours.pipeline(transaction=False).incr(there).execute()]

        assert in_loop(cluster, count) == [3, 4]
        with pytest.raises(UNREACHABLE) as refused:
            client.mget(here, there)
        assert isinstance(refused.value, TryAgainError)
    finally:
        cluster.move(there)
    with target.client() as told:
        assert told.mget(here, there) == [b"2", b"4"]


def test_what_waits_for_replicas_asks_the_server_that_was_written_to(cluster: Cluster, client: redis.Redis) -> None:
    """Any other would say at once that its replicas have all there is."""
    for name in NAMES:
        asked = calls_of_wait(cluster)
        client.incr(name)
        assert client.wait(0, 10) == 0
        pipe = client.pipeline(transaction=False)
        pipe.incr(name)
        pipe.wait(0, 10)
        assert pipe.execute() == [mine(client, name), 0]
        writer = cluster.primary_of(name).port
        assert {port for port, count in calls_of_wait(cluster).items() if count == asked[port] + 2} == {writer}


def mine(client: redis.Redis, name: str) -> int:
    found: Any = client.get(name)
    return int(found)


def calls_of_wait(cluster: Cluster) -> dict[int, int]:
    """Port → how often."""
    counts = {}
    for server in cluster.servers:
        with server.client() as client:
            told: Any = client.info("commandstats")
        counts[server.port] = told.get("cmdstat_wait", {"calls": 0})["calls"]
    return counts


def test_a_lone_command_of_one_server_is_refused_rather_than_half_done(client: redis.Redis) -> None:
    with pytest.raises(ValueError, match="primaries"):
        client.flushall()


def test_streams_of_several_servers_are_followed(client: redis.Redis) -> None:
    shards = 4
    following = Following(client, KEYS, newest(client, KEYS, shards))
    following.wait()
    assert following.take() == []
    for shard in range(shards):
        Feed(client, f"p{shard}", shard).append([event(shard)])
        following.wait()
        assert [found.value for found in following.take()] == [float(shard)]


def test_one_server_reads_all_its_streams_together(client: redis.Redis, redis_url: str) -> None:
    streams = {KEYS.frames: "0", KEYS.transitions: "0"}
    assert readable_together(client, streams) == [{KEYS.frames: "0"}, {KEYS.transitions: "0"}]
    with connect(redis_url) as alone:
        assert readable_together(alone, streams) == [streams]

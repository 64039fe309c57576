"""Clients of the primary that Sentinels name."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest
import redis

from tests.support.clusters import Watched
from tests.support.servers import default_kind
from tests.support.waiting import wait_until
from vibezen.metrics.connection import check_server, connect, connect_async, primaries, redacted
from vibezen.metrics.errors import ServerUnavailable, ServerUnsuitable
from vibezen.metrics.slots import ServerReplaced

OWN = "an-own-password"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Shared by this file's tests. The Sentinel asks for a password."""
    made = Watched(default_kind(), lambda: tmp_path_factory.mktemp("sentinel"), password=OWN)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def refusal(url: str) -> str:
    with pytest.raises(ServerUnavailable) as refused, connect(url) as client:
        check_server(client, url)
    return str(refused.value)


def test_no_sentinel_there_is_one_line() -> None:
    url = "redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:2/metrics"
    assert refusal(url) == f"{redacted(url)}: no Redis or Valkey answers: no sentinel answers"


def test_an_unknown_name_is_one_line(watched: Watched) -> None:
    url = watched.url.replace("/metrics", "/other")
    assert refusal(url).endswith("no sentinel knows a primary by the name 'other'")


def test_one_sentinel_that_answers_is_enough(watched: Watched) -> None:
    url = watched.url.replace("127.0.0.1:", "127.0.0.1:1,127.0.0.1:")
    with connect(url) as client:
        assert check_server(client, url).kind == watched.one.kind
        assert primaries(client) == [client]


def test_a_sentinel_that_refuses_us_is_one_line(watched: Watched) -> None:
    url = watched.url.replace(OWN, "wrong")
    with pytest.raises(ServerUnsuitable) as refused, connect(url) as client:
        check_server(client, url)
    assert str(refused.value).endswith("a Sentinel refuses sentinel_username or sentinel_password")
    assert "wrong" not in str(refused.value)


def test_another_primary_is_told_once_as_a_lost_connection(watched: Watched) -> None:
    """Who reads in an event loop looks for itself, and is told nothing."""

    async def count(client: redis.Redis) -> list[int]:
        async with connect_async(watched.url) as ours:
            found = [client.incr("n"), await ours.incr("n")]
            replace(watched)
            with pytest.raises(ServerReplaced):
                client.incr("n")
            with suppress(redis.ConnectionError):  # it may not have seen yet that its connection is gone
                await ours.ping()
            return [*found, client.incr("n"), await ours.incr("n")]

    with connect(watched.url) as client:
        assert asyncio.run(count(client)) == [1, 2, 3, 4]


def replace(watched: Watched) -> None:
    """Let the replica take the place of the primary, which then ends."""
    with watched.ask() as sentinel:

        def asked() -> bool:
            with suppress(redis.ResponseError):  # it does not know the replica well enough yet
                return bool(sentinel.execute_command("SENTINEL", "FAILOVER", watched.NAME))
            return False

        wait_until(asked)
    wait_until(lambda: watched.primary() == watched.other.port)
    watched.one.kill()

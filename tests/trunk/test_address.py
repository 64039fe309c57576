"""What `redis.url` may say, and what is told of it."""

import pytest

from vibezen.metrics.address import CLUSTER, SENTINEL, SERVER, Node, parse_address
from vibezen.metrics.connection import connect, connect_async, redacted
from vibezen.metrics.errors import ConfigError


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:1/2", "unix:///run/s.sock?db=1"])
def test_one_server_is_left_to_redis_py(url: str) -> None:
    assert parse_address(url).kind == SERVER


def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    found = parse_address("redis+cluster://me:s%40c@one,two:7001,[::1]:7002/?socket_timeout=3")
    assert (found.kind, found.tls) == (CLUSTER, False)
    assert found.nodes == (Node("one", 6379), Node("two", 7001), Node("::1", 7002))
    assert found.options == {"username": "me", "password": "s@c", "socket_timeout": 3.0}


def test_a_primary_is_named_by_its_sentinels_and_its_name() -> None:
    found = parse_address("rediss+sentinel://:secret@one,two:7001/my%20name/3?sentinel_password=other&ssl_ca_certs=/ca")
    assert (found.kind, found.tls, found.service) == (SENTINEL, True, "my name")
    assert found.nodes == (Node("one", 26379), Node("two", 7001))
    assert found.options == {"password": "secret", "db": 3, "ssl_ca_certs": "/ca"}
    assert found.sentinel_options == {"password": "other"}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://h", "expected redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://"),
        ("unix+cluster://h", "expected redis://"),
        ("redis+cluster://", "a host is missing"),
        ("redis+cluster://one,,two", "a host is missing"),
        ("redis+cluster://:secret@one:port", "Port could not be cast"),
        ("redis+cluster://:secret@one/3", "a cluster has no databases"),
        ("redis+cluster://:secret@one/name", "a cluster has no databases"),
        ("redis+cluster://:secret@one?db=3", "a cluster has no databases"),
        ("redis+cluster://:secret@one?tiemout=1", "tiemout"),
        ("redis+cluster://:secret/x@one", "percent"),
        ("redis+sentinel://me:secret#x@one/n", "percent"),
        ("redis://:secret?x@one", "percent"),
        ("redis+sentinel://:secret@one", "the name of the primary is missing"),
        ("redis+sentinel://:secret@one/", "the name of the primary is missing"),
        ("redis+sentinel://one/name?sentinel_pasword=secret", "sentinel_pasword is no option"),
        ("redis+sentinel://one/name/db", "/db is no number of a database"),
    ],
)
def test_impossible_address_is_one_line_without_the_password(url: str, told: str) -> None:
    for make in (connect, connect_async):
        with pytest.raises(ConfigError) as refused:
            make(url)
        line = str(refused.value)
        assert told in line
        assert "\n" not in line
        assert ":secret" not in line
        assert "'secret" not in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+cluster://me:secret@one:1,two:2", "redis+cluster://me:***@one:1,two:2"),
        ("redis+cluster://one:1,two:2", "redis+cluster://one:1,two:2"),
        (
            "redis+sentinel://:a@one/n?sentinel_password=b&db=1",
            "redis+sentinel://:***@one/n?sentinel_password=***&db=1",
        ),
    ],
)
def test_passwords_are_never_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown

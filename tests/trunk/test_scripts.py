"""Running Lua scripts: by digest where the server knows them, whole where it does not, and never twice."""

import hashlib

import pytest
import redis

from vibezen.metrics.scripts import Script, load, run


def script(source: str) -> Script:
    return Script(source.encode(), hashlib.sha1(source.encode()).hexdigest())


COUNT = script("#!lua\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")


def commands(client: redis.Redis) -> dict[str, int]:
    """How often the server has run each way of calling a script."""
    stats = client.info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("eval", "evalsha")}


@pytest.mark.server
def test_script_is_sent_whole_only_where_the_server_does_not_know_it(client: redis.Redis) -> None:
    client.config_resetstat()
    assert run(client, COUNT, ["k"], [5]) == 5
    assert run(client, COUNT, ["k"], [5]) == 10
    assert commands(client) == {"evalsha": 2, "eval": 1}


@pytest.mark.server
def test_script_runs_on_after_the_server_forgot_it(client: redis.Redis) -> None:
    assert run(client, COUNT, ["k"], [1]) == 1
    client.script_flush()
    assert run(client, COUNT, ["k"], [1]) == 2
    assert client.script_exists(COUNT.digest) == [True]


@pytest.mark.server
def test_script_that_fails_has_run_once(client: redis.Redis) -> None:
    failing = script("#!lua\nredis.call('INCR', KEYS[1])\nreturn redis.error_reply('NOSENSE of it')")
    for runs in (1, 2):
        with pytest.raises(redis.ResponseError, match="NOSENSE of it"):
            run(client, failing, ["k"], [])
        assert client.get("k") == str(runs).encode()


@pytest.mark.server
def test_arguments_arrive_byte_for_byte(client: redis.Redis) -> None:
    back = script("#!lua\nreturn {KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]}")
    assert run(client, back, ["kéy"], [b"\xff\0\r\n", "té", 7, 0.1]) == [
        "kéy".encode(),
        b"\xff\0\r\n",
        "té".encode(),
        b"7",
        b"0.1",
    ]


def test_script_is_found_beside_the_role_that_runs_it() -> None:
    found = load("vibezen.metrics.consumers", "take")
    assert found.source.startswith(b"#!lua")
    assert found.digest == hashlib.sha1(found.source).hexdigest()
    assert load("vibezen.metrics.consumers", "take") is found


def test_script_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        load("vibezen.metrics.consumers", "no_such_script")

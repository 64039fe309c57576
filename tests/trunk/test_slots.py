"""Which server a command goes to, by its key alone."""

from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError

from vibezen.metrics.address import Node
from vibezen.metrics.slots import HOME, Routes, ServerReplaced, SlotMap, by_slot, slot_of_command

ZERO, ONE = key_slot(b"0"), key_slot(b"1")
A, B, C = Node("a", 1), Node("b", 2), Node("c", 3)
TOLD = [[0, ZERO - 1, [b"a", 1, b"id"], [b"c", 3, b"id"]], [ZERO, 16383, [b"b", 2, b"id"]]]


@pytest.mark.parametrize(
    ("args", "slot"),
    [
        (("GET", "v:{0}:x"), ZERO),
        (("HSET", b"v:{0}:x", "{1}", "{1}"), ZERO),
        (("EVALSHA", "{1}", 2, "v:{0}:x", "v:{0}:y", "{1}"), ZERO),
        (("EVAL", "script", 1, "v:{0}:x"), ZERO),
        (("XREAD", b"BLOCK", b"10", b"STREAMS", "v:{0}:x", "0-0"), ZERO),
        (("XREADGROUP", b"GROUP", "{1}", "me", b"STREAMS", "v:{0}:x", ">"), ZERO),
        (("XINFO STREAM", "v:{0}:x"), ZERO),
        (("XINFO", "GROUPS", "v:{0}:x"), ZERO),
        (("XGROUP CREATE", "v:{0}:x", "{1}", "0"), ZERO),
        (("MEMORY USAGE", "v:{0}:x"), ZERO),
        (("INFO", "server"), HOME),
        (("TIME",), HOME),
        (("CONFIG GET", "appendfsync"), HOME),
        (("CONFIG", "GET", "appendfsync"), HOME),
        (("WAIT", 1, 100), None),
    ],
)
def test_a_command_goes_where_its_key_is(args: tuple[Any, ...], slot: int | None) -> None:
    assert slot_of_command(args) == slot


@pytest.mark.parametrize("name", ["SCAN", "FLUSHALL", "DBSIZE", "SCRIPT FLUSH", "KEYS", "CONFIG SET", "CLIENT LIST"])
def test_what_concerns_one_server_is_not_sent_to_any(name: str) -> None:
    with pytest.raises(ValueError, match="primaries"):
        slot_of_command((name, "x"))


def test_streams_of_one_slot_stay_together() -> None:
    streams = {"{0}a": "1", "{1}a": "2", "{0}b": "3"}
    assert by_slot(streams) == [{"{0}a": "1", "{0}b": "3"}, {"{1}a": "2"}]


def test_a_map_knows_who_serves_what_and_who_else_may_be_asked() -> None:
    found = SlotMap(TOLD, A)
    assert [found.primary(slot) for slot in (0, ZERO, 16383)] == [A, B, B]
    assert found.primaries() == [A, B]
    assert found.nodes == {A, B, C}
    assert SlotMap([[0, 16383, [None, 7, b"id"]]], A).primary(0) == Node("a", 7)
    assert SlotMap([[0, 16383, [b"", 7, b"id"]]], A).primary(0) == Node("a", 7)


def routes(*, notice: bool = True) -> Routes:
    found = Routes([A], notice=notice)
    found.learn(TOLD, A)
    return found


def test_a_slot_that_nobody_serves_is_an_error_that_passes() -> None:
    found = Routes([A], notice=True)
    found.learn(TOLD[:1], A)
    with pytest.raises(ClusterDownError) as refused:
        found.find(ZERO)
    assert refused.value.status_code == "CLUSTERDOWN"
    assert not found.are_known


def test_another_server_in_the_place_of_one_that_was_used_is_told_once() -> None:
    found = routes()
    found.used(ZERO, found.find(ZERO))
    found.move(MovedError(f"{ZERO} c:3"), B)
    with pytest.raises(ServerReplaced, match="c:3 has taken the place of b:2"):
        found.find(ZERO)
    assert found.find(ZERO) == C


def test_a_server_that_was_not_used_may_be_another() -> None:
    found = routes()
    found.move(MovedError(f"{ZERO} :3"), B)
    assert found.find(ZERO) == Node("b", 3)
    silent = routes(notice=False)
    silent.used(ZERO, silent.find(ZERO))
    silent.move(MovedError(f"{ZERO} c:3"), B)
    assert silent.find(ZERO) == C


def test_whoever_failed_is_asked_last() -> None:
    found = routes()
    assert set(found.sources()) == {A, B, C}
    for failed in (A, B, C):
        found.forget(failed)
        assert found.sources()[-1] == failed

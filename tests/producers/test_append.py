"""append.lua and raise_shards.lua on real servers: each event once, however often the call is repeated."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.support.servers import KINDS, StartServer
from vibezen.metrics.account import Told
from vibezen.metrics.batch import MAX_SEQ, batch_fields, read_entry
from vibezen.metrics.connection import connect, is_refusal
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.producers.append import (
    Appended,
    Batch,
    append,
    last_number,
    raise_shards,
    shard_holding,
    shard_of,
)

KEYS = Keys()


@pytest.fixture
def server_client(any_redis_url: str) -> Iterator[redis.Redis]:
    with connect(any_redis_url) as client:
        yield client


def lines(first: int, last: int) -> Batch:
    return Batch(last - first + 1, b"".join(b'{"event":%d}\n' % number for number in range(first, last + 1)))


def put(client: redis.Redis, seq: int, *batches: Batch) -> Appended:
    return append(client, KEYS, 0, "producer", seq, batches, b'{"recorded":1}')


def entries(client: redis.Redis) -> list[tuple[int, int, bytes]]:
    """(seq, n, payload) of every entry."""
    found: Any = client.xrange(KEYS.events(0))
    return [read_entry(entry_id, fields)[3:6] for entry_id, fields in found]


def test_first_append_creates_the_stream_with_every_declared_group_at_its_beginning(server_client: redis.Redis) -> None:
    assert put(server_client, 1, lines(1, 3)) == Appended(duplicate=False, last=3, created=True)
    groups: Any = server_client.xinfo_groups(KEYS.events(0))
    assert {group["name"].decode() for group in groups} == set(GROUPS)
    assert {group["last-delivered-id"] for group in groups} == {b"0-0"}
    assert put(server_client, 4, lines(4, 4)) == Appended(duplicate=False, last=4, created=False)


def test_an_entry_has_the_fields_of_the_codec(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 3))
    found: Any = server_client.xrange(KEYS.events(0))
    ((_, fields),) = found
    flat = batch_fields("producer", 1, 3, lines(1, 3).payload, b'{"recorded":1}')
    as_bytes = [part if isinstance(part, bytes) else str(part).encode() for part in flat]
    fields.pop(b"books")
    assert fields == dict(zip(as_bytes[::2], as_bytes[1::2], strict=True))


def told(client: redis.Redis) -> list[Told | None]:
    found: Any = client.xrange(KEYS.events(0))
    return [read_entry(entry_id, fields).told for entry_id, fields in found]


def test_every_entry_tells_how_many_events_the_shard_was_given(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 3), lines(4, 5))
    append(server_client, KEYS, 0, "other", 7, [lines(7, 7)])
    put(server_client, 1, lines(1, 5))
    put(server_client, 4, lines(4, 6))
    epoch = server_client.hget(KEYS.books(0), "append.epoch")
    assert isinstance(epoch, bytes)
    assert told(server_client) == [Told(epoch.decode(), events) for events in (3, 5, 6, 7)]
    assert server_client.hmget(KEYS.books(0), "append.events", "append.entries") == [b"7", b"4"]
    server_client.flushall()
    put(server_client, 8, lines(8, 9))
    (anew,) = told(server_client)
    assert anew is not None
    assert anew.events == 2
    assert int(anew.epoch) > int(epoch)


def test_a_call_without_batches_writes_the_counters_alone(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 2))
    done = append(server_client, KEYS, 0, "producer", 3, [], b'{"closed":true}')
    assert done == Appended(duplicate=True, last=2, created=False)
    stored: Any = server_client.hget(KEYS.producers(0), "producer")
    assert stored.split()[0] == b"2"
    assert stored.endswith(b' {"closed":true}')
    append(server_client, KEYS, 0, "silent", 1, [], b"{}")
    assert last_number(server_client, KEYS, 0, "silent") == 0
    assert len(entries(server_client)) == 1


def test_a_stream_over_its_bound_refuses_new_events_and_nothing_else(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 400), lines(401, 500))
    server_client.hset(KEYS.books(0), "archive.max_bytes", 1000)
    for seq in (1, 501):
        with pytest.raises(redis.exceptions.OutOfMemoryError) as refused:
            put(server_client, seq, lines(seq, 501))
        assert is_refusal(refused.value)
    assert put(server_client, 1, lines(1, 500)).duplicate
    assert append(server_client, KEYS, 0, "producer", 501, [], b"{}").last == 500
    assert entries(server_client) == [(1, 400, lines(1, 400).payload), (401, 100, lines(401, 500).payload)]
    server_client.xtrim(KEYS.events(0), maxlen=0)
    assert put(server_client, 501, lines(501, 502)).last == 502


def test_the_one_entry_that_trimming_leaves_keeps_no_other_out_however_large_it_is(server_client: redis.Redis) -> None:
    server_client.hset(KEYS.books(0), "archive.max_bytes", 1000)
    put(server_client, 1, lines(1, 500))
    assert put(server_client, 501, lines(501, 502)).last == 502
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        put(server_client, 503, lines(503, 504))


def test_a_repeated_call_adds_nothing(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 5), lines(6, 7))
    for _ in range(3):
        assert put(server_client, 1, lines(1, 5), lines(6, 7)) == Appended(
            duplicate=True, last=7, created=False, known=7
        )
    assert entries(server_client) == [(1, 5, lines(1, 5).payload), (6, 2, lines(6, 7).payload)]


def test_a_batch_that_is_partly_there_is_cut_to_the_rest(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 4))
    assert put(server_client, 3, lines(3, 4), lines(5, 6)).last == 6
    assert put(server_client, 2, lines(2, 9), lines(10, 11)) == Appended(False, last=11, created=False, known=5)
    assert [entry[:2] for entry in entries(server_client)] == [(1, 4), (5, 2), (7, 3), (10, 2)]
    assert entries(server_client)[2][2] == lines(7, 9).payload


def test_skipped_numbers_stay_skipped(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 2))
    assert put(server_client, 10, lines(10, 11)) == Appended(duplicate=False, last=11, created=False)
    assert put(server_client, 3, lines(3, 4)).duplicate
    assert [entry[:2] for entry in entries(server_client)] == [(1, 2), (10, 2)]


def test_a_gapless_call_leaves_no_number_out(server_client: redis.Redis) -> None:
    def gapless(seq: int, batch: Batch) -> Appended:
        return append(server_client, KEYS, 0, "producer", seq, [batch], gapless=True)

    assert gapless(2, lines(2, 3)) == Appended(duplicate=False, last=0, created=False, gap=True)
    assert not server_client.exists(KEYS.events(0), KEYS.producers(0))
    assert gapless(1, lines(1, 2)).last == 2
    assert gapless(2, lines(2, 3)).last == 3
    assert gapless(5, lines(5, 5)) == Appended(duplicate=False, last=3, created=False, gap=True)
    assert last_number(server_client, KEYS, 0, "producer") == 3
    assert last_number(server_client, KEYS, 0, "nobody") == 0


def test_a_producer_that_comes_back_keeps_its_shard(server_client: redis.Redis) -> None:
    raise_shards(server_client, KEYS, 4)
    (elsewhere,) = {0, 1} - {shard_of("p", 2)}
    append(server_client, KEYS, elsewhere, "p", 1, [lines(1, 2)])
    assert shard_holding(server_client, KEYS, "p", 2) == elsewhere
    assert shard_holding(server_client, KEYS, "new", 3) == shard_of("new", 3)


def test_producers_do_not_share_numbers(server_client: redis.Redis) -> None:
    append(server_client, KEYS, 0, "a", 1, [lines(1, 2)])
    assert not append(server_client, KEYS, 0, "b", 1, [lines(1, 2)]).duplicate
    assert len(entries(server_client)) == 2


def test_the_largest_number_is_kept_to_the_last_digit(server_client: redis.Redis) -> None:
    assert put(server_client, MAX_SEQ - 1, lines(1, 2)).last == MAX_SEQ
    assert entries(server_client)[0][0] == MAX_SEQ - 1
    assert put(server_client, MAX_SEQ, lines(2, 2)).duplicate


def test_the_producers_number_is_stored_with_the_servers_time_and_rewritten_for_a_duplicate(
    server_client: redis.Redis,
) -> None:
    put(server_client, 1, lines(1, 2))
    now: Any = server_client.time()
    stored: Any = server_client.hget(KEYS.producers(0), "producer")
    number, ms, stats = stored.split()
    assert (number, stats) == (b"2", b'{"recorded":1}')
    assert abs(int(ms) / 1000 - now[0]) < 5
    server_client.hset(KEYS.producers(0), "producer", "2 77")
    put(server_client, 1, lines(1, 2))
    again: Any = server_client.hget(KEYS.producers(0), "producer")
    assert again.split()[0] == b"2"
    assert again != b"2 77"


def test_a_damaged_number_stops_the_append_before_it_writes(server_client: redis.Redis) -> None:
    server_client.set(KEYS.producers(0), "not a hash")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        put(server_client, 1, lines(1, 2))
    server_client.delete(KEYS.producers(0))
    server_client.hset(KEYS.producers(0), "producer", "garbage")
    with pytest.raises(redis.ResponseError):
        put(server_client, 1, lines(1, 2))
    assert not server_client.exists(KEYS.events(0))


def test_scripts_survive_a_flushed_script_cache(server_client: redis.Redis) -> None:
    put(server_client, 1, lines(1, 2))
    server_client.script_flush()
    assert put(server_client, 3, lines(3, 4)).last == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_server_refuses_the_whole_call(kind: str, start_server: StartServer) -> None:
    server = start_server(kind)
    with connect(server.url) as client:
        put(client, 1, lines(1, 2))
        client.config_set("maxmemory", "1")
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            put(client, 3, lines(3, 4), lines(5, 6))
        client.config_set("maxmemory", "0")
        assert [entry[:2] for entry in entries(client)] == [(1, 2)]
        assert put(client, 3, lines(3, 4), lines(5, 6)).last == 6


def test_the_number_of_shards_is_raised_and_never_lowered(server_client: redis.Redis) -> None:
    assert raise_shards(server_client, KEYS, 2) == 2
    assert raise_shards(server_client, KEYS, 8) == 8
    assert raise_shards(server_client, KEYS, 4) == 8
    assert server_client.get(KEYS.shards) == b"8"


def test_producers_spread_over_the_shards() -> None:
    shards = [shard_of(f"{number:032x}", 4) for number in range(4000)]
    assert all(800 < shards.count(shard) < 1200 for shard in range(4))
    assert shard_of("any", 1) == 0

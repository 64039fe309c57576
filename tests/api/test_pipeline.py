import json
from typing import Any

import msgspec
import pytest
import redis

from tests.support.feeding import Feed, event
from tests.support.serving import NOW, Served, Windows
from vibezen.metrics.event import encode_lines
from vibezen.metrics.keys import Keys
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.append import Batch, append

pytestmark = pytest.mark.server

KEYS = Keys()
SIDE = ("appended", "foreign", "accepted", "too_old", "dead", "repeated", "trimmed", "unread", "difference")
NOTHING = dict.fromkeys(SIDE, 0)
SUMS = ("known", "counted", "recorded", "sampled_out", "appended", "buffered", "in_flight", "spooled")
NO_PRODUCERS = {
    **dict.fromkeys((*SUMS, "difference", "silent", "unknown_at_most"), 0),
    "refused": {},
    "dropped": {},
    "newest": [],
}
NO_GROUP = {
    "owner": None,
    "epoch": 0,
    "position": "0-0",
    "lag": None,
    "entries": 0,
    "events": 0,
    "rejected": 0,
    "updated": None,
    "trouble": None,
}


def test_empty_server_is_one_shard_with_nothing_in_it(served: Served) -> None:
    answer = served.get("/api/pipeline")
    assert answer["at"] == NOW
    assert answer["shards"] == [
        {
            "shard": 0,
            "length": 0,
            "bytes": None,
            "last_id": "0-0",
            "dead": 0,
            "dead_unkept": 0,
            "books": {
                "epoch": "",
                "appended": 0,
                "groups": {"archive": NOTHING, "aggregate": NOTHING},
                "archived_less_aggregated": None,
            },
            "producers": NO_PRODUCERS,
            "groups": {
                "archive": {**NO_GROUP, "lost": 0},
                "aggregate": {**NO_GROUP, "too_old": 0, "overflow": 0, "sessions_cut": 0},
            },
        }
    ]


def test_server_and_store_are_named(served: Served, client: redis.Redis) -> None:
    answer = served.get("/api/pipeline")
    assert answer["redis"]["server"] in ("valkey", "redis")
    assert answer["redis"]["used_memory"] > 0
    assert answer["store"]["free_bytes"] > 0
    assert len(answer["store"]["id"]) == 36


def test_shard_tells_length_dead_letters_owners_positions_and_lag(
    served: Served, client: redis.Redis, windows: Windows
) -> None:
    first, second = (Feed(client, shard=1).append([event()]) for _ in range(2))
    client.set(KEYS.shards, 2)
    client.xgroup_create(KEYS.events(1), "archive", first, entries_read=1)
    client.xgroup_create(KEYS.events(1), "foreign", "0")
    client.set(KEYS.lease(1, "archive"), "host:1:abc")
    client.hset(KEYS.dead(1), "1-1/0", "{}")
    client.hset(KEYS.books(1), mapping={"archive.epoch": 3, "archive.entries": 1, "archive.events": 10})
    client.hset(KEYS.books(1), mapping={"archive.rejected": 2, "archive.lost": 7, "archive.updated": "1763985600.250"})
    client.hset(KEYS.books(1), mapping={"archive.trouble": "no space left on device", "aggregate.trouble": ""})
    client.hset(KEYS.books(1), mapping={"aggregate.too_old": 4, "aggregate.overflow": 5})
    empty, shard = served.get("/api/pipeline")["shards"]
    assert empty["length"] == 0
    assert (shard["shard"], shard["length"], shard["last_id"], shard["dead"]) == (1, 2, second, 1)
    assert shard["bytes"] > 100
    assert shard["groups"] == {
        "archive": {
            "owner": "host:1:abc",
            "epoch": 3,
            "position": first,
            "lag": 1,
            "entries": 1,
            "events": 10,
            "rejected": 2,
            "updated": 1763985600.25,
            "trouble": "no space left on device",
            "lost": 7,
        },
        "aggregate": {**NO_GROUP, "too_old": 4, "overflow": 5, "sessions_cut": 0},
    }


def test_trouble_of_any_shard_makes_it_not_ready(served: Served, client: redis.Redis) -> None:
    client.set(KEYS.shards, 2)
    client.hset(KEYS.books(1), "archive.trouble", "no space left on device")
    ready = served.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        503,
        {"status": "not ready", "reasons": ["archive of shard 1: no space left on device"]},
    )
    client.hset(KEYS.books(1), "archive.trouble", "")
    assert served.get("/readyz") == {"status": "ready"}


def test_both_sides_of_the_books_are_shown(served: Served, client: redis.Redis) -> None:
    append(client, KEYS, 0, "p", 1, [Batch(2, encode_lines([event(), event()])), Batch(1, encode_lines([event()]))])
    found: Any = client.xrange(KEYS.events(0))
    ((first, fields), _) = found
    epoch = fields[b"books"].split()[0].decode()
    account = {"epoch": epoch, "appended": 2, "accepted": 1}
    client.hset(KEYS.books(0), mapping={"archive.account": json.dumps(account), "archive.position": first})
    books = served.get("/api/pipeline")["shards"][0]["books"]
    assert (books["epoch"], books["appended"]) == (epoch, 3)
    assert books["groups"]["archive"] == {**NOTHING, "appended": 3, "accepted": 1, "unread": 1, "difference": 1}
    assert books["groups"]["aggregate"] == {**NOTHING, "appended": 3, "unread": 3}


def test_producers_tell_what_became_of_their_events(served: Served, client: redis.Redis) -> None:
    told = Stats(recorded=9, appended=5, buffered=1, in_flight=2, dropped={"overflow": 1}, bound=100)
    client.hset(KEYS.producers(0), "p", f"7 {int(NOW * 1000)} {msgspec.json.encode(told).decode()}")
    client.hset(KEYS.producers(0), "gateway's client", f"7 {int(NOW * 1000)} {{}}")
    found = served.get("/api/pipeline")["shards"][0]["producers"]
    assert (found["known"], found["counted"], found["recorded"], found["difference"]) == (2, 1, 9, 0)
    (shown,) = found["newest"]
    assert (shown["producer"], shown["heard"], shown["ended"]) == ("p", NOW, False)
    assert shown["stats"]["in_flight"] == 2

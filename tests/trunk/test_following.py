"""Following the streams: from a position on, each event once, and what passed by unseen is told."""

from typing import Any

import pytest
import redis

from tests.support.feeding import Feed, event
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.following import ENTRIES, Following, matches, newest
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.append import raise_shards

pytestmark = pytest.mark.server

KEYS = Keys()


def values(following: Following) -> list[float]:
    return [one.value for one in following.take()]


def test_what_arrives_is_seen_once(client: redis.Redis) -> None:
    feed = Feed(client)
    feed.append([event(1)])
    following = Following(client, KEYS, newest(client, KEYS, 1))
    assert values(following) == []
    feed.append([event(2), event(3)])
    following.wait()
    assert values(following) == [2, 3]
    assert values(following) == []
    assert following.missed == 0


def test_a_position_in_the_past_is_gone_on_from(client: redis.Redis) -> None:
    feed = Feed(client)
    at = feed.append([event(1)])
    feed.append([event(2)])
    assert values(Following(client, KEYS, {0: at})) == [2]
    assert values(Following(client, KEYS, {0: "0-0"})) == [1, 2]


def test_all_shards_are_followed_also_one_that_has_nothing_yet(client: redis.Redis) -> None:
    raise_shards(client, KEYS, 3)
    following = Following(client, KEYS, newest(client, KEYS, 3))
    assert values(following) == []
    for shard in (2, 0):
        Feed(client, f"p{shard}", shard).append([event(shard)])
    assert sorted(values(following)) == [0, 2]


def test_entries_trimmed_before_they_were_read_are_counted(client: redis.Redis) -> None:
    feed = Feed(client)
    following = Following(client, KEYS, {0: feed.append([event(1)])})
    assert values(following) == []
    feed.append([event(2)])
    last = feed.append([event(3)])
    client.xtrim(KEYS.events(0), minid=last, approximate=False)
    assert values(following) == [3]
    assert following.missed == 1
    client.xtrim(KEYS.events(0), maxlen=0, approximate=False)
    assert values(following) == []
    assert following.missed == 1
    for value in (4, 5, 6):
        feed.append([event(value)])
    client.xtrim(KEYS.events(0), maxlen=1, approximate=False)
    assert values(following) == [6]
    assert following.missed == 3


def test_a_stream_made_anew_is_read_from_its_beginning(client: redis.Redis) -> None:
    feed = Feed(client)
    following = Following(client, KEYS, {0: "0-0"})
    first = feed.append([event(1)])
    for value in (2, 3):
        feed.append([event(value)])
    assert values(following) == [1, 2, 3]
    client.delete(KEYS.events(0))
    before = int(first.partition("-")[0]) - 1
    feed.append([event(7)], entry_id=f"{before}-0")  # with an ID before those that were read
    assert (values(following), values(following)) == ([], [7])
    assert following.missed == 0


def test_more_than_one_reading_takes_is_read_one_after_the_other(client: redis.Redis) -> None:
    feed = Feed(client)
    following = Following(client, KEYS, {0: "0-0"})
    for value in range(ENTRIES * 2 + 1):
        feed.append([event(value)])
    assert [value for _ in range(3) for value in values(following)] == list(range(ENTRIES * 2 + 1))
    client.xtrim(KEYS.events(0), maxlen=0, approximate=False)
    feed.append([event(1)])
    assert (values(following), following.missed) == ([1], 0)


def test_what_is_no_event_is_left_out(client: redis.Redis) -> None:
    fields: list[dict[Any, Any]] = [{"x": "y"}, {"metric": "m", "value": "nan"}, {"metric": "m", "value": "4"}]
    for one in fields:
        client.xadd(KEYS.events(0), one)
    assert values(Following(client, KEYS, {0: "0-0"})) == [4]


def test_matches_as_a_search_would() -> None:
    one = event(1, provider="a", number=5, flag=True)
    assert matches(one, None, ())
    assert matches(one, "response_time", [Condition("number", "5"), Condition("flag", "true")])
    assert not matches(one, "cost", ())
    assert matches(one, None, [Condition("session", "x", negated=True)])
    assert not matches(one, None, [Condition("session", "x")])

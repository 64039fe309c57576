from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.support.feeding import Feed, event
from vibezen.metrics.active_sessions import KEPT_SECONDS
from vibezen.metrics.consumers import aggregator
from vibezen.metrics.consumers.aggregator import Aggregator
from vibezen.metrics.consumers.shard import Sink
from vibezen.metrics.errors import Fenced
from vibezen.metrics.keys import Keys

pytestmark = pytest.mark.server

KEYS = Keys()
Drain = Callable[[Sink], None]
NewAggregator = Callable[..., Aggregator]


@pytest.fixture
def now(client: redis.Redis) -> float:
    seconds: Any = client.time()
    return float(seconds[0])


def kept(client: redis.Redis) -> dict[bytes, float]:
    found: Any = client.zrange(KEYS.sessions(0), 0, -1, withscores=True)
    return dict(found)


def cut(client: redis.Redis) -> int:
    return int(client.hget(KEYS.books(0), "aggregate.sessions_cut") or 0)


def test_the_newest_event_of_each_session_is_kept(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed, owner = Feed(client), new_aggregator()
    feed.append([event(1, now - 30, session="a"), event(1, now - 60.25, session="b"), event(1, now)])
    drain(owner)
    assert kept(client) == {b"a": now - 30, b"b": now - 60.25}
    feed.append([event(1, now - 40, session="a"), event(1, now - 50, session="b"), event(1, now - 3, session=7)])
    feed.append([event(1, now, session=""), event(1, now, session=None)])
    drain(new_aggregator())
    assert kept(client) == {b"a": now - 30, b"b": now - 50, b"7": now - 3}
    assert 0 < client.ttl(KEYS.sessions(0)) <= KEPT_SECONDS


def test_sessions_of_yesterday_go_and_history_that_comes_late_adds_none(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    old = now - KEPT_SECONDS
    client.zadd(KEYS.sessions(0), {"gone": old - 5, "stays": old + 60})
    feed = Feed(client)
    feed.append([event(1, old - 60, session="imported"), event(1, now, session="new")])
    drain(new_aggregator())
    assert kept(client) == {b"stays": old + 60, b"new": now}


def test_beyond_the_bound_those_seen_longest_ago_go_and_are_counted(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregator, "MOST", 3)
    feed, owner = Feed(client), new_aggregator()
    for start in (0, 5):
        feed.append([event(1, now - 100 + n, session=f"s{n}") for n in range(start, start + 5)])
        drain(owner)
    assert set(kept(client)) == {b"s7", b"s8", b"s9"}
    assert cut(client) == 2 + 5


def test_many_sessions_of_one_commit_are_all_kept(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    names = [f"session-{n}" for n in range(4000)]
    for start in range(0, 4000, 500):
        feed.append([event(1, now, session=name) for name in names[start : start + 500]])
    drain(new_aggregator())
    assert kept(client) == {name.encode(): now for name in names}
    assert cut(client) == 0


def test_a_replaced_owner_notes_no_session(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    sleeper = new_aggregator()
    Feed(client).append([event(1, now, session="a")])
    new_aggregator()
    with pytest.raises(Fenced):
        drain(sleeper)
    assert kept(client) == {}

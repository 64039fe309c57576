"""The gateway as a producer: its counters reach the server, also when there is nothing to append."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.gateways import gateway_in_thread, lines
from tests.support.waiting import WaitUntil
from vibezen.metrics import clock
from vibezen.metrics.clock import wall
from vibezen.metrics.keys import Keys
from vibezen.metrics.producer_stats import Producer, Stats, read_producer
from vibezen.metrics.producers.append import Batch
from vibezen.metrics.producers.unkeyed import GIVEN_UP, REPORT_SECONDS, Unkeyed
from vibezen.metrics.producers.work import Work

KEYS = Keys()


def works(events: int) -> list[Work]:
    loop = asyncio.new_event_loop()
    try:
        return [Work([Batch(events, lines(*range(events)))], None, 0.0, loop.create_future())]
    finally:
        loop.close()


def known(client: redis.Redis) -> dict[str, Producer]:
    stored: Any = client.hgetall(KEYS.producers(0))
    found = [read_producer(name, value) for name, value in stored.items()]
    return {one.name: one for one in found}


@pytest.fixture
def unkeyed() -> Unkeyed:
    return Unkeyed(KEYS, 1)


def test_an_idle_gateway_is_heard_now_and_then(
    client: redis.Redis, unkeyed: Unkeyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    unkeyed.report(client)
    assert known(client) == {}, "who never appended anything is no producer"
    unkeyed.call(works(3))(client)
    assert known(client)[unkeyed.producer].stats == Stats(recorded=3, in_flight=3)
    unkeyed.report(client)
    assert known(client)[unkeyed.producer].stats == Stats(recorded=3, in_flight=3)
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now + REPORT_SECONDS)
    unkeyed.count_refused({"value": 2})
    unkeyed.report(client)
    assert known(client)[unkeyed.producer].stats == Stats(recorded=5, appended=3, refused={"value": 2})


def test_a_producer_given_up_says_what_was_never_confirmed(client: redis.Redis, unkeyed: Unkeyed) -> None:
    unkeyed.call(works(3))(client)
    unkeyed.call(works(4))
    before = unkeyed.producer
    unkeyed.give_up()
    unkeyed.report(client)
    told = known(client)[before]
    assert told.last == 3
    assert told.stats == Stats(recorded=7, appended=3, dropped={GIVEN_UP: 4}, closed=True)
    assert told.stats.difference == 0


def test_a_gateway_that_ends_says_so(
    client: redis.Redis, redis_url: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    with gateway_in_thread(redis_url, tmp_path, wall) as door:
        wait_until(door.is_ready)
        assert door.answer(lines(1, 2))[0] == 200
    (told,) = known(client).values()
    assert told.stats == Stats(recorded=2, appended=2, closed=True)

"""Both groups' side of the books, whatever happens to what they read."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import redis

from tests.consumers.conftest import Drain, NewAggregator, NewArchiver
from tests.support.feeding import event
from vibezen.metrics.account import Account
from vibezen.metrics.consumers.shard import Sink
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.keys import ARCHIVE, GROUPS, Keys
from vibezen.metrics.producers.append import Batch, append

KEYS = Keys()
OLD = 1_000_000_000.0
"""Too old for any window, and good enough for a file."""

NewSink = Callable[[], Sink]


class Appending:
    """One producer that appends as a collector does."""

    def __init__(self, client: redis.Redis, name: str = "p") -> None:
        self._client, self._name, self.next = client, name, 1

    def __call__(self, events: Sequence[Event]) -> None:
        self.send(len(events), encode_lines(events))

    def send(self, n: int, payload: bytes) -> None:
        append(self._client, KEYS, 0, self._name, self.next, [Batch(n, payload)])
        self.next += n


@pytest.fixture
def send(client: redis.Redis) -> Appending:
    return Appending(client)


@pytest.fixture(params=GROUPS)
def group(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def new_sink(group: str, new_archiver: NewArchiver, new_aggregator: NewAggregator) -> NewSink:
    return new_archiver if group == ARCHIVE else new_aggregator


def account(client: redis.Redis, group: str) -> Account:
    stored = client.hget(KEYS.books(0), f"{group}.account")
    assert isinstance(stored, bytes)
    return msgspec.json.decode(stored, type=Account)


def appended(client: redis.Redis) -> int:
    stored = client.hget(KEYS.books(0), "append.events")
    return int(stored) if isinstance(stored, bytes) else 0


def now(client: redis.Redis) -> float:
    told: Any = client.time()
    return float(told[0])


def test_good_bad_old_and_foreign_events_all_have_their_place(
    client: redis.Redis, group: str, new_sink: NewSink, drain: Drain, send: Appending
) -> None:
    at = now(client)
    send([event(1, at), event(2, at), event(3, OLD)])
    send.send(2, b'{"metric":"m","value":1}\n{"metric":"m","value":"bad"}\n')
    client.xadd(KEYS.events(0), {"metric": "m", "value": "7"})
    client.xadd(KEYS.events(0), {"hello": "world"})
    drain(new_sink())
    found = account(client, group)
    assert (found.appended, found.foreign, found.rejected, found.trimmed) == (5, 2, 2, 0)
    assert (found.accepted, found.too_old) == ((5, 0) if group == ARCHIVE else (4, 1))
    assert found.difference == 0


def test_what_was_trimmed_before_it_was_read_is_told(
    client: redis.Redis, group: str, new_sink: NewSink, drain: Drain, send: Appending
) -> None:
    sink = new_sink()
    for size in (3, 4, 5):
        send([event(1, now(client))] * size)
    client.xtrim(KEYS.events(0), maxlen=1, approximate=False)
    drain(sink)
    found = account(client, group)
    assert (found.appended, found.accepted, found.trimmed, found.difference) == (12, 5, 7, 0)


def test_an_owner_that_dies_before_its_commit_counts_once(
    client: redis.Redis, group: str, new_sink: NewSink, drain: Drain, send: Appending
) -> None:
    send([event(1, now(client))] * 3)
    drain(new_sink())
    send([event(1, now(client))] * 4)
    dying = new_sink()
    entries: Any = client.xread({KEYS.events(0): dying.cursor})
    for entry_id, fields in entries[KEYS.events(0).encode()]:
        dying.take(entry_id, fields)
    drain(new_sink())
    found = account(client, group)
    assert (found.appended, found.accepted, found.difference) == (7, 7, 0)
    assert found.appended == appended(client)


def test_an_emptied_server_begins_new_books(
    client: redis.Redis, group: str, new_sink: NewSink, drain: Drain, send: Appending
) -> None:
    send([event(1, now(client))] * 3)
    drain(new_sink())
    before = account(client, group).epoch
    client.flushall()
    send([event(1, now(client))] * 2)
    drain(new_sink())
    found = account(client, group)
    assert found.epoch != before
    assert (found.appended, found.accepted, found.trimmed, found.difference) == (2, 2, 0, 0)


def test_an_older_copy_of_the_server_begins_new_books(
    client: redis.Redis, group: str, new_archiver: NewArchiver, new_sink: NewSink, drain: Drain, send: Appending
) -> None:
    """Redis' keys go back to an earlier state; the files do not."""
    send([event(1, now(client))] * 3)
    drain(new_sink())
    drain(new_archiver())
    copy = {key: client.dump(key) for key in client.scan_iter()}
    send([event(1, now(client))] * 4)
    drain(new_sink())
    drain(new_archiver())
    client.flushall()
    for key, dumped in copy.items():
        assert isinstance(dumped, bytes)
        client.restore(key, 0, dumped)
    before = appended(client)
    send([event(1, now(client))] * 5)
    drain(new_archiver())
    assert appended(client) == 0, "what was counted after the copy was made anew"
    send([event(1, now(client))] * 6)
    drain(new_sink())
    found = account(client, group)
    assert before == 3
    assert (found.begun, found.appended, found.accepted, found.difference) == (0, 6, 6, 0)

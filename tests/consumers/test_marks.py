"""Entries that end their owners: set aside after three crashes, and nothing else with them."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
import redis
from redis.exceptions import ConnectionError

from tests.consumers.conftest import NewAggregator, NewArchiver
from tests.support.feeding import event, total, values_on_disk
from vibezen.metrics import config
from vibezen.metrics.account import Account
from vibezen.metrics.consumers.aggregator import Aggregator
from vibezen.metrics.consumers.archiver import Archiver
from vibezen.metrics.consumers.lease import Taken, release, take
from vibezen.metrics.consumers.marks import CRASHES, FAILURES, Marks
from vibezen.metrics.consumers.shard import Reader, Sink, run_shard
from vibezen.metrics.consumers.supervisor import ConsumerProcess, run
from vibezen.metrics.consumers.worker import Worker
from vibezen.metrics.errors import Fenced
from vibezen.metrics.event import encode_lines
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, GROUPS, Keys
from vibezen.metrics.producers.append import Batch, append
from vibezen.metrics.producers.dead import requeue
from vibezen.metrics.settings import Settings
from vibezen.metrics.verdict import Verdict, judge

KEYS = Keys()
POISON = 666.0


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return config.load(redis_url=redis_url, storage_dir=tmp_path / "store", environ={})


@pytest.fixture(params=GROUPS)
def group(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bug(group: str) -> Iterator[pytest.MonkeyPatch]:
    """A fault of ours that one entry brings to light, in one of the groups."""

    def faulty(payload: bytes, arrived: float) -> Verdict:
        if b"666" in payload:
            raise RecursionError("maximum recursion depth exceeded")
        return judge(payload, arrived)

    module = {ARCHIVE: "archiver", AGGREGATE: "aggregator"}[group]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"vibezen.metrics.consumers.{module}.judge", faulty)
        yield patch


def send(client: redis.Redis, *values: float, producer: str = "p", first: int = 1) -> None:
    """Each value as an entry of two events."""
    time: Any = client.time()
    for number, value in enumerate(values):
        lines = encode_lines([event(value, time[0])] * 2)
        append(client, KEYS, 0, producer, first + 2 * number, [Batch(2, lines)])


def crashes(group: str, settings: Settings) -> int:
    """Start owners until one comes to the end; how many did not."""
    for failed in range(12):
        try:
            assert run(group, settings, once=True) == 0
        except RecursionError:
            continue
        return failed
    pytest.fail("no owner comes to the end")


def books(client: redis.Redis) -> dict[str, str]:
    stored: Any = client.hgetall(KEYS.books(0))
    return {name.decode(): value.decode() for name, value in stored.items()}


def account(client: redis.Redis, group: str) -> Account:
    return msgspec.json.decode(books(client)[f"{group}.account"], type=Account)


@pytest.mark.usefixtures("bug")
@pytest.mark.parametrize("before", [0, 2, 300])
def test_entry_that_ends_its_owners_is_set_aside_after_three_crashes_and_its_neighbours_are_kept(
    client: redis.Redis, settings: Settings, group: str, before: int
) -> None:
    good = [float(1000 + value) for value in range(before + 2)]
    send(client, *good[:before], POISON, *good[before:])
    assert crashes(group, settings) == FAILURES + CRASHES
    found = account(client, group)
    assert (found.accepted, found.rejected, found.condemned, found.difference) == (2 * len(good), 2, 2, 0)
    if group == ARCHIVE:
        assert values_on_disk(settings.storage_dir) == Counter(dict.fromkeys(good, 2))
        letters: Any = client.hgetall(KEYS.dead(0))
        ((name, letter),) = ((name.decode(), json.loads(letter)) for name, letter in letters.items())
        assert name.endswith("/0")
        assert letter["reason"] == "entry: 3 processes of group archive ended while they worked on it"
        assert json.loads(letter["payload"])["events"].count("666") == 2
        assert books(client)["archive.lost"] == "0"
    else:
        assert total(client).sum == 2 * sum(good)
        assert client.hlen(KEYS.dead(0)) == 0, "only the archiver writes dead letters"
        time: Any = client.time()
        floor = client.get(KEYS.floor(0))
        assert floor is not None
        assert time[0] - int(floor) < 60, "files answer for what the windows lack"


@pytest.mark.usefixtures("bug")
def test_what_follows_a_condemned_entry_is_not_taken_with_care(
    client: redis.Redis, settings: Settings, group: str
) -> None:
    send(client, POISON)
    crashes(group, settings)
    send(client, 1.0, 2.0, producer="q")
    before = books(client)[f"{group}.tried"]
    assert crashes(group, settings) == 0
    assert books(client)[f"{group}.tried"] == before


@pytest.mark.parametrize("group", [ARCHIVE], indirect=True)
def test_condemned_entry_can_be_put_back_whole_once_the_fault_is_mended(
    client: redis.Redis, settings: Settings, group: str, bug: pytest.MonkeyPatch
) -> None:
    send(client, 1.0, POISON)
    crashes(group, settings)
    bug.undo()
    letters: Any = client.hkeys(KEYS.dead(0))
    (letter_id,) = letters
    time: Any = client.time()
    assert requeue(client, KEYS, 0, letter_id.decode(), time[0])
    assert crashes(group, settings) == 0
    assert values_on_disk(settings.storage_dir) == Counter({1.0: 2, POISON: 2})
    assert client.hlen(KEYS.dead(0)) == 0


def attached(client: redis.Redis, new_archiver: NewArchiver, new_aggregator: NewAggregator, group: str) -> Sink:
    return new_archiver() if group == ARCHIVE else new_aggregator()


def test_restarts_at_one_position_condemn_nothing(
    client: redis.Redis, new_archiver: NewArchiver, new_aggregator: NewAggregator, group: str
) -> None:
    """Owners that are killed as soon as they have begun, thirty times, say nothing about what they would have read."""
    send(client, *range(1000, 1020))
    sink = [attached(client, new_archiver, new_aggregator, group) for _ in range(30)][-1]
    assert sink.suspect
    taken = fence_of(client, group)
    marks = Marks(client, KEYS, taken, careful=sink.suspect)
    run_shard(Reader(client, KEYS.events(0)), sink, marks, lambda: False, once=True)
    found = account(client, group)
    assert (found.accepted, found.rejected, found.difference) == (40, 0, 0)
    assert f"{group}.tried" in books(client), "it took care"


def fence_of(client: redis.Redis, group: str) -> Taken:
    fence = client.get(KEYS.fence(0, group))
    assert isinstance(fence, bytes)
    return Taken(0, group, "test", fence.decode())


@pytest.mark.parametrize("released", [True, False])
def test_a_server_that_goes_away_at_every_try_condemns_nothing(
    client: redis.Redis, settings: Settings, group: str, monkeypatch: pytest.MonkeyPatch, released: bool
) -> None:
    """Each owner is cut off while its note stands; where it cannot take that back, the next of the process does."""
    send(client, 1.0, 2.0)
    client.hset(KEYS.books(0), f"{group}.began", f"0-0 {FAILURES} -")
    process = ConsumerProcess(group, settings, Event(), once=True)
    process.role.prepare(client)
    sink = Archiver if group == ARCHIVE else Aggregator

    def cut_off(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("Connection closed by server.")

    for _ in range(CRASHES + 2):
        worker = Worker(process._job, 0)
        with monkeypatch.context() as patch:
            patch.setattr(sink, "commit", cut_off)
            if not released:
                work = Worker._work

                def work_and_lose(*arguments: Any, patch: pytest.MonkeyPatch = patch, work: Any = work) -> None:
                    try:
                        work(*arguments)
                    finally:
                        patch.setattr("vibezen.metrics.consumers.worker.release", cut_off)

                patch.setattr(Worker, "_work", work_and_lose)
            worker.run()
        assert isinstance(worker.failure, ConnectionError)
        assert f"{group}.tried" not in books(client) or not released
        if not released:
            client.delete(KEYS.lease(0, group))
    Worker(process._job, 0).run()
    found = account(client, group)
    assert (found.accepted, found.condemned) == (4, 0)


def test_an_owner_that_ends_in_order_leaves_no_mark(client: redis.Redis, settings: Settings, group: str) -> None:
    send(client, 1.0)
    for _ in range(4):
        assert run(group, settings, once=True) == 0
        assert f"{group}.began" not in books(client)


@pytest.mark.parametrize("blameless", [True, False])
def test_only_a_crash_is_held_against_an_entry(client: redis.Redis, blameless: bool) -> None:
    taken = take(client, KEYS, 0, "archive", "a")
    assert taken is not None
    marks = Marks(client, KEYS, taken, careful=True)
    assert [marks._try(b"5-1"), marks._try(b"5-1")] == [0, 1]
    for _ in range(2):  # a reply may be lost, and the same be said again
        release(client, KEYS, taken, blameless=blameless)
    assert books(client)["archive.tried"].startswith("5-1 1 " if blameless else "5-1 2 ")


def test_a_replaced_owner_notes_nothing(client: redis.Redis) -> None:
    stale = take(client, KEYS, 0, "archive", "a")
    assert stale is not None
    successor = take(client, KEYS, 0, "archive", "a")
    assert successor is not None
    Marks(client, KEYS, successor, careful=True)._try(b"5-1")
    before = books(client)
    with pytest.raises(Fenced):
        Marks(client, KEYS, stale, careful=True)._try(b"5-1")
    release(client, KEYS, stale, blameless=True)
    assert books(client) == before

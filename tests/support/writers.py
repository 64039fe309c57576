"""Producers that ask after each append whether a replica has it, and what must have become of what they wrote."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis

from tests.support.feeding import event, total, values_on_disk
from tests.support.processes import RoleProcess, StartRole
from tests.support.waiting import wait_until
from vibezen.metrics import scripts
from vibezen.metrics.connection import connect
from vibezen.metrics.event import encode_lines
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.producers.append import PACKAGE, Batch, append_args, script_keys

KEYS = Keys()
BATCH: Final = 10
WAIT_MS: Final = 200
BACK: Final = 30.0
"""Seconds in which producers and consumers must be back; the goal is 10."""
DRAIN: Final = 60.0


class Writer(threading.Thread):
    """Appends to one shard until it is ended. After an error the same call is made again, as producers do.

    `confirmed`: values of which the server said that a replica has them. `insists`: with the next ones waits until it
    says so; else it goes on, and what was not confirmed may be lost.
    """

    def __init__(self, url: str, shard: int, *, insists: bool) -> None:
        super().__init__(name=f"writer-{shard}")
        self._url, self._shard, self._insists = url, shard, insists
        self._seq = 1
        self.confirmed: list[float] = []
        self.appended = 0
        self.unconfirmed = 0
        """Answers in a row that no replica has what was appended last."""
        self._asked = threading.Event()

    def run(self) -> None:
        with connect(self._url, read_timeout=3) as client:
            while not self._asked.wait(0.01):
                with suppress(redis.RedisError):
                    self._write(client)

    def end(self) -> None:
        self._asked.set()
        self.join()

    def _write(self, client: redis.Redis) -> None:
        values = [self._shard * 1e6 + self._seq + n for n in range(BATCH)]
        batch = Batch(BATCH, encode_lines([event(value, time.time()) for value in values]))
        script, names = scripts.load(PACKAGE, "append"), script_keys(KEYS, self._shard)
        args = append_args(f"writer-{self._shard}", self._seq, [batch], b"{}")
        _, have = scripts.run_replicated(client, script, names, args, 1, WAIT_MS)
        if have:
            self.confirmed += values
            self.unconfirmed = 0
        else:
            self.unconfirmed += 1
            if self._insists:
                return
        self.appended += BATCH
        self._seq += BATCH


@contextmanager
def writing(url: str, shards: int = 1, *, insists: bool = False) -> Iterator[list[Writer]]:
    """One writer for each shard."""
    writers = [Writer(url, shard, insists=insists) for shard in range(shards)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.end()


def all_append(writers: list[Writer]) -> None:
    """Wait until each has appended something more."""
    before = [writer.appended for writer in writers]
    wait_until(lambda: all(w.appended > count for w, count in zip(writers, before, strict=True)), BACK)


def all_are_confirmed(writers: list[Writer]) -> None:
    """Wait until a replica has something more of each."""
    before = [len(writer.confirmed) for writer in writers]
    wait_until(lambda: all(len(w.confirmed) > count for w, count in zip(writers, before, strict=True)), BACK)


def consuming(start_role: StartRole, url: str, store: Path, shards: int = 1) -> list[RoleProcess]:
    """A process for each group."""
    told = {"VIBEZEN_METRICS__STREAMS__SHARDS": str(shards)}
    place = ("--redis-url", url, "--storage-dir", str(store))
    return [start_role("consume", group, *place, **told) for group in GROUPS]


def both_commit(client: redis.Redis, shards: int = 1) -> None:
    """Wait until both groups have committed something new in every shard."""
    places = [(shard, group) for shard in range(shards) for group in GROUPS]
    before = {place: wait_until(partial(_position, client, *place), BACK) for place in places}
    wait_until(lambda: all(_position(client, *place) > before[place] for place in places), BACK)


def _position(client: redis.Redis, shard: int, group: str) -> tuple[int, ...]:
    """Empty while nobody can be asked, or knows one."""
    with suppress(redis.RedisError):
        told = client.hget(KEYS.books(shard), f"{group}.position")
        return tuple(map(int, told.split(b"-"))) if isinstance(told, bytes) else ()
    return ()


def drained(client: redis.Redis, shards: int = 1) -> bool:
    """Whether both groups have read everything; not while somebody cannot be asked."""
    with suppress(redis.RedisError):
        return all(_is_read(client, KEYS.events(shard)) for shard in range(shards))
    return False


def _is_read(client: redis.Redis, stream: str) -> bool:
    last: Any = client.xinfo_stream(stream)
    groups: Any = client.xinfo_groups(stream)
    return all(told["last-delivered-id"] == last["last-generated-id"] for told in groups)


def assert_all_kept_once(client: redis.Redis, store: Path, writers: list[Writer], shards: int = 1) -> None:
    """lost 0 of what was confirmed, double 0, sum error 0."""
    on_disk = values_on_disk(store)
    assert [value for value, times in on_disk.items() if times > 1] == []
    assert {value for writer in writers for value in writer.confirmed} - set(on_disk) == set()
    for width in (10, 60):
        window = total(client, width, shards)
        assert (window.count, window.sum) == (len(on_disk), sum(on_disk))


def assert_books_balance(start_role: StartRole, url: str, store: Path) -> None:
    verify = start_role("verify", "--redis-url", url, "--storage-dir", str(store))
    assert verify.wait() == 0, verify.said

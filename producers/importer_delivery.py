"""Into the stream: the events of one import, numbered in order, each appended once however often it is started.

An import is a producer whose id follows from its key, and whose events are numbered by their place in the file. Started
again, it leaves out what the server has. Leaving out the wrong thing would be silent loss, so that the server also
keeps the CRC-32 of all lines up to that number, and what is left out must have the same.
"""

import hashlib
import random
import threading
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any, Final, Protocol, TypeVar

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from vibezen.metrics.batch import cut_lines
from vibezen.metrics.connection import (
    UNREACHABLE,
    check_server,
    connect,
    is_missing_group,
    is_refusal,
    redacted,
    redis_url,
)
from vibezen.metrics.errors import ImportStopped, ServerUnavailable, ServerUnsuitable
from vibezen.metrics.keys import GROUPS, IMPORTS, Keys
from vibezen.metrics.producers.append import Appended, Batch, append, last_number, raise_shards, shard_holding
from vibezen.metrics.producers.importer_report import Balance
from vibezen.metrics.producers.importer_source import Interrupted
from vibezen.metrics.settings import Settings

CALL_BATCHES: Final = 8
"""Batches per call, all or none of them: some 4,000 events."""
BACKLOG: Final = 1000
"""Entries (of 500 events, some 80 kB) that may wait for a group of readers: a server's memory is not for history."""
LOOK_EVERY: Final = 8
"""Calls between two looks at the backlog."""
PAUSE: Final = 0.2
"""Seconds between two looks while waiting."""
FIRST_PAUSE: Final = 0.1
"""Seconds before the first retry; doubled up to LONGEST_PAUSE, with jitter."""
LONGEST_PAUSE: Final = 2.0
ALIVE_MS: Final = 15_000
"""A consumer that gave no sign of life for longer than this is not there."""

Say = Callable[[str], None]
"""Tells people one line."""
T = TypeVar("T")


class Destination(Protocol):
    """Where the events of one import go, and what it tells the balance of them."""

    def add(self, batches: Sequence[Batch]) -> None: ...

    def finish(self, *, whole: bool) -> None:
        """All batches are added; `whole`: and with them the source has ended."""

    def close(self) -> None: ...


def producer_of(key: str) -> str:
    """The producer's id of an import with this key."""
    return IMPORTS + hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Delivery:
    """Appends one import. While the server is away, or too far ahead of its readers, calls wait; the wish to stop ends
    that by `Interrupted`, with nothing lost."""

    def __init__(self, settings: Settings, balance: Balance, stop: threading.Event, say: Say) -> None:
        self._settings, self._stop, self._say = settings, stop, say
        self._keys, self._balance = Keys(settings.redis.prefix), balance
        self._producer, self._name = balance.producer, balance.file
        self._checkpoint = self._keys.imported(balance.producer)
        self._url = redis_url(settings)
        self._client: Redis | None = None
        self._trouble = False
        self._told: set[str] = set()
        self._waiting: list[Batch] = []
        self._number = self._crc = 0
        self._calls = 0
        self._confirmed = 0
        with closing(connect(self._url)) as client:
            check_server(client, self._url)  # not there at the start is an error, not a reason to wait
        self._shard, self._there, self._known = self._patiently(self._standing)
        self._refuse_unknown()

    def _standing(self, client: Redis) -> tuple[int, int, dict[int, int]]:
        """The shard, how many events are there, and what is known about them: number → CRC-32."""
        shard = shard_holding(client, self._keys, self._producer, self._settings.streams.shards)
        there = last_number(client, self._keys, shard, self._producer)
        stored: Any = client.hgetall(self._checkpoint)
        self._confirmed = int(stored.pop(b"confirmed", 0))
        return shard, there, {int(number): int(told.split()[0], 16) for number, told in stored.items()}

    def _refuse_unknown(self) -> None:
        if self._confirmed > self._there:
            raise ImportStopped(
                f"{self._name}: {self._confirmed} events were imported under this key, but the server knows of "
                f"{self._there} only: it has lost data. What the store has would double; to import all again choose "
                "another --idempotency-key"
            )
        if self._there and self._there not in self._known:
            raise ImportStopped(
                f"{self._name}: {self._there} events are there under this key, and nothing tells which; choose another "
                "--idempotency-key"
            )

    def add(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if new := self._beyond(batch):
                self._waiting.append(new)
                if len(self._waiting) >= CALL_BATCHES:
                    self._send()

    def _beyond(self, batch: Batch) -> Batch | None:
        """What of a batch is not there yet; what is there must be what was imported."""
        left = self._there - self._number
        if left <= 0:
            self._count(batch)
            return batch
        if left >= batch.n:
            self._count(batch)
            self._balance.already_there += batch.n
            if left == batch.n:
                self._verify()
            return None
        rest = cut_lines(batch.payload, left)
        self._count(Batch(left, batch.payload[: len(batch.payload) - len(rest)]))
        self._balance.already_there += left
        self._verify()
        new = Batch(batch.n - left, rest)
        self._count(new)
        return new

    def _count(self, batch: Batch) -> None:
        self._number += batch.n
        self._crc = zlib.crc32(batch.payload, self._crc)
        if self._number > self._there:
            self._known[self._number] = self._crc

    def _verify(self) -> None:
        if self._known[self._there] != self._crc:
            raise ImportStopped(
                f"{self._name}: its first {self._there} events differ from those imported under this key; nothing was "
                "appended. To import it as something else choose another --idempotency-key"
            )

    def flush(self) -> None:
        """Append what waits to become a call of the usual size."""
        self._send()

    def finish(self, *, whole: bool) -> None:
        self._send()
        if self._number > self._confirmed and self._number >= self._there:
            self._patiently(lambda client: client.hset(self._checkpoint, "confirmed", self._number))
        if self._number < self._there:
            if whole:
                raise ImportStopped(
                    f"{self._name}: has {self._number} events, but {self._there} were imported under this key: it is "
                    "not the same file. Choose another --idempotency-key"
                )
            self._say(f"{self._name}: {self._there} events are there; the first {self._number} were not compared")

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(RedisError, OSError):
                client.close()

    # --- towards the server

    def _send(self) -> None:
        """One call with what waits. Repeated unchanged until it is confirmed: that makes a lost reply harmless."""
        if not self._waiting:
            return
        count = sum(batch.n for batch in self._waiting)
        end = self._there + self._balance.appended + count
        tries = 0

        def call(client: Redis) -> Appended:
            nonlocal tries
            tries += 1
            self._note(client, end)
            seq = end - count + 1
            return append(client, self._keys, self._shard, self._producer, seq, self._waiting, gapless=True)

        if self._calls % LOOK_EVERY == 0:
            self._wait_for_readers()
        self._calls += 1
        self._judge(self._patiently(call), end, tries)
        self._balance.appended += count
        self._waiting = []

    def _note(self, client: Redis, end: int) -> None:
        """Before an append, what it will end with: after a kill at any moment the number there has its CRC-32."""
        before = self._there + self._balance.appended
        told = {str(end): f"{self._known[end]:08x} {self._name}", "confirmed": before}
        pipe = client.pipeline(transaction=False)
        pipe.hset(self._checkpoint, mapping=told)  # type: ignore[arg-type]  # numbers become text
        if old := [number for number in self._known if number < before]:
            pipe.hdel(self._checkpoint, *map(str, old))
        for reply in pipe.execute(raise_on_error=False):  # it would wrap the server's words in its own
            if isinstance(reply, Exception):
                raise reply
        for number in old:
            del self._known[number]

    def _judge(self, done: Appended, end: int, tries: int) -> None:
        if done.created:  # perhaps the server was emptied, and the number of shards with it
            self._patiently(lambda client: raise_shards(client, self._keys, self._settings.streams.shards))
        if done.gap:
            raise ImportStopped(f"{self._name}: the server has lost events that it had; run the same command again")
        if done.last > end or (done.duplicate and tries == 1):
            raise ImportStopped(f"{self._name}: another process imports under this key; run it again when that ended")

    def _patiently(self, action: Callable[[Redis], T]) -> T:
        """`action`, again and again while the server is away or takes no writes. It must be safe to repeat."""
        pause = FIRST_PAUSE
        while True:
            try:
                done = action(self._client or self._connect())
            except (RedisError, OSError, ServerUnavailable) as error:
                if not isinstance(error, (*UNREACHABLE, OSError, ServerUnavailable)) and not is_refusal(error):
                    raise ServerUnsuitable(f"{redacted(self._url)}: {error}") from None
                self.close()
                self._tell_trouble(error)
                if self._stop.wait(pause * random.uniform(0.5, 1.0)):
                    raise Interrupted from None
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                if self._trouble:
                    self._trouble = False
                    self._say("the server is back")
                return done

    def _connect(self) -> Redis:
        self._url = redis_url(self._settings)
        self._client = client = connect(self._url)
        check_server(client, self._url)
        raise_shards(client, self._keys, self._settings.streams.shards)
        return client

    def _tell_trouble(self, error: Exception) -> None:
        if not self._trouble:
            self._trouble = True
            address = redacted(self._url)
            reason = str(error).partition("\n")[0].removeprefix(f"{address}: ")
            self._say(f"{address} takes no events now ({reason}); waiting for it")

    def _wait_for_readers(self) -> None:
        while waiting := self._patiently(self._behind):
            if waiting not in self._told:
                self._told.add(waiting)
                self._say(waiting)
            if self._stop.wait(PAUSE):
                raise Interrupted

    def _behind(self, client: Redis) -> str:
        """Which groups are too far behind, as one line; empty when none is."""
        stream = self._keys.events(self._shard)
        try:
            found: Any = client.xinfo_groups(stream)
        except ResponseError as error:
            if is_missing_group(error):
                return ""
            raise
        lags = {told["name"].decode(): told["lag"] for told in found}
        longest = client.xlen(stream) if None in lags.values() else 0
        behind = [group for group in GROUPS if (lags.get(group, 0) or longest) > BACKLOG]
        absent = [group for group in behind if not self._is_read(client, group)]
        return _told(behind, absent) if behind else ""

    def _is_read(self, client: Redis, group: str) -> bool:
        seconds, micros = client.time()
        now = seconds * 1000 + micros // 1000
        return bool(client.zcount(self._keys.members(group), now - ALIVE_MS, "+inf"))


def _told(behind: list[str], absent: list[str]) -> str:
    line = f"waiting for {' and '.join(behind)} to read what is in the stream"
    return line + "".join(f"; no `vibezen-metrics consume {group}` seems to run" for group in absent)

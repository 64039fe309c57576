"""Requests without a key: appended under a random producer id of the gateway's own, merged into few large batches."""

import math
import secrets
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from redis import Redis

from vibezen.metrics import clock
from vibezen.metrics.batch import MAX_SEQ
from vibezen.metrics.event import MAX_BATCH_BYTES
from vibezen.metrics.keys import Keys
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.append import Appended, Batch, append, raise_shards, shard_of
from vibezen.metrics.producers.packing import BATCH_EVENTS
from vibezen.metrics.producers.work import Call, Outcome, Work

NEW: Final = Appended(duplicate=False, last=0, created=False)
MOST_FAREWELLS: Final = 100
"""Producers given up whose last counters are remembered until the server can be told."""
REPORT_SECONDS: Final = 60.0
"""Without anything to append: how often the server hears of us all the same, so that nobody takes us for dead."""
GIVEN_UP: Final = "given_up"
"""Dropped: never confirmed, and the clients were told to come again. They may be in the stream all the same."""


class Unkeyed:
    """One call in flight at a time, all of its events or none. `count_refused` may be called from any thread."""

    def __init__(self, keys: Keys, shards: int, replicas: int = 0) -> None:
        self._keys, self._shards, self._replicas = keys, shards, replicas
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()
        self._farewells: deque[tuple[str, int, bytes]] = deque(maxlen=MOST_FAREWELLS)
        self._start_anew()

    def _start_anew(self) -> None:
        self._heard = -math.inf
        self._in_flight = 0
        self.producer = secrets.token_hex(16)
        self._shard = shard_of(self.producer, self._shards)
        self._appended = 0
        with self._lock:
            self._refused.clear()  # counters belong to a producer, as numbers do

    def give_up(self) -> None:
        """The numbers of the last call may be used or not. Under the old id, those left out would be counted as lost
        by readers, and those used again would be taken for repeated."""
        if self._appended or self._in_flight:
            farewell = self._stats(dropped={GIVEN_UP: self._in_flight}, closed=True)
            self._farewells.append((self.producer, self._shard, farewell))
        self._start_anew()

    def count_refused(self, fields: Mapping[str, int]) -> None:
        """Events that break the contract, by field: they travel in the counters of our entries."""
        with self._lock:
            self._refused.update(fields)

    def call(self, works: Sequence[Work]) -> Call:
        batches = merged(batch for work in works for batch in work.batches)
        first, events = self._appended + 1, sum(work.events for work in works)
        stats = self._stats(in_flight=events)
        self._in_flight = events

        def call(client: Redis) -> Sequence[Outcome]:
            done = append(
                *(client, self._keys, self._shard, self.producer, first, batches, stats), replicas=self._replicas
            )
            self._appended, self._in_flight, self._heard = done.last, 0, clock.monotonic()
            if done.created:  # perhaps the server was emptied, and the number of shards with it
                raise_shards(client, self._keys, self._shards)
            return [NEW] * len(works)  # if they were known, then from this same call before

        return call

    def report(self, client: Redis, *, closed: bool = False) -> None:
        """Bring counters to the server that no entry brings: now and then, of producers given up, and at the end."""
        while self._farewells:
            producer, shard, stats = self._farewells[0]
            append(client, self._keys, shard, producer, MAX_SEQ, [], stats)
            self._farewells.popleft()
        if self._appended and (closed or clock.monotonic() - self._heard >= REPORT_SECONDS):
            stats = self._stats(closed=closed)
            append(client, self._keys, self._shard, self.producer, self._appended + 1, [], stats)
            self._heard = clock.monotonic()

    def _stats(self, in_flight: int = 0, dropped: Mapping[str, int] | None = None, *, closed: bool = False) -> bytes:
        gone = dict(dropped or {})
        with self._lock:
            refused = dict(self._refused)
        recorded = self._appended + in_flight + sum(refused.values()) + sum(gone.values())
        return msgspec.json.encode(
            Stats(
                recorded=recorded,
                appended=self._appended,
                in_flight=in_flight,
                refused=refused,
                dropped=gone,
                closed=closed,
            )
        )


def merged(batches: Iterable[Batch]) -> list[Batch]:
    """The same events in the same order, small batches joined: readers work entry by entry."""
    found: list[Batch] = []
    joined: list[bytes] = []
    events = size = 0
    for n, payload in batches:
        if joined and (events + n > BATCH_EVENTS or size + len(payload) > MAX_BATCH_BYTES):
            found.append(Batch(events, b"".join(joined)))
            joined, events, size = [], 0, 0
        joined.append(payload)
        events, size = events + n, size + len(payload)
    return [*found, Batch(events, b"".join(joined))]

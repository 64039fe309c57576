"""Requests without a key: appended under a random producer id of the gateway's own, merged into few large batches."""

import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from redis import Redis

from vibezen.metrics.event import MAX_BATCH_BYTES
from vibezen.metrics.keys import Keys
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.append import Appended, Batch, append, raise_shards, shard_of
from vibezen.metrics.producers.packing import BATCH_EVENTS
from vibezen.metrics.producers.work import Call, Outcome, Work

NEW: Final = Appended(duplicate=False, last=0, created=False)


class Unkeyed:
    """One call in flight at a time, all of its events or none. `count_refused` may be called from any thread."""

    def __init__(self, keys: Keys, shards: int, replicas: int = 0) -> None:
        self._keys, self._shards, self._replicas = keys, shards, replicas
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()
        self._start_anew()

    def _start_anew(self) -> None:
        self.producer = secrets.token_hex(16)
        self._shard = shard_of(self.producer, self._shards)
        self._appended = 0
        with self._lock:
            self._refused.clear()  # counters belong to a producer, as numbers do

    def give_up(self) -> None:
        """The numbers of the last call may be used or not. Under the old id, those left out would be counted as lost
        by readers, and those used again would be taken for repeated."""
        self._start_anew()

    def count_refused(self, fields: Mapping[str, int]) -> None:
        """Events that break the contract, by field: they travel in the counters of our entries."""
        with self._lock:
            self._refused.update(fields)

    def call(self, works: Sequence[Work]) -> Call:
        batches = merged(batch for work in works for batch in work.batches)
        first, events = self._appended + 1, sum(work.events for work in works)
        stats = self._stats(events)

        def call(client: Redis) -> Sequence[Outcome]:
            done = append(
                *(client, self._keys, self._shard, self.producer, first, batches, stats), replicas=self._replicas
            )
            self._appended = done.last
            if done.created:  # perhaps the server was emptied, and the number of shards with it
                raise_shards(client, self._keys, self._shards)
            return [NEW] * len(works)  # if they were known, then from this same call before

        return call

    def _stats(self, in_flight: int) -> bytes:
        with self._lock:
            refused = dict(self._refused)
        recorded = self._appended + in_flight + sum(refused.values())
        stats = Stats(recorded=recorded, appended=self._appended, in_flight=in_flight, refused=refused)
        return msgspec.json.encode(stats)


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

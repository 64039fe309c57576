"""From the buffer to calls: events are taken off, checked, encoded and numbered."""

import logging
import secrets
from typing import Final

import msgspec

from vibezen.metrics import clock
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.producers.append import Batch, shard_of
from vibezen.metrics.producers.append_call import AppendCall
from vibezen.metrics.producers.books import INTERNAL
from vibezen.metrics.producers.buffer import Buffer
from vibezen.metrics.producers.drops import Drops
from vibezen.metrics.producers.packing import BATCH_EVENTS, mark_gauges, pack
from vibezen.metrics.settings import Settings

CALL_EVENTS: Final = 8 * BATCH_EVENTS
"""Events per call at most. Under load the sender gets the interpreter once per switch interval (5 ms), so that a call
with one batch would cap a busy process near 100,000 events/s."""

log = logging.getLogger("vibezen.metrics.collector")


class CallMaker:
    """One producer: an id, a shard, and numbers each of which means one event only. Used under its sender's lock."""

    def __init__(self, settings: Settings, buffer: Buffer) -> None:
        self.producer = secrets.token_hex(16)
        self.shard = shard_of(self.producer, settings.streams.shards)
        self._prefix = settings.redis.prefix
        self._gauges = settings.catalogue().gauges()
        self._tells_drops = settings.collection.system_metrics
        self._buffer = buffer
        self._drops = Drops()
        self._next = 1
        self._refusals_told: set[str] = set()

    def make(self, limit: int, *, tell_drops: bool) -> AppendCall | None:
        """A call of up to `limit` of the oldest events, which are in flight from now on; None when none is left to
        send. `tell_drops`: an event about those that were dropped goes along."""
        events = self._buffer.take(limit)
        told = self._drops.events(self._buffer.stats(), clock.wall()) if tell_drops and self.has_drops() else []
        self._buffer.books.add_to_flight(len(told))
        events += told
        if not events:
            return None
        try:
            mark_gauges(events, self._gauges, self.producer)
            batches = pack(events, clock.wall(), self._refuse)
        except Exception:
            # A mistake of ours must cost one call, not silence the application's metrics for good.
            log.exception("a batch could not be handled and is dropped; please report this")
            self._buffer.books.add_to_flight(-len(told))  # or each would be a new drop to tell of
            self._buffer.books.lost(INTERNAL)
            return None
        if not batches:
            return None
        first = self._next
        self._next += sum(batch.n for batch in batches)  # used up whatever happens
        return self._call(first, batches)

    def has_drops(self) -> bool:
        """Whether events were dropped and no event tells of it yet."""
        return self._tells_drops and self._drops.are_new(self._buffer.stats())

    def counters(self) -> AppendCall:
        """A call without events, that brings the counters of now."""
        return self._call(self._next, [])

    def stats(self) -> bytes:
        """The counters of now, as they travel."""
        return msgspec.json.encode(self._buffer.stats())

    def tell_refused(self, field: str, bad: InvalidEvent) -> None:
        """One line per field and process: a mistake in a loop must not fill the log."""
        if field not in self._refusals_told:
            self._refusals_told.add(field)
            log.warning("refused an event, and will count further ones silently: %s", bad)

    def _call(self, first: int, batches: list[Batch]) -> AppendCall:
        return AppendCall(self._prefix, self.producer, self.shard, first, batches, self.stats(), clock.wall())

    def _refuse(self, bad: InvalidEvent) -> None:
        field = bad.field.partition(".")[0]
        self._buffer.books.refuse(field)
        self.tell_refused(field, bad)

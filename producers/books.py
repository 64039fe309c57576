"""The books of one producer: what became of every event it was handed.

At any time: recorded = appended + buffered + in_flight + spooled + refused (all reasons) + dropped (all reasons).
"""

import itertools
import threading
from collections import Counter
from typing import Final, NamedTuple

from vibezen.metrics.producer_stats import Stats

OVERFLOW: Final = "overflow"
"""Dropped: the buffer was full, and this was its oldest event."""
CLOSED: Final = "closed"
"""Dropped: recorded after `close()`, or neither known to be appended nor spooled when `close()` gave up waiting."""
INTERNAL: Final = "internal"
"""Dropped: the sender failed on it in a way nobody foresaw; the log has the traceback."""
SPOOL_FULL: Final = "spool_full"
"""Dropped: the spool was full, and this was among its oldest."""
SPOOL_DAMAGED: Final = "spool_damaged"
"""Dropped: what was in the spool could not be read back."""
SPOOL_EXPIRED: Final = "spool_expired"
"""Dropped: the server could not be reached for 29 days. What is left of it lies in the quarantine."""


class Span(NamedTuple):
    """Events that left the buffer together, from position `start` on; `events` of them keep the contract."""

    start: int
    events: int


class Tally:
    """A number that any thread may raise by `hit()`, and read, without a lock, and that is exact all the same.

    `next` on `itertools.count` is one indivisible step, and so is its `repr`, which tells the number and leaves it as
    it is. A lock would hold up for ever a signal handler that asks for the counters while its thread does.
    """

    def __init__(self) -> None:
        self._count = itertools.count()
        self.hit = self._count.__next__

    def value(self) -> int:
        return int(repr(self._count)[len("count(") : -1])


class Books:
    """The counters as they run. Everything but the tallies is changed and read under `changed`.

    `spooled_is_safe`: events on disk are settled, as those in the stream are.
    """

    def __init__(self, *, bound: int = 0, spooled_is_safe: bool = False) -> None:
        self.changed = threading.Condition()
        self.bound = bound
        self.spooled_is_safe = spooled_is_safe
        self.sampled_out = Tally()
        self.overflow = Tally()
        self.taken = 0
        """Events that left the buffer for the sender; not those dropped by overflow."""
        self.unbuffered = 0
        """Events that count as recorded but never were in the buffer."""
        self.appended = 0
        self.in_flight = 0
        self.flight_start = 0
        """The position of the first event in flight, counted in events that ever left the buffer."""
        self.spooled: dict[int, Span] = {}
        """By the number of the first event, oldest first."""
        self.refused: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.closed = False

    def gone(self) -> int:
        """How many events ever left the buffer, on whatever way: the position of its oldest event."""
        return self.taken + self.overflow.value()

    def take_off(self, events: int) -> None:
        """The sender has taken `events` off the buffer; call while holding `changed`."""
        self.flight_start = self.gone()
        self.taken += events
        self.in_flight = events

    def add_to_flight(self, events: int) -> None:
        """The sender sends events of its own along."""
        with self.changed:
            self.unbuffered += events
            self.in_flight += events

    def refuse(self, field: str) -> None:
        """One of the events in flight breaks the contract."""
        with self.changed:
            self.refused[field] += 1
            self.in_flight -= 1

    def refuse_unbuffered(self, field: str) -> None:
        """An event made by the collector itself breaks the contract, through what a block put in its metadata."""
        with self.changed:
            self.unbuffered += 1
            self.refused[field] += 1

    def drop_unbuffered(self, reason: str) -> None:
        with self.changed:
            self.unbuffered += 1
            self.dropped[reason] += 1

    def landed(self, first: int | None = None) -> None:
        """What was in flight is in the stream; or what was spooled under the number `first`."""
        with self.changed:
            self.appended += self._settle(first)
            self.changed.notify_all()

    def lost(self, reason: str, first: int | None = None) -> None:
        """The same, given up."""
        with self.changed:
            if events := self._settle(first):
                self.dropped[reason] += events
            self.changed.notify_all()

    def kept(self, first: int) -> None:
        """What was in flight is on disk, under the number of its first event."""
        with self.changed:
            self.spooled[first] = Span(self.flight_start, self.in_flight)
            self.in_flight = 0
            if self.spooled_is_safe:
                self.changed.notify_all()

    def all_dropped(self) -> int:
        """Events that were given up, for whatever reason; call while holding `changed`."""
        return sum(self.dropped.values()) + self.overflow.value()

    def open_before(self, position: int, buffered: int) -> int:
        """How many of the first `position` events are not settled yet; call while holding `changed`."""
        waiting = max(0, min(buffered, position - self.gone()))
        spans = [Span(self.flight_start, self.in_flight)]
        if not self.spooled_is_safe:
            spans += self.spooled.values()
        return waiting + sum(max(0, min(span.events, position - span.start)) for span in spans)

    def stats(self, buffered: int) -> Stats:
        """Call while holding `changed`."""
        overflow = self.overflow.value()
        dropped = {**self.dropped, **({OVERFLOW: overflow} if overflow else {})}
        return Stats(
            recorded=self.taken + self.unbuffered + overflow + buffered,
            sampled_out=self.sampled_out.value(),
            appended=self.appended,
            buffered=buffered,
            in_flight=self.in_flight,
            spooled=sum(span.events for span in self.spooled.values()),
            refused=dict(self.refused),
            dropped=dropped,
            bound=self.bound,
            closed=self.closed,
        )

    def _settle(self, first: int | None) -> int:
        """How many events were there, and are no longer open."""
        if first is not None:
            return self.spooled.pop(first).events if first in self.spooled else 0
        events, self.in_flight = self.in_flight, 0
        return events

"""The books of one producer: what became of every event it was handed.

At any time: recorded = appended + buffered + in_flight + refused (all reasons) + dropped (all reasons).
"""

import itertools
import threading
from collections import Counter
from typing import Final

import msgspec

OVERFLOW: Final = "overflow"
"""Dropped: the buffer was full, and this was its oldest event."""
CLOSED: Final = "closed"
"""Dropped: recorded after `close()`, or not known to be appended when `close()` gave up waiting."""
INTERNAL: Final = "internal"
"""Dropped: the sender failed on it in a way nobody foresaw; the log has the traceback."""


class Stats(msgspec.Struct, frozen=True):
    """A producer's counters since its process began, or forked. They travel in every entry's `stats`.

    `recorded`: events that passed the checks of the call. `sampled_out`: left out on purpose, not in `recorded`.
    `appended`: known to be in the stream. `buffered`: waiting for the sender. `in_flight`: with the server, not yet
    confirmed. `refused`: found by the sender to break the contract, by field. `dropped`: lost here, by reason.
    """

    recorded: int = 0
    sampled_out: int = 0
    appended: int = 0
    buffered: int = 0
    in_flight: int = 0
    refused: dict[str, int] = {}
    dropped: dict[str, int] = {}


class Tally:
    """A number that any thread may raise by `hit()` without a lock, and that is exact all the same.

    `next` on `itertools.count` is one indivisible step; reading is another hit, which is taken off again.
    """

    def __init__(self) -> None:
        self.hit = itertools.count().__next__
        self._reads = 0
        self._lock = threading.Lock()

    def value(self) -> int:
        with self._lock:
            self._reads += 1
            return self.hit() - self._reads + 1


class Books:
    """The counters as they run. Everything but the tallies is changed and read under `changed`."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.sampled_out = Tally()
        self.overflow = Tally()
        self.taken = 0
        """Events that left the buffer for the sender, or never got into it; not those dropped by overflow."""
        self.appended = 0
        self.in_flight = 0
        self.flight_start = 0
        """The position of the first event in flight, counted in events that ever left the buffer."""
        self.refused: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def gone(self) -> int:
        """How many events ever left the buffer, on whatever way: the position of its oldest event."""
        return self.taken + self.overflow.value()

    def take_off(self, events: int) -> None:
        """The sender has taken `events` off the buffer; call while holding `changed`."""
        self.flight_start = self.gone()
        self.taken += events
        self.in_flight = events

    def refuse(self, field: str) -> None:
        """One of the events in flight breaks the contract."""
        with self.changed:
            self.refused[field] += 1
            self.in_flight -= 1

    def refuse_unbuffered(self, field: str) -> None:
        """An event made by the collector itself breaks the contract, through what a block put in its metadata."""
        with self.changed:
            self.taken += 1
            self.refused[field] += 1

    def drop_unbuffered(self, reason: str) -> None:
        with self.changed:
            self.taken += 1
            self.dropped[reason] += 1

    def landed(self) -> None:
        """What was in flight is in the stream."""
        with self.changed:
            self.appended += self.in_flight
            self.in_flight = 0
            self.changed.notify_all()

    def lost(self, reason: str) -> None:
        """What was in flight is given up."""
        with self.changed:
            if self.in_flight:
                self.dropped[reason] += self.in_flight
            self.in_flight = 0
            self.changed.notify_all()

    def open_before(self, position: int, buffered: int) -> int:
        """How many of the first `position` events are not settled yet; call while holding `changed`."""
        waiting = max(0, min(buffered, position - self.gone()))
        flying = max(0, min(self.in_flight, position - self.flight_start))
        return waiting + flying

    def stats(self, buffered: int) -> Stats:
        """Call while holding `changed`."""
        overflow = self.overflow.value()
        dropped = {**self.dropped, **({OVERFLOW: overflow} if overflow else {})}
        return Stats(
            recorded=self.taken + overflow + buffered,
            sampled_out=self.sampled_out.value(),
            appended=self.appended,
            buffered=buffered,
            in_flight=self.in_flight,
            refused=dict(self.refused),
            dropped=dropped,
        )

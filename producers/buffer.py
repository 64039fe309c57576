"""The buffer between `record()` and the sender: appended to without a lock, bounded, the oldest dropped first."""

from collections import deque
from contextlib import suppress
from typing import NamedTuple

from vibezen.metrics.event import Event
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.books import Books


class Mark(NamedTuple):
    """A moment: the position right after the newest event, how many events before it are not settled, and how many were
    given up until then."""

    position: int
    open: int
    dropped: int


class Buffer:
    """Events on their way to the sender, and the books about them.

    `events` is appended to by any thread (a deque's append is one indivisible step) and taken from by one sender.
    """

    def __init__(self, bound: int, *, spooled_is_safe: bool = False) -> None:
        self.bound = bound
        self.events: deque[Event] = deque()
        self.books = Books(bound=bound, spooled_is_safe=spooled_is_safe)

    def drop_excess(self) -> int:
        """Bring the buffer back to its bound after an append; returns a number that rises with every drop. Two threads
        at once may drop one more than needed; every drop is counted."""
        if len(self.events) > self.bound:
            with suppress(IndexError):
                self.events.popleft()
                return self.books.overflow.hit()
        return 1

    def take(self, limit: int) -> list[Event]:
        """Up to `limit` of the oldest events; they are in flight from now on."""
        taken: list[Event] = []
        with self.books.changed:
            # Appended one by one: overflow may empty the deque meanwhile, and what was popped must not be lost then.
            with suppress(IndexError):
                for _ in range(min(limit, len(self.events))):
                    taken.append(self.events.popleft())  # noqa: PERF401
            self.books.take_off(len(taken))
        return taken

    def drop_all(self, reason: str) -> None:
        """Give up what is in flight and what waits."""
        self.books.lost(reason)
        while self.take(self.bound):
            self.books.lost(reason)

    def position(self) -> int:
        """The position right after the newest event; see `open_before`."""
        with self.books.changed:
            return self.books.gone() + len(self.events)

    def open_before(self, position: int) -> int:
        """How many events before `position` are neither safe nor given up."""
        with self.books.changed:
            return self.books.open_before(position, len(self.events))

    def wait_settled(self, position: int, seconds: float) -> int:
        """Wait until every event before `position` is settled; returns how many still are not after `seconds`."""
        with self.books.changed:
            self.books.changed.wait_for(lambda: not self.books.open_before(position, len(self.events)), seconds)
            return self.books.open_before(position, len(self.events))

    def mark(self) -> Mark:
        """What `unsafe_since` looks back to."""
        position = self.position()
        with self.books.changed:
            return Mark(position, self.books.open_before(position, len(self.events)), self.books.all_dropped())

    def unsafe_since(self, mark: Mark, left: int) -> int:
        """How many of the events that were open at `mark` are not safe, `left` of them still open: with those that were
        given up meanwhile. Of what is given up the oldest comes first."""
        with self.books.changed:
            return left + max(0, min(self.books.all_dropped() - mark.dropped, mark.open - left))

    def stats(self) -> Stats:
        with self.books.changed:
            return self.books.stats(len(self.events))

    def start_anew(self) -> None:
        """After fork, in the child: these events belong to the parent. The deque stays the same object."""
        self.events.clear()
        self.books = Books(bound=self.bound, spooled_is_safe=self.books.spooled_is_safe)

"""What changed between two positions of the live feed, as far back as a client may resume."""

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from vibezen.metrics.api.position import EntryNumber
from vibezen.metrics.api.recent import Slot
from vibezen.metrics.live import KEPT_SECONDS, Frame
from vibezen.metrics.series import parse_series

_BOUND: Final = 4 * KEPT_SECONDS
"""Notes held: one per frame sent."""


class Change(NamedTuple):
    """Slots that changed, and the span of record() times of the live events in them; None where it holds none."""

    slots: frozenset[Slot] = frozenset()
    oldest: float | None = None
    newest: float | None = None


def joined(changes: Iterable[Change]) -> Change:
    parts = list(changes)
    return Change(
        frozenset().union(*(part.slots for part in parts)),
        min((part.oldest for part in parts if part.oldest is not None), default=None),
        max((part.newest for part in parts if part.newest is not None), default=None),
    )


def change_of(frame: Frame, width: int) -> Change:
    """What a frame changed in windows of this width."""
    if frame.width != width:
        return Change()
    slots = frozenset((change.start, parse_series(change.series).metric) for change in frame.changes)
    return Change(slots, frame.oldest, frame.newest)


class Journal:
    """Notes of every change after `begins`, in order."""

    def __init__(self, begins: EntryNumber) -> None:
        self.begins = begins
        self._notes: deque[tuple[EntryNumber, Change]] = deque()

    def note(self, upto: EntryNumber, change: Change) -> None:
        """`change` is what entries brought up to and with `upto`."""
        self._notes.append((upto, change))
        while len(self._notes) > _BOUND:
            self.begins = self._notes.popleft()[0]

    def prepend(self, begins: EntryNumber, change: Change) -> None:
        """Reach further back: `change` is what came after `begins` and up to where the journal began so far."""
        self._notes.appendleft((self.begins, change))
        self.begins = begins

    def since(self, live: EntryNumber) -> Change | None:
        """All that changed after `live`; None when the journal does not reach back that far."""
        if live < self.begins:
            return None
        return joined(change for upto, change in self._notes if upto > live)

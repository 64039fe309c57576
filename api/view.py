"""The messages of the live feed as one choice sees them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from msgspec import Raw

from vibezen.metrics.api.alert_log import Alert
from vibezen.metrics.api.choice import Choice
from vibezen.metrics.api.journal import Change
from vibezen.metrics.api.messages import (
    AlertMessage,
    Cells,
    Frame,
    GroupCells,
    LiveWindow,
    Message,
    Recorded,
    Snapshot,
    message,
)
from vibezen.metrics.api.position import Position
from vibezen.metrics.api.realtime import Realtime, RealtimeView
from vibezen.metrics.api.recent import Slot
from vibezen.metrics.api.selection import Selection
from vibezen.metrics.clock import floor_to
from vibezen.metrics.window import Window

if TYPE_CHECKING:
    from vibezen.metrics.api.state import LiveState

SHOWN: Final = 30
"""Windows in a snapshot."""
SNAPSHOT_AGE: Final = 1.0
"""Seconds for which all who ask get the same snapshot: a thousand clients may come back at once."""


class View:
    """Each message is made once for all who share the choice."""

    def __init__(self, state: "LiveState", choice: Choice) -> None:
        self._state, self._choice = state, choice
        self.forget()

    def forget(self) -> None:
        """The state begins anew."""
        recent = self._state.recent
        self._selection = Selection(recent, self._choice)
        self._held = self._selection if self._choice.metrics or self._choice.by_series else recent
        self._now = RealtimeView(self._held, version=self._state.version, demo=self._state.demo)
        self._cells, self._groups = Cells(), GroupCells()
        self._told: dict[Slot, Window] = {}
        self.renew()

    def renew(self) -> None:
        """Make the next snapshot anew: something has changed that moves no position."""
        self._latest: tuple[float, Message] | None = None

    def prune(self, oldest: int) -> None:
        self._selection.prune(oldest)
        self._cells.prune(oldest)
        self._groups.prune(oldest)
        self._told = {slot: window for slot, window in self._told.items() if slot[0] >= oldest}

    def meant(self, change: Change) -> Change:
        """What of a change concerns the metrics of this choice."""
        if not self._choice.metrics:
            return change
        return change._replace(slots=frozenset(slot for slot in change.slots if self._choice.has(slot[1])))

    def news(self, change: Change) -> Change:
        """What of a change that just happened is new to this choice: it may be of other series."""
        meant = self.meant(change)
        if not self._choice.where:
            return meant
        found = []
        for slot in self._shown(meant.slots):
            window = self._held.total(*slot)
            if window is not self._told.get(slot) and (window.count or slot in self._told):
                found.append(slot)
            self._told[slot] = window
        return meant._replace(slots=frozenset(found))

    def windows(self, at: float) -> dict[str, Window]:
        """What `realtime` told of at the time `at`, by metric."""
        return self._now.windows(at)

    def realtime(self) -> Realtime:
        return self._now.at(self._state.clock())

    def warm(self, start: int) -> None:
        """Compute what a snapshot tells of the window that begins at `start`."""
        self._windows([slot for slot in self._held.slots(start) if slot[0] == start])

    def snapshot_starts(self) -> range:
        """Starts of the windows in a snapshot."""
        newest = floor_to(self._state.clock(), self._state.width)
        return range(newest - (SHOWN - 1) * self._state.width, newest + self._state.width, self._state.width)

    def snapshot(self, position: Position | None = None) -> Message:
        """All there is to know now. `position`: the id it has, where that is not the one of all."""
        now = self._state.clock()
        here = self._state.position
        if self._latest is not None and position in (None, here):
            made, latest = self._latest
            if latest.position == here and 0 <= now - made < SNAPSHOT_AGE:
                return latest
        at = here if position is None else position
        content = Snapshot(
            id=str(at),
            at=now,
            version=self._state.version,
            demo=self._state.demo,
            width=self._state.width,
            windows=self._windows(self._held.slots(self.snapshot_starts().start)),
            realtime=self.realtime(),
        )
        made_now = message(at, content)
        if at == here:
            self._latest = (now, made_now)
        return made_now

    def frame(self, change: Change, position: Position | None = None) -> Message:
        """What has changed. `position`: as for a snapshot."""
        at = self._state.position if position is None else position
        recorded = None
        if change.oldest is not None and change.newest is not None:
            recorded = Recorded(newest=change.newest, oldest=change.oldest)
        content = Frame(
            id=str(at),
            at=self._state.clock(),
            recorded=recorded,
            windows=self._windows(self._shown(change.slots)),
            realtime=self.realtime(),
        )
        return message(at, content)

    def _windows(self, slots: Iterable[Slot]) -> list[LiveWindow]:
        windows = self._cells.windows(self._held, slots)
        if self._choice.group_by:
            self._groups.put_into(windows, self._selection)
        return windows

    def _shown(self, slots: Iterable[Slot]) -> list[Slot]:
        oldest = self._state.kept().start
        return [slot for slot in slots if slot[0] >= oldest]


def alert_message(position: Position, alert: Alert) -> Message:
    """The message of an alert, told at a position whose live part is `position`'s."""
    at = Position(position.live, alert.number)
    return message(at, AlertMessage(str(at), Raw(alert.transition or b"null")))

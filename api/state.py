"""What the live feed knows at its position, and the messages it makes of it. No input or output here."""

from collections.abc import Iterable, Mapping
from typing import Final

from vibezen.metrics.api.journal import Change, Journal, change_of, joined
from vibezen.metrics.api.messages import Cells, Frame, Gap, Heartbeat, Message, Recorded, Snapshot, message
from vibezen.metrics.api.position import Position
from vibezen.metrics.api.realtime import WINDOWS, Realtime, RealtimeView
from vibezen.metrics.api.recent import RecentWindows, Slot
from vibezen.metrics.catalogue import Catalogue
from vibezen.metrics.clock import Clock, floor_to
from vibezen.metrics.live import Frame as CommitFrame

SHOWN: Final = 30
"""Windows in a snapshot."""
SNAPSHOT_AGE: Final = 1.0
"""Seconds for which all who ask get the same snapshot: a thousand clients may come back at once."""


class LiveState:
    """Position, windows and journal; they move together."""

    def __init__(self, width: int, catalogue: Catalogue, *, version: str, demo: bool, clock: Clock) -> None:
        self.width = width
        self.position = Position()
        self.journal: Journal | None = None
        self.unsent = Change()
        """What was taken in since the last frame."""
        self._catalogue, self._clock = catalogue, clock
        self._version, self._demo = version, demo
        self._forget()

    def begin(self, position: Position) -> None:
        """Start anew at `position`, knowing nothing."""
        self.position = position
        self.journal = Journal(position.live)
        self.unsent = Change()
        self._forget()

    def _forget(self) -> None:
        self._recent = RecentWindows(self.width, self._catalogue)
        self._now = RealtimeView(self._recent, version=self._version, demo=self._demo)
        self._cells = Cells()
        self._latest: tuple[float, Message] | None = None

    def kept(self) -> range:
        """Starts of the windows held, from the oldest to the one that is open now."""
        now = self._clock()
        return range(self._recent.oldest_kept(now), floor_to(now, self.width) + self.width, self.width)

    def open_windows(self) -> range:
        """Starts of the windows that realtime shows, and that may well change still."""
        return self.kept()[-WINDOWS - 1 :]

    def take(self, position: Position, frames: Iterable[CommitFrame]) -> None:
        """Move on to `position`, past these frames."""
        oldest = self.kept().start
        for frame in frames:
            seen = change_of(frame, self.width)
            slots = frozenset(slot for slot in seen.slots if slot[0] >= oldest)
            self.unsent = joined([self.unsent, seen._replace(slots=slots)])
            if frame.width == self.width:
                for change in frame.changes:
                    if change.start >= oldest:
                        self._recent.put(frame.shard, change.start, change.series, change.window)
        self.position = position

    def reload(self, shard: int, start: int, stored: Mapping[bytes, bytes]) -> None:
        """Take Redis' own word on one window of one shard."""
        if changed := self._recent.replace(shard, start, stored):
            self.unsent = joined([self.unsent, Change(frozenset(changed))])
            self._latest = None

    def settle(self) -> None:
        """What was loaded is the beginning, not a change."""
        self.unsent = Change()

    def flush(self) -> Change:
        """What the next frame shows; the journal remembers it."""
        change, self.unsent = self.unsent, Change()
        if self.journal is not None:
            self.journal.note(self.position.live, change)
        return change

    def prune(self) -> None:
        self._recent.prune(self._clock())
        self._cells.prune(self.kept().start)

    def realtime(self) -> Realtime:
        return self._now.at(self._clock())

    def snapshot(self) -> Message:
        now = self._clock()
        if self._latest is not None:
            made, latest = self._latest
            if latest.position == self.position and 0 <= now - made < SNAPSHOT_AGE:
                return latest
        since = floor_to(now, self.width) - (SHOWN - 1) * self.width
        content = Snapshot(
            id=str(self.position),
            at=now,
            version=self._version,
            demo=self._demo,
            width=self.width,
            windows=self._cells.windows(self._recent, self._recent.slots(since)),
            realtime=self.realtime(),
        )
        self._latest = (now, message(self.position, content))
        return self._latest[1]

    def frame(self, change: Change) -> Message:
        recorded = None
        if change.oldest is not None and change.newest is not None:
            recorded = Recorded(newest=change.newest, oldest=change.oldest)
        content = Frame(
            id=str(self.position),
            at=self._clock(),
            recorded=recorded,
            windows=self._cells.windows(self._recent, self._shown(change.slots)),
            realtime=self.realtime(),
        )
        return message(self.position, content)

    def _shown(self, slots: Iterable[Slot]) -> Iterable[Slot]:
        oldest = self.kept().start
        return [slot for slot in slots if slot[0] >= oldest]

    def gap(self, since: str) -> Message:
        return message(self.position, Gap(id=since, to=str(self.position), since=since))

    def heartbeat(self) -> Message:
        return message(self.position, Heartbeat(id=str(self.position), at=self._clock()))

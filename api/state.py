"""What the live feed knows at its position, for all who ask. No input or output here."""

from collections.abc import Iterable, Mapping

from vibezen.metrics.api.alert_log import Alert, AlertLog
from vibezen.metrics.api.choice import Choice
from vibezen.metrics.api.journal import Change, Journal, change_of, joined
from vibezen.metrics.api.messages import Gap, Heartbeat, Message, message
from vibezen.metrics.api.position import EntryNumber, Position
from vibezen.metrics.api.realtime import WINDOWS, Realtime
from vibezen.metrics.api.recent import RecentWindows, Slot
from vibezen.metrics.api.view import View
from vibezen.metrics.catalogue import Catalogue
from vibezen.metrics.clock import Clock, floor_to
from vibezen.metrics.live import Frame as CommitFrame
from vibezen.metrics.window import Window


class LiveState:
    """Position, windows, journal and alerts; they move together."""

    def __init__(self, width: int, catalogue: Catalogue, *, version: str, demo: bool, clock: Clock) -> None:
        self.width, self.version, self.demo, self.clock = width, version, demo, clock
        self.loaded = False
        """Whether the windows have been read, so that there is something to say."""
        self._catalogue = catalogue
        self._views: dict[Choice, View] = {}
        self._start(Position())
        self._whole = View(self, Choice(0.0))

    def begin(self, position: Position) -> None:
        """Start anew at `position`, knowing nothing."""
        self.loaded = False
        self._start(position)
        for view in self._all_views():
            view.forget()

    def _start(self, position: Position) -> None:
        self.position = position
        """Up to here frames were taken in, and alerts told."""
        self.journal = Journal(position.live)
        self.alerts = AlertLog(position.alert)
        self.unsent = Change()
        """What was taken in since the last frame."""
        self.recent = RecentWindows(self.width, self._catalogue)

    def view(self, choice: Choice) -> View:
        """The feed as this choice sees it, until it is dropped."""
        if not choice.metrics and not choice.by_series:  # how often it is told makes no difference here
            return self._whole
        if choice not in self._views:
            self._views[choice] = View(self, choice)
        return self._views[choice]

    def drop(self, choice: Choice) -> None:
        """Nobody looks at it so any more."""
        self._views.pop(choice, None)

    def _all_views(self) -> list[View]:
        return [self._whole, *self._views.values()]

    def kept(self) -> range:
        """Starts of the windows held, from the oldest to the one that is open now."""
        now = self.clock()
        return range(self.recent.oldest_kept(now), floor_to(now, self.width) + self.width, self.width)

    def open_windows(self) -> range:
        """Starts of the windows that realtime shows, and that may well change still."""
        return self.kept()[-WINDOWS - 1 :]

    def take(self, live: EntryNumber, frames: Iterable[CommitFrame]) -> None:
        """Move on to the entry `live`, past these frames."""
        oldest = self.kept().start
        for frame in frames:
            seen = change_of(frame, self.width)
            slots = frozenset(slot for slot in seen.slots if slot[0] >= oldest)
            self.unsent = joined([self.unsent, seen._replace(slots=slots)])
            if frame.width == self.width:
                for change in frame.changes:
                    if change.start >= oldest:
                        self.recent.put(frame.shard, change.start, change.series, change.window)
        self.position = Position(live, self.position.alert)

    def tell(self, alert: Alert) -> None:
        """Move on to an alert, which is remembered."""
        self.alerts.note(alert)
        self.position = Position(self.position.live, alert.number)

    def reload(self, shard: int, start: int, stored: Mapping[bytes, bytes]) -> set[Slot]:
        """Take Redis' own word on one window of one shard; the slots that changes."""
        changed = self.recent.replace(shard, start, stored)
        if changed:
            self.unsent = joined([self.unsent, Change(frozenset(changed))])
            for view in self._all_views():
                view.renew()
        return changed

    def settle(self) -> None:
        """What was loaded is the beginning, not a change."""
        self.unsent = Change()
        self.loaded = True

    def flush(self) -> Change:
        """What the next frame shows; the journal remembers it."""
        change, self.unsent = self.unsent, Change()
        self.journal.note(self.position.live, change)
        return change

    def prune(self) -> None:
        self.recent.prune(self.clock())
        for view in self._all_views():
            view.prune(self.kept().start)

    def realtime(self) -> Realtime:
        return self._whole.realtime()

    def windows(self, at: float) -> dict[str, Window]:
        """The windows that `realtime` told of at the time `at`, by metric."""
        return self._whole.windows(at)

    def gap(self, since: Position) -> Message:
        return message(self.position, Gap(id=str(since), to=str(self.position), since=str(since)))

    def heartbeat(self) -> Message:
        return message(self.position, Heartbeat(id=str(self.position), at=self.clock()))

"""One reader per process: it follows the live stream and tells every subscriber, each message encoded once.

Frames can be lost (an aggregator may die between its commit and its frame), so the newest windows are read from Redis
again now and then: Redis holds the truth.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from vibezen.metrics.api.alert_log import Alert
from vibezen.metrics.api.channel import Channels
from vibezen.metrics.api.choice import Choice, Choices
from vibezen.metrics.api.fanout import Subscriber
from vibezen.metrics.api.journal import Change
from vibezen.metrics.api.position import EntryNumber, Position, parse_position
from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.api.recent import Slot
from vibezen.metrics.api.state import LiveState
from vibezen.metrics.api.tail import Entries, Standing, Standings, Tail
from vibezen.metrics.clock import monotonic
from vibezen.metrics.connection import UNREACHABLE
from vibezen.metrics.errors import MetricsError, ServerError
from vibezen.metrics.serving.errors import Away
from vibezen.metrics.window import Window

HEARTBEAT: Final = 15.0
"""Seconds of silence after which a sign of life is sent."""
CHECK_INTERVAL: Final = 10.0
"""Seconds between two looks at whether Redis still holds what we believe."""
CATCH_UP: Final = 1.0
"""Seconds that a client waits for a process that is not as far yet as the one it spoke to before."""
_LEAST_REST: Final = 0.02
"""Seconds between two looks at who needs a sign of life."""
_BACK_OFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_TROUBLES: Final = (RedisError, MetricsError, *UNREACHABLE)

log = logging.getLogger(__name__)


class _Replaced(ServerError):
    """The stream we followed is not there any more."""


class Hub:
    """`check` sees that the server may be used, before anything is read from it; it raises what it finds wrong.

    `choices` says what clients may ask for.
    """

    def __init__(
        self,
        state: LiveState,
        tail: Tail,
        check: Callable[[], Awaitable[None]],
        choices: Choices,
    ) -> None:
        self._state, self._tail, self._check = state, tail, check
        self.choices = choices
        self.interval = choices.least
        self._channels = Channels(state, choices.everything)
        self._trouble: str | None = "the live feed has not been read yet"
        self._gone: Position | None = None
        self._moved = asyncio.Event()
        self._looked = asyncio.Event()
        self._extending = asyncio.Lock()
        self._standings = Standings(Standing(), Standing())
        self._announced: frozenset[Slot] = frozenset()
        self._alerts: list[Alert] = []
        self._framed_at = self._checked_at = monotonic()

    @property
    def trouble(self) -> str | None:
        """Why this process cannot serve now, in one line; None when it can."""
        return self._trouble

    @property
    def position(self) -> Position:
        return self._state.position

    @property
    def subscribers(self) -> int:
        return self._channels.subscribers

    def realtime(self) -> Realtime:
        """Every metric now. Raises Away while Redis does not answer."""
        if self._trouble is not None:
            raise Away(self._trouble)
        return self._state.realtime()

    def windows(self, at: float) -> dict[str, Window]:
        """The windows that `realtime` told of at the time `at`, by metric."""
        return self._state.windows(at)

    async def first_look(self, seconds: float) -> None:
        """Wait, so long at most, until the windows were read or Redis was found to be away."""
        with anyio.move_on_after(seconds):
            await self._looked.wait()

    async def run(self) -> None:
        """Follow the stream until cancelled, whatever happens to Redis."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._beat)
            tasks.start_soon(self._follow)

    def close(self) -> None:
        """End all subscriptions and take no new ones."""
        self._channels.close()

    async def subscribe(self, since: str | None, choice: Choice | None = None) -> Subscriber:
        """Listen from now on: after the position `since` where that can be resumed, else from a snapshot on.

        A position that is gone, or never was one, is answered by a gap and a snapshot. ApiError 503 as Channels.join.
        """
        subscriber = self._channels.join(choice)
        try:
            await self._channels.of(subscriber).warm()
            await self._begin(subscriber, since)
        except BaseException:
            subscriber.leave()
            raise
        return subscriber

    async def choose(self, subscriber: Subscriber, choice: Choice) -> None:
        """Let a subscriber go on with a snapshot of another choice. ApiError 503 when there are too many different."""
        channel = self._channels.move(subscriber, choice)
        await channel.warm()
        subscriber.want_snapshot()

    async def _begin(self, subscriber: Subscriber, since: str | None) -> None:
        position = None if since is None else parse_position(since)
        if position is not None:
            await self._reach_back(position)
            change = self._state.journal.since(position.live)
            alerts = self._state.alerts.since(position.alert)
            if self._reaches(position) and change is not None and alerts is not None:
                self._channels.of(subscriber).resume(subscriber, position, change, alerts)
                return
        if since is None:
            subscriber.want_snapshot()
        else:
            subscriber.start_with_gap(self._state.gap(position or Position()))

    def _reaches(self, position: Position) -> bool:
        """Whether this process is as far as a client's position."""
        return self._state.loaded and self.position.covers(position)

    async def _reach_back(self, position: Position) -> None:
        """See that we know what changed after a client's position, where that can be known."""
        with anyio.move_on_after(CATCH_UP):
            while not self._reaches(position):
                await self._moved.wait()
        if not self._reaches(position):
            return
        async with self._extending:
            with contextlib.suppress(*_TROUBLES):
                await self._extend_journal(position.live)
                await self._extend_alerts(position.alert)

    async def _extend_journal(self, live: EntryNumber) -> None:
        """Before this process began to read: the stream itself tells, once for all who ask."""
        journal = self._state.journal
        if live < journal.begins:
            change = await self._tail.between(live, journal.begins, self._state.width)
            if change is not None:
                journal.prepend(live, change)

    async def _extend_alerts(self, alert: EntryNumber) -> None:
        log = self._state.alerts
        if alert < log.begins:
            alerts = await self._tail.alerts(alert, log.begins)
            if alerts is not None:
                log.prepend(alert, alerts)

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                await self._resync()
                failures = 0
                while True:
                    await self._step()
            except _Replaced:
                continue
            except _TROUBLES as error:
                self._away(error, first=failures == 0)
                await anyio.sleep(_BACK_OFF[min(failures, len(_BACK_OFF) - 1)])
                failures += 1

    def _away(self, error: Exception, *, first: bool) -> None:
        self._trouble = reason_of(error)
        self._looked.set()
        log.log(logging.WARNING if first else logging.DEBUG, "live feed: %s (%s)", self._trouble, error)

    async def _resync(self) -> None:
        """Find our place in the streams again, and load the windows as they are now."""
        await self._check()
        standings = await self._tail.standings()
        if self._state.loaded and not standings.continue_from(self._cursor, self._standings):
            self._gone, self._state.loaded = self.position, False
        fresh = not self._state.loaded
        if fresh:
            # The ends first, then the windows: what is committed in between comes again as a frame.
            self._alerts.clear()
            self._state.begin(Position(standings.live.last, standings.alerts.last))
        await self._load(self._state.kept())
        if fresh:
            self._state.settle()
        self._trouble = None
        self._looked.set()
        self._standings, self._checked_at = standings, monotonic()
        if self._gone is not None:
            log.warning("live feed: what followed %s is gone; clients get a gap and a snapshot", self._gone)
            gap = self._state.gap(self._gone)
            for channel in self._channels:
                channel.send(gap)
                channel.show_all()
            self._gone = None
        elif fresh:
            self._channels.want_snapshot()
        self._move()

    @property
    def _cursor(self) -> Position:
        """Up to here we have read; alerts may still wait to be told."""
        return Position(self.position.live, self._alerts[-1].number if self._alerts else self.position.alert)

    async def _load(self, starts: range) -> None:
        async for batch in self._tail.windows(self._state.width, starts):
            for shard, start, series in batch:
                self._announced -= self._state.reload(shard, start, series)  # what was told of them is old
            await asyncio.sleep(0)  # decoding many windows must not hold up everyone's frames

    async def _step(self) -> None:
        entries = await self._tail.read(self._cursor, wait=True)
        self._take(entries)
        if entries.frames:
            await anyio.sleep(max(0.0, self._framed_at + self.interval - monotonic()))
            more = True
            while more:
                entries = await self._tail.read(self._cursor, wait=False)
                self._take(entries)
                more = entries.more
            self._show()
        else:
            self._announce()
        self._tell_alerts()
        if monotonic() - self._checked_at >= CHECK_INTERVAL:
            await self._look_again()

    def _take(self, entries: Entries) -> None:
        unreadable = [frame for _, frame in entries.frames].count(None)
        unreadable += [alert.transition for alert in entries.alerts].count(None)
        if unreadable:
            log.warning("live feed: %d entries cannot be read; were they written by another version?", unreadable)
        self._alerts.extend(entries.alerts)
        self._state.take(entries.position.live, [frame for _, frame in entries.frames if frame is not None])
        self._move()

    def _show(self) -> None:
        change = self._state.flush()
        self._announced = frozenset()
        self._framed_at = monotonic()
        for channel in self._channels:
            channel.take(change, at_once=bool(self._alerts))

    def _announce(self) -> None:
        """The stream is quiet, yet we know of changes it did not tell: they have no id of their own."""
        if self._untold:
            self._announced = self._state.unsent.slots
            for channel in self._channels:
                if channel:
                    channel.show_all()

    @property
    def _untold(self) -> frozenset[Slot]:
        """What changed and is in nothing that was sent."""
        return self._state.unsent.slots - self._announced

    def _tell_alerts(self) -> None:
        """Each has an id that says that everything before was told."""
        alerts, self._alerts = self._alerts, []
        for channel in self._channels if alerts else ():
            channel.take(Change(), at_once=True)
        for alert in alerts:
            self._state.tell(alert)
            if alert.transition is not None:
                for channel in self._channels:
                    channel.tell(alert)
        if alerts:
            self._move()

    async def _look_again(self) -> None:
        """See that the streams are still those we follow, and read the newest windows as they are stored."""
        standings = await self._tail.standings()
        if not standings.continue_from(self._cursor, self._standings):
            raise _Replaced
        self._standings = standings
        await self._load(self._state.open_windows())
        self._state.prune()
        self._checked_at = monotonic()

    async def _beat(self) -> None:
        while True:
            first = min(channel.sent_at for channel in self._channels)
            await anyio.sleep(max(_LEAST_REST, first + HEARTBEAT - monotonic()))
            # An id must not stand for what is read, and not sent yet.
            for channel in self._channels if not self._untold else ():
                if monotonic() - channel.sent_at >= HEARTBEAT:
                    channel.beat()

    def _move(self) -> None:
        """Wake those who wait for this process to catch up."""
        self._moved.set()
        self._moved = asyncio.Event()


def reason_of(error: Exception) -> str:
    """Why Redis cannot be used, in words that name no address and no secret."""
    if isinstance(error, MetricsError):
        return str(error)
    if isinstance(error, AuthenticationError | AuthorizationError):
        return "Redis refuses our user or password"
    if isinstance(error, UNREACHABLE):
        return "no Redis or Valkey answers"
    return f"Redis refuses: {error}"

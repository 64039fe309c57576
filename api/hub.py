"""One reader per process: it follows the live stream and tells every subscriber, each message encoded once.

Frames can be lost (an aggregator may die between its commit and its frame), so the newest windows are read from Redis
again now and then: Redis holds the truth.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from vibezen.metrics.api.fanout import Fanout, Subscriber
from vibezen.metrics.api.journal import Change, joined
from vibezen.metrics.api.messages import Message
from vibezen.metrics.api.position import Position, parse_position
from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.api.recent import Slot
from vibezen.metrics.api.state import LiveState
from vibezen.metrics.api.tail import Entries, Standing, Tail
from vibezen.metrics.clock import monotonic
from vibezen.metrics.connection import UNREACHABLE
from vibezen.metrics.errors import MetricsError, ServerError
from vibezen.metrics.serving.errors import Away

FRAME_INTERVAL: Final = 0.25
"""Seconds between two frames at least; what comes in between goes into one."""
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a sign of life is sent."""
CHECK_INTERVAL: Final = 10.0
"""Seconds between two looks at whether Redis still holds what we believe."""
CATCH_UP: Final = 1.0
"""Seconds that a client waits for a process that is not as far yet as the one it spoke to before."""
_BACK_OFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_TROUBLES: Final = (RedisError, MetricsError, *UNREACHABLE)

log = logging.getLogger(__name__)


class _Replaced(ServerError):
    """The stream we followed is not there any more."""


class Hub:
    """`check` sees that the server may be used, before anything is read from it; it raises what it finds wrong."""

    def __init__(self, state: LiveState, tail: Tail, check: Callable[[], Awaitable[None]]) -> None:
        self._state, self._tail, self._check = state, tail, check
        self._fanout = Fanout(self._snapshot)
        self._trouble: str | None = "the live feed has not been read yet"
        self._loaded = False
        self._gone: Position | None = None
        self._moved = asyncio.Event()
        self._looked = asyncio.Event()
        self._extending = asyncio.Lock()
        self._added = 0
        self._announced: frozenset[Slot] = frozenset()
        self._sent_at = self._framed_at = self._checked_at = monotonic()

    @property
    def trouble(self) -> str | None:
        """Why this process cannot serve now, in one line; None when it can."""
        return self._trouble

    @property
    def position(self) -> Position:
        return self._state.position

    @property
    def subscribers(self) -> int:
        return len(self._fanout)

    def realtime(self) -> Realtime:
        """Every metric now. Raises Away while Redis does not answer."""
        if self._trouble is not None:
            raise Away(self._trouble)
        return self._state.realtime()

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
        self._fanout.close()

    async def subscribe(self, since: str | None) -> Subscriber:
        """Listen from now on: after the position `since` where that can be resumed, else from a snapshot on.

        A position that is gone, or never was one, is answered by a gap and a snapshot. ApiError 503 when full.
        """
        position = None if since is None else parse_position(since)
        change = None if position is None else await self._since(position)
        subscriber = self._fanout.join()
        if position is not None and change is not None:
            change = joined([change, self._state.unsent])
            # A client that is exactly here has seen this id; what we have not sent yet, another process sent it.
            is_news = bool(change.slots) and not position.covers(self.position)
            subscriber.start(self.position, [self._state.frame(change)] if is_news else [])
            return subscriber
        if since is not None:
            subscriber.start(self.position, [self._state.gap(str(position or Position()))])
        subscriber.want_snapshot()
        return subscriber

    async def _since(self, position: Position) -> Change | None:
        """What changed after a client's position; None when that cannot be told."""
        with anyio.move_on_after(CATCH_UP):
            while not (self._loaded and self.position.covers(position)):
                await self._moved.wait()
        journal = self._state.journal
        if journal is None or not self._loaded or not self.position.covers(position):
            return None
        known = journal.since(position.live)
        return known if known is not None else await self._further_back(position)

    async def _further_back(self, position: Position) -> Change | None:
        """Before this process began to read: the stream itself tells, once for all who ask."""
        async with self._extending:
            journal = self._state.journal
            if journal is None:
                return None
            if (known := journal.since(position.live)) is not None:
                return known
            try:
                change = await self._tail.between(position.live, journal.begins, self._state.width)
            except _TROUBLES:
                return None
            if change is None or journal is not self._state.journal:
                return None
            journal.prepend(position.live, change)
            return journal.since(position.live)

    def _snapshot(self) -> Message | None:
        return self._state.snapshot() if self._loaded else None

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
        """Find our place in the stream again, and load the windows as they are now."""
        await self._check()
        standing = await self._tail.standing()
        if self._loaded and not self._continues(standing):
            self._gone, self._loaded = self.position, False
        fresh = not self._loaded
        if fresh:
            # The end first, then the windows: what is committed in between comes again as a frame.
            self._state.begin(await self._tail.end())
        await self._load(self._state.kept())
        if fresh:
            self._state.settle()
        self._loaded, self._trouble = True, None
        self._looked.set()
        self._added, self._checked_at = standing.added, monotonic()
        if self._gone is not None:
            log.warning("live feed: what followed %s is gone; clients get a gap and a snapshot", self._gone)
            self._send(self._state.gap(str(self._gone)))
            self._send(self._state.snapshot())
            self._gone = None
        elif fresh:
            self._fanout.want_snapshot()
        self._move()

    def _continues(self, standing: Standing) -> bool:
        return standing.added >= self._added and standing.reaches_back_to(self.position.live)

    async def _load(self, starts: range) -> None:
        async for batch in self._tail.windows(self._state.width, starts):
            for shard, start, series in batch:
                self._state.reload(shard, start, series)
            await asyncio.sleep(0)  # decoding many windows must not hold up everyone's frames

    async def _step(self) -> None:
        entries = await self._tail.read(self.position, wait=True)
        if entries.frames:
            self._take(entries)
            await anyio.sleep(max(0.0, self._framed_at + FRAME_INTERVAL - monotonic()))
            more = True
            while more:
                entries = await self._tail.read(self.position, wait=False)
                self._take(entries)
                more = entries.more
            self._show()
        else:
            self._take(entries)
            self._announce()
        if monotonic() - self._checked_at >= CHECK_INTERVAL:
            await self._look_again()

    def _take(self, entries: Entries) -> None:
        unreadable = sum(frame is None for _, frame in entries.frames)
        if unreadable:
            log.warning("live feed: %d entries cannot be read; is the aggregator of another version?", unreadable)
        self._state.take(entries.position, [frame for _, frame in entries.frames if frame is not None])
        self._move()

    def _show(self) -> None:
        change = self._state.flush()
        self._announced = frozenset()
        self._framed_at = monotonic()
        if change.slots and self._fanout:  # history that comes in changes nothing that is shown here
            self._send(self._state.frame(change))

    def _announce(self) -> None:
        """The stream is quiet, yet we know of changes it did not tell: they have no id of their own."""
        slots = self._state.unsent.slots
        if slots - self._announced and self._fanout:
            self._announced = slots
            self._send(self._state.snapshot())

    async def _look_again(self) -> None:
        """See that the stream is still the one we follow, and read the newest windows as they are stored."""
        standing = await self._tail.standing()
        if not self._continues(standing):
            raise _Replaced
        self._added = standing.added
        await self._load(self._state.open_windows())
        self._state.prune()
        self._checked_at = monotonic()

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(max(0.0, self._sent_at + HEARTBEAT - monotonic()))
            if monotonic() - self._sent_at >= HEARTBEAT:
                self._send(self._state.heartbeat())

    def _send(self, message: Message) -> None:
        self._sent_at = monotonic()
        self._fanout.send(message)

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

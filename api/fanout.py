"""Subscribers of the live feed: each has a bounded queue of messages that all share.

Policy for the slow: a full queue is skipped forward to a fresh snapshot; when it is full again before it was ever
empty, the subscriber is let go. Nobody waits for anybody. Alerts that were skipped are told again after the snapshot.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, Protocol, Self

from vibezen.metrics.api.messages import Message
from vibezen.metrics.api.position import Position

QUEUE: Final = 16
"""Messages that may wait for one subscriber: four seconds at the most frames per second."""
QUEUED_ALERTS: Final = 64
"""Alerts that may wait besides: many can come at once."""

log = logging.getLogger(__name__)


class End(Enum):
    """Why a subscription is over."""

    SLOW = "too slow"
    CLOSING = "the server is closing"


class Scope(Protocol):
    """What can be cancelled: an anyio or trio cancel scope."""

    def cancel(self) -> None: ...


class Subscriber:
    """One client. As a context manager it leaves the feed on exit, whatever happened."""

    def __init__(self, fanout: "Fanout", leave: Callable[["Subscriber"], None]) -> None:
        self.ended: End | None = None
        self._fanout, self._leave = fanout, leave
        self._first: deque[Message] = deque()
        self._queue: deque[Message] = deque()
        self._seen: Position | None = None
        self._after = Position()
        self._behind = self._held = False
        self._skips = 0
        self._waiter: asyncio.Future[None] | None = None
        """While the client has been told all there was."""
        self._scope: Scope | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self._leave(self)

    def start(self, seen: Position, after: Position, messages: Iterable[Message]) -> None:
        """Begin with these: the client has seen all up to `seen`, and with them all up to `after`."""
        self._seen, self._after = seen, after
        self._first.extend(messages)
        # What came while that was looked up may be of an older state: told behind it, it would take the client back.
        self._queue = deque(
            message for message in self._queue if message.position.covers(after) and not self._has(message)
        )
        self._wake()

    def start_with_gap(self, gap: Message) -> None:
        """Begin with a gap, and go on with a snapshot."""
        self._first.append(gap)
        self.want_snapshot()

    def want_snapshot(self) -> None:
        """Begin, or go on, with a snapshot as soon as there is one."""
        self._behind, self._held = True, False
        self._wake()

    def move(self, fanout: "Fanout") -> None:
        """Listen to another one; nothing comes until a snapshot of it is wanted."""
        self._fanout.discard(self)
        self._keep_gap()
        self._fanout, self._held = fanout, True
        fanout.add(self)

    def bind(self, scope: Scope) -> None:
        """What to cancel when the subscription ends while a message is stuck on its way to the client."""
        self._scope = scope

    def offer(self, message: Message) -> None:
        """Never waits."""
        if self._has(message):
            return
        if message.kind == "snapshot":
            self._after = message.position
        if len(self._queue) >= (QUEUE + QUEUED_ALERTS if message.kind == "alert" else QUEUE):
            self._skips += 1
            self._keep_gap()
            if self._skips > 1:
                log.info("a live client does not keep up and is let go")
                self.end(End.SLOW)
                return
            self._behind = True
        self._queue.append(message)
        self._wake()

    def _has(self, message: Message) -> bool:
        if message.kind == "frame":
            return self._after.live >= message.position.live
        return message.kind == "alert" and self._after.alert >= message.position.alert

    def _keep_gap(self) -> None:
        """Drop what waits: the snapshot that follows is newer. That something is gone must be told all the same."""
        gaps = [message for message in (*self._first, *self._queue) if message.kind == "gap"]
        self._queue.clear()
        self._first = deque(gaps[-1:])

    def end(self, reason: End) -> None:
        if self.ended is None:
            self.ended = reason
            self._wake()
            if self._scope is not None and self._waiter is None:
                self._scope.cancel()

    async def next(self) -> Message | None:
        """The next message; None when the subscription is over."""
        while self.ended is None:
            if message := self._take():
                if message.kind != "gap":
                    self._seen = message.position
                return message
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return None

    def _take(self) -> Message | None:
        if self._held:
            return None
        if self._behind and (messages := self._fanout.restart(self._seen)):
            self._behind = False
            self._keep_gap()
            self._first.extend(messages)
            self._after = messages[-1].position
        if self._first:
            return self._first.popleft()
        if not self._queue:
            return None
        message = self._queue.popleft()
        if not self._queue:
            self._skips = 0
        return message

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Fanout:
    """Those who are told the same. `restart` makes what puts a client right that has seen all up to a position: a
    snapshot of this moment, and the alerts it missed; nothing while nothing is known."""

    def __init__(self, restart: Callable[[Position | None], list[Message]]) -> None:
        self.restart = restart
        self._subscribers: set[Subscriber] = set()

    def __len__(self) -> int:
        return len(self._subscribers)

    def add(self, subscriber: Subscriber) -> None:
        self._subscribers.add(subscriber)

    def discard(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)

    def send(self, message: Message) -> None:
        for subscriber in list(self._subscribers):
            subscriber.offer(message)

    def want_snapshot(self) -> None:
        for subscriber in self._subscribers:
            subscriber.want_snapshot()

    def end(self, reason: End) -> None:
        """End every subscription; those whose client does not read are cut."""
        for subscriber in list(self._subscribers):
            subscriber.end(reason)

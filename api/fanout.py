"""Subscribers of the live feed: each has a bounded queue of messages that all share.

Policy for the slow: a full queue is skipped forward to a fresh snapshot; when it is full again before it was ever
empty, the subscriber is let go. Nobody waits for anybody.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, Protocol, Self

from vibezen.metrics.api.messages import Message
from vibezen.metrics.api.position import Position
from vibezen.metrics.serving.errors import ApiError

QUEUE: Final = 16
"""Messages that may wait for one subscriber: four seconds at the most frames per second."""
MAX_SUBSCRIBERS: Final = 5000
"""Per process; beyond it the door says so, since each one more would slow all."""


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

    def __init__(self, snapshot: Callable[[], Message | None], leave: Callable[["Subscriber"], None]) -> None:
        self.ended: End | None = None
        self._snapshot, self._leave = snapshot, leave
        self._queue: deque[Message] = deque()
        self._ready = asyncio.Event()
        self._after = Position()
        self._behind = False
        self._skips = 0
        self._waiting = False
        self._scope: Scope | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self)

    def start(self, after: Position, messages: Iterable[Message]) -> None:
        """Begin with these; what `after` covers has been seen."""
        self._after = after
        self._queue.extend(messages)
        self._wake()

    def want_snapshot(self) -> None:
        """Begin, or go on, with a snapshot as soon as there is one."""
        self._behind = True
        self._wake()

    def bind(self, scope: Scope) -> None:
        """What to cancel when the subscription ends while a message is stuck on its way to the client."""
        self._scope = scope

    def offer(self, message: Message) -> None:
        """Never waits."""
        if message.kind == "frame" and self._after.covers(message.position):
            return
        if message.kind == "snapshot":
            self._after = message.position
        if len(self._queue) >= QUEUE:
            self._skips += 1
            self._queue.clear()
            if self._skips > 1:
                log.info("a live client does not keep up and is let go")
                self.end(End.SLOW)
                return
            self._behind = True
        self._queue.append(message)
        self._wake()

    def end(self, reason: End) -> None:
        if self.ended is None:
            self.ended = reason
            self._wake()
            if self._scope is not None and not self._waiting:
                self._scope.cancel()

    async def next(self) -> Message | None:
        """The next message; None when the subscription is over."""
        while self.ended is None:
            if message := self._take():
                return message
            self._ready.clear()
            self._waiting = True
            try:
                await self._ready.wait()
            finally:
                self._waiting = False
        return None

    def _take(self) -> Message | None:
        told_of_gap = not self._queue or self._queue[0].kind != "gap"
        if self._behind and told_of_gap and (snapshot := self._snapshot()):
            # Whatever waited is older than the snapshot, or is in it.
            self._behind = False
            self._queue.clear()
            self._after = snapshot.position
            return snapshot
        if not self._queue:
            return None
        message = self._queue.popleft()
        if not self._queue:
            self._skips = 0
        return message

    def _wake(self) -> None:
        self._ready.set()


class Fanout:
    """All subscribers of this process. `snapshot` makes one of this moment, or None while nothing is known."""

    def __init__(self, snapshot: Callable[[], Message | None]) -> None:
        self._snapshot = snapshot
        self._subscribers: set[Subscriber] = set()
        self._closing = False

    def __len__(self) -> int:
        return len(self._subscribers)

    def join(self) -> Subscriber:
        """A new subscriber, already listening. ApiError 503 when there are too many, or none are taken any more."""
        if self._closing or len(self._subscribers) >= MAX_SUBSCRIBERS:
            raise ApiError(503, "this server is closing" if self._closing else "too many live clients")
        subscriber = Subscriber(self._snapshot, self._subscribers.discard)
        self._subscribers.add(subscriber)
        return subscriber

    def send(self, message: Message) -> None:
        for subscriber in list(self._subscribers):
            subscriber.offer(message)

    def want_snapshot(self) -> None:
        for subscriber in self._subscribers:
            subscriber.want_snapshot()

    def close(self) -> None:
        """End every subscription; those whose client does not read are cut."""
        self._closing = True
        for subscriber in list(self._subscribers):
            subscriber.end(End.CLOSING)

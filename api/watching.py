"""`GET /api/events?live=true`: a sample of the events that arrive, at a stated rate, as server-sent events.

One thread follows the streams for all who watch, and only while anybody does. Each watcher's sample is drawn at random
from what it asked for, so that it stands for all of it; how many there were is told with it.
"""

import logging
import random
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from typing import Any, Final, Self

import anyio
import msgspec
from redis import Redis
from redis.exceptions import RedisError
from sse_starlette.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from vibezen.metrics.clock import wall
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event import Event
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.following import Following, matches, newest
from vibezen.metrics.keys import Keys
from vibezen.metrics.question import Parameters, parse_metric, parse_number, parse_where, single
from vibezen.metrics.serving.errors import ApiError

PARAMETERS: Final = ("live", "metric", "where", "rate")
DEFAULT_RATE: Final = 10
MAX_RATE: Final = 100
"""Events per second that one watcher is shown."""
MAX_WATCHERS: Final = 50
TICK: Final = 0.5
"""Seconds between two messages while events come."""
HEARTBEAT: Final = 10.0
"""Seconds after which a message without events shows that the connection lives."""
RETRY: Final = 1.0

log = logging.getLogger(__name__)


class Wanted(msgspec.Struct, frozen=True):
    """What one watcher asks for; `rate`: events per second shown at most."""

    metric: str | None
    where: tuple[Condition, ...]
    rate: int


class Sample(msgspec.Struct):
    """`events`: a random sample of the `seen` ones that arrived since the last message, in order of arrival.

    `missed`: batches that left the stream unseen meanwhile, null where nobody knows how many (Redis was away).
    """

    at: float
    seen: int
    missed: int | None
    events: list[Event]


def parse_watch(parameters: Parameters) -> Wanted:
    """Raises BadParameter."""
    texts = single(parameters, PARAMETERS)
    metric = texts.get("metric")
    return Wanted(
        metric=parse_metric(metric) if metric else None,
        where=parse_where(parameters.get("where", ())),
        rate=parse_number("rate", texts.get("rate"), DEFAULT_RATE, MAX_RATE),
    )


def is_live(parameters: Parameters) -> bool:
    """Whether events that arrive are asked for, rather than those of the past. Raises BadParameter."""
    given = parameters.get("live", "false")
    text = given if isinstance(given, str) else given[0]
    if text not in ("true", "false"):
        raise BadParameter("live", "expected true or false")
    return text == "true"


class Watcher:
    """One client. As a context manager it leaves on exit. `offer` is called by the thread that follows."""

    def __init__(self, wanted: Wanted, leave: Callable[["Watcher"], None]) -> None:
        self._wanted, self._leave = wanted, leave
        self._lock = threading.Lock()
        self.scope: anyio.CancelScope | None = None
        self.begun = False
        """Whether what arrives from now on is seen."""
        self._clear()

    def _clear(self) -> None:
        self._seen, self._missed = 0, 0
        self._known = True
        self._kept: list[tuple[int, Event]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(self)

    def offer(self, events: Sequence[Event], missed: int) -> None:
        with self._lock:
            self._missed += missed
            for event in events:
                if matches(event, self._wanted.metric, self._wanted.where):
                    self._keep(event)

    def _keep(self, event: Event) -> None:
        """Reservoir sampling (Vitter 1985, algorithm R): each has the same chance, however many come."""
        room = max(1, round(self._wanted.rate * TICK))
        if len(self._kept) < room:
            self._kept.append((self._seen, event))
        elif (place := random.randrange(self._seen + 1)) < room:
            self._kept[place] = (self._seen, event)
        self._seen += 1

    def lose_sight(self) -> None:
        """Nobody knows what passes by now."""
        with self._lock:
            self._known = False
        self.begun = True

    def collect(self) -> Sample:
        """What came since the last call."""
        with self._lock:
            events = [event for _, event in sorted(self._kept, key=lambda kept: kept[0])]
            sample = Sample(wall(), self._seen, self._missed if self._known else None, events)
            self._clear()
        return sample


class Watching:
    """All watchers of this process. `connect` makes a client for the thread's own use."""

    def __init__(self, connect: Callable[[], Redis], keys: Keys, configured_shards: int) -> None:
        self._connect, self._keys, self._shards = connect, keys, configured_shards
        self._lock = threading.Lock()
        self._watchers: set[Watcher] = set()
        self._thread: threading.Thread | None = None
        self._closing = False

    def join(self, wanted: Wanted) -> Watcher:
        """A new watcher, of what arrives from now on. ApiError 503 when there are too many, or none are taken any
        more."""
        with self._lock:
            if self._closing or len(self._watchers) >= MAX_WATCHERS:
                raise ApiError(503, "this server is closing" if self._closing else "too many live samples")
            watcher = Watcher(wanted, self._leave)
            self._watchers.add(watcher)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="event sample", daemon=True)
                self._thread.start()
        return watcher

    def _leave(self, watcher: Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End every sample; belongs to the event loop. Those whose client does not read are cut."""
        with self._lock:
            self._closing = True
            watchers, self._watchers = self._watchers, set()
        for watcher in watchers:
            if watcher.scope is not None:
                watcher.scope.cancel()

    def _now(self) -> list[Watcher]:
        """Who watches; none any more also ends the thread's time."""
        with self._lock:
            if not self._watchers:
                self._thread = None
            return list(self._watchers)

    # --- what follows runs on the thread

    def _run(self) -> None:
        while watchers := self._now():
            try:
                self._follow()
            except (RedisError, OSError) as error:
                log.info("events cannot be followed now: %s", error)
                for watcher in watchers:
                    watcher.lose_sight()
                threading.Event().wait(RETRY)

    def _follow(self) -> None:
        with closing(self._connect()) as client:
            used: Any = client.get(self._keys.shards)
            following = Following(client, self._keys, newest(client, self._keys, max(self._shards, int(used or 1))))
            missed = 0
            while watchers := self._now():
                for watcher in watchers:
                    watcher.begun = True
                following.wait()
                events = following.take()
                for watcher in watchers:
                    watcher.offer(events, following.missed - missed)
                missed = following.missed


async def _messages(watcher: Watcher) -> AsyncIterator[bytes]:
    silent = HEARTBEAT  # the first message says that the watch has begun
    while True:
        await anyio.sleep(TICK if silent < HEARTBEAT else TICK / 10)
        silent += TICK
        if not watcher.begun:
            continue
        sample = watcher.collect()
        if sample.seen or sample.missed != 0 or silent >= HEARTBEAT:
            silent = 0.0
            yield b"event: sample\ndata: %s\n\n" % msgspec.json.encode(sample)


class SampleResponse(EventSourceResponse):
    """Ends with its watcher, also when the client does not read and a message is stuck on its way."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        super().__init__(_messages(watcher), ping=0)  # the sample has heartbeats of its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._watcher, anyio.CancelScope() as cancelled:
            self._watcher.scope = cancelled
            await super().__call__(scope, receive, send)

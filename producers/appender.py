"""The gateway's one thread that appends: what requests hand in, in few calls, with a bounded wait.

A call whose reply is lost is repeated unchanged, so that it adds nothing twice; after a few seconds it is given up, and
the clients are told to come again.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from redis import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from vibezen.metrics import clock
from vibezen.metrics.connection import UNREACHABLE, connect, redacted, redis_url
from vibezen.metrics.errors import MetricsError, NotReplicated
from vibezen.metrics.event import MAX_BATCH_BYTES
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.append import Appended, Batch, prepare, raise_shards
from vibezen.metrics.producers.idempotency import Key
from vibezen.metrics.producers.keyed import Keyed
from vibezen.metrics.producers.packing import BATCH_EVENTS
from vibezen.metrics.producers.unkeyed import Unkeyed
from vibezen.metrics.producers.work import Outcome, Way, Work
from vibezen.metrics.serving.errors import Away
from vibezen.metrics.settings import Settings

CALL_EVENTS: Final = 8 * BATCH_EVENTS
"""Events per call, as the collector's sender."""
CALL_BYTES: Final = 4 * MAX_BATCH_BYTES
PATIENCE: Final = 3.0
"""Seconds for which a call is repeated while the server does not answer."""
REPLY_SECONDS: Final = 2.0
"""Until a connection attempt or a reply is given up."""
MOST_SECONDS: Final = 6.0
"""Until a request is told to come again, whatever holds its call up."""
FIRST_PAUSE: Final = 0.05
"""Seconds before a call is repeated; doubled with every time."""
PROBE_SECONDS: Final = 1.0
"""With nothing to append: how often it is tried whether we could."""

_NO_ANSWER: Final = (*UNREACHABLE, OSError)
_REPEATED: Final = (*_NO_ANSWER, NotReplicated)
_TROUBLE: Final = (RedisError, OSError, MetricsError)

log = logging.getLogger("vibezen.metrics.gateway")


class Appender:
    """Belongs to the event loop in which it is made; what is private runs on the thread, unless it says otherwise."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keys = Keys(settings.redis.prefix)
        self._unkeyed = Unkeyed(self._keys, settings.streams.shards, settings.replicas_asked)
        self._keyed = Keyed(self._keys, settings.streams.shards, settings.replicas_asked)
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._waiting: deque[Work] = deque()
        self._stopping = False
        self._client: Redis | None = None
        self._thread = threading.Thread(target=self._run, name="vibezen-metrics-appender", daemon=True)
        self.trouble: str | None = "not connected to Redis yet"
        """Why nothing can be appended now, in one line; None when it can."""

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self, deadline: float) -> None:
        """Append what waits and end, within `deadline` seconds."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(deadline)

    async def append(self, batches: Sequence[Batch], key: Key | None) -> Appended:
        """Returns once Redis has the events, and as many replicas as `durability` asks for; or once it has refused to
        leave numbers out.

        Raises Away when it cannot take them now; after a lost reply it may have them all the same.
        """
        work = Work(batches, key, clock.monotonic() + PATIENCE, self._loop.create_future())
        with self._changed:
            self._waiting.append(work)
            self._changed.notify()
        try:
            async with asyncio.timeout(MOST_SECONDS):
                return await work.told
        except TimeoutError:
            raise Away from None
        finally:
            if work.told.cancelled():
                with self._changed, suppress(ValueError):  # it may be on its way already
                    self._waiting.remove(work)

    def count_refused(self, fields: Mapping[str, int]) -> None:
        """Events that break the contract, by field: they are told in the counters of our entries."""
        self._unkeyed.count_refused(fields)

    # --- what follows runs on the thread

    def _run(self) -> None:
        self._probe()
        while (works := self._take()) is not None:
            unkeyed = [work for work in works if work.key is None]
            keyed = [work for work in works if work.key is not None]
            if unkeyed:
                self._deliver(unkeyed, self._unkeyed)
            if keyed:
                self._deliver(keyed, self._keyed)
            if not works:
                self._probe()
        self._say_goodbye()
        self._disconnect()

    def _take(self) -> list[Work] | None:
        """What waits, up to the bounds of a call; empty when nothing came for a while, None when all is done."""
        with self._changed:
            if not self._waiting and not self._stopping:
                self._changed.wait(PROBE_SECONDS)
            if not self._waiting and self._stopping:
                return None
            works: list[Work] = []
            events = size = 0
            while self._waiting and (not works or (events < CALL_EVENTS and size < CALL_BYTES)):
                works.append(work := self._waiting.popleft())
                events, size = events + work.events, size + work.size
            return works

    def _deliver(self, works: Sequence[Work], way: Way) -> None:
        """Make one call, again and again while nobody answers and the first of them can wait; tell what came of it."""
        call = way.call(works)
        deadline = min(work.deadline for work in works)
        pause = FIRST_PAUSE
        while True:
            try:
                outcomes = call(self._client or self._connect())
            except _TROUBLE as error:
                self._failed(error)
                if not isinstance(error, _REPEATED) or clock.monotonic() + pause > deadline:
                    way.give_up()
                    self._tell(works, [error] * len(works))
                    return
            except Exception as error:
                # A mistake of ours must cost one call, not the gateway.
                log.exception("events could not be appended; please report this")
                way.give_up()
                self._tell(works, [error] * len(works))
                return
            else:
                self._worked()
                self._tell(works, outcomes)
                return
            time.sleep(pause)
            pause *= 2

    def _tell(self, works: Sequence[Work], outcomes: Sequence[Outcome]) -> None:
        told = [(work.told, _answer(outcome)) for work, outcome in zip(works, outcomes, strict=True)]
        with suppress(RuntimeError):  # the loop is gone, and with it whoever would want to know
            self._loop.call_soon_threadsafe(_settle, told)

    def _probe(self) -> None:
        """Try with the smallest write there is: a server that is full, or a replica, answers a ping, too."""
        try:
            client = self._client or self._connect()
            raise_shards(client, self._keys, self._settings.streams.shards)
            self._unkeyed.report(client)
        except _TROUBLE as error:
            self._failed(error)
        else:
            self._worked()

    def _say_goodbye(self) -> None:
        with suppress(*_TROUBLE):
            self._unkeyed.report(self._client or self._connect(), closed=True)

    def _connect(self) -> Redis:
        url = redis_url(self._settings)  # asked again each time: a `vibezen-metrics up` may have come or moved
        self._client = connect(url, read_timeout=REPLY_SECONDS)
        prepare(self._client, url, self._keys, self._settings.streams.shards)
        return self._client

    def _disconnect(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(RedisError, OSError):
                client.close()

    def _failed(self, error: Exception) -> None:
        self._disconnect()
        reason = f"{redacted(redis_url(self._settings))}: {_reason(error)}"
        if self.trouble is None:
            log.warning("events cannot be appended: %s", reason)
        self.trouble = reason

    def _worked(self) -> None:
        if self.trouble is not None:
            log.info("events can be appended")
        self.trouble = None


def _reason(error: Exception) -> str:
    if isinstance(error, AuthenticationError | AuthorizationError):  # kinds of ConnectionError, to redis-py
        return "the server refuses our user or password"
    if isinstance(error, _NO_ANSWER):
        return "no Redis or Valkey answers"
    return str(error).partition("\n")[0]


def _answer(outcome: Outcome) -> Outcome:
    """What a request is told."""
    return Away(f"events cannot be taken now: {_reason(outcome)}") if isinstance(outcome, _TROUBLE) else outcome


def _settle(told: Sequence[tuple[asyncio.Future[Appended], Outcome]]) -> None:
    """Runs in the event loop."""
    for future, outcome in told:
        if future.done():  # its request is gone
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

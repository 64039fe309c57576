"""The sender: one daemon thread that takes events off the buffer and appends them, batch after batch.

One call is in flight at a time, and it is repeated unchanged until the server confirms it: that makes a retry after a
lost reply add nothing. Back-pressure ends in the buffer, never in `record()`.
"""

import logging
import random
import secrets
import threading
from contextlib import suppress
from typing import Final

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from vibezen.metrics import clock
from vibezen.metrics.config import Settings
from vibezen.metrics.connection import connect, redacted, redis_url
from vibezen.metrics.errors import InvalidEvent, MetricsError
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers import lifetime
from vibezen.metrics.producers.append import Batch, append, prepare, raise_shards, shard_of
from vibezen.metrics.producers.books import CLOSED, INTERNAL
from vibezen.metrics.producers.buffer import Buffer
from vibezen.metrics.producers.packing import BATCH_EVENTS, mark_gauges, pack

CALL_EVENTS: Final = 8 * BATCH_EVENTS
"""Events per call at most. Under load the sender gets the interpreter once per switch interval (5 ms), so that a call
with one batch would cap a busy process near 100,000 events/s."""
FIRST_PAUSE: Final = 0.05
"""Seconds before the first retry; doubled up to LONGEST_PAUSE. Jitter keeps many producers from returning as one."""
LONGEST_PAUSE: Final = 2.0

_TROUBLE: Final = (RedisError, OSError, MetricsError)
"""Server away, reply lost, or refused (OOM, READONLY, LOADING, MISCONF, NOREPLICAS, wrong password, …)."""

log = logging.getLogger("vibezen.metrics.collector")


class Sender:
    """Drains one buffer into one shard. The public methods may be called from any thread."""

    def __init__(self, settings: Settings, buffer: Buffer) -> None:
        self._settings = settings
        self._keys = Keys(settings.redis.prefix)
        self._gauges = settings.catalogue().gauges()
        self._buffer = buffer
        self._address = redacted(redis_url(settings))
        connect(redis_url(settings)).close()  # connects to nothing, but an impossible address is an error here and now
        self._inherited: list[Redis] = []
        self._client: Redis | None = None
        self.start_anew()

    def start_anew(self) -> None:
        """A new producer: at first, and after fork in the child, which must share neither number nor connection."""
        self.producer = secrets.token_hex(16)
        self.shard = shard_of(self.producer, self._settings.streams.shards)
        self.idle = False
        """Whether the sender sleeps, so that `wake` is worth calling."""
        self._next_seq = 1
        # A lock as a binary semaphore: released to wake. Unlike an Event it may be touched in a signal handler.
        self._alarm = threading.Lock()
        self._alarm.acquire()
        self._starting = threading.RLock()
        self._thread: threading.Thread | None = None
        if self._client is not None:
            # The parent's. Never closed here: its locks may be held by a thread that does not exist in this process.
            self._inherited.append(self._client)
            self._client = None
        self._flush_asked = False
        self._retry_now = False
        self._stopping = False
        self._given_up = False
        self._trouble = False
        self._told: set[str] = set()

    def start(self) -> bool:
        """Make sure that the thread runs. False when there can be none (no thread to be had, interpreter ending)."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="vibezen-metrics-sender", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None
                    return False
                lifetime.started(self)
            return True

    def wake(self) -> None:
        """Never blocks."""
        self.idle = False
        with suppress(RuntimeError):  # already awake
            self._alarm.release()

    def ask_flush(self) -> None:
        """Send all that waits, now; a pause between retries ends at once. Never blocks."""
        self._flush_asked = self._retry_now = True
        self.wake()

    def ask_stop(self) -> None:
        """Send all that waits, then end. Never blocks."""
        self._stopping = True
        self.ask_flush()

    def close(self, deadline: float) -> int:
        """Send what waits and end. Returns how many events are not known to be in the stream after `deadline` seconds;
        they are given up."""
        end = clock.monotonic() + deadline
        position = self._buffer.position()
        self.ask_stop()
        alive = self._thread is not None and self._thread.is_alive()
        left = self._buffer.wait_settled(position, deadline if alive else 0.0)
        if left:
            self._given_up = True
            self.wake()
            end = clock.monotonic() + 0.1  # it may hang in a call that ends much later; it ends itself then
        if not alive:
            self._buffer.drop_all(CLOSED)
        elif self._thread is not threading.current_thread():
            assert self._thread is not None
            self._thread.join(max(0.1, end - clock.monotonic()))
        return left

    def tell_lost(self, events: int) -> None:
        log.warning("%d events could not be sent to %s before closing, and are lost", events, self._address)

    # --- what follows runs on the sender's thread

    def _run(self) -> None:
        due = clock.monotonic() + self._settings.flush_interval_seconds
        while not (self._given_up or (self._stopping and not self._buffer.events)):
            self._sleep(due)
            due = clock.monotonic() + self._settings.flush_interval_seconds
            try:
                self._send_waiting()
            except Exception:
                # A mistake of ours must cost one call, not silence the application's metrics for good.
                log.exception("a batch could not be handled and is dropped; please report this")
                self._buffer.books.lost(INTERNAL)
        self._buffer.drop_all(CLOSED)
        self._disconnect()
        lifetime.ended(self)

    def _sleep(self, due: float) -> None:
        """Until enough events wait, a flush is asked for, or `due` has come (monotonic seconds)."""
        self.idle = True
        # Only after `idle` is set: an append that saw it unset must be seen here.
        if not self._flush_asked and len(self._buffer.events) < self._settings.buffer_size:
            self._alarm.acquire(timeout=max(0.0, due - clock.monotonic()))
        self.idle = False
        self._flush_asked = False

    def _send_waiting(self) -> None:
        """Send what waits now. What comes meanwhile waits for the next trigger, or entries would become tiny."""
        waiting = len(self._buffer.events)
        while waiting > 0 and not self._given_up:
            events = self._buffer.take(min(waiting, CALL_EVENTS))
            if not events:
                return
            waiting -= len(events)
            mark_gauges(events, self._gauges, self.producer)
            batches = pack(events, clock.wall(), self._refuse)
            del events
            if batches:
                self._deliver(batches)
            self._buffer.books.landed()

    def _refuse(self, bad: InvalidEvent) -> None:
        field = bad.field.partition(".")[0]
        self._buffer.books.refuse(field)
        self.tell_refused(field, bad)

    def tell_refused(self, field: str, bad: InvalidEvent) -> None:
        """One line per field and process: a mistake in a loop must not fill the log."""
        if field not in self._told:
            self._told.add(field)
            log.warning("refused an event, and will count further ones silently: %s", bad)

    def _deliver(self, batches: list[Batch]) -> None:
        """Append; on trouble again and again with the very same numbers, until it is there or we are given up."""
        stats = msgspec.json.encode(self._buffer.stats())
        seq = self._next_seq
        self._next_seq += sum(batch.n for batch in batches)  # used up whatever happens: a number means one event only
        pause = FIRST_PAUSE
        while not self._given_up:
            try:
                self._append(seq, batches, stats)
            except _TROUBLE as error:
                self._tell_trouble(error)
                self._disconnect()
                if not self._retry_now:
                    self._alarm.acquire(timeout=pause * random.uniform(0.5, 1.0))
                self._retry_now = False
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._tell_recovery()
                return
        self._buffer.books.lost(CLOSED)

    def _append(self, seq: int, batches: list[Batch], stats: bytes) -> None:
        client = self._client or self._connect()
        done = append(client, self._keys, self.shard, self.producer, seq, batches, stats)
        if done.created:  # perhaps the server was emptied, and the number of shards with it
            raise_shards(client, self._keys, self._settings.streams.shards)

    def _connect(self) -> Redis:
        url = redis_url(self._settings)  # asked again each time: a `vibezen-metrics up` may have come or moved
        self._address = redacted(url)
        self._client = client = connect(url)
        prepare(client, url, self._keys, self._settings.streams.shards)
        return client

    def _disconnect(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(RedisError, OSError):
                client.close()

    def _tell_trouble(self, error: Exception) -> None:
        if not self._trouble:
            self._trouble = True
            reason = str(error).partition("\n")[0].removeprefix(f"{self._address}: ")
            bound = self._buffer.bound
            log.warning("metrics cannot be sent to %s (%s); keeping up to %d events", self._address, reason, bound)

    def _tell_recovery(self) -> None:
        if self._trouble:
            self._trouble = False
            log.info("metrics are sent to %s again", self._address)

"""MetricsCollector: what applications embed to record events.

The data's path from here: `record` → `buffer` → `sender` → `packing` → `append`.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, ParamSpec, Self, TypeVar

import msgspec

from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.config import load
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import MAX_METADATA_KEYS, Event, Metadata
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers import lifetime
from vibezen.metrics.producers.books import CLOSED
from vibezen.metrics.producers.buffer import Buffer
from vibezen.metrics.producers.gate import LEFT_OUT, Gate, Routes, copied, number
from vibezen.metrics.producers.instruments import Instruments
from vibezen.metrics.producers.lifetime import CLOSE_DEADLINE
from vibezen.metrics.producers.measure import Measurement, Sample, timed
from vibezen.metrics.settings import Durability, Settings

if TYPE_CHECKING:
    from vibezen.metrics.producers.sender import Sender

P = ParamSpec("P")
R = TypeVar("R")

_BEHIND: Final = 4096
"""Events waiting from which on the sender is taken to be behind."""
_YIELD_EVERY: Final = 2048
"""Events between two turns given to a sender that is behind: rare enough to leave 999 of 1,000 calls untouched."""

_LOOK_EVERY: Final = 256
"""Events dropped between two looks at whether the sender hangs."""


class MetricsCollector(Instruments):
    """Records events and sends them in the background; one per application is enough.

    Recording appends to a buffer in memory and returns: it never waits for the network, takes no lock, never raises
    for what the infrastructure does, and works from asyncio, trio, threads and plain scripts alike. A daemon thread
    appends batches to the server when `buffer_size` events wait or `flush_interval_seconds` have passed. While the
    server is away they are kept on disk, in the spool, and sent in order when it is back, by the next process if need
    be; when the spool is full its oldest are dropped and counted. `durability` says when events count as safe. What
    ends a process without warning (`kill -9`) takes with it what is in memory, at most `buffer_max_events`. A normal
    end, of the interpreter too, flushes for up to five seconds. After fork the child is a producer of its own.

    `config` names a `vibezen.yaml` (None: the nearest one upwards, else defaults); `settings` replaces it. `clock`
    gives Unix seconds. Raises ConfigError. With `enabled: false` recording does nothing at all.
    """

    def __init__(
        self,
        config: Path | str | None = None,
        *,
        redis_url: str | None = None,
        settings: Settings | None = None,
        clock: Clock = wall,
    ) -> None:
        if settings is None:
            settings = load(config, redis_url=redis_url)
        elif redis_url is not None:
            redis = msgspec.structs.replace(settings.redis, url=redis_url)
            settings = msgspec.structs.replace(settings, redis=redis)
        super().__init__(clock, enabled=settings.enabled)
        self.settings = settings
        self._clock = clock
        self._gate = Gate(settings)
        self._system = self._gate.system
        safe = settings.durability is Durability.SPOOL
        self._buffer = Buffer(settings.buffer_max_events, spooled_is_safe=safe)
        self._events = self._buffer.events
        self._trigger = settings.buffer_size
        self._ready = False
        self._closed = False
        self._sender = _make_sender(settings, self._buffer) if settings.enabled else None
        if self._sender is not None:
            lifetime.born(self)
            weakref.finalize(self, self._sender.ask_stop).atexit = False

    # --- recording

    def record_nowait(
        self,
        metric: str,
        value: float,
        metadata: Metadata | None = None,
        *,
        ts: float | None = None,
        sample_rate: float | None = None,
    ) -> None:
        """Record one event; synchronous, never blocks.

        `ts`: Unix seconds, now if None. `sample_rate`: says that the caller keeps only this share of its events and
        this is one of them; it replaces the configured sampling. Raises InvalidEvent (a ValueError) when metric,
        value, sample_rate or the number of metadata keys break the contract. The rest is checked by the sender:
        refused, counted and logged once.
        """
        self._put(self._system, metric, value, metadata, ts, sample_rate)

    async def record(
        self,
        metric: str,
        value: float,
        metadata: Metadata | None = None,
        *,
        ts: float | None = None,
        sample_rate: float | None = None,
    ) -> None:
        """`record_nowait` for `await`; it returns at once."""
        self._put(self._system, metric, value, metadata, ts, sample_rate)

    async def record_system_metric(
        self, metric: str, value: float, metadata: Metadata | None = None, *, ts: float | None = None
    ) -> None:
        """As `record`; a metric that is not in the catalogue counts to the system family's switch."""
        self._put(self._system, metric, value, metadata, ts, None)

    async def record_quality_metric(
        self, metric: str, value: float, metadata: Metadata | None = None, *, ts: float | None = None
    ) -> None:
        """As `record`; a metric that is not in the catalogue counts to the quality (learning) family's switch."""
        self._put(self._gate.quality, metric, value, metadata, ts, None)

    async def record_performance_metric(
        self, metric: str, value: float, metadata: Metadata | None = None, *, ts: float | None = None
    ) -> None:
        """As `record`; a metric that is not in the catalogue counts to the performance (practice) family's switch."""
        self._put(self._gate.performance, metric, value, metadata, ts, None)

    def _put(
        self,
        routes: Routes,
        metric: str,
        value: float,
        metadata: Metadata | None,
        ts: float | None,
        sample_rate: float | None,
    ) -> None:
        if not self._ready and not self._prepare():
            return
        try:
            name, rate = routes[metric]
        except (KeyError, TypeError):
            name, rate = self._gate.decide(metric, routes)
        if type(value) is not float or not isfinite(value):
            value = number(value)
        if type(metadata) is dict and len(metadata) <= MAX_METADATA_KEYS:
            own = metadata.copy()
        else:
            own = copied(metadata) if metadata else {}
        if rate != 1.0 or sample_rate is not None:
            rate = self._gate.rate(rate, sample_rate)
            if rate <= 0.0:
                if rate == LEFT_OUT:
                    self._buffer.books.sampled_out.hit()
                return
        self._events.append(Event(name, value, self._clock() if ts is None else ts, rate, 1, own))
        if len(self._events) >= self._trigger:
            self._crowded()

    def _crowded(self) -> None:
        """Enough events wait: wake the sender if it sleeps, let it run if it falls behind, keep the bound."""
        if self._sender is None:
            return
        waiting = len(self._events)
        if waiting >= self._sender.wake_at:
            self._sender.wake()
        if waiting >= _BEHIND and not waiting % _YIELD_EVERY:
            self._sender.is_behind()
            # A thread in a tight loop gives the interpreter up only every 5 ms; the sender, which needs it several
            # times per call, would starve and the buffer overflow. Costs microseconds, and the network is not involved.
            time.sleep(0)
        if waiting > self._buffer.bound and not self._buffer.drop_excess() % _LOOK_EVERY:
            self._sender.is_behind()

    def _prepare(self) -> bool:
        """What a call does while not everything runs: start the sender, or let the event go."""
        if self._sender is None:
            return False
        if self._closed:
            self._buffer.books.drop_unbuffered(CLOSED)
            return False
        self._ready = self._sender.start()
        return True

    def start_anew(self) -> None:
        """In a forked child: what the parent had not sent stays the parent's."""
        self._buffer.start_anew()
        if self._sender is not None:
            self._sender.start_anew()
        self.measure_anew()
        self._ready = False

    # --- measuring

    def measure_duration(self, name: str, metadata: Metadata | None = None) -> Measurement:
        """`async with collector.measure_duration("code_generation") as ctx:` records how long the block takes and
        whether it raises; what it may add through `ctx.metadata` is told at Measurement."""
        return Measurement(name, metadata, self.record_samples)

    def measure(self, name: str, metadata: Metadata | None = None) -> Measurement:
        """The same for `with`."""
        return Measurement(name, metadata, self.record_samples)

    def timed(self, name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """`@collector.timed("load")`: measure every call of a function or coroutine function, by default under its
        own name."""
        return timed(self.measure, name)

    def record_samples(self, samples: Iterator[Sample]) -> None:
        """What a measurement found, as events of now; one that breaks the contract is refused and counted."""
        now = self._clock()
        for metric, value, metadata in samples:
            try:
                self._put(self._system, metric, value, metadata, now, None)
            except InvalidEvent as bad:
                self._buffer.books.refuse_unbuffered(bad.field)
                if self._sender is not None:
                    self._sender.tell_refused(bad.field, bad)

    # --- flushing and closing

    def flush_nowait(self) -> None:
        """Ask the sender to send what waits; returns at once."""
        if self._sender is not None and self._ready:
            self._sender.ask_flush()

    def flush_sync(self, timeout: float = CLOSE_DEADLINE) -> int:
        """Wait until everything recorded before this call is safe, by the `durability` chosen: in the stream, on
        replicas, or on disk. Returns how many events still are not after `timeout` seconds, with those that were
        dropped while it waited."""
        mark = self._buffer.mark()
        self.flush_nowait()
        return self._buffer.unsafe_since(mark, self._buffer.wait_settled(mark.position, timeout))

    def close_sync(self, deadline: float = CLOSE_DEADLINE) -> int:
        """Send what waits and end the sender. Returns how many events are not safe after `deadline` seconds. They are
        left in the spool, for the next process to send; without one they are given up. Recording afterwards is dropped
        and counted. May be called again."""
        self.stop_recording()
        self.end_measuring()
        return self._sender.close(deadline) if self._sender is not None else 0

    def stop_recording(self) -> None:
        """Drop and count what is recorded from now on; sends nothing. The interpreter's end and `close_sync` do it."""
        self._closed, self._ready = True, False

    async def flush(self, timeout: float = CLOSE_DEADLINE) -> int:  # noqa: ASYNC109 - the wait is a thread's
        """`flush_sync` without holding up the event loop."""
        return await _in_thread(self.flush_sync, timeout)

    async def close(self, deadline: float = CLOSE_DEADLINE) -> int:
        """`close_sync` without holding up the event loop."""
        return await _in_thread(self.close_sync, deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tell_left(self.close_sync())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tell_left(await self.close())

    def _tell_left(self, left: int) -> None:
        """Who leaves a block does not get the number that `close` returns."""
        if self._sender is not None:
            self._sender.tell_left(left)

    # --- looking

    def stats(self) -> Stats:
        """What became of everything recorded here, in this process."""
        return self._buffer.stats()

    @property
    def producer(self) -> str | None:
        """The id of this process as a producer; None when collecting is switched off."""
        return self._sender.producer if self._sender is not None else None


def _make_sender(settings: Settings, buffer: Buffer) -> "Sender":
    # Importing redis takes a quarter of a second: not with this module, which applications import at their start, and
    # not on the thread, since a process that forks during an import leaves its child a lock that is never released.
    from vibezen.metrics.producers.sender import Sender

    return Sender(settings, buffer)


async def _in_thread(wait: Callable[[float], int], seconds: float) -> int:
    from anyio import to_thread

    return await to_thread.run_sync(wait, seconds, abandon_on_cancel=True)

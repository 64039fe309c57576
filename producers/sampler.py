"""Gauges read at intervals: one daemon thread per collector, started when there is first something to read."""

import inspect
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, Self

from vibezen.metrics import clock
from vibezen.metrics.producers.measure import Sample

DEFAULT_INTERVAL: Final = 5.0
"""Seconds. Half the finest window, so that no window of a queue that is there stays empty."""
MIN_INTERVAL: Final = 0.01

log = logging.getLogger("vibezen.metrics.collector")


class Counts(Protocol):
    """A queue as `queue`, `asyncio` and `multiprocessing` have them."""

    def qsize(self) -> int: ...


class Measures(Protocol):
    def __len__(self) -> int: ...


Queue = Counts | Measures | Callable[[], float]

Read = Callable[[], Iterable[Sample]]
"""Answers the samples of now; it runs on the sampler's thread."""


def depth_of(queue: Queue) -> Callable[[], float]:
    """How to ask for a queue's depth. TypeError for what has none to ask for."""
    ask = getattr(queue, "qsize", None) or (queue if callable(queue) else getattr(queue, "__len__", None))
    if not callable(ask) or inspect.iscoroutinefunction(ask):
        raise TypeError(
            f"{type(queue).__name__}: expected a queue with qsize(), something with a length, or a function"
        )
    return ask


class Sampling:
    """One gauge that is read every `interval` seconds until `stop()`, the end of a `with`, or the collector's close.

    A reading that fails is counted in `errors`, logged the first time, and tried again at the next interval.
    """

    def __init__(self, name: str, read: Read, interval: float, wake: Callable[[], None]) -> None:
        self.name = name
        self.interval = max(interval, MIN_INTERVAL)
        self.due = clock.monotonic()
        self.errors = 0
        self.stopped = False
        self._read = read
        self._wake = wake

    def stop(self) -> None:
        """No further reading; one that runs now is still recorded."""
        self.stopped = True
        self._wake()

    def read(self, record: Callable[[Iterator[Sample]], None]) -> None:
        self.due = clock.monotonic() + self.interval
        try:
            record(iter(list(self._read())))
        except Exception:
            self.errors += 1
            if self.errors == 1:
                log.warning("%s cannot be sampled; trying on silently", self.name, exc_info=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()


class Sampler:
    """All samplings of one collector. After fork the child has none: its parent goes on reading, and a gauge read by
    both would count twice."""

    def __init__(self, record: Callable[[Iterator[Sample]], None]) -> None:
        self._record = record
        self._closed = False
        self.start_anew()

    def start_anew(self) -> None:
        self._changed = threading.Condition()
        self._samplings: list[Sampling] = []
        self._thread: threading.Thread | None = None

    def add(self, name: str, read: Read, interval: float) -> Sampling:
        sampling = Sampling(name, read, interval, self._wake)
        with self._changed:
            if not self._closed:
                self._samplings.append(sampling)
                self._start()
            self._changed.notify()
        return sampling

    def close(self) -> None:
        """Never waits: a reading may hang in the application's own code."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _start(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._run, name="vibezen-metrics-sampler", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no thread to be had, or the interpreter is ending
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._wait_for_due()
                if due is None:
                    self._thread = None
                    return
            due.read(self._record)

    def _wait_for_due(self) -> Sampling | None:
        """The sampling to read next, once its time has come; None when there is none left."""
        while True:
            self._samplings = [one for one in self._samplings if not one.stopped]
            if self._closed or not self._samplings:
                return None
            first = min(self._samplings, key=lambda one: one.due)
            pause = first.due - clock.monotonic()
            if pause <= 0:
                return first
            self._changed.wait(pause)

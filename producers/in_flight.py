"""How many of something run at the same time, as a gauge that neither floods nor misses a peak."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Final

from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.event import MetadataValue
from vibezen.metrics.producers.measure import Sample
from vibezen.metrics.producers.sampler import Read, Sampling

INTERVAL: Final = 1.0
"""Seconds between looks at it."""
REPEATED: Final = 5
"""Looks after which a number other than 0 is recorded again though nothing changed, so that every window has it."""


class InFlight:
    """A count going up and down, looked at once a second by the collector's sampler.

    A look records the highest number since the last look when that was passed again, then the number now; at most two
    events a second. An unchanged number is repeated every five seconds, an unchanged 0 never. `add` is how it is put
    under the sampler, at first use in each process: a forked worker counts its own.
    """

    def __init__(
        self, name: str, metadata: dict[str, MetadataValue], add: Callable[[str, Read, float], Sampling]
    ) -> None:
        self._name = name
        self._metadata = metadata
        self._add = add
        self._lock = threading.Lock()
        self._process = 0
        self._reset()

    def _reset(self) -> None:
        self._now = self._peak = self._last = self._looks = 0

    def enter(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.Lock()  # the parent's may be held for ever
            self._reset()
            self._add(self._name, self.look, INTERVAL)
        with self._lock:
            self._now += 1
            self._peak = max(self._peak, self._now)

    def leave(self) -> None:
        with self._lock:
            self._now = max(0, self._now - 1)

    def look(self) -> Iterator[Sample]:
        """What to record now."""
        with self._lock:
            now, peak, last = self._now, self._peak, self._last
            self._peak, self._last = now, now
            self._looks = 0 if now != last or peak > now else self._looks + 1
            again = now > 0 and self._looks >= REPEATED
            if again:
                self._looks = 0
        if peak > max(now, last):
            yield MetricType.CONCURRENCY, peak, self._metadata
        if now != last or peak > now or again:
            yield MetricType.CONCURRENCY, now, self._metadata

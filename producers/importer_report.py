"""What an import came to: the balance that must hold, and, for a trial run, what the events are like."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from vibezen.metrics.event import Event
from vibezen.metrics.producers.append import Batch

FIRST_EVENTS: Final = 5
"""Events a trial run shows."""


class Described(msgspec.Struct):
    """The values of one metric."""

    count: int = 0
    min: float = math.inf
    max: float = -math.inf
    sum: float = 0.0


class Balance(msgspec.Struct):
    """One file. A row is rejected whole or gives its events; a value that is not there gives none:
    (rows - rejected) × events per row = events + empty, and events = appended + already there.

    `first`, `last`: the range of time, Unix seconds. `complete`: the source was read to its end (or limit).
    """

    file: str
    key: str
    producer: str
    rows: int = 0
    rejected: int = 0
    events: int = 0
    empty: int = 0
    appended: int = 0
    already_there: int = 0
    complete: bool = False
    first: float | None = None
    last: float | None = None
    metrics: dict[str, Described] | None = None
    first_events: list[msgspec.Raw] | None = None


class Trial:
    """A destination that appends nothing and describes what came, in `metrics` and `first_events` of the balance."""

    def __init__(self, balance: Balance) -> None:
        self._metrics: dict[str, Described] = {}
        self._first: list[msgspec.Raw] = []
        balance.metrics, balance.first_events = self._metrics, self._first
        self._decoder = msgspec.json.Decoder(Event)

    def add(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if len(self._first) < FIRST_EVENTS:
                lines = batch.payload.split(b"\n", FIRST_EVENTS)[: min(batch.n, FIRST_EVENTS - len(self._first))]
                self._first += map(msgspec.Raw, lines)
            for event in self._decoder.decode_lines(batch.payload):
                self._describe(event)

    def _describe(self, event: Event) -> None:
        found = self._metrics.setdefault(event.metric, Described())
        found.count += 1
        found.min, found.max = min(found.min, event.value), max(found.max, event.value)
        found.sum += event.value

    def finish(self, *, whole: bool) -> None:
        pass

    def close(self) -> None:
        pass

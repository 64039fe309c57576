"""From events to batches: the checks `record()` left to the sender, and the encoding.

A good batch, which is nearly every one, is checked by a few passes in C over all events at once. Anything unusual sends
the batch the slow way: event by event, each refused alone.
"""

import enum
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final

import msgspec

from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import (
    MAX_AHEAD,
    MAX_BATCH_BYTES,
    MAX_METADATA_KEYS,
    MAX_VALUE_CHARS,
    MIN_TS,
    Event,
    check_event,
    check_line_size,
    encode_lines,
    known_names,
    lines_fit,
)
from vibezen.metrics.producers.append import Batch
from vibezen.metrics.series import PRODUCER

BATCH_EVENTS: Final = 500
"""Events per entry to aim at: more gains little, and readers work entry by entry."""

_metric_of = attrgetter("metric")

Refuse = Callable[[InvalidEvent], None]

_PLAIN: Final = frozenset((str, int, bool, float, type(None)))
_UNENCODABLE: Final = (TypeError, ValueError, OverflowError)
"""What encoding raises: a type without a JSON form, a lone surrogate."""


def pack(events: Sequence[Event], now: float, refuse: Refuse) -> list[Batch]:
    """Batches of at most BATCH_EVENTS and MAX_BATCH_BYTES, in order. `now`: Unix seconds, for the check of `ts`.

    Events that break the contract are left out; `refuse` is called for each.
    """
    batches: list[Batch] = []
    for start in range(0, len(events), BATCH_EVENTS):
        chunk = events[start : start + BATCH_EVENTS]
        payload = encode_whole(chunk, now)
        if payload is not None and len(payload) <= MAX_BATCH_BYTES:
            batches.append(Batch(len(chunk), payload))
        else:
            batches += split(_encode_each(chunk, now, refuse))
    return batches


def mark_gauges(events: Sequence[Event], gauges: frozenset[str], producer: str) -> None:
    """Let gauges say whose they are: their total is the sum of each producer's newest value, and a line on disk does
    not tell who sent it."""
    if gauges.isdisjoint(map(_metric_of, events)):
        return
    for event in events:
        if event.metric in gauges and len(event.metadata) < MAX_METADATA_KEYS:
            event.metadata.setdefault(PRODUCER, producer)


def encode_whole(events: Sequence[Event], now: float) -> bytes | None:
    """All events as NDJSON; None when any of them needs a closer look.

    For events whose metric, value and number of metadata keys are checked already, and that all have their time.
    """
    try:
        times: Any = [event.ts for event in events]
        if min(times) < MIN_TS or max(times) > now + MAX_AHEAD or not math.isfinite(sum(times)):
            return None
        metadata = [event.metadata for event in events if event.metadata]
        types = set(map(type, chain.from_iterable(map(dict.values, metadata))))
        if not (types <= _PLAIN and known_names().issuperset(set().union(*metadata))):
            return None
        payload = encode_lines(events)
    except _UNENCODABLE:
        return None
    if float in types and b":null" in payload:
        return None  # a NaN or infinity is encoded as null
    # No value is longer than its line; the lines' own limit is wider.
    return payload if lines_fit(payload, MAX_VALUE_CHARS) else None


def _encode_each(events: Sequence[Event], now: float, refuse: Refuse) -> Iterator[bytes]:
    for event in events:
        try:
            check_event(event, now)
            yield encode_line(event)
        except InvalidEvent as bad:
            refuse(bad)


def encode_line(event: Event) -> bytes:
    """One checked event as a line with its newline. Raises InvalidEvent when it has none, or too long a one."""
    metadata = {_exact(key): _exact(value) for key, value in event.metadata.items()}
    try:
        line = encode_lines((msgspec.structs.replace(event, ts=_exact(event.ts), metadata=metadata),))
    except _UNENCODABLE as error:
        raise InvalidEvent("metadata", f"not encodable: {error}") from None
    check_line_size(line[:-1])
    return line


def _exact(value: Any) -> Any:
    """Subclasses of the plain types (NumPy's numbers, enumerations, marked-up strings) as the plain type itself."""
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, enum.Enum):
        return value.value
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain.__str__(value) if plain is str else plain(value)
    return value


def split(lines: Iterator[bytes]) -> Iterator[Batch]:
    """Lines, each with its newline, as batches that keep MAX_BATCH_BYTES."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > MAX_BATCH_BYTES:
            yield Batch(len(held), b"".join(held))
            held, size = [], 0
        held.append(line)
        size += len(line)
    if held:
        yield Batch(len(held), b"".join(held))

"""One recorded fact, and every rule it must keep.

The rules stand in one place because four doors apply them: `record()`, the sender, the gateway and the consumers'
verdict. All of them answer with a field and a reason.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from vibezen.metrics.errors import InvalidEvent, UntimelyEvent

MAX_METADATA_KEYS: Final = 32
MAX_VALUE_CHARS: Final = 1024
"""Characters in a metadata value."""
MAX_LINE_BYTES: Final = 16 * 1024
MAX_BATCH_BYTES: Final = 1024 * 1024
MAX_BATCH_EVENTS: Final = 1000
MIN_TS: Final = 946_684_800.0
"""2000-01-01T00:00:00Z: an older time is a unit mistake, not history."""
MAX_TS: Final = 253_402_300_800.0
"""10000-01-01T00:00:00Z: from there on no calendar has a partition for it, whatever an entry ID claims."""
MAX_AHEAD: Final = 3600.0
"""Seconds an event may lie ahead of the time it arrived."""
MAX_COUNT: Final = 2**32
"""Keeps the counts of a window, which add up, below the 64 bits of their stored form."""
MIN_SAMPLE_RATE: Final = 1e-9
"""One sample in a billion. The inverse of a rate is a weight: that of the smallest double would be infinite."""

WHOLE: Final = 1.0
"""The sample rate of an event that stands for itself alone. The encoder leaves a default out only when it is this very
object, which keeps a tenth of every line off the wire and the disk."""

MetadataValue = str | int | float | bool | None
Metadata = Mapping[str, MetadataValue]

# \Z, not $: with $ a trailing newline would pass.
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,99}\Z")
_NAME_RULE = "expected 1 to 100 characters a-z, 0-9, _ or ., starting with a letter"
_known_names: set[str] = set()
_KNOWN_NAMES_BOUND = 10_000


_NAMED: Final = {"pattern": "^[a-z][a-z0-9_.]{0,99}$"}
"""What `is_name` checks, for descriptions: msgspec does not look at it."""


class Event(msgspec.Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """An event as it stands on a line. `ts`: Unix seconds; None only before the door has filled it in.

    The bounds here are checked while decoding, where they cost nothing; names and the latest time are not among them.
    """

    metric: Annotated[str, Meta(extra_json_schema=_NAMED)]
    value: float
    ts: Annotated[float, Meta(ge=MIN_TS, lt=MAX_TS)] | None = None
    sample_rate: Annotated[float, Meta(ge=MIN_SAMPLE_RATE, le=1)] = 1.0
    count: Annotated[int, Meta(ge=1, le=MAX_COUNT)] = 1
    metadata: Annotated[
        dict[str, Annotated[str, Meta(max_length=MAX_VALUE_CHARS)] | int | float | bool | None],
        Meta(max_length=MAX_METADATA_KEYS, extra_json_schema={"propertyNames": _NAMED}),
    ] = {}


class UnboundedEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event whose bounds `check_event` has yet to judge, in words that name the field."""

    metric: str
    value: float
    ts: float | None = None
    sample_rate: float = 1.0
    count: int = 1
    metadata: dict[str, MetadataValue] = {}


encoder = msgspec.json.Encoder()


def is_name(name: str) -> bool:
    """Whether `name` may be a metric or a metadata key. Names repeat, so a seen one costs a set look-up."""
    if name in _known_names:
        return True
    if not _NAME.match(name):
        return False
    if len(_known_names) < _KNOWN_NAMES_BOUND:
        _known_names.add(name)
    return True


def known_names() -> set[str]:
    """The names found valid so far; a set comparison against it is the fast path of a whole batch."""
    return _known_names


def check_metric(metric: object) -> None:
    if not isinstance(metric, str) or not is_name(metric):
        raise InvalidEvent("metric", f"{shown(metric)} is not a metric name; {_NAME_RULE}")


def check_value(value: object) -> None:
    """In Python booleans count as 0 and 1."""
    if not isinstance(value, int | float):
        raise InvalidEvent("value", f"{shown(value)} is not a number")
    if not _is_finite(value):
        raise InvalidEvent("value", f"{shown(value)} is not a finite number")


def _is_finite(number: float) -> bool:
    """Whether it is a finite double; a whole number may be too large for one."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def check_ts(ts: object, arrived: float) -> None:
    """`arrived`: Unix seconds of the door's clock, or of the stream entry."""
    if isinstance(ts, bool) or not isinstance(ts, int | float) or not _is_finite(ts):
        raise InvalidEvent("ts", f"{shown(ts)} is not a finite number of Unix seconds")
    if ts < MIN_TS:
        raise InvalidEvent("ts", f"{shown(ts)} is before 2000-01-01; expected Unix seconds")
    if ts > arrived + MAX_AHEAD:
        kind = UntimelyEvent if ts < MAX_TS else InvalidEvent
        raise kind("ts", f"{shown(ts)} is more than 1 h ahead of its arrival at {arrived:.3f}; expected Unix seconds")
    if ts >= MAX_TS:
        raise InvalidEvent("ts", f"{shown(ts)} is after the year 9999; expected Unix seconds")


def check_sample_rate(rate: object) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not MIN_SAMPLE_RATE <= rate <= 1:
        raise InvalidEvent("sample_rate", f"{shown(rate)} is not in (0, 1], or below one in a billion")


def check_count(count: object) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise InvalidEvent("count", f"{shown(count)} is not a whole number from 1 to 2**32")


def check_metadata_size(metadata: Metadata) -> None:
    if len(metadata) > MAX_METADATA_KEYS:
        raise InvalidEvent("metadata", f"{len(metadata)} keys; at most {MAX_METADATA_KEYS} are allowed")


def check_metadata(metadata: Metadata) -> None:
    check_metadata_size(metadata)
    items: Iterable[tuple[object, object]] = metadata.items()  # types are a promise, not a fact, at this door
    for key, value in items:
        if not isinstance(key, str) or not is_name(key):
            raise InvalidEvent("metadata", f"{shown(key)} is not a key; {_NAME_RULE}")
        if isinstance(value, str):
            if len(value) > MAX_VALUE_CHARS:
                raise InvalidEvent(f"metadata.{key}", f"{len(value)} characters; at most {MAX_VALUE_CHARS} are allowed")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise InvalidEvent(f"metadata.{key}", f"{value!r} is not a finite number")
        elif value is not None and not isinstance(value, int):
            raise InvalidEvent(f"metadata.{key}", f"{shown(value)} is not a string, number, boolean or null")


def check_event(event: Event | UnboundedEvent, arrived: float) -> None:
    """Every rule at once; raises InvalidEvent for the first that is broken."""
    check_metric(event.metric)
    check_value(event.value)
    if event.ts is not None:
        check_ts(event.ts, arrived)
    check_sample_rate(event.sample_rate)
    check_count(event.count)
    check_metadata(event.metadata)


def lines_fit(payload: bytes, limit: int = MAX_LINE_BYTES) -> bool:
    """Whether no line is longer than `limit` bytes, without cutting the payload into lines."""
    start = 0
    while len(payload) - start > limit:
        end = payload.rfind(b"\n", start, start + limit + 1)
        if end < 0:
            return False
        start = end + 1
    return True


def check_line_size(line: bytes) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise InvalidEvent("event", f"{len(line)} bytes on one line; at most {MAX_LINE_BYTES} are allowed")


def encode_lines(events: Iterable[Event]) -> bytes:
    """NDJSON: one event per line, every line ended by a newline."""
    return encoder.encode_lines(events)


def shown(value: object) -> str:
    """A value as an error names it: one line, not too long."""
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= 80 else text[:77] + "..."

"""The batch codec: what a stream entry says, and how its fields are written and read.

Two shapes are read alike: a batch (fields `v producer seq n events stats`) and a single event in plain fields
(`XADD … * metric response_time value 120 provider openai`).
"""

import math
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from vibezen.metrics.account import Told
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import MAX_BATCH_EVENTS, encoder, is_name, shown

FORMAT_VERSION: Final = 1
MAX_SEQ: Final = 2**53 - 1
"""Event numbers stay below this: Lua numbers are doubles."""

EntryId = str
"""`<milliseconds>-<number>`, as Redis writes it."""

_PLAIN_NUMBERS = ("value", "ts", "sample_rate")
# float() alone would take spaces, underscores, foreign digits and "nan".
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)


class Entry(NamedTuple):
    """A stream entry, read.

    `arrived`: the ID's time in Unix seconds. `producer` is None for a plain entry, which its ID alone identifies.
    `seq` is the number of the batch's first event on this shard, `n` how many events it counts. `told`: what it tells
    of the shard's books, None for what the append script did not write.
    """

    id: EntryId
    arrived: float
    producer: str | None
    seq: int
    n: int
    payload: bytes
    told: Told | None = None


def id_order(entry_id: EntryId) -> tuple[int, int]:
    """IDs compare by these two numbers, never as text."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)


def id_time(entry_id: EntryId) -> float:
    """The server's clock when the entry was appended, in Unix seconds."""
    return int(entry_id.partition("-")[0]) / 1000


def batch_fields(producer: str, seq: int, n: int, events: bytes, stats: bytes) -> list[str | int | bytes]:
    """A batch as the flat field list of XADD."""
    return ["v", FORMAT_VERSION, "producer", producer, "seq", seq, "n", n, "events", events, "stats", stats]


def read_entry(entry_id: bytes | str, fields: Mapping[bytes, bytes]) -> Entry:
    """Read either shape; InvalidEvent when it is neither. The lines themselves are judged later, one by one."""
    name = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    if b"events" in fields:
        return _read_batch(name, fields)
    if b"metric" in fields:
        return Entry(name, id_time(name), None, 0, 1, _plain_line(fields))
    raise InvalidEvent("entry", "neither a batch (field `events`) nor a plain event (field `metric`)")


def read_header(entry_id: EntryId, fields: Mapping[bytes, bytes]) -> Entry:
    """An entry that is not to be looked into: what its header says, without payload. Never raises."""
    if b"events" in fields:
        try:
            return _read_batch(entry_id, fields)._replace(payload=b"")
        except InvalidEvent:
            pass
    return Entry(entry_id, id_time(entry_id), None, 0, 1, b"", read_told(fields))


def _read_batch(name: EntryId, fields: Mapping[bytes, bytes]) -> Entry:
    version = _number(fields, b"v", 1, MAX_SEQ)
    if version != FORMAT_VERSION:
        raise InvalidEvent("v", f"format version {version} is not known; this version reads {FORMAT_VERSION}")
    producer = _text("producer", fields.get(b"producer", b""))
    if not 1 <= len(producer) <= 200:
        raise InvalidEvent("producer", "expected an id of 1 to 200 characters")
    seq = _number(fields, b"seq", 1, MAX_SEQ)
    n = _number(fields, b"n", 1, MAX_BATCH_EVENTS)
    return Entry(name, id_time(name), producer, seq, n, fields[b"events"], read_told(fields))


def read_told(fields: Mapping[bytes, bytes]) -> Told | None:
    """What an entry tells of the shard's books; None when it tells nothing that we understand."""
    epoch, _, events = fields.get(b"books", b"").partition(b" ")
    if not epoch.isdigit() or not events.isdigit() or len(events) > 16:
        return None
    return Told(epoch.decode(), int(events))


def _number(fields: Mapping[bytes, bytes], field: bytes, low: int, high: int) -> int:
    text = fields.get(field, b"")
    # isdigit on bytes is ASCII only; int() alone would take signs, spaces and underscores.
    if not text.isdigit() or len(text) > 16 or not low <= int(text) <= high:
        raise InvalidEvent(field.decode(), f"{text[:40]!r} is not a whole number from {low} to {high}")
    return int(text)


def _plain_line(fields: Mapping[bytes, bytes]) -> bytes:
    """A plain entry's fields as one line; everything that is not an event field is metadata."""
    event: dict[str, object] = {}
    metadata: dict[str, str] = {}
    for raw_key, raw in fields.items():
        key = _text("entry", raw_key)
        text = _text(key, raw)
        if key in _PLAIN_NUMBERS:
            event[key] = _float(key, text)
        elif key == "count":
            event[key] = _number(fields, raw_key, 1, MAX_SEQ)
        elif key == "metric":
            event[key] = text
        else:
            metadata[key] = text
    if metadata:
        event["metadata"] = metadata
    return encoder.encode(event) + b"\n"


def _float(field: str, text: str) -> float:
    if not _NUMBER.match(text):
        raise InvalidEvent(field, f"{shown(text)} is not a number")
    number = float(text)
    if not math.isfinite(number):
        raise InvalidEvent(field, f"{shown(text)} is not a finite number")
    return number


def _text(field: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise InvalidEvent(field if is_name(field) else "entry", f"{shown(raw)} is not valid UTF-8") from None


def cut_lines(payload: bytes, lines: int) -> bytes:
    """`payload` without its first `lines` lines."""
    at = 0
    for _ in range(lines):
        at = payload.find(b"\n", at) + 1
        if at == 0:
            return b""
    return payload[at:]

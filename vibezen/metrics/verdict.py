"""Accept or reject, line by line: the one judgement both groups make.

A pure function of (entry time, bytes): the same for every group, at any time, in any process. That is what lets the
archiver and the aggregator read apart and still agree on what happened.
"""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.errors import InvalidEvent, MalformedEvent, UntimelyEvent
from vibezen.metrics.event import (
    MAX_AHEAD,
    Event,
    UnboundedEvent,
    check_event,
    check_line_size,
    check_ts,
    encode_lines,
    encoder,
    known_names,
    lines_fit,
    shown,
)

_decoder: Final = msgspec.json.Decoder(Event)
_unbounded: Final = msgspec.json.Decoder(UnboundedEvent)
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises. Bytes that are not UTF-8 and deep nesting come as Python's own errors."""
_UNKNOWN_FIELD: Final = "Object contains unknown field `"
_LONGEST_TS: Final = 18
"""Characters: 17 significant digits and a point."""


class Rejected(NamedTuple):
    """A line that is not an event: its number in the batch (from 0), why, and its bytes.

    `field`: the part of the event that `reason` begins with. `kind`: InvalidEvent, or the family of it that it is.
    """

    line: int
    reason: str
    payload: bytes
    field: str
    kind: type[InvalidEvent]


class Verdict(NamedTuple):
    """What a batch of lines came to.

    `lines[i]` is the line of `events[i]`, without its newline; `payload` is all accepted lines as they go to disk, each
    ended by a newline. `lines` is empty when the payload was accepted as it came (cut `payload` when you need them).
    """

    events: Sequence[Event]
    payload: bytes
    lines: Sequence[bytes]
    rejected: Sequence[Rejected]


def judge(payload: bytes, arrived: float) -> Verdict:
    """Judge NDJSON that arrived at `arrived` (Unix seconds; for a stream entry, its ID's time).

    An event without `ts` gets `arrived`.
    """
    whole = _judge_whole(payload, arrived)
    return whole if whole is not None else _judge_lines(_cut(payload), arrived)


def judge_values(values: Sequence[bytes], arrived: float) -> Verdict:
    """The same for JSON values that may span several lines, as in an array; each becomes a line of its own."""
    lines = b"\n".join(values) + b"\n"
    whole = _judge_whole(lines, arrived) if lines.count(b"\n") == len(values) else None
    return whole if whole is not None else _judge_lines(values, arrived)


def _judge_whole(payload: bytes, arrived: float) -> Verdict | None:
    """The fast path: every line is a good event with its time. None when any is not; judge line by line then."""
    try:
        events = _decoder.decode_lines(payload)
    except _UNDECODABLE:
        return None
    if not events or not _one_per_line(payload, len(events)) or not lines_fit(payload):
        return None
    names = known_names()
    latest = arrived + MAX_AHEAD
    for event in events:
        if event.ts is None or event.ts > latest or event.metric not in names:
            return None
        if event.metadata and not names >= event.metadata.keys():
            return None
    return Verdict(events, payload, (), ())


def _one_per_line(payload: bytes, events: int) -> bool:
    """Whether each of the decoded objects stands on one line of its own.

    The decoder also takes objects that share a line or span several. Inside an object a closing brace is never followed
    by an opening one, so with one newline less than objects between such braces, each newline parts two objects.
    """
    return (
        payload.count(b"}\n{") == events - 1
        and payload.count(b"\n") == events
        and payload[:1] == b"{"
        and payload[-2:] == b"}\n"
    )


def _cut(payload: bytes) -> list[bytes]:
    lines = payload.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _judge_lines(raw: Sequence[bytes], arrived: float) -> Verdict:
    events: list[Event] = []
    lines: list[bytes] = []
    rejected: list[Rejected] = []
    for number, line in enumerate(raw):
        try:
            event = decode_line(line, arrived)
            kept = _on_one_line(line) if event.ts is not None else _timed(event, arrived)
        except InvalidEvent as bad:
            rejected.append(Rejected(number, str(bad), line, bad.field, type(bad)))
            continue
        events.append(event)
        lines.append(kept)
    whole = b"".join(line + b"\n" for line in lines)
    return Verdict(events, whole, lines, rejected)


def _on_one_line(line: bytes) -> bytes:
    """A good event's text; between the tokens of JSON, and nowhere else, a newline is as good as a space."""
    return line.strip().replace(b"\n", b" ")


def _timed(event: Event, arrived: float) -> bytes:
    """Give an event its time and write it anew; the new line must keep the rules too, or nobody could read it again."""
    try:
        check_ts(arrived, arrived)
    except InvalidEvent as bad:
        raise UntimelyEvent(bad.field, bad.reason) from None
    event.ts = arrived
    line = encode_lines((event,))[:-1]
    # As if the time had all its digits: how many it has is chance, and the same line must be judged the same later.
    check_line_size(line + b" " * (_LONGEST_TS - len(encoder.encode(arrived))))
    return line


def decode_line(line: bytes, arrived: float) -> Event:
    """One line as a checked event; InvalidEvent says what is wrong with it."""
    check_line_size(line)
    if not line.strip():
        raise MalformedEvent("event", "the line is empty")
    try:
        event = _decoder.decode(line)
    except RecursionError:
        raise MalformedEvent("event", "nested too deeply") from None
    except UnicodeDecodeError:
        raise MalformedEvent("event", "not valid UTF-8") from None
    except msgspec.ValidationError as bad:
        raise _explain(line, arrived, str(bad)) from None
    except msgspec.DecodeError as bad:
        raise _not_json(line, arrived, str(bad)) from None
    check_event(event, arrived)
    return event


def _not_json(line: bytes, arrived: float, message: str) -> InvalidEvent:
    """What JavaScript and Python write for a number that is none is no JSON, but says clearly what was meant."""
    if b"NaN" in line or b"Infinity" in line:
        try:
            check_event(msgspec.convert(json.loads(line), UnboundedEvent), arrived)
        except InvalidEvent as bad:
            return bad
        except (ValueError, RecursionError):  # msgspec's ValidationError is a ValueError
            pass
    return MalformedEvent("event", f"not JSON: {message}")


def _explain(line: bytes, arrived: float, message: str) -> InvalidEvent:
    """Which rule a decodable line breaks: ours where one of ours is broken, else the decoder's."""
    try:
        check_event(_unbounded.decode(line), arrived)
    except InvalidEvent as bad:
        return bad
    except _UNDECODABLE:
        pass  # broken in more than one way; the first is told
    return InvalidEvent(*_field_of(message))


def _field_of(message: str) -> tuple[str, str]:
    """msgspec's "Expected `float`, got `str` - at `$.value`" as (field, reason)."""
    if message.startswith(_UNKNOWN_FIELD):
        # The name is foreign text: it may hold anything, of any length.
        return "event", f"unknown field {shown(message.removeprefix(_UNKNOWN_FIELD)[:-1])}"
    reason, _, path = message.partition(" - at `$")
    return path.strip("`.").removesuffix("[...]") or "event", reason

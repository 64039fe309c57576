"""Taking a body in: which shape it has, what each event in it is judged to be, and the batches that makes.

Shapes: a JSON array of events, one JSON value however many lines it spans, else NDJSON, one event a line.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from vibezen.metrics.event import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from vibezen.metrics.producers.append import Batch
from vibezen.metrics.producers.packing import split
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.verdict import Verdict, judge, judge_values

_SPACE: Final = b" \t\r\n"
"""JSON's; bytes.strip() alone would take more."""
_any: Final = msgspec.json.Decoder(msgspec.Raw)
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])


def judge_body(body: bytes, arrived: float) -> Verdict:
    """Every event of the body, judged by its line (or its place in the array), from 0. `arrived`: Unix seconds.

    Raises ApiError: 400 where there are none, or where an array is no JSON; 413 for too many.
    """
    text = body.strip(_SPACE)
    if text.startswith(b"["):
        return judge_values(_array_values(text), arrived)
    _check_count(text.count(b"\n") + 1 if text else 0)
    return judge_values([text], arrived) if _is_one_value(text) else judge(text + b"\n", arrived)


def batches(verdict: Verdict) -> list[Batch]:
    """The accepted events; more than one batch where the times filled in made it too large for one."""
    if len(verdict.payload) <= MAX_BATCH_BYTES:
        return [Batch(len(verdict.events), verdict.payload)]
    return list(split(_lines(verdict.payload)))


def _lines(payload: bytes) -> Iterator[bytes]:
    return (line + b"\n" for line in payload.split(b"\n")[:-1])


def _check_count(count: int) -> None:
    if count == 0:
        raise ApiError(400, "there are no events in the body", code="empty")
    if count > MAX_BATCH_EVENTS:
        raise ApiError(413, f"{count} events; at most {MAX_BATCH_EVENTS} are taken at a time")


def _array_values(text: bytes) -> Sequence[bytes]:
    try:
        found = _array.decode(text)
        _check_count(len(found))
        return [bytes(value) for value in found]
    except RecursionError:
        raise ApiError(400, "nested too deeply", code="malformed") from None
    except msgspec.DecodeError as bad:
        loose = _loose(text)
        if not isinstance(loose, list):
            raise ApiError(400, f"not a JSON array: {bad}", code="malformed") from None
        _check_count(len(loose))
        return [json.dumps(value).encode() for value in loose]


def _is_one_value(text: bytes) -> bool:
    """Whether it is a JSON value that spans lines, as pretty printers write it."""
    if b"\n" not in text:
        return False
    try:
        _any.decode(text)  # gives up behind the first value, so that lines cost next to nothing
    except RecursionError:
        return False
    except msgspec.DecodeError:
        return isinstance(_loose(text), dict)
    return True


def _loose(text: bytes) -> Any:
    """The text read with NaN and Infinity, which are no JSON: each event is then told by itself what is wrong with it.
    None when it cannot be read that way either."""
    if b"NaN" in text or b"Infinity" in text:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return None

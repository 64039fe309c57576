"""What becomes of dead letters: appended once more as events, or dropped.

Both may be cut off by a crash and done again: a letter is appended under a producer of its own with the number 1, which
the append script takes once.
"""

import zlib
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace
from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.batch import read_entry
from vibezen.metrics.commitlog import DeadLetter
from vibezen.metrics.dead_letters import letter
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.keys import Keys
from vibezen.metrics.producers.append import PACKAGE, Batch, append
from vibezen.metrics.verdict import judge

PER_CALL: Final = 1000
"""Letters taken away by one call of the script."""
NOT_UTF8: Final = "not valid UTF-8"
"""How the reason of a letter ends whose damaged bytes were replaced."""

STATS: Final = b'{"recorded":%d,"appended":%d,"closed":true}'
"""The books of such a producer: what it has is there."""

_decoder: Final = msgspec.json.Decoder(Event)
_fields_decoder: Final = msgspec.json.Decoder(dict[str, str])
"""No event is all strings: its value is a number."""


def requeue(client: Redis, keys: Keys, shard: int, letter_id: str, now: float, *, force: bool = False) -> bool:
    """Append a letter's line as a new event of its original time, and take the letter away; False where there is none.

    `now`: the server's clock, Unix seconds. Raises InvalidEvent, with the letter left where it is, when the line would
    be rejected again; `force` appends it nevertheless. Raises what the client raises, and may be called again then.
    """
    found = letter(client, keys, shard, letter_id)
    if found is None:
        return False
    batch = batch_of(found)
    if not force:
        _require_good(found, batch.payload, now)
    append(client, keys, shard, producer_of(found), 1, [batch], STATS % (batch.n, batch.n))
    return _remove(client, keys, shard, [letter_id], "requeued") == 1


def drop(client: Redis, keys: Keys, shard: int, letter_ids: Sequence[str]) -> int:
    """Take letters away for good; how many were there."""
    return sum(
        _remove(client, keys, shard, letter_ids[start : start + PER_CALL], "dropped")
        for start in range(0, len(letter_ids), PER_CALL)
    )


def producer_of(found: DeadLetter) -> str:
    """Its payload is part of the name: a restored server may give the same id to another letter."""
    return f"requeue-{found.id}-{zlib.crc32(found.payload.encode()):08x}"


def batch_of(found: DeadLetter) -> Batch:
    """What is to be appended: a line, or all lines of an entry that was set aside as a whole."""
    try:
        fields = _fields_decoder.decode(found.payload)
        entry = read_entry(found.id.partition("/")[0], {key.encode(): text.encode() for key, text in fields.items()})
    except (msgspec.DecodeError, RecursionError, InvalidEvent):
        return Batch(1, line_of(found))
    lines = [line_of(replace(found, payload=line.decode())) for line in entry.payload.removesuffix(b"\n").split(b"\n")]
    return Batch(len(lines), b"".join(lines))


def line_of(found: DeadLetter) -> bytes:
    """The payload as a line. One without `ts` gets the time it arrived at first."""
    payload = found.payload.encode()
    try:
        event = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return payload.replace(b"\n", b" ") + b"\n"
    if event.ts is None:
        event.ts = found.at
        return encode_lines((event,))
    return payload.replace(b"\n", b" ") + b"\n"


def _require_good(found: DeadLetter, lines: bytes, now: float) -> None:
    if found.reason.endswith(NOT_UTF8):
        raise InvalidEvent("event", "its damaged bytes are lost, so it would come back as something else")
    for rejected in judge(lines, now).rejected:
        raise InvalidEvent(rejected.field, rejected.reason.removeprefix(f"{rejected.field}: "))


def _remove(
    client: Redis, keys: Keys, shard: int, letter_ids: Sequence[str], fate: Literal["requeued", "dropped"]
) -> int:
    script = scripts.load(PACKAGE, "take_letters")
    return int(scripts.run(client, script, [keys.dead(shard), keys.books(shard)], [f"dead.{fate}", *letter_ids]))

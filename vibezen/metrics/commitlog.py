"""The commit log: what of which segment is data, and how far a shard is read.

One file per shard and epoch, one line per commit: eight hexadecimal digits of CRC-32, a space, JSON. A line that is
torn or does not match its checksum ends the log: nothing after it was ever committed. Records are cumulative only in
what they name; folding them in order gives the state.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

import msgspec

from vibezen.metrics.account import Account
from vibezen.metrics.batch import EntryId


class Extent(msgspec.Struct, array_like=True, frozen=True):
    """The committed part of one segment: bytes [0, end), holding `events` lines with times in [min_ts, max_ts].

    `path` is relative to the events folder; `crc` is the CRC-32 of those bytes. A `closed` segment is no longer held
    open by its writer, so nobody can add to it.
    """

    path: str
    end: int
    events: int
    min_ts: float
    max_ts: float
    crc: int
    closed: bool = False


class Seen(msgspec.Struct, array_like=True, frozen=True):
    """The last number read of a producer, and the entry time (Unix seconds) that brought it."""

    number: int
    at: float


class DeadLetter(msgspec.Struct, frozen=True):
    """A line nobody could accept. `id`: `<entry id>/<line>`; payload as text, damaged bytes replaced."""

    id: str
    reason: str
    at: float
    payload: str


class Counters(msgspec.Struct, frozen=True):
    """Books of one shard's archive, since the store began."""

    entries: int = 0
    events: int = 0
    rejected: int = 0
    duplicates: int = 0
    lost: int = 0
    """Event numbers that producers used up but no entry brought."""
    missing: int = 0
    """Events that were committed and are gone: something else cut or removed their file."""


class Record(msgspec.Struct, omit_defaults=True):
    """One commit. `producers` holds what this commit changed; the first record of a log holds all of them.

    `before` is the position of the commit before, which the server may still show after a crash. `sealed` stands in the
    only record of a log that a successor has closed: all its segments are final. `account`: the group's side of
    the books.
    """

    position: EntryId = "0-0"
    segments: list[Extent] = []
    producers: dict[str, Seen] = {}
    dead: list[DeadLetter] = []
    counters: Counters = Counters()
    before: EntryId = "0-0"
    sealed: bool = False
    account: Account = msgspec.field(default_factory=Account)


class LogState(NamedTuple):
    """A folded log: `length` bytes of it are valid; `extents` by path; `last` is its newest record."""

    length: int
    extents: dict[str, Extent]
    producers: dict[str, Seen]
    last: Record

    @classmethod
    def empty(cls) -> "LogState":
        return cls(0, {}, {}, Record())


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def encode_record(record: Record) -> bytes:
    body = _encoder.encode(record)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def fold(data: bytes) -> LogState:
    """The state that the valid records of a log add up to."""
    return fold_on(LogState.empty(), data)


def fold_on(state: LogState, data: bytes) -> LogState:
    """The state after the valid records that follow it in the log; the given one is used up."""
    length, extents, producers, last = state
    for line in data.splitlines(keepends=True):
        record = _decode(line)
        if record is None:
            break
        length += len(line)
        extents.update((extent.path, extent) for extent in record.segments)
        producers.update(record.producers)
        last = record
    return LogState(length, extents, producers, last)


def read_log(path: Path) -> LogState:
    return fold(path.read_bytes())


def _decode(line: bytes) -> Record | None:
    body = line[9:-1]
    if line[-1:] != b"\n" or line[8:9] != b" " or line[:8] != b"%08x" % zlib.crc32(body):
        return None
    try:
        return _decoder.decode(body)
    except msgspec.MsgspecError:
        return None

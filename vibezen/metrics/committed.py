"""What of the store is data: the committed extents of all shards, as one snapshot.

A snapshot names files and how many of their lines are data. Segments only grow, and are only ever replaced by a file
with the same committed lines, so it stays true while it is read; a file that is gone means: take a new one.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from vibezen.metrics.batch import EntryId, id_order
from vibezen.metrics.clock import HOUR
from vibezen.metrics.commitlog import Extent, LogState, Record, fold_on, read_log
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event import Event
from vibezen.metrics.layout import Layout, hidden, hour_of

ATTEMPTS: Final = 10
"""Looks at the logs before one that stays missing is an error: each is missed only while an owner changes just then."""
BLOCK_BYTES: Final = 1 << 20
_decoder: Final = msgspec.json.Decoder(Event)
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Segment(NamedTuple):
    """The committed part of one segment: the first `size` bytes of `path`, in so many `lines`. A `closed` one holds
    nothing else."""

    path: Path
    hour: int
    size: int
    lines: int
    closed: bool

    def to_read(self) -> Path:
        """Where it lies now: until its first commit was accepted, a segment has a hidden name."""
        veiled = hidden(self.path)
        return veiled if not self.closed and not self.path.exists() and veiled.exists() else self.path


class Snapshot:
    """All that was committed at one moment. `positions`: how far each shard's archive was."""

    def __init__(self, segments: Iterable[Segment], positions: Mapping[int, EntryId]) -> None:
        self.positions = positions
        self._by_hour: dict[int, list[Segment]] = {}
        for segment in segments:
            self._by_hour.setdefault(segment.hour, []).append(segment)

    def hours(self) -> list[int]:
        """The hours that have any event, oldest first, as Unix seconds."""
        return sorted(self._by_hour)

    def lines(self, hour: int) -> int:
        """How many events the hour has."""
        return sum(segment.lines for segment in self._by_hour.get(hour, ()))

    def segments(self, hours: Iterable[int]) -> list[Segment]:
        return [segment for hour in hours for segment in self._by_hour.get(hour, ())]


class _Log:
    """One commit log as far as it was read."""

    def __init__(self) -> None:
        self._inode = 0
        self.state = LogState.empty()

    def read(self, path: Path) -> None:
        """Take in what was appended; all of it when a successor has put another file there."""
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            # A number may be given again to the file that replaces it; that one is shorter, being one record.
            if found.st_ino != self._inode or found.st_size < self.state.length:
                self._inode, self.state = found.st_ino, LogState.empty()
            file.seek(self.state.length)
            self.state = fold_on(self.state, file.read())


class CommittedFiles:
    """Takes snapshots of one store, from any thread; what has not changed since the last one is not read again."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._logs: dict[Path, _Log] = {}

    def snapshot(self) -> Snapshot:
        """What is committed now. Raises StoreError when the logs cannot be read."""
        with self._lock:
            for _ in range(ATTEMPTS):
                try:
                    return self._take()
                except FileNotFoundError:
                    continue
                except (OSError, ValueError) as error:
                    raise StoreError(f"storage folder {self._layout.root}: its commit logs: {error}") from None
        raise StoreError(f"storage folder {self._layout.root}: commit logs come and go while they are read")

    def _take(self) -> Snapshot:
        positions: dict[int, EntryId] = {}
        logs: dict[Path, _Log] = {}
        segments: list[Segment] = []
        for shard in self._layout.shards():
            # A log begins only after the one before was sealed: whoever has listed the newer one cannot find in the
            # older what a sleeping owner added too late.
            for _, path in self._layout.logs(shard):
                logs[path] = log = self._logs.get(path) or _Log()
                log.read(path)
                position = log.state.last.position
                if shard not in positions or id_order(position) > id_order(positions[shard]):
                    positions[shard] = position
                segments += map(self._segment, log.state.extents.values())
        self._logs = logs
        return Snapshot(segments, positions)

    def _segment(self, extent: Extent) -> Segment:
        path = self._layout.events / extent.path
        return Segment(path, hour_of(extent.path), extent.end, extent.events, extent.closed)


class Committed(NamedTuple):
    """What one shard's logs say at one moment. `extents`, by path, hold every event up to `last.position`, and nothing
    from behind it."""

    extents: Mapping[str, Extent]
    last: Record


def committed(layout: Layout, shard: int) -> Committed:
    """Read from the logs of one shard. Raises StoreError."""
    for _ in range(ATTEMPTS):
        try:
            states = [read_log(path) for _, path in layout.logs(shard)]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise StoreError(f"storage folder {layout.root}: its commit logs: {error}") from None
        extents = {path: extent for state in states for path, extent in state.extents.items()}
        return Committed(extents, states[-1].last if states else Record())
    raise StoreError(f"storage folder {layout.root}: commit logs come and go while they are read")


def open_committed(layout: Layout, extent: Extent) -> BinaryIO:
    """The file of an extent, under whichever name it has now. Raises FileNotFoundError."""
    path = layout.events / extent.path
    # It may get its name, or be replaced by a copy, between two looks; it never gets the hidden one back.
    for name in (path, hidden(path)):
        try:
            return name.open("rb")
        except FileNotFoundError:
            continue
    return path.open("rb")


def blocks(file: BinaryIO, end: int) -> Iterator[bytes]:
    """The first `end` bytes of a file, whole lines at a time; a last line that was cut comes last."""
    left, rest = end, b""
    while left and (read := file.read(min(left, BLOCK_BYTES))):
        left -= len(read)
        whole, newline, rest = (rest + read).rpartition(b"\n")
        if newline:
            yield whole + newline
    if rest:
        yield rest


def events_of(block: bytes) -> list[Event]:
    """The events of a block of lines. What somebody has damaged is left out, and told by `verify`."""
    try:
        events = _decoder.decode_lines(block)
    except _UNDECODABLE:
        events = []
        for line in block.splitlines():
            with suppress(*_UNDECODABLE):
                events.append(_decoder.decode(line))
    return events if all(event.ts is not None for event in events) else [one for one in events if one.ts is not None]


def hours_of(since: float, until: float) -> range:
    """The hours that [since, until) touches, each by the Unix seconds at which it begins."""
    return range(int(since // HOUR) * HOUR, int(-(-until // HOUR)) * HOUR, HOUR)

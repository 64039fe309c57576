"""What of the store is data: the committed extents of all shards, as one snapshot.

Commit logs tell which segments there are and how much of each is data; parts tell which of those not to read any more.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from vibezen.metrics.batch import EntryId, id_order
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.commitlog import Extent, LogState, Record, fold_on, read_log
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event import Event
from vibezen.metrics.layout import Layout, hidden, hour_of
from vibezen.metrics.part_files import PartFiles
from vibezen.metrics.parts import View, date_of
from vibezen.metrics.snapshot import Files, PartSpan, Segment, Snapshot

__all__ = ["Committed", "CommittedFiles", "Files", "PartSpan", "Segment", "Snapshot", "blocks", "committed"]
__all__ += ["events_of", "hours_of", "open_committed"]

ATTEMPTS: Final = 10
"""Looks at the logs before one that stays missing is an error: each is missed only while an owner changes just then."""
_MANY_HOURS: Final = 10_000
"""From so many on, the dates that have a folder are fewer than those asked about."""
BLOCK_BYTES: Final = 1 << 20
_decoder: Final = msgspec.json.Decoder(Event)
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@lru_cache(maxsize=100_000)
def _hour_of(folder: str) -> int:
    return hour_of(f"{folder}/")


class _Log:
    """One commit log as far as it was read: what it names by hour and path."""

    def __init__(self) -> None:
        self._inode = self._length = 0
        self.last = Record()
        self.by_hour: dict[int, dict[str, Extent]] = {}

    def read(self, path: Path) -> None:
        """Take in what was appended; all of it when a successor has put another file there."""
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            # A number may be given again to the file that replaces it; that one is shorter, being one record.
            if found.st_ino != self._inode or found.st_size < self._length:
                self._inode, self._length, self.last, self.by_hour = found.st_ino, 0, Record(), {}
            file.seek(self._length)
            added = fold_on(LogState(self._length, {}, {}, self.last), file.read())
        for name, extent in added.extents.items():
            self.by_hour.setdefault(_hour_of(os.path.dirname(name)), {})[name] = extent
        self._length, self.last = added.length, added.last


class CommittedFiles:
    """Takes snapshots of one store, from any thread; what has not changed since the last one is not read again."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._parts = PartFiles(layout)
        self._logs: dict[Path, _Log] = {}
        self._sealed: set[Path] = set()
        self._sealed_hours: dict[int, dict[str, Extent]] = {}

    def snapshot(self, within: range | None = None) -> Snapshot:
        """What is committed now; `within`: the hours that matter, None for all. Raises StoreError when the logs or
        parts cannot be read."""
        for _ in range(ATTEMPTS):
            try:
                return self._take(within)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise StoreError(f"storage folder {self._layout.root}: its commit logs: {error}") from None
        raise StoreError(f"storage folder {self._layout.root}: commit logs come and go while they are read")

    def _take(self, within: range | None) -> Snapshot:
        # Parts before logs: then every segment that a part includes stands in a log that is read, and none that the
        # logs do not know of is in a part.
        views = self._parts.views(self._dates(within))
        with self._lock:
            return self._of_logs(within, views)

    def _dates(self, within: range | None) -> list[int]:
        if within is None or len(within) > _MANY_HOURS:
            dates = self._layout.dates()
            return dates if within is None else [date for date in dates if within.start - DAY < date < within.stop]
        return sorted({date_of(hour) for hour in within})

    def _of_logs(self, within: range | None, views: Mapping[int, View]) -> Snapshot:
        positions: dict[int, EntryId] = {}
        logs: dict[Path, _Log] = {}
        for shard in self._layout.shards():
            # A log begins only after the one before was sealed: whoever has listed the newer one cannot find in the
            # older what a sleeping owner added too late.
            for _, path in self._layout.logs(shard):
                logs[path] = log = self._logs.get(path) or _Log()
                if not log.last.sealed:
                    log.read(path)
                position = log.last.position
                if shard not in positions or id_order(position) > id_order(positions[shard]):
                    positions[shard] = position
        self._take_in(logs)
        by_hour = _within(within, self._sealed_hours, {})
        for path, log in logs.items():
            if path not in self._sealed:
                by_hour = _within(within, log.by_hour, by_hour)
        return Snapshot(by_hour, positions, views, self._layout.events, within)

    def _take_in(self, logs: dict[Path, _Log]) -> None:
        """Segments of logs that nobody changes any more are put together once, not at each snapshot."""
        self._logs = logs
        if not self._sealed <= logs.keys():  # one is gone, with all that it named
            self._sealed, self._sealed_hours = set(), {}
        for path, log in logs.items():
            if log.last.sealed and path not in self._sealed:
                self._sealed.add(path)
                for hour, segments in log.by_hour.items():
                    self._sealed_hours.setdefault(hour, {}).update(segments)


def _within(
    within: range | None, by_hour: Mapping[int, dict[str, Extent]], into: dict[int, dict[str, Extent]]
) -> dict[int, dict[str, Extent]]:
    """`into` with the extents of these hours, in time that does not grow with the number of other hours."""
    if within is None:
        hours: Iterable[int] = by_hour
    elif len(within) < len(by_hour):
        hours = within
    else:
        hours = (hour for hour in by_hour if hour in within)
    for hour in hours:
        if hour in by_hour:
            into[hour] = {**into.get(hour, {}), **by_hour[hour]}
    return into


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

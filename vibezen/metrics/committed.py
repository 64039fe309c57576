"""What of the store is data: the committed extents of all shards, as one snapshot.

A snapshot names files and how many of their lines are data. Segments only grow, and are only ever replaced by a file
with the same committed lines, so it stays true while it is read; a file that is gone means: take a new one.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
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
from vibezen.metrics.parts import Part, View, date_of

ATTEMPTS: Final = 10
"""Looks at the logs before one that stays missing is an error: each is missed only while an owner changes just then."""
_MANY_HOURS: Final = 10_000
"""From so many on, the dates that have a folder are fewer than those asked about."""
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


class PartSpan(NamedTuple):
    """A part, or of its rows those in `spans`, [since, until) in Unix seconds each. `hours`: those it is read for."""

    part: Part
    path: Path
    hours: tuple[int, ...]
    spans: tuple[tuple[int, int], ...] | None


class Files(NamedTuple):
    """What is to be read for some hours: every event of theirs is in exactly one of these."""

    segments: Sequence[Segment] = ()
    parts: Sequence[PartSpan] = ()

    def __bool__(self) -> bool:
        return bool(self.segments or self.parts)

    @property
    def lines(self) -> int:
        """How many events these are."""
        return sum(one.lines for one in self.segments) + sum(
            span.part.footer.hours[hour].events for span in self.parts for hour in span.hours
        )

    def identity(self) -> tuple[tuple[str, int], ...]:
        """The same for as long as the same events are read: each file with what of it is data."""
        segments = ((str(one.path), one.size) for one in self.segments)
        return (*segments, *((str(one.path), one.part.footer.generation) for one in self.parts))

    @property
    def closed(self) -> "Files":
        """Those that do not grow."""
        return Files([one for one in self.segments if one.closed], self.parts)

    @property
    def still_open(self) -> "Files":
        return Files([one for one in self.segments if not one.closed])


class Snapshot:
    """All that was committed at one moment, of the hours that were asked about at least. `positions`: how far each
    shard's archive was."""

    def __init__(
        self,
        by_hour: Mapping[int, Sequence[Segment]],
        positions: Mapping[int, EntryId],
        views: Mapping[int, View],
        events: Path,
        within: range | None = None,
    ) -> None:
        self.positions = positions
        self._by_hour, self._views, self._events, self._within = by_hour, views, events, within

    def hours(self) -> list[int]:
        """The hours that have any event, oldest first, as Unix seconds."""
        within = self._within
        compacted = {hour for view in self._views.values() for hour in view.by_hour if within is None or hour in within}
        if within is None:
            known: Iterable[int] = self._by_hour
        elif len(within) < len(self._by_hour):
            known = within
        else:
            known = (hour for hour in self._by_hour if hour in within)
        return sorted(compacted.union(hour for hour in known if self._segments(hour)))

    def lines(self, hour: int) -> int:
        """How many events the hour has."""
        return self.files([hour]).lines

    def files(self, hours: Iterable[int]) -> Files:
        hours = list(hours)
        by_part: dict[str, list[int]] = {}
        parts: dict[str, Part] = {}
        for hour in hours:
            part = self._part(hour)
            if part is not None:
                parts[part.path] = part
                by_part.setdefault(part.path, []).append(hour)
        segments = [segment for hour in hours for segment in self._segments(hour)]
        return Files(segments, [self._span(parts[path], tuple(some)) for path, some in by_part.items()])

    def _part(self, hour: int) -> Part | None:
        view = self._views.get(date_of(hour))
        return view.by_hour.get(hour) if view else None

    def _segments(self, hour: int) -> Sequence[Segment]:
        """Those of the hour that no part includes."""
        segments, view = self._by_hour.get(hour, ()), self._views.get(date_of(hour))
        if view is None or not segments:
            return segments
        return [one for one in segments if one.path.relative_to(self._events).as_posix() not in view.included]

    def _span(self, part: Part, hours: tuple[int, ...]) -> PartSpan:
        spans = None if set(part.footer.hours) <= set(hours) else _runs(hours)
        return PartSpan(part, self._events / part.path, hours, spans)


def _runs(hours: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Hours as the runs they form."""
    runs: list[tuple[int, int]] = []
    for hour in sorted(hours):
        if runs and runs[-1][1] == hour:
            runs[-1] = (runs[-1][0], hour + HOUR)
        else:
            runs.append((hour, hour + HOUR))
    return tuple(runs)


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
        self._parts = PartFiles(layout)
        self._logs: dict[Path, _Log] = {}
        self._sealed: frozenset[Path] = frozenset()
        self._sealed_hours: dict[int, list[Segment]] = {}

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
                if not log.state.last.sealed:
                    log.read(path)
                position = log.state.last.position
                if shard not in positions or id_order(position) > id_order(positions[shard]):
                    positions[shard] = position
        self._logs = logs
        by_hour = self._of_sealed(frozenset(path for path, log in logs.items() if log.state.last.sealed))
        for path, log in logs.items():
            if path not in self._sealed:
                for segment in self._segments(log):
                    by_hour[segment.hour] = [*by_hour.get(segment.hour, ()), segment]
        return Snapshot(by_hour, positions, views, self._layout.events, within)

    def _of_sealed(self, sealed: frozenset[Path]) -> dict[int, list[Segment]]:
        """The segments of logs that nobody changes any more: looked through once, not at each snapshot."""
        if sealed != self._sealed:
            self._sealed, self._sealed_hours = sealed, {}
            for path in sorted(sealed):
                for segment in self._segments(self._logs[path]):
                    self._sealed_hours.setdefault(segment.hour, []).append(segment)
        return dict(self._sealed_hours)

    def _segments(self, log: _Log) -> Iterator[Segment]:
        for extent in log.state.extents.values():
            yield Segment(
                self._layout.events / extent.path, hour_of(extent.path), extent.end, extent.events, extent.closed
            )


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

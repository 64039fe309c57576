"""What of the store is data at one moment: parts, and the committed lines of segments that no part includes.

A snapshot names files and how many of their lines are data. Segments only grow, and are only ever replaced by a file
with the same committed lines; parts never change. So it stays true while it is read; a file that is gone means: take a
new one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vibezen.metrics.batch import EntryId
from vibezen.metrics.clock import HOUR
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.layout import hidden
from vibezen.metrics.parts import Part, View, date_of
from vibezen.metrics.places import place_of


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
    """A part, or of its rows those in `spans`, [since, until) in Unix seconds each. `place`: the file its rows lie
    in, which for one that was moved is there while it is `at_hand`. `hours`: those it is read for."""

    part: Part
    place: str
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
        return (*segments, *((one.place, one.part.footer.generation) for one in self.parts))

    @property
    def closed(self) -> "Files":
        """Those that do not grow."""
        return Files([one for one in self.segments if one.closed], self.parts)

    @property
    def still_open(self) -> "Files":
        return Files([one for one in self.segments if not one.closed])


class Snapshot:
    """All that was committed at one moment, of the hours that were asked about. `positions`: how far each shard's
    archive was. `by_hour`: what logs name, by its path below the events
    folder."""

    def __init__(
        self,
        by_hour: Mapping[int, Mapping[str, Extent]],
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
        return sorted(compacted.union(hour for hour in self._by_hour if self._segments(hour)))

    def lines(self, hour: int) -> int:
        """How many events the hour has."""
        return self.files([hour]).lines

    def files(self, hours: Iterable[int]) -> Files:
        hours = sorted(set(hours))
        by_part: dict[str, list[int]] = {}
        parts: dict[str, Part] = {}
        for hour in hours:
            part = self._part(hour)
            if part is not None:
                parts[part.path] = part
                by_part.setdefault(part.path, []).append(hour)
        segments = [segment for hour in hours for segment in self._segments(hour)]
        return Files(segments, [self._span(parts[path], some) for path, some in by_part.items()])

    def closed_part(self, hour: int) -> Part | None:
        """The part that has all events of an hour; None where segments have more, or it has none."""
        part = self._part(hour)
        return None if part is None or self._segments(hour) else part

    def _part(self, hour: int) -> Part | None:
        view = self._views.get(date_of(hour))
        return view.by_hour.get(hour) if view else None

    def _segments(self, hour: int) -> Sequence[Segment]:
        """Those of the hour that no part includes."""
        extents, view = self._by_hour.get(hour), self._views.get(date_of(hour))
        if not extents:
            return ()
        included: Collection[str] = view.included if view else ()
        return [
            Segment(self._events / path, hour, extent.end, extent.events, extent.closed)
            for path, extent in extents.items()
            if path not in included
        ]

    def _span(self, part: Part, hours: Sequence[int]) -> PartSpan:
        spans = None if part.footer.hours.keys() <= set(hours) else runs_of(hours)
        moved = part.footer.moved
        place = self._events / part.path if moved is None else place_of(self._events.parent, moved)
        return PartSpan(part, str(place), tuple(hours), spans)


def runs_of(hours: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Hours, in ascending order, as the runs they form."""
    runs: list[tuple[int, int]] = []
    for hour in hours:
        if runs and runs[-1][1] == hour:
            runs[-1] = (runs[-1][0], hour + HOUR)
        else:
            runs.append((hour, hour + HOUR))
    return tuple(runs)

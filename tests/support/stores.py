"""Stores without a pipeline: segments and the commit log that names them, written as an archiver would leave them."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vibezen.metrics.clock import HOUR
from vibezen.metrics.commitlog import Extent, Record, encode_record
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.layout import Layout, SegmentName, partition_of


class Store:
    """One store, one shard. Each `add` is committed as one more segment per hour."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.layout.create()
        self._segments = 0

    def add(self, events: Iterable[Event], *, closed: bool = True, behind: bytes = b"") -> list[Path]:
        """The new segments, oldest hour first. `behind`: bytes in each file that were never committed."""
        hours: dict[int, list[Event]] = {}
        for event in events:
            assert event.ts is not None
            hours.setdefault(int(event.ts // HOUR) * HOUR, []).append(event)
        return [self.add_lines(hour, encode_lines(found), len(found), closed, behind) for hour, found in by_hour(hours)]

    def add_lines(self, hour: int, lines: bytes, count: int, closed: bool = True, behind: bytes = b"") -> Path:
        self._segments += 1
        path = self.layout.segment(partition_of(hour), SegmentName(0, 1, self._segments))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines + behind)
        name = str(path.relative_to(self.layout.events))
        extent = Extent(name, len(lines), count, hour, hour + HOUR - 1, zlib.crc32(lines), closed)
        with self.layout.log(0, 1).open("ab") as file:
            file.write(encode_record(Record(position=f"1-{self._segments}", segments=[extent])))
        return path


def by_hour(hours: Mapping[int, Sequence[Event]]) -> list[tuple[int, Sequence[Event]]]:
    return sorted(hours.items())

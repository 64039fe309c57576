"""The segments a shard's owner holds open: one per partition it writes to.

Bytes become data when a commit record names them, not before. A new segment carries a hidden name until the first
commit that fills it was accepted; a stale owner's commit is refused, so its late segments never show.
"""

import os
import zlib
from pathlib import Path
from typing import Final

from vibezen.metrics.clock import Clock
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.config import Archive
from vibezen.metrics.errors import Fenced
from vibezen.metrics.layout import FILE_MODE, Layout, SegmentName, fsync_folder, hidden, make_folder, write_all

OPEN_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


class Segment:
    """One open file. Lines gather in memory until `write`; `extent` tells what is written."""

    def __init__(self, path: Path, relative: str, born: float) -> None:
        self.path = path
        self.relative = relative
        self.born = born
        self.public = False
        self._fd = os.open(hidden(path), OPEN_FLAGS, FILE_MODE)
        self._lines: list[bytes] = []
        self.end = 0
        self.events = 0
        self.min_ts = float("inf")
        self.max_ts = float("-inf")
        self.crc = 0

    def add(self, lines: bytes, events: int, min_ts: float, max_ts: float) -> None:
        self._lines.append(lines)
        self.events += events
        self.min_ts = min(self.min_ts, min_ts)
        self.max_ts = max(self.max_ts, max_ts)

    def write(self) -> None:
        """Put the gathered lines into the file and make them durable."""
        data = b"".join(self._lines)
        self._lines.clear()
        write_all(self._fd, data)
        os.fdatasync(self._fd)
        self.end += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def extent(self, *, closed: bool = False) -> Extent:
        return Extent(self.relative, self.end, self.events, self.min_ts, self.max_ts, self.crc, closed)

    def publish(self) -> None:
        """Give it its public name. Raises Fenced when a successor has already sealed it."""
        if self.public:
            return
        try:
            # link, not rename: it must not replace a sealed copy that a successor put there.
            os.link(hidden(self.path), self.path)
            os.unlink(hidden(self.path))
        except (FileExistsError, FileNotFoundError):
            raise Fenced(f"segment {self.relative}: a successor has sealed it") from None
        self.public = True

    def close(self) -> None:
        os.close(self._fd)


class Segments:
    """All open segments of one owner, at most `policy.max_open_segments`."""

    def __init__(self, layout: Layout, shard: int, epoch: int, policy: Archive, now: Clock) -> None:
        self._layout = layout
        self._shard, self._epoch = shard, epoch
        self._policy = policy
        self._now = now
        self._open: dict[str, Segment] = {}
        self._touched: dict[str, Segment] = {}
        self._number = 0

    def add(self, partition: str, lines: bytes, events: int, min_ts: float, max_ts: float) -> None:
        segment = self._touched.get(partition)
        if segment is None:
            segment = self._open.pop(partition, None) or self._new(partition)
            self._open[partition] = segment  # least recently used first
            self._touched[partition] = segment
        segment.add(lines, events, min_ts, max_ts)

    def _new(self, partition: str) -> Segment:
        self._number += 1
        path = self._layout.segment(partition, SegmentName(self._shard, self._epoch, self._number))
        make_folder(path.parent)
        segment = Segment(path, str(path.relative_to(self._layout.events)), self._now())
        fsync_folder(path.parent)
        return segment

    def write(self) -> list[Segment]:
        """Make all gathered lines durable; the segments they went to."""
        written = list(self._touched.values())
        for segment in written:
            segment.write()
        self._touched.clear()
        return written

    def roll(self) -> list[Extent]:
        """Close the segments that are large, old or too many. The next commit record must name them as closed."""
        born_before = self._now() - self._policy.segment_age_seconds
        surplus = len(self._open) - self._policy.max_open_segments
        closed = []
        for position, (partition, segment) in enumerate(list(self._open.items())):
            if position < surplus or segment.end >= self._policy.segment_bytes or segment.born <= born_before:
                segment.close()
                del self._open[partition]
                closed.append(segment.extent(closed=True))
        return closed

    def close(self) -> None:
        for segment in self._open.values():
            segment.close()
        self._open.clear()
        self._touched.clear()

"""The segments a shard's owner holds open: one per partition it writes to.

Bytes become data when a commit record names them, not before. A new segment carries a hidden name until the first
commit that fills it was accepted; a stale owner's commit is refused, so its late segments never show.
"""

import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from vibezen.metrics.clock import monotonic
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.errors import Fenced
from vibezen.metrics.layout import FILE_MODE, Layout, SegmentName, append_all, fsync_folder, hidden, make_folder, space
from vibezen.metrics.settings import Archive

ALIVE_SECONDS: Final = 1.0
"""Between two signs of life while files are written."""
OPEN_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC


class Segment:
    """One file, made by the first `write`. Lines gather in memory until then; `extent` tells what is written."""

    def __init__(self, path: Path, relative: str, born: float) -> None:
        self.path = path
        self.relative = relative
        self.born = born
        self.public = False
        self._fd: int | None = None
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
        """Put the gathered lines into the file and make them durable. After StoreFull it can be called again."""
        if not self._lines:
            return
        fd = self._open() if self._fd is None else self._fd
        data = b"".join(self._lines)
        append_all(fd, self.end, data)
        os.fdatasync(fd)
        self._lines.clear()
        self.end += len(data)
        self.crc = zlib.crc32(data, self.crc)

    def _open(self) -> int:
        self._fd = fd = self._create()
        for folder in self.path.parents[:3]:  # a crash may have come between making a folder and this
            fsync_folder(folder)
        return fd

    def _create(self) -> int:
        while True:
            make_folder(self.path.parent)
            # A compactor removes empty folders of old hours.
            with suppress(FileNotFoundError), space():
                return os.open(hidden(self.path), OPEN_FLAGS, FILE_MODE)

    def extent(self, *, closed: bool = False) -> Extent:
        return Extent(self.relative, self.end, self.events, self.min_ts, self.max_ts, self.crc, closed)

    def publish(self) -> None:
        """Give it its public name. Raises Fenced when a successor has already sealed it."""
        if self.public:
            return
        try:
            # link, not rename: it must not replace a sealed copy that a successor put there.
            with space():
                os.link(hidden(self.path), self.path)
            os.unlink(hidden(self.path))
        except (FileExistsError, FileNotFoundError):
            raise Fenced(f"segment {self.relative}: a successor has sealed it") from None
        self.public = True

    def close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


class Segments:
    """All open segments of one owner, at most `policy.max_open_segments`."""

    def __init__(self, layout: Layout, shard: int, epoch: int, policy: Archive) -> None:
        self._layout = layout
        self._shard, self._epoch = shard, epoch
        self._policy = policy
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
        return Segment(path, str(path.relative_to(self._layout.events)), monotonic())

    def write(self, alive: Callable[[], None]) -> list[Extent]:
        """Make all gathered lines durable; what of the files they went to is data once a record names it. Until
        `publish` the same is answered again: nothing is forgotten when a later step finds no space.

        `alive` is called now and then: history of a thousand hours in one commit takes longer than a lease."""
        surplus = len(self._open) - self._policy.max_open_segments
        too_many = set(list(self._open)[:surplus]) if surplus > 0 else ()
        told = monotonic()
        for partition, segment in self._touched.items():
            segment.write()
            if partition in too_many:  # which `roll` closes for good: a process has only so many descriptors
                segment.close()
            if monotonic() - told >= ALIVE_SECONDS:
                told = monotonic()
                alive()
        return [segment.extent() for segment in self._touched.values()]

    def publish(self) -> None:
        """Show the segments whose data is confirmed. Raises Fenced when a successor has sealed one of them."""
        for segment in self._touched.values():
            segment.publish()
        self._touched.clear()

    def roll(self) -> list[Extent]:
        """Close the segments that are large, old or too many. The next commit record must name them as closed."""
        born_before = monotonic() - self._policy.segment_age_seconds
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

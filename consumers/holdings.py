"""What the store holds, as a compactor sees it at one moment: parts, and the segments that no part includes yet.

Two compactors may look at the same time, and one of them may sleep before it publishes. Readers are right all the same
as long as of two looks at an hour the later one finds every segment final that the earlier one did. So a segment is
taken only when nothing can take it back: when its log is sealed, or when nobody had raised the fence of its shard after
the log was read. Then no successor had looked at the log yet, and what a successor finds closed, it leaves.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

from vibezen.metrics.commitlog import Extent, LogState, read_log
from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import Layout, hour_of
from vibezen.metrics.part_files import PartFiles
from vibezen.metrics.parts import View, date_of

ATTEMPTS: Final = 10
"""Looks at logs and parts that come and go before that is an error."""

FenceEpoch = Callable[[int], int | None]
"""The epoch of a shard's archive by its fence, as the server has it now; None when it knows none."""


class State(StrEnum):
    OPEN = "open"
    CLOSED = "closed"
    DOUBTFUL = "doubtful"
    """Closed, but its owner is being replaced: soon it is certain."""


class Pending(NamedTuple):
    """A segment that no part includes. `written`: Unix seconds of its last change, 0 for one that is gone."""

    extent: Extent
    shard: int
    state: State
    written: float = 0.0

    @property
    def hour(self) -> int:
        return hour_of(self.extent.path)


class Holding(NamedTuple):
    """What there is of one UTC date."""

    date: int
    view: View
    pending: Sequence[Pending]

    def of(self, hour: int) -> list[Pending]:
        return [one for one in self.pending if one.hour == hour]


class LogFile(NamedTuple):
    """A commit log. `live`: it is not sealed, and stands for what its shard's owner does now."""

    shard: int
    epoch: int
    path: Path
    extents: dict[str, Extent]
    sealed: bool


class Holdings:
    """Looks at one store again and again; what nobody changes any more is read once."""

    def __init__(self, layout: Layout, fence_epoch: FenceEpoch) -> None:
        self._layout, self._fence_epoch = layout, fence_epoch
        self._parts = PartFiles(layout)
        self._sealed: dict[Path, LogFile] = {}
        self.logs: list[LogFile] = []
        """Those of the last look."""
        self.unreadable: dict[int, str] = {}
        """Dates of the last look that are left alone, since a part of theirs cannot be read, and why."""

    def look(self) -> list[Holding]:
        """All dates that have a part or a segment, oldest first. Raises StoreError."""
        for _ in range(ATTEMPTS):
            try:
                return self._look()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise StoreError(f"storage folder {self._layout.root}: {error}") from None
        raise StoreError(f"storage folder {self._layout.root}: logs and parts come and go while they are read")

    def _look(self) -> list[Holding]:
        # Parts before logs, as readers do: then every segment that is in a part is known to be.
        views = self._views()
        self.logs = list(self._read_logs())
        pending: dict[int, list[Pending]] = {date: [] for date in views}
        for log in self.logs:
            certain = log.sealed or self._is_certain(log)
            for extent in log.extents.values():
                date = date_of(hour_of(extent.path))
                if date in self.unreadable:
                    continue
                if date not in views or extent.path not in views[date].included:
                    pending.setdefault(date, []).append(self._pending(log.shard, extent, certain=certain))
        empty = View({}, frozenset())
        return [Holding(date, views.get(date, empty), found) for date, found in sorted(pending.items())]

    def _views(self) -> dict[int, View]:
        views: dict[int, View] = {}
        self.unreadable = {}
        for date in self._layout.dates():
            try:
                views |= self._parts.views([date])
            except StoreError as error:
                self.unreadable[date] = str(error)
        return views

    def _read_logs(self) -> Iterator[LogFile]:
        sealed = {}
        for shard in self._layout.shards():
            for epoch, path in self._layout.logs(shard):
                known = self._sealed.get(path) or _log_file(shard, epoch, path, read_log(path))
                if known.sealed:
                    sealed[path] = known
                yield known
        self._sealed = sealed

    def _is_certain(self, log: LogFile) -> bool:
        raised = self._fence_epoch(log.shard) != log.epoch
        return not raised and not self._layout.closing(log.shard, log.epoch).exists()

    def _pending(self, shard: int, extent: Extent, *, certain: bool) -> Pending:
        if not extent.closed:
            return Pending(extent, shard, State.OPEN)
        try:
            written = (self._layout.events / extent.path).stat().st_mtime
        except FileNotFoundError:
            written = 0.0
        return Pending(extent, shard, State.CLOSED if certain else State.DOUBTFUL, written)


def _log_file(shard: int, epoch: int, path: Path, state: LogState) -> LogFile:
    return LogFile(shard, epoch, path, state.extents, state.last.sealed)

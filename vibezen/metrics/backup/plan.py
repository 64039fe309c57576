"""What of a store is data at one moment, file by file: what a backup has to hold.

Nothing is stopped for it. Commit logs say how much of each segment is data; what is behind that is no part of the
moment. Sealed segments and parts never change; one that is gone when it is to be copied was replaced by a part that
includes it, so that another look finds that part.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from vibezen.metrics.batch import EntryId, id_order
from vibezen.metrics.commitlog import Extent, fold
from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import Layout, hour_of
from vibezen.metrics.part_files import PartFiles
from vibezen.metrics.parts import Part, View, date_of, generation_of

ATTEMPTS: Final = 10
"""Looks at a store whose files come and go before that is an error."""
KEPT_FOLDERS: Final = ("quarantine", "alerts")
"""Folders whose files are taken as they are, where there are any."""


class Whole(NamedTuple):
    """A file to be copied to its end; None: it may be gone, and then nothing is missed."""

    path: str
    needed: bool = True


class Beginning(NamedTuple):
    """The committed part of a segment."""

    extent: Extent

    @property
    def path(self) -> str:
        return f"events/{self.extent.path}"


class Written(NamedTuple):
    """A file whose content is known already."""

    path: str
    data: bytes


Item = Whole | Beginning | Written


class Plan(NamedTuple):
    """Paths are relative to the storage folder. `events`, `outside`: as in a Manifest."""

    items: list[Item]
    positions: dict[int, EntryId]
    events: int
    outside: int
    damaged: dict[str, str]
    """Commit logs with whole lines that are no records: what is wrong, by path."""

    def size(self, layout: Layout) -> int:
        """Bytes to be copied, about."""
        return sum(_size(layout, item) for item in self.items)


def plan(layout: Layout) -> Plan:
    """What there is now. Raises StoreError when that cannot be told."""
    for _ in range(ATTEMPTS):
        try:
            return _plan(layout)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise StoreError(f"storage folder {layout.root}: {error}") from None
    raise StoreError(f"storage folder {layout.root}: its files come and go while they are listed")


def _plan(layout: Layout) -> Plan:
    # Parts before logs: then every segment that a part includes stands in a log that is read.
    views = PartFiles(layout).views(layout.dates())
    logs = _Logs(layout)
    extents = logs.extents
    parts = {part.path: part for view in views.values() for part in _parts(view)}
    beside = [extent for extent in extents if not _is_included(views, extent)]
    items: list[Item] = [Whole("STORE"), *logs.items, *map(Beginning, beside)]
    items += [Whole(f"events/{path}") for path in sorted(parts)]
    items += [Whole(path, needed=False) for path in (*_rollups(layout), *_kept(layout))]
    rows = [(part, part.footer.hours[hour].events) for view in views.values() for hour, part in view.by_hour.items()]
    outside = sum(events for part, events in rows if part.footer.moved is not None)
    events = sum(events for _, events in rows) + sum(extent.events for extent in beside)
    return Plan(items, logs.positions, events, outside, logs.damaged)


class _Logs:
    """The logs as far as they are whole, what they name, and how far each shard is read."""

    def __init__(self, layout: Layout) -> None:
        self.items: list[Written] = []
        self.extents: list[Extent] = []
        self.positions: dict[int, EntryId] = {}
        self.damaged: dict[str, str] = {}
        for shard in layout.shards():
            # Listed first, read afterwards: a log begins only when the one before it is sealed, so that no owner can
            # add to an older one what a newer one that is listed does not know of.
            for _, path in layout.logs(shard):
                self._take(shard, str(path.relative_to(layout.root)), path.read_bytes())

    def _take(self, shard: int, path: str, data: bytes) -> None:
        state = fold(data)
        if b"\n" in data[state.length :]:  # a write that is under way leaves a torn end, and nothing else
            self.damaged[path] = f"damaged behind byte {state.length}"
            self.items.append(Written(path, data))
        else:
            self.items.append(Written(path, data[: state.length]))
        self.extents += state.extents.values()
        position = state.last.position
        if shard not in self.positions or id_order(position) > id_order(self.positions[shard]):
            self.positions[shard] = position


def _parts(view: View) -> Iterable[Part]:
    """Those that readers take, and the day's own, which may stand for a day that was dropped."""
    return {part.path: part for part in (*view.by_hour.values(), *([view.day] if view.day else ()))}.values()


def _is_included(views: Mapping[int, View], extent: Extent) -> bool:
    view = views.get(date_of(hour_of(extent.path)))
    return view is not None and extent.path in view.included


def _rollups(layout: Layout) -> Iterator[str]:
    """The newest generation of each date."""
    for folder in sorted(layout.rollups.glob("date=*")):
        found = [
            (generation, path) for path in folder.iterdir() if (generation := generation_of(path.name)) is not None
        ]
        if found:
            yield str(max(found)[1].relative_to(layout.root))


def _kept(layout: Layout) -> Iterator[str]:
    for name in KEPT_FOLDERS:
        for path in sorted((layout.root / name).rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(layout.root))


def _size(layout: Layout, item: Item) -> int:
    match item:
        case Beginning():
            return item.extent.end
        case Written():
            return len(item.data)
        case Whole():
            with suppress(OSError):
                return os.stat(Path(layout.root) / item.path).st_size
            return 0

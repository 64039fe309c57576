"""Deletion of what newer parts include, after a grace for those who still read it.

Only what the effective view includes is deleted: segments, generations that another one stands for, rollups of those,
and commit logs that name nothing but events that were dropped. What a view includes, every later one does, so that
a sweeper that slept deletes nothing that is needed.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.consumers.holdings import Holding, LogFile
from vibezen.metrics.layout import Layout, date_folder, fsync_folder, hour_of, partition_of
from vibezen.metrics.part_files import read_footers
from vibezen.metrics.parts import Part, View, date_of, generation_of

log = logging.getLogger(__name__)

EMPTY_SECONDS: Final = DAY
"""How long the empty folders of a merged day's hours stay: late events may still need one."""

Check = Callable[[], None]
"""Called right before each deletion; raises when this process may not go on."""


class Sweeper:
    """Sweeps one store; dates in which nothing is left to do are not looked at again until they change."""

    def __init__(self, layout: Layout, grace: float, check: Check) -> None:
        self._layout, self._grace, self._check = layout, grace, check
        self._clean: dict[int, frozenset[str]] = {}

    def sweep(self, holdings: Iterable[Holding], logs: Iterable[LogFile], now: float) -> int:
        """Delete what may go by now; how many files. A file that is gone already is no matter."""
        views = {holding.date: holding.view for holding in holdings if _parts_of(holding.view)}
        deleted = sum(self._sweep_date(date, view, now) for date, view in views.items())
        self._clean = {date: parts for date, parts in self._clean.items() if date in views}
        return deleted + self._sweep_rollups(views, now) + self._sweep_logs(views, logs)

    def _sweep_date(self, date: int, view: View, now: float) -> int:
        parts = frozenset(part.path for part in _parts_of(view))
        if self._clean.get(date) == parts:
            return 0
        doomed = list(self._replaced(date, view))
        standing = {part.path: self._published(part) for part in _parts_of(view)}
        due = [path for path, by in doomed if standing[by.path] <= now - self._grace]
        for folder in {(self._layout.events / path).parent for path in standing} if due else ():
            # Its maker may have been cut off between giving the name and making it durable.
            fsync_folder(folder)
        for path in due:
            self._delete(self._layout.events / path)
        if len(due) == len(doomed) and self._no_folders_left(date, view, now):
            self._clean[date] = parts
        return len(due)

    def _replaced(self, date: int, view: View) -> Iterator[tuple[str, Part]]:
        """Files of a date, below the events folder, that a part stands for, each with that part."""
        for folder in (date_folder(date), *(partition_of(hour) for hour in range(date, date + DAY, HOUR))):
            for name in _names(self._layout.events / folder):
                path = f"{folder}/{name}"
                if generation_of(name) is not None:
                    if (by := self._stands_for(path, date, view)) is not None:
                        yield path, by
                elif path in view.included:
                    yield path, _of_hour(view, hour_of(path))

    def _stands_for(self, path: str, date: int, view: View) -> Part | None:
        """The part that readers take in place of this one; None when they take this one."""
        if any(_is_newer(path, part.path) for part in _parts_of(view)):
            return None
        file = self._layout.events / path
        try:
            inputs = read_footers([file])[file].paths()
        except FileNotFoundError:
            return None
        if not inputs <= view.included:
            return None  # newer than this look
        return view.day if path.count("/") == 1 else _of_hour(view, hour_of(path))

    def _no_folders_left(self, date: int, view: View, now: float) -> bool:
        """Remove empty folders of the hours of a merged day; whether none is left that may once be removed."""
        if view.day is None:
            return True
        old = self._published(view.day) <= now - max(EMPTY_SECONDS, self._grace)
        for hour in range(date, date + DAY, HOUR):
            folder = self._layout.events / partition_of(hour)
            if folder.is_dir() and hour_of(f"{partition_of(hour)}/") not in _beside(view):
                if not old:
                    return False
                with suppress(OSError):  # not empty
                    folder.rmdir()
        return True

    def _sweep_rollups(self, views: dict[int, View], now: float) -> int:
        """Rollups of day parts that are no longer taken."""
        deleted = 0
        for folder in self._layout.rollups.glob("date=*"):
            with suppress(ValueError):
                date = date_of(hour_of(f"{folder.name}/hour=00/"))
                day = views[date].day if date in views else None
                for name in _names(folder):
                    generation = generation_of(name)
                    if day is None or generation is None or self._published(day) > now - self._grace:
                        continue
                    if generation < day.footer.rows_of:
                        self._delete(folder / name)
                        deleted += 1
        return deleted

    def _sweep_logs(self, views: dict[int, View], logs: Iterable[LogFile]) -> int:
        """Logs that a successor has closed, and that name only segments whose events were dropped."""
        deleted = 0
        newest: dict[int, int] = {}
        for one in (logs := list(logs)):
            newest[one.shard] = max(newest.get(one.shard, 0), one.epoch)
        for one in logs:
            if (
                one.sealed
                and one.epoch < newest[one.shard]
                and one.extents
                and all(self._is_dropped(views, path) for path in one.extents)
            ):
                self._delete(one.path)
                deleted += 1
        return deleted

    def _is_dropped(self, views: dict[int, View], path: str) -> bool:
        view = views.get(date_of(hour_of(path)))
        if view is None or view.day is None or not view.day.footer.dropped:
            return False
        return path in view.day.footer.paths() and hour_of(path) not in view.by_hour

    def _published(self, part: Part) -> float:
        """When a part got its name, in Unix seconds: that is its last change."""
        try:
            found = (self._layout.events / part.path).stat()
        except FileNotFoundError:
            return float("inf")
        return max(found.st_mtime, found.st_ctime)

    def _delete(self, file: Path) -> None:
        self._check()
        file.unlink(missing_ok=True)
        log.debug("compactor: deleted %s", file)


def _parts_of(view: View) -> list[Part]:
    """The parts that stand for something in a view: each once."""
    parts = {part.path: part for part in view.by_hour.values()}
    if view.day is not None:
        parts[view.day.path] = view.day
    return list(parts.values())


def _is_newer(path: str, standing: str) -> bool:
    """Whether a part is the one that stands, or one that was published since then in its place: a stub that says where
    the rows were moved includes what the part did whose rows they are."""
    (folder, _, name), (its_folder, _, its_name) = path.rpartition("/"), standing.rpartition("/")
    return folder == its_folder and (generation_of(name) or 0) >= (generation_of(its_name) or 0)


def _of_hour(view: View, hour: int) -> Part:
    """The part that includes an hour's segments: of an hour without rows, the day's."""
    part = view.by_hour.get(hour) or view.day
    assert part is not None
    return part


def _beside(view: View) -> set[int]:
    return {hour for hour, part in view.by_hour.items() if part is not view.day}


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []

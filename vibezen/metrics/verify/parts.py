"""Parts against their own footers, and footers against the commit logs and what was included in them."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vibezen.metrics import part_sql
from vibezen.metrics.clock import DAY, iso
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.doctor.finding import Finding, fail, ok
from vibezen.metrics.errors import MissingExtra, StoreError
from vibezen.metrics.event_reader import connect, duckdb_module
from vibezen.metrics.layout import Layout, date_folder, hour_of, segment_name
from vibezen.metrics.part_files import PartFiles, first_line
from vibezen.metrics.parts import Footer, HourOf, Part, View, date_of, generation_of
from vibezen.metrics.verify.segments import Progress

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CHECK: Final = "parts"
LOOKS: Final = 4
PAUSE: Final = 0.3
"""Seconds between two looks at a date whose parts come and go."""
OLD: Final = DAY
"""Seconds after which what a part stands for should have been deleted, whatever grace is set."""
MEMORY: Final = "256MB"
TOLD: Final = 5
"""Differences of one part that are told."""
RESTORE: Final = "bring the file back from a backup"


class Compacted:
    """What parts stand for, as of one look; raises MissingExtra where there are parts and no DuckDB to read them.

    `parts`: those that readers take, each once. `unreadable`: why nothing can be said of a date.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._files = PartFiles(layout)
        self._views: dict[int, View] = {}
        self.unreadable: list[str] = []
        for date in layout.dates():
            self._look_at(date)
        self.parts = [part for view in self._views.values() for part in _parts_of(view)]

    def _look_at(self, date: int) -> None:
        for _ in range(LOOKS):
            try:
                self._views |= self._files.views([date])
            except MissingExtra:
                raise
            except StoreError as error:
                self.unreadable.append(str(error))
            except FileNotFoundError:
                time.sleep(PAUSE)
                continue
            return
        self.unreadable.append(f"events/{date_folder(date)}: parts come and go")

    def includes(self, path: str) -> bool:
        """Whether a part stands for a segment, by its path below the events folder."""
        view = self._views.get(date_of(hour_of(path)))
        return view is not None and path in view.included

    def includes_now(self, path: str) -> bool:
        """The same, after another look if it did not: it may have become a part meanwhile."""
        if not self.includes(path):
            with suppress(StoreError, FileNotFoundError):
                self._views |= self._files.views([date_of(hour_of(path))])
        return self.includes(path)

    def unnamed(self, shard: int, named: Collection[str]) -> int:
        """Events of a shard that were dropped, and that no log names any more."""
        dropped = {
            one.path: one.events
            for view in self._views.values()
            if view.day is not None and view.day.footer.dropped
            for one in view.day.footer.inputs
            if hour_of(one.path) not in view.by_hour and one.path not in named
        }
        names = {path: segment_name(Path(path)) for path in dropped}
        return sum(dropped[path] for path, name in names.items() if name is not None and name.shard == shard)

    def left_behind(self, files: Iterable[str], now: float) -> list[str]:
        """Of these files those that parts stand for, and that nobody has deleted for long."""
        standing = {part.path for part in self.parts}
        return [path for path in files if self._is_replaced(path, standing) and self._is_old(path, now)]

    def _is_replaced(self, path: str, standing: Collection[str]) -> bool:
        if generation_of(Path(path).name) is not None:
            return path not in standing and _date_of(path) in self._views
        return segment_name(Path(path)) is not None and _date_of(path) is not None and self.includes(path)

    def _is_old(self, path: str, now: float) -> bool:
        """Whether the parts of its date are."""
        changed = [
            (self._layout.events / part.path).stat().st_mtime
            for part in _parts_of(self._views[_date_of(path) or 0])
            if (self._layout.events / part.path).exists()
        ]
        return max(changed, default=now) < now - OLD


def _date_of(path: str) -> int | None:
    try:
        return date_of(hour_of(f"{path.partition('/')[0]}/hour=00/"))
    except ValueError:
        return None


def _parts_of(view: View) -> list[Part]:
    """Those that stand for anything, each once."""
    found = {part.path: part for part in view.by_hour.values()}
    if view.day is not None:
        found[view.day.path] = view.day
    return list(found.values())


def checks(layout: Layout, found: Compacted, extents: Mapping[str, Extent], progress: Progress) -> Iterator[Finding]:
    """Of every part that stands for anything. `extents`: what the logs name, read after the parts."""
    wrong = [fail(CHECK, why, RESTORE) for why in found.unreadable]
    events = dropped = moved = size = 0
    with closing(PartCheck()) as check:
        for part in found.parts:
            path = layout.events / part.path
            try:
                bytes_of_part = path.stat().st_size
                differs = check.differences(str(path), part.footer)
            except FileNotFoundError:
                continue  # a newer generation has come, and was made of this one
            differs += against_logs(part.footer, extents)
            if differs:
                wrong.append(fail(CHECK, f"events/{part.path}: {'; '.join(differs[:TOLD])}", RESTORE))
            progress(bytes_of_part)
            size, dropped = size + bytes_of_part, dropped + part.footer.dropped
            if part.footer.moved is None:
                events += part.footer.events
            else:
                moved += part.footer.events
    yield from wrong
    if not wrong:
        told = [f"{events} events, {size} bytes, rows and sums as their footers say"]
        told += [f"{moved} events in external storage, not looked at"] if moved else []
        told += [f"{dropped} events dropped by retention"] if dropped else []
        count = len(found.parts)
        yield ok(CHECK, f"{count} file{'' if count == 1 else 's'}: {'; '.join(told)}" if count else "none yet")


def against_logs(footer: Footer, extents: Mapping[str, Extent]) -> list[str]:
    """In what a part includes other segments than were committed."""
    found = []
    for one in footer.inputs:
        extent = extents.get(one.path)
        if extent is None:
            continue  # of a log that names nothing but what was dropped, and is gone with it
        if (one.events, one.crc) != (extent.events, extent.crc):
            found.append(f"it includes {one.events} events of {one.path}, the log says {extent.events}")
        elif not extent.closed:
            found.append(f"it includes {one.path}, which the log does not call closed")
    return found


class PartCheck:
    """Reads parts through."""

    def __init__(self) -> None:
        self._connection: DuckDBPyConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def differences(self, place: str, footer: Footer) -> list[str]:
        """In what a part is not as its footer says, each with both numbers. Raises FileNotFoundError."""
        found = []
        included = sum(one.events for one in footer.inputs)
        if included != footer.events + footer.dropped:
            told = f"{footer.events} events" + (f" and {footer.dropped} dropped ones" if footer.dropped else "")
            found.append(f"{told} of segments that have {included}")
        try:
            rows = self._by_hour(place)
        except (duckdb_module().Error, UnicodeDecodeError) as error:
            with open(place, "rb"):  # is it there at all?
                return [*found, f"cannot be read: {first_line(error)}"]
        hours = {hour: HourOf(events, low / 1e6, high / 1e6) for hour, events, _, low, high, _ in rows}
        expected = {} if footer.moved is not None else footer.hours
        found += [
            f"{_told(hour, hours.get(hour))}, the footer says {_told(hour, expected.get(hour))}"
            for hour in sorted({*hours, *expected})
            if hours.get(hour) != expected.get(hour)
        ]
        content = sum(int(of_hour) for _, _, of_hour, _, _, _ in rows)
        if footer.moved is None and str(content) != footer.content:
            found.append(f"the sum over its rows is {content}, the footer says {footer.content}")
        if bad := sum(row[-1] for row in rows):
            found.append(f"{bad} rows are no events")
        return found

    def _by_hour(self, place: str) -> list[tuple[int, int, str, int, int, int]]:
        if self._connection is None:
            self._connection = connect(MEMORY)
        sql = part_sql.by_hour(part_sql.rows([], [Path(place)]))
        with self._connection.cursor() as cursor:
            rows: list[tuple[int, int, str, int, int, int]] = cursor.execute(sql.text, sql.parameters).fetchall()
            return rows


def _told(hour: int, of: HourOf | None) -> str:
    if of is None:
        return f"nothing from {iso(hour)} on"
    return f"{of.events} events from {iso(of.min_ts)} to {iso(of.max_ts)}"

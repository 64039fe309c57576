"""The parts of a store as they lie in its folders: found, read once, and remembered for as long as a folder is as it
was."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from vibezen.metrics.clock import DAY, HOUR, wall
from vibezen.metrics.errors import MissingExtra, StoreError
from vibezen.metrics.layout import Layout, date_folder, hour_of, partition_of
from vibezen.metrics.parts import FORMAT, KEY, Footer, Part, View, decode_footer, generation_of, view

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SETTLED: Final = 2.0
"""Seconds after which a folder's time of change tells whether it changed again: clocks of file systems are coarse."""

_REMEMBERED: Final = 1000
"""Dates whose footers are kept in memory, some 50 KB each."""


class _Found(NamedTuple):
    """One part file, told apart from another one that had its name before."""

    path: str
    inode: int
    size: int
    changed_ns: int


class _Listing(NamedTuple):
    changed_ns: int
    newest: tuple[_Found, ...]
    """Newest generation first. Almost always one."""


class PartFiles:
    """Finds the parts of one store, from any thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._listings: dict[str, _Listing] = {}
        self._views: OrderedDict[tuple[_Found, ...], View] = OrderedDict()

    def views(self, dates: Iterable[int]) -> Mapping[int, View]:
        """What readers take of these dates; those without a part are left out.

        Raises FileNotFoundError when a file is gone that was just there, StoreError when one cannot be read.
        """
        with self._lock:
            found = {date: parts for date in dates if (parts := self._find(date))}
            self._read([parts for parts in found.values() if parts not in self._views])
            for parts in found.values():
                self._views.move_to_end(parts)
            views = {date: self._views[parts] for date, parts in found.items()}
            while len(self._views) > _REMEMBERED:
                self._views.popitem(last=False)
            return views

    def _find(self, date: int) -> tuple[_Found, ...]:
        """The newest part of the date, and those of its hours."""
        folders = [date_folder(date), *(partition_of(hour) for hour in range(date, date + DAY, HOUR))]
        return tuple(newest for folder in folders if (newest := self._newest(folder)) is not None)

    def _newest(self, folder: str) -> _Found | None:
        """Of one folder below the events folder."""
        where = self._layout.events / folder
        try:
            changed = where.stat().st_mtime_ns
            known = self._listings.get(folder)
            if known is None or known.changed_ns != changed:
                known = _Listing(changed, _parts_in(where, folder))
                if wall() - changed / 1e9 > _SETTLED:
                    self._listings[folder] = known
                else:
                    self._listings.pop(folder, None)
        except (FileNotFoundError, NotADirectoryError):
            self._listings.pop(folder, None)
            return None
        return known.newest[0] if known.newest else None

    def _read(self, unread: list[tuple[_Found, ...]]) -> None:
        files = {one: self._layout.events / one.path for parts in unread for one in parts}
        footers = read_footers(files.values()) if files else {}
        for parts in unread:
            made = [Part(one.path, footers[files[one]]) for one in parts]
            days = [part for part in made if part.path.count("/") == 1]
            hours = {hour_of(part.path): part for part in made if part not in days}
            self._views[parts] = view(days[0] if days else None, hours)


def _parts_in(where: Path, folder: str) -> tuple[_Found, ...]:
    found: list[tuple[int, _Found]] = []
    with os.scandir(where) as entries:
        for entry in entries:
            generation = generation_of(entry.name)
            if generation is not None:
                seen = entry.stat()
                one = _Found(f"{folder}/{entry.name}", seen.st_ino, seen.st_size, seen.st_mtime_ns)
                found.append((generation, one))
    return tuple(one for _, one in sorted(found, reverse=True)[:1])


def read_footers(paths: Iterable[Path]) -> dict[Path, Footer]:
    """The footers of part files. Raises FileNotFoundError, StoreError for what is no part, MissingExtra without
    DuckDB."""
    return dict(_footers(list(paths)))


def _footers(paths: list[Path]) -> Iterator[tuple[Path, Footer]]:
    duckdb = _duckdb()
    with _connection().cursor() as cursor:
        for path in paths:
            try:
                rows = cursor.execute("SELECT key, value FROM parquet_kv_metadata($1)", [str(path)]).fetchall()
                texts = [value for key, value in rows if key == KEY.encode()]
                if not texts:
                    raise StoreError(f"{path}: no part of a store: its footer says nothing of one")
                footer = decode_footer(texts[0])
            except duckdb.IOException as error:
                if not path.exists():
                    raise FileNotFoundError(str(path)) from None
                raise StoreError(f"{path}: cannot be read: {_first_line(error)}") from None
            except duckdb.Error as error:
                raise StoreError(f"{path}: is damaged: {_first_line(error)}") from None
            except msgspec.MsgspecError as error:
                raise StoreError(f"{path}: its footer cannot be understood: {error}") from None
            if footer.format > FORMAT:
                raise StoreError(f"{path}: format {footer.format} is newer than this version knows ({FORMAT})")
            yield path, footer


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


_lock = threading.Lock()
_shared: "list[DuckDBPyConnection]" = []


def _connection() -> "DuckDBPyConnection":
    with _lock:
        if not _shared:
            _shared.append(_duckdb().connect(":memory:", config={"threads": 1, "memory_limit": "64MB"}))
        return _shared[0]


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("server", "reading compacted events") from None
    return duckdb

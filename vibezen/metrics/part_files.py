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
from vibezen.metrics.layout import Layout, date_folder, hour_of
from vibezen.metrics.parts import FORMAT, KEY, Footer, Part, View, decode_footer, generation_of, view

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_SETTLED: Final = 2.0
"""Seconds after which a folder's time of change tells whether it changed again: clocks of file systems are coarse."""

_REMEMBERED: Final = 1000
"""Dates whose footers are kept in memory, some 50 KB each."""


_WHOLE: Final = (
    'SELECT max(ts), max(metric), max(value), max(sample_rate), max("count"), max(metadata), max(shard)'
    " FROM read_parquet($1, hive_partitioning=false)"
)
"""Reads all of a part."""


_HOURS: Final = frozenset(f"hour={hour:02}" for hour in range(24))


class _Found(NamedTuple):
    """One part file, told apart from another one that had its name before."""

    path: str
    inode: int
    size: int
    changed_ns: int


class _Listing(NamedTuple):
    """One folder: the part of the newest generation in it, and the folders of hours."""

    changed_ns: int
    newest: _Found | None
    hours: tuple[str, ...]


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
            found = {date: parts for date in dates if (parts := self._find(date_folder(date)))}
            views = dict(self._read([parts for parts in found.values() if parts not in self._views]))
            for parts in found.values():
                if parts in self._views:
                    self._views.move_to_end(parts)
                    views[parts] = self._views[parts]
            self._views.update(views)
            while len(self._views) > _REMEMBERED:
                self._views.popitem(last=False)
            return {date: views[parts] for date, parts in found.items()}

    def _find(self, folder: str) -> tuple[_Found, ...]:
        """The newest part of a date, and those of its hours.

        The date is looked at once more in the end: a part of the whole date may have come, and the parts of its hours
        gone, while these were looked for.
        """
        while (date := self._listed(folder)) is not None:
            hours = [self._listed(f"{folder}/{hour}") for hour in date.hours]
            again = self._listed(folder)
            if again is not None and again.changed_ns == date.changed_ns:
                return tuple(one.newest for one in (date, *hours) if one is not None and one.newest is not None)
        return ()

    def _listed(self, folder: str) -> _Listing | None:
        """Of one folder below the events folder; None where there is none."""
        where = os.path.join(self._layout.events, folder)
        try:
            changed = os.stat(where).st_mtime_ns
            known = self._listings.get(folder)
            if known is None or known.changed_ns != changed:
                known = _list(where, folder, changed)
                if wall() - changed / 1e9 > _SETTLED:
                    self._listings[folder] = known
                else:
                    self._listings.pop(folder, None)
        except (FileNotFoundError, NotADirectoryError):
            self._listings.pop(folder, None)
            return None
        return known

    def _read(self, unread: list[tuple[_Found, ...]]) -> Iterator[tuple[tuple[_Found, ...], View]]:
        """Each with what readers take of it."""
        if not unread:
            return
        files = {one: self._layout.events / one.path for parts in unread for one in parts}
        footers = read_footers(files.values())
        store = self._layout.read().id
        for parts in unread:
            made = [_checked(Part(one.path, footers[files[one]]), store, files[one]) for one in parts]
            days = [part for part in made if part.path.count("/") == 1]
            hours = {hour_of(part.path): part for part in made if part not in days}
            yield parts, view(days[0] if days else None, hours)


def _list(where: str, folder: str, changed_ns: int) -> _Listing:
    newest, found, hours = -1, None, []
    with os.scandir(where) as entries:
        for entry in entries:
            generation = generation_of(entry.name)
            if generation is not None and generation > newest:
                seen = entry.stat()
                newest, found = (
                    generation,
                    _Found(f"{folder}/{entry.name}", seen.st_ino, seen.st_size, seen.st_mtime_ns),
                )
            elif entry.name in _HOURS:  # and no copy of one that a person has put beside it
                hours.append(entry.name)
    return _Listing(changed_ns, found, tuple(sorted(hours)))


def _checked(part: Part, store: str, path: Path) -> Part:
    """Raises StoreError for a part that somebody has put where it does not belong."""
    footer, name = part.footer, Path(part.path)
    if footer.store != store:
        raise StoreError(f"{path}: is a part of another store ({footer.store}); move it away")
    begins = hour_of(part.path) if name.parent.name.startswith("hour=") else hour_of(f"{name.parent}/hour=00/")
    ends = begins + (HOUR if name.parent.name.startswith("hour=") else DAY)
    if footer.generation != generation_of(name.name) or not all(begins <= hour < ends for hour in footer.hours):
        raise StoreError(f"{path}: is a part of another hour, or another generation; move it away")
    return part


def read_footers(paths: Iterable[Path]) -> dict[Path, Footer]:
    """The footers of part files. Raises FileNotFoundError, StoreError for what is no part, MissingExtra without
    DuckDB."""
    return dict(_footers(list(paths)))


def _footers(paths: list[Path]) -> Iterator[tuple[Path, Footer]]:
    for path in paths:
        text = footer_text(path)
        try:
            footer = decode_footer(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(f"{path}: its footer cannot be understood: {error}") from None
        if footer.format > FORMAT:
            raise StoreError(f"{path}: format {footer.format} is newer than this version knows ({FORMAT})")
        yield path, footer


def footer_text(path: Path) -> bytes:
    """What a file of ours says of itself. Raises FileNotFoundError, StoreError for what is none, MissingExtra without
    DuckDB."""
    duckdb = _duckdb()
    try:
        with _connection().cursor() as cursor:
            told = cursor.execute("SELECT key, value FROM parquet_kv_metadata($1)", [str(path)]).fetchall()
    except duckdb.IOException as error:
        if not path.exists():
            raise FileNotFoundError(str(path)) from None
        raise StoreError(f"{path}: cannot be read: {first_line(error)}") from None
    except (duckdb.Error, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: is damaged: {first_line(error)}") from None
    texts: list[bytes] = [value for key, value in told if key == KEY.encode()]
    if not texts:
        raise StoreError(f"{path}: no part of a store: its footer says nothing of one")
    return texts[0]


def damaged_part(places: Iterable[str]) -> str:
    """Which of these parts cannot be read, in one line: DuckDB's own words often name none. Empty where all can."""
    duckdb = _duckdb()
    with _connection().cursor() as cursor:
        for place in places:
            try:
                cursor.execute(_WHOLE, [place]).fetchall()
            except (duckdb.Error, UnicodeDecodeError) as error:
                return f"{place}: is damaged: {first_line(error)}; bring it back from a backup"
    return ""


def first_line(error: Exception) -> str:
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

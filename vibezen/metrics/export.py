"""Events as a file: CSV, JSONL or Parquet of any size, in memory that does not grow with it.

Events are read and sorted some hours at a time, into a table of DuckDB's that goes to disk where memory ends. Only then
is any of them given: when a file was gone before that, the same hours are begun again from a new snapshot, and whatever
comes after it changes nothing any more.
"""

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from anyio import CancelScope, sleep, to_thread

from vibezen.metrics import event_sql, event_table
from vibezen.metrics.committed import Snapshot, hours_of
from vibezen.metrics.errors import BadParameter, StoreError
from vibezen.metrics.event_reader import (
    ATTEMPTS,
    EventReader,
    FilesChanged,
    connect,
    duckdb_module,
    file_errors,
    reading,
    unreadable,
)
from vibezen.metrics.event_sql import Reading, Sql, Wanted
from vibezen.metrics.export_format import CsvFormat, Format, JsonLines, Row, RowFormat
from vibezen.metrics.question import Parameters, parse_metric, parse_span, parse_where, single
from vibezen.metrics.scratch import room, scratch_folder

PARAMETERS: Final = ("format", "metric", "from", "to", "where")
BLOCK_ROWS: Final = 5000
"""Events made into text at once: about a megabyte."""
BLOCK_BYTES: Final = 1 << 20
MEMORY: Final = "512MB"
"""What sorting may hold; the rest of it goes to disk."""
STEP_EVENTS: Final = 100_000
"""Hours are read together up to so many events: most stores have thousands of hours with few."""
STOP_EVERY: Final = 0.05
"""Seconds between two attempts to stop a query."""
_TABLE: Final = "sorted_events"

log = logging.getLogger(__name__)


class Export(msgspec.Struct, frozen=True):
    """What is to be exported, and how it shall look. `labels`: metadata that gets columns of its own in CSV and
    Parquet."""

    format: Format
    wanted: Wanted
    labels: tuple[str, ...] = ()


class Stopped(Exception):
    """Somebody called `stop`; nobody waits for the rest."""


def parse_export(parameters: Parameters, labels: Sequence[str], now: float) -> Export:
    """Raises BadParameter. Without `from` and `to`: everything that is stored."""
    texts = single(parameters, PARAMETERS)
    try:
        format_ = Format(texts.get("format") or Format.CSV)
    except ValueError:
        raise BadParameter("format", f"expected {', '.join(Format)}") from None
    since, until = parse_span(texts, now)
    metrics = tuple(parse_metric(name.strip()) for name in texts.get("metric", "").split(",") if name.strip())
    wanted = Wanted(since, until, None, parse_where(parameters.get("where", ())), metrics)
    return Export(format_, wanted, tuple(labels))


class Exporter:
    """One export under way: `next` gives block after block, then None. One thread at a time calls it; `stop` may be
    called from any other.

    `total`: events in the hours that are read, None before the first block; `done`: how many of them are behind it;
    `written`: how many were wanted.
    """

    def __init__(self, reader: EventReader, asked: Export) -> None:
        self.asked = asked
        self._reader = reader
        self.total: int | None = None
        self.done = 0
        self.written = 0
        self._connection: Any = None
        self._stopped = threading.Event()
        self._turn = threading.Lock()
        self._blocks = self._made()

    def next(self) -> bytes | None:
        """Raises StoreError when files cannot be read, Stopped after `stop`."""
        try:
            with self._turn:
                if self._stopped.is_set():
                    raise Stopped
                return next(self._blocks, None)
        finally:
            if self._stopped.is_set():
                self._close()

    def blocks(self) -> Generator[bytes]:
        try:
            while (block := self.next()) is not None:
                yield block
        finally:
            self.stop()

    def stop(self) -> bool:
        """End what is running and free everything. False while a thread is still in `next`: call it again then, since
        a query that was just about to begin has not been stopped."""
        self._stopped.set()
        if (connection := self._connection) is not None:
            with suppress(duckdb_module().Error):  # it may have been closed just now
                connection.interrupt()
        return self._close()

    def _close(self) -> bool:
        """Whoever is in `next` just now does it when they leave it."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            self._blocks.close()
        finally:
            self._turn.release()
        return True

    # --- what follows runs in the thread that calls `next`

    def _made(self) -> Generator[bytes]:
        with scratch_folder(self._reader.layout) as folder:
            connection = connect(MEMORY, temp_directory=str(folder), max_temp_directory_size=room(folder))
            with closing(connection):
                self._connection = connection
                try:
                    yield from self._encoded(folder)
                finally:
                    self._connection = None

    def _encoded(self, folder: Path) -> Iterator[bytes]:
        if self.asked.format is Format.PARQUET:
            yield from self._parquet(folder / "events.parquet")
            return
        made: RowFormat = CsvFormat(self.asked.labels) if self.asked.format is Format.CSV else JsonLines()
        head: bytes | None = made.head()
        for _ in self._steps():
            for rows in self._rows(made.labels):
                yield (head or b"") + made.lines(rows)
                head = None
                self.done += len(rows)
                self.written += len(rows)
        if head:
            yield head

    def _steps(self) -> Iterator[None]:
        """Each time some more hours have been sorted into the table, in order of time, every hour once."""
        behind, attempts = -1, ATTEMPTS
        within = hours_of(self.asked.wanted.since, self.asked.wanted.until)
        while True:
            snapshot = self._reader.snapshot(within)
            hours = [hour for hour in snapshot.hours() if hour > behind]
            self.total = self.done + sum(map(snapshot.lines, hours))
            try:
                for some in _together(snapshot, hours):
                    self._sort(snapshot, some)
                    before = self.done
                    yield
                    self.done = before + sum(map(snapshot.lines, some))
                    behind, attempts = some[-1] if some else behind, ATTEMPTS
                return
            except FilesChanged as changed:
                attempts -= 1
                if not attempts:
                    raise unreadable(changed) from None

    def _sort(self, snapshot: Snapshot, hours: Sequence[int]) -> None:
        """Raises FilesChanged, and then has changed nothing."""

        def made(found: Reading) -> Sql:
            text, parameters = event_table.in_order(found, self.asked.wanted)
            return Sql(f"CREATE OR REPLACE TEMP TABLE {_TABLE} AS {text}", parameters)

        files = snapshot.files(hours)
        with self._stoppable(), file_errors(files), reading(files) as found:
            self._run(found, made)

    def _rows(self, labels: Sequence[str]) -> Iterator[list[Row]]:
        with self._stoppable(), _sorted_errors():
            self._connection.execute(event_table.with_labels(_TABLE, labels))
        while True:
            with self._stoppable(), _sorted_errors():
                rows: list[Row] = self._connection.fetchmany(BLOCK_ROWS)
            if not rows:
                return
            yield rows

    def _parquet(self, path: Path) -> Iterator[bytes]:
        """Written as a whole first: its end tells where everything in it is."""
        for number, _ in enumerate(self._steps()):
            keep = "INSERT INTO kept" if number else "CREATE TEMP TABLE kept AS"
            self._do(f"{keep} FROM {_TABLE}")
        columns = event_table.with_labels("kept", self.asked.labels, stamped=True)
        target = event_table.literal(str(path))
        ((self.written,),) = self._do(f"COPY ({columns}) TO {target} (FORMAT parquet, COMPRESSION zstd)")
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def _do(self, statement: str) -> list[Row]:
        with self._stoppable(), _sorted_errors():
            rows: list[Row] = self._connection.execute(statement).fetchall()
            return rows

    def _run(self, found: Reading, made: Callable[[Reading], Sql]) -> None:
        try:
            self._connection.execute(*made(found))
        except duckdb_module().InvalidInputException:
            forgiving = found._replace(forgiving=True)
            ((damaged,),) = self._connection.execute(*event_sql.damage(forgiving)).fetchall()
            log.warning("%d lines are no events; they are not exported", damaged)
            self._connection.execute(*made(forgiving))

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        try:
            yield
        except duckdb_module().InterruptException:
            raise Stopped from None


def _together(snapshot: Snapshot, hours: Sequence[int]) -> Iterator[list[int]]:
    """The hours in lists of not too many events; at least one list."""
    some: list[int] = []
    events = 0
    for hour in hours:
        lines = snapshot.lines(hour)
        if some and events + lines > STEP_EVENTS:
            yield some
            some, events = [], 0
        some.append(hour)
        events += lines
    yield some


@contextmanager
def _sorted_errors() -> Iterator[None]:
    """What can go wrong once everything is read and sorted: then no other snapshot would help."""
    duckdb = duckdb_module()
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise StoreError(f"the export cannot go on: {str(error).partition(chr(10))[0]}") from None


async def exported(exporter: Exporter) -> AsyncGenerator[bytes]:
    """The blocks of an export, made beside the event loop. Cancelled, or left early, the query stops, and everything is
    freed before this ends."""
    try:
        while (block := await to_thread.run_sync(exporter.next, abandon_on_cancel=True)) is not None:
            yield block
    finally:
        with CancelScope(shield=True):
            await _freed(exporter)


async def _freed(exporter: Exporter) -> None:
    while True:
        if exporter.stop():
            return
        await sleep(STOP_EVERY)

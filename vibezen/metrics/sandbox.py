"""SQL over a store, by a DuckDB that can read this snapshot's files and do nothing else."""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from vibezen.metrics import event_table
from vibezen.metrics.committed import Snapshot, hours_of
from vibezen.metrics.errors import SqlError
from vibezen.metrics.event_reader import (
    ATTEMPTS,
    EventReader,
    FilesChanged,
    connect,
    duckdb_module,
    reading,
    unreadable,
)
from vibezen.metrics.event_sql import Reading, Wanted
from vibezen.metrics.layout import Layout
from vibezen.metrics.rollup_view import rollups_view, standing_rollups
from vibezen.metrics.scratch import room, scratch_folder
from vibezen.metrics.statement import in_short, only_statement

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY: Final = "1GB"
"""What one statement may hold in memory; beyond it DuckDB uses the disk where it can."""
BLOCK_ROWS: Final = 5000
STOP_EVERY: Final = 0.05
"""Seconds between two attempts to stop a statement."""

Value = str | int | float | bool | None

log = logging.getLogger(__name__)


class Column(NamedTuple):
    """`is_json`: its values are JSON texts."""

    name: str
    is_json: bool


class Answer:
    """What a statement gave: so many rows, each with a value per column."""

    def __init__(self, columns: Sequence[Column], count: int, connection: "DuckDBPyConnection") -> None:
        self.columns, self.count = columns, count
        self._connection = connection

    def rows(self) -> Iterator[list[tuple[Value, ...]]]:
        """Some thousand at a time."""
        while rows := self._connection.fetchmany(BLOCK_ROWS):
            yield rows


class Question(NamedTuple):
    """`wanted`: which events there are at all; `seconds`: how long an answer may take."""

    text: str
    wanted: Wanted
    labels: tuple[str, ...]
    seconds: float


class _Found(NamedTuple):
    """What there is to read: files of events, and rollups."""

    events: Reading
    rollups: list[str]

    def paths(self) -> list[str]:
        return [*self.events.paths(), *self.rollups]


@contextmanager
def answered(reader: EventReader, question: Question) -> Iterator[Answer]:
    """The answer of one SELECT, computed in full before its first row: it is about one snapshot, or it is none.

    Raises SqlError; StoreError when files cannot be read.
    """
    with connect("100MB") as helper:
        query = only_statement(helper, question.text)
    within = hours_of(question.wanted.since, question.wanted.until)
    changed: FilesChanged | None = None
    for _ in range(ATTEMPTS):
        with ExitStack() as held:
            folder = held.enter_context(scratch_folder(reader.layout))
            try:
                found = held.enter_context(_found(reader.layout, reader.snapshot(within)))
                answer = _ask(held, found, question, query, folder)
            except FilesChanged as error:
                changed = error
                continue
            yield answer
            return
    raise unreadable(changed)


@contextmanager
def _found(layout: Layout, snapshot: Snapshot) -> Iterator[_Found]:
    files = snapshot.files(snapshot.hours())
    try:
        with connect("100MB") as helper:
            rollups = standing_rollups(helper, layout, files)
        with reading(files) as found:
            yield _Found(found, rollups)
    except FileNotFoundError as error:
        raise FilesChanged(str(error)) from None
    except duckdb_module().IOException as error:
        raise FilesChanged(str(error).partition("\n")[0]) from None


def _ask(held: ExitStack, found: _Found, question: Question, query: str, folder: Path) -> Answer:
    duckdb = duckdb_module()
    try:
        return _run(held.enter_context(_shut_in(found, question, folder)), query, question.seconds)
    except duckdb.InvalidInputException:
        # A line that somebody has damaged, or a mistake in the statement: then it stays one.
        forgiving = found._replace(events=found.events._replace(forgiving=True))
        connection = held.enter_context(_shut_in(forgiving, question, folder))
        try:
            answer = _run(connection, query, question.seconds)
        except duckdb.InvalidInputException as error:
            raise SqlError(_in_their_lines(str(error))) from None
        log.warning("some lines in the files are no events; they are left out (`vibezen-metrics verify` finds them)")
        return answer
    except duckdb.PermissionException:
        # Said of a file that may be read, too, when it is gone: DuckDB then takes its name for a folder's.
        gone = [path for path in found.paths() if "://" not in path and not Path(path).exists()]
        if gone:
            raise FilesChanged(f"{gone[0]} is gone") from None
        raise SqlError("only the store's own events can be read, by the names events and rollups") from None


def _run(connection: "DuckDBPyConnection", query: str, seconds: float) -> Answer:
    duckdb = duckdb_module()
    watch = threading.Timer(seconds, connection.interrupt)
    watch.daemon = True
    watch.start()
    try:
        _execute(connection, f"CREATE TEMP TABLE answer AS\n{query}")
        return _answer(connection)
    except (duckdb.InvalidInputException, duckdb.PermissionException):
        raise
    except duckdb.InterruptException:
        raise SqlError(f"it took longer than {seconds:g} s and was stopped; --timeout allows more") from None
    except duckdb.OutOfMemoryException:
        raise SqlError(f"it needs more than {MEMORY}: ask for less time, fewer groups or fewer columns") from None
    except duckdb.IOException as error:
        raise FilesChanged(str(error).partition("\n")[0]) from None
    except duckdb.Error as error:
        raise SqlError(_in_their_lines(str(error))) from None
    finally:
        watch.cancel()


def _execute(connection: "DuckDBPyConnection", statement: str) -> None:
    """In a thread of its own: in the one that is told of Ctrl-C, DuckDB would first finish."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(connection.execute, statement)
        try:
            running.result()
        finally:
            while not running.done():  # it may not have begun yet: then it has not been interrupted either
                connection.interrupt()
                wait([running], STOP_EVERY)


def _answer(connection: "DuckDBPyConnection") -> Answer:
    ((count,),) = connection.execute("SELECT count(*) FROM answer").fetchall()
    described = connection.execute("SELECT column_name, column_type FROM (DESCRIBE answer)").fetchall()
    told = [_told(f'"{name.replace(chr(34), 2 * chr(34))}"', kind) for name, kind in described]
    connection.execute(f"SELECT {', '.join(text for text, _ in told)} FROM answer")
    columns = [Column(name, is_json) for (name, _), (_, is_json) in zip(described, told, strict=True)]
    return Answer(columns, count, connection)


_NUMBER: Final = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?\Z|DOUBLE\Z|FLOAT\Z|BOOLEAN\Z")
_TEXT: Final = re.compile(
    r"VARCHAR\Z|ENUM\(|UUID\Z|DATE\Z|TIME\Z|TIME_NS\Z|TIME WITH|INTERVAL\Z|BLOB\Z|BIT\Z|\"NULL\"\Z"
)


def _told(column: str, kind: str) -> tuple[str, bool]:
    """How a column of this type is read: as a number, text or JSON; and whether it is JSON."""
    if _NUMBER.match(kind):
        return column, False
    if kind.startswith("DECIMAL"):
        return f"{column}::DOUBLE", False
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f"replace(timezone('UTC', {column})::VARCHAR, ' ', 'T') || 'Z'", False
    if kind.startswith("TIMESTAMP") and not kind.endswith("]"):
        return f"replace({column}::VARCHAR, ' ', 'T')", False
    if _TEXT.match(kind) and not kind.endswith("]"):
        return f"{column}::VARCHAR", False
    return f"to_json({column})::VARCHAR", True


@contextmanager
def _shut_in(found: _Found, question: Question, folder: Path) -> "Iterator[DuckDBPyConnection]":
    """A database with the views, shut in for good: nothing can be set, loaded or opened any more but these files."""
    allowed = event_table.literal(found.paths())
    connection = connect(MEMORY, temp_directory=str(folder), max_temp_directory_size=room(folder))
    with connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET allowed_paths = {allowed}")
        connection.execute("SET enable_external_access = false")
        view = event_table.events_view(found.events, question.wanted, question.labels)
        try:
            connection.execute(f"CREATE VIEW events AS {view}")
            connection.execute(f"CREATE VIEW rollups AS {rollups_view(found.rollups, question.wanted)}")
        except duckdb_module().IOException as error:
            raise FilesChanged(str(error).partition("\n")[0]) from None
        connection.execute("SET lock_configuration = true")
        yield connection


def _in_their_lines(message: str) -> str:
    """The statement was run behind a line of ours."""
    return re.sub(r"^LINE (\d+):", lambda match: f"LINE {int(match[1]) - 1}:", in_short(message), flags=re.MULTILINE)

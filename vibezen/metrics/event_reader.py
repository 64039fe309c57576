"""Events from files: DuckDB over what is committed, beside archivers that go on writing."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from vibezen.metrics import event_sql
from vibezen.metrics.asking import stoppable
from vibezen.metrics.committed import CommittedFiles
from vibezen.metrics.errors import BadParameter, MissingExtra, StoreError
from vibezen.metrics.event_sql import Condition, Reading, Sql, Wanted
from vibezen.metrics.layout import Layout
from vibezen.metrics.part_files import damaged_part, first_line
from vibezen.metrics.places import at_hand
from vibezen.metrics.snapshot import Files, Segment, Snapshot
from vibezen.metrics.steps import Plan
from vibezen.metrics.window import Window

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Condition", "EventReader", "FilesChanged", "StepRow", "Wanted"]

T = TypeVar("T")

ATTEMPTS: Final = 10
"""Snapshots tried before a store whose files keep changing is an error."""
THREADS: Final = 2
"""Threads of one query; several queries run side by side."""
COUNTED_FILES: Final = 8
"""Open segments read where they lie, the largest ones; one archiver has seldom more than two, but while history comes
in it has dozens."""
COPY_BYTES: Final = 1 << 20
MEMORY: Final = "2GB"
"""What all queries of a process may hold together; one that needs more is refused."""

Labels = tuple[str | None, ...]
"""Values of the keys asked for; None where an event has no such key."""

log = logging.getLogger(__name__)


class FilesChanged(StoreError):
    """A file of the snapshot is gone, or became another: take a new snapshot and begin again."""


def unreadable(error: FilesChanged | None) -> StoreError:
    """What to raise when looking again and again did not help."""
    return StoreError(f"a file that the commit logs name cannot be read: {error}")


class StepRow(NamedTuple):
    """The events of one metric, step and group. `window` has no histogram. `lines`: how many lines they stand on.

    `quantiles` are those of the values themselves, None where lines stand for more than one sample each.
    """

    start: int
    metric: str
    labels: Labels
    window: Window
    lines: int
    quantiles: Sequence[float] | None


class Line(NamedTuple):
    """One event, which stands for `samples` equal ones. `metadata`: JSON, None without any."""

    ts: float
    metric: str
    value: float
    sample_rate: float
    samples: int
    metadata: str | None


class EventReader:
    """Reads the events of one store, from any thread. Building it touches nothing.

    Every method raises FilesChanged when the snapshot it was given is out of date, MissingExtra without DuckDB.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._files = CommittedFiles(layout)
        self._lock = threading.Lock()
        self._connection: DuckDBPyConnection | None = None
        self.damaged = 0
        """Lines of committed segments that turned out to be no events, in the last reading that met any."""

    def store_id(self) -> str:
        """Whose store this is. Raises StoreError."""
        return self.layout.read().id

    def snapshot(self, within: range | None = None) -> Snapshot:
        """What is committed now; `within`: the hours that matter, None for all. Raises StoreError when that cannot be
        told."""
        self.layout.read()  # a folder that is no store any more holds not nothing, but what nobody knows
        return self._files.snapshot(within)

    def ask(self, question: Callable[[Snapshot], T], within: range | None = None) -> T:
        """The answer to a question about one snapshot, whose files may change under it. Raises StoreError."""
        changed: FilesChanged | None = None
        for _ in range(ATTEMPTS):
            try:
                return question(self.snapshot(within))
            except FilesChanged as error:
                changed = error
        raise unreadable(changed)

    def steps(
        self,
        files: Files,
        wanted: Wanted,
        plan: Plan | None,
        keys: Sequence[str] = (),
        quantiles: Sequence[float] = (),
        limit: int = 1_000_000,
        *,
        sums: bool = True,
        lasts: bool = True,
    ) -> list[StepRow]:
        """Events added up by step and by the values of `keys`; at most `limit` rows. Without `sums` or `lasts` those
        are 0."""
        if not files:
            return []

        def made(reading: Reading) -> Sql:
            return event_sql.steps(reading, wanted, plan, keys, quantiles, limit, sums=sums, lasts=lasts)

        return [_step_row(row, len(keys)) for row in self._rows(files, made)]

    def buckets(
        self, files: Files, wanted: Wanted, plan: Plan | None, keys: Sequence[str] = ()
    ) -> dict[tuple[int, str, Labels], Window]:
        """By (start, metric, labels): windows that hold a histogram and nothing else."""
        found: dict[tuple[int, str, Labels], Window] = {}
        if not files:
            return found
        for row in self._rows(files, lambda reading: event_sql.buckets(reading, wanted, plan, keys)):
            start, metric, *labels, way, bucket, weight = row
            window = found.setdefault((start, metric, tuple(labels)), Window())
            weight = int(weight) if weight.is_integer() else weight
            if way == 0:
                window.zero = weight
            else:
                (window.positive if way > 0 else window.negative)[bucket] = weight
        return found

    def lines(
        self, files: Files, wanted: Wanted, limit: int, skip: int = 0, *, newest_first: bool = True
    ) -> list[Line]:
        if not files:
            return []
        rows = self._rows(
            files, lambda reading: event_sql.lines(reading, wanted, limit, skip, newest_first=newest_first)
        )
        return [Line(*row) for row in rows]

    def inventory(self, files: Files, wanted: Wanted, labels: Sequence[str], values: int) -> list[tuple[Any, ...]]:
        """See event_sql.inventory."""
        if not files:
            return []
        return self._rows(files, lambda reading: event_sql.inventory(reading, wanted, labels, values))

    def rows(self, files: Files, made: Callable[[Reading], Sql]) -> list[tuple[Any, ...]]:
        """What a statement over these events answers."""
        return self._rows(files, made) if files else []

    def _rows(self, files: Files, made: Callable[[Reading], Sql]) -> list[tuple[Any, ...]]:
        with file_errors(files), reading(files) as found:
            try:
                return self._run(made(found))
            except duckdb_module().InvalidInputException:
                # Somebody has damaged a file. Its good lines are still right, and the others are counted.
                forgiving = found._replace(forgiving=True)
                ((self.damaged,),) = self._run(event_sql.damage(forgiving))
                log.warning("%d lines in %d segments are no events; left out", self.damaged, len(files.segments))
                return self._run(made(forgiving))

    def run(self, sql: Sql) -> list[tuple[Any, ...]]:
        """The rows of a query over other files of the store. Raises FilesChanged, StoreError."""
        try:
            with file_errors(Files()):
                return self._run(sql)
        except (duckdb_module().Error, UnicodeDecodeError) as error:
            if type(error) in (duckdb_module().Error, UnicodeDecodeError):
                raise StoreError(f"a file is damaged: {first_line(error)}") from None
            raise

    def _run(self, sql: Sql) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor, stoppable(cursor):
            rows: list[tuple[Any, ...]] = cursor.execute(sql.text, sql.parameters).fetchall()
            return rows

    def _cursor(self) -> "DuckDBPyConnection":
        with self._lock:
            if self._connection is None:
                self._connection = connect(MEMORY)
            return self._connection.cursor()


@contextmanager
def reading(files: Files) -> Iterator[Reading]:
    """How to read these files. Raises FileNotFoundError when one is gone.

    Of an open segment only the first lines are data. DuckDB sets memory aside for each file whose rows are counted, so
    that of many open segments the small ones are copied together, as far as they are committed.
    """
    still_open = sorted((segment for segment in files.segments if not segment.closed), key=lambda one: -one.size)
    counted, copied = still_open[:COUNTED_FILES], still_open[COUNTED_FILES:]
    whole = [segment.path for segment in files.segments if segment.closed]
    begun = [(segment.to_read(), segment.lines) for segment in counted]
    parts = [(span.place, span.spans) for span in files.parts]
    with at_hand([(span.place, span.part.footer.moved) for span in files.parts]):
        if not copied:
            yield Reading(whole, begun, parts)
            return
        with _together(copied) as together:
            yield Reading([*whole, together], begun, parts)


@contextmanager
def _together(segments: Sequence[Segment]) -> Iterator[Path]:
    with _scratch_file() as copy:
        for segment in segments:
            _copy_beginning(segment, copy.file)
        copy.flush()
        yield Path(copy.name)


def _scratch_file() -> Any:
    try:
        return NamedTemporaryFile(prefix="vibezen-metrics-", suffix=".jsonl")
    except FileNotFoundError as error:  # not one of ours
        raise StoreError(f"no folder for temporary files: {error}") from None


def _copy_beginning(segment: Segment, target: IO[bytes]) -> None:
    with segment.to_read().open("rb") as file:
        left, last = segment.size, b"\n"
        while chunk := file.read(min(left, COPY_BYTES)):
            target.write(chunk)
            left, last = left - len(chunk), chunk[-1:]
    if last != b"\n":  # it was cut by whatever damaged it; the next segment must not join its last line
        target.write(b"\n")


@contextmanager
def file_errors(files: Files) -> Iterator[None]:
    """What DuckDB says of these files, in our words."""
    duckdb = duckdb_module()
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise BadParameter("from", "needs more memory than is allowed: ask for less time or fewer groups") from None
    except (duckdb.IOException, FileNotFoundError) as error:
        raise FilesChanged(first_line(error)) from None
    except duckdb.InterruptException:
        raise
    except (duckdb.Error, UnicodeDecodeError) as error:
        if told := damaged_part([span.place for span in files.parts]):
            raise StoreError(told) from None
        if isinstance(error, duckdb.InvalidInputException):
            raise StoreError(f"a file is damaged: {first_line(error)}") from None
        raise
    except OSError as error:
        raise StoreError(f"segments cannot be read: {error}") from None


def duckdb_module() -> Any:
    """Raises MissingExtra."""
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("server", "reading events from files") from None
    return duckdb


def connect(memory: str, **settings: str) -> "DuckDBPyConnection":
    """A database in memory, of at most `memory`, that loads nothing from anywhere."""
    config: dict[str, Any] = {
        "threads": THREADS,
        "memory_limit": memory,
        # Nothing is fetched from anywhere, and no name in a query is ever taken for a Python variable.
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
        **settings,
    }
    connection: DuckDBPyConnection = duckdb_module().connect(":memory:", config=config)
    # An interactive Python would have it drawn into whatever goes to standard output.
    connection.execute("SET enable_progress_bar = false")
    return connection


def _step_row(row: tuple[Any, ...], keys: int) -> StepRow:
    start, metric, *labels = row[: 2 + keys]
    lines, weight, sampled, total, low, high, last, last_ts, quantiles = row[2 + keys :]
    count = weight if sampled else round(weight)
    window = Window(count, total, 0.0, low, high, last, last_ts)
    return StepRow(start, metric, tuple(labels), window, lines, quantiles if count == lines and not sampled else None)

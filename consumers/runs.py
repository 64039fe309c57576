"""Runs: pieces of what goes into a part, each small enough to be sorted in the memory there is.

DuckDB sorts more than its memory holds, but needs the more of it the more that is. So what is larger than a run is
sorted run by run, each into a file, and the part is those files one after another. Runs of older parts are ranges of
metric and time, runs of lines are segments in the order they were written: row groups are of one metric either way.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from vibezen.metrics.clock import HOUR
from vibezen.metrics.consumers.holdings import Pending
from vibezen.metrics.event_sql import Sql

RUN_ROWS: Final = 4_000_000
RUN_BYTES: Final = 700_000_000
"""Of text: lines, or the strings of rows."""
ROW_BYTES: Final = 40
"""Of a row beside its metadata."""
GROUP_ROWS: Final = 81_920
"""Rows that are compressed together, and read or passed over together: few metrics share a group, and it is still worth
compressing."""
GROUP_BYTES: Final = 24_000_000
_VECTOR: Final = 2048
"""Rows that DuckDB handles at once; groups are multiples of it."""

T = TypeVar("T")
Size = Callable[[T], tuple[int, int]]
"""Rows and bytes of something."""


class Cell(NamedTuple):
    """Rows of one metric from `start` on, in Unix seconds, until the next cell's."""

    metric: str
    start: float
    rows: int
    bytes: int


def of_lines(segments: Iterable[Pending], smaller: int = 1) -> list[list[Pending]]:
    """Segments run by run, in order. `smaller`: so many times than a run may be at most."""
    ordered = sorted(segments, key=lambda one: one.extent.path)
    return list(_gathered(ordered, lambda one: (one.extent.events, one.extent.end), smaller))


def of_parts(cells: Iterable[tuple[str, int, int, int]], smaller: int = 1) -> list[list[Cell]]:
    """The rows of parts run by run: given metric, hour, rows and bytes of their metadata, ordered by metric and hour.
    An hour that is too much for a run is cut into equal times."""
    return list(_gathered(list(_cut(cells, smaller)), lambda one: (one.rows, one.bytes), smaller))


def _cut(cells: Iterable[tuple[str, int, int, int]], smaller: int) -> Iterator[Cell]:
    for metric, hour, rows, text in cells:
        size = text + rows * ROW_BYTES
        pieces = max(-(-rows * 2 * smaller // RUN_ROWS), -(-size * 2 * smaller // RUN_BYTES))
        for number in range(pieces):
            yield Cell(metric, hour + number * HOUR / pieces, rows // pieces, size // pieces)


def _gathered(ordered: Sequence[T], size_of: Size[T], smaller: int) -> Iterator[list[T]]:
    run: list[T] = []
    rows = size = 0
    for one in ordered:
        more_rows, more_bytes = size_of(one)
        if run and ((rows + more_rows) * smaller > RUN_ROWS or (size + more_bytes) * smaller > RUN_BYTES):
            yield run
            run, rows, size = [], 0, 0
        run.append(one)
        rows, size = rows + more_rows, size + more_bytes
    if run:
        yield run


def between(rows: Sql, first: Cell, behind: Cell | None, name: str) -> Sql:
    """Of these rows those from one cell on until another, in the order of metric and time. `name`: of parameters."""
    # What is compared alone lets row groups be passed over.
    clauses = [f"metric >= ${name}a", f"(metric > ${name}a OR ts >= make_timestamp({int(first.start * 1e6)}))"]
    parameters = {**rows.parameters, f"{name}a": first.metric}
    if behind is not None:
        parameters[f"{name}b"] = behind.metric
        clauses += [f"metric <= ${name}b", f"(metric < ${name}b OR ts < make_timestamp({int(behind.start * 1e6)}))"]
    return Sql(f"SELECT * FROM ({rows.text}) WHERE {' AND '.join(clauses)}", parameters)


def group_rows(rows: int, size: int) -> int:
    """Rows of a row group, for rows that have so many bytes together."""
    fitting = GROUP_BYTES * rows // max(size, 1) // _VECTOR * _VECTOR
    return min(max(fitting, _VECTOR), GROUP_ROWS)

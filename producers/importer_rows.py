"""From rows to events: what a chunk of rows came to.

A good chunk, which is nearly every one, is converted column by column and checked by a few passes in C. Anything
unusual sends the chunk the slow way: row by row, each refused alone and whole.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

from vibezen.metrics.clock import iso
from vibezen.metrics.errors import BadParameter, InvalidEvent
from vibezen.metrics.event import (
    MAX_AHEAD,
    MAX_BATCH_BYTES,
    WHOLE,
    Event,
    check_event,
    known_names,
    shown,
)
from vibezen.metrics.producers.append import Batch
from vibezen.metrics.producers.importer_mapping import Cell, EventPlan, columns_there_are
from vibezen.metrics.producers.importer_source import Chunk
from vibezen.metrics.producers.importer_times import ReadTime
from vibezen.metrics.producers.packing import BATCH_EVENTS, encode_line, encode_whole, split
from vibezen.metrics.verdict import decode_line, judge


class Refused(NamedTuple):
    """A row that gives no events: the line it begins on, which part of it is to blame, and how it stood there."""

    line: int
    field: str
    reason: str
    row: str


class Outcome:
    """What a chunk came to. `rows` counts those refused too; `empty`: values that were not there; `low`, `high`: the
    range of time. `ahead`: the row at which to stop, because whether it is accepted depends on the clock."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.rows = self.empty = 0
        self.refused: list[Refused] = []
        self.low, self.high = math.inf, -math.inf
        self.ahead: Refused | None = None


_NO_TEXT: Final = "surrogates not allowed"
"""What an encoder says of bytes that were no text."""

Convert = Callable[[Chunk, float], Outcome]
"""What rows read at a time (Unix seconds) come to."""


def _row_by_row(chunk: Chunk, now: float, lines_of: Callable[[Any, Outcome], tuple[list[bytes], float]]) -> Outcome:
    """`lines_of` gives a row's lines and their time, adding to `empty`; InvalidEvent refuses the row."""
    outcome = Outcome()
    kept: list[bytes] = []
    for index, row in enumerate(chunk.rows):
        try:
            if isinstance(row, InvalidEvent):
                raise row
            if is_blank(row):
                continue
            lines, ts = lines_of(row, outcome)
        except InvalidEvent as bad:
            raw = chunk.raw(index)
            outcome.refused.append(Refused(chunk.lines[index], bad.field, _reason(bad, raw), raw))
            outcome.rows += 1
            continue
        if lines and ts > now + MAX_AHEAD:
            reason = f"{iso(ts)} is more than 1 h ahead of now"
            outcome.ahead = Refused(chunk.lines[index], "ts", reason, chunk.raw(index))
            break
        outcome.rows += 1
        if lines:
            kept += lines
            outcome.low, outcome.high = min(outcome.low, ts), max(outcome.high, ts)
    for start in range(0, len(kept), BATCH_EVENTS):
        outcome.batches += split(iter(kept[start : start + BATCH_EVENTS]))
    return outcome


def _reason(bad: InvalidEvent, raw: str) -> str:
    """What is wrong, in words for who looks at the file."""
    reason = (
        "bytes that are no text in this encoding; --encoding names another" if _NO_TEXT in bad.reason else bad.reason
    )
    lines = raw.rstrip("\r\n").count("\n") + 1
    return f"{reason} ({lines} lines were read as this one row: is a quote left open?)" if lines > 2 else reason


def is_blank(row: Sequence[Any]) -> bool:
    """A line with nothing on it is no row."""
    return not row or (type(row[0]) is bytes and not row[0].strip())


# --- events of our own format


def own_lines(chunk: Chunk, now: float) -> Outcome:
    """Lines that are events already (contract: NDJSON of segments and batches) go on as they are."""
    outcome = Outcome()
    lines = [row[0] for row in chunk.rows if not isinstance(row, InvalidEvent)]
    for start in range(0, len(lines), BATCH_EVENTS):
        payload = b"".join(lines[start : start + BATCH_EVENTS]).replace(b"\r\n", b"\n")
        verdict = judge(payload if payload.endswith(b"\n") else payload + b"\n", now)
        if verdict.lines or verdict.rejected or len(verdict.payload) > MAX_BATCH_BYTES:
            return _row_by_row(chunk, now, _own_line)
        times: list[float] = [event.ts for event in verdict.events]  # type: ignore[misc]  # judged events have theirs
        outcome.low, outcome.high = min(outcome.low, *times), max(outcome.high, *times)
        outcome.batches.append(Batch(len(times), verdict.payload))
    outcome.rows = len(lines)
    return outcome


def _own_line(row: tuple[bytes], outcome: Outcome) -> tuple[list[bytes], float]:
    line = row[0].strip()
    event = decode_line(line, math.inf)  # too far ahead is no verdict here
    if event.ts is None:
        raise InvalidEvent("ts", "is missing; history needs a time")
    return [line + b"\n"], event.ts


# --- rows by a mapping


def check_columns(plans: Sequence[EventPlan], time: str, columns: Sequence[str]) -> None:
    """Raises BadParameter for a column that is not there, or there twice."""
    for column in dict.fromkeys([time, *(cell.column for plan in plans for cell in plan.cells() if cell.column)]):
        if (times := list(columns).count(column)) != 1:
            wrong = "there is no such column" if not times else f"{times} columns have this name"
            raise BadParameter(f"{{{column}}}", f"{wrong}; {columns_there_are(columns)}")


class MappedRows:
    """Makes the events of `plans` from rows with these columns."""

    def __init__(self, plans: Sequence[EventPlan], columns: Sequence[str], time: str, read_time: ReadTime) -> None:
        self._width = len(columns)
        self._time, self._read_time = columns.index(time), read_time
        self._plans = [_Plan(plan, columns) for plan in plans]

    def __call__(self, chunk: Chunk, now: float) -> Outcome:
        if chunk.plain and (outcome := self._whole(chunk.rows, now)):
            return outcome
        return _row_by_row(chunk, now, self._lines)

    def _whole(self, rows: Sequence[Any], now: float) -> Outcome | None:
        """The fast path; None when any row needs a closer look."""
        if {*map(len, rows)} != {self._width}:
            return None
        columns = list(zip(*rows, strict=True))
        outcome = Outcome()
        try:
            times = list(map(self._read_time, columns[self._time]))
            made = [plan.whole(columns, times) for plan in self._plans]
        except (InvalidEvent, ValueError, TypeError, OverflowError):
            return None
        everything = list(chain.from_iterable(zip(*made, strict=True)))
        events = [event for event in everything if event is not None]
        outcome.empty = len(everything) - len(events)
        for start in range(0, len(events), BATCH_EVENTS):
            part = events[start : start + BATCH_EVENTS]
            payload = encode_whole(part, now)
            if payload is None or len(payload) > MAX_BATCH_BYTES:
                return None
            outcome.batches.append(Batch(len(part), payload))
        outcome.rows = len(rows)
        if events:
            stamps: list[float] = [event.ts for event in events] if outcome.empty else times
            outcome.low, outcome.high = min(stamps), max(stamps)
        return outcome

    def _lines(self, row: Sequence[Any], outcome: Outcome) -> tuple[list[bytes], float]:
        if len(row) != self._width:
            raise InvalidEvent("row", f"{len(row)} cells instead of {self._width}")
        ts = self._read_time(row[self._time])
        made = [plan.event(row, ts) for plan in self._plans]
        events = [event for event in made if event is not None]
        for event in events:
            check_event(event, math.inf)  # too far ahead is no verdict here
        lines = [encode_line(event) for event in events]
        outcome.empty += len(made) - len(events)
        return lines, ts


class _Plan:
    """One event per row: which cells it is made of."""

    def __init__(self, plan: EventPlan, columns: Sequence[str]) -> None:
        self._at = {column: index for index, column in enumerate(columns)}
        self._metric, self._value, self._fields = plan.metric, plan.value, plan.fields
        self._constants = {key: cell.constant for key, cell in plan.metadata.items() if cell.column is None}
        self._keys = [key for key, cell in plan.metadata.items() if cell.column]
        self._cells = [columns.index(cell.column) for cell in plan.metadata.values() if cell.column]

    def whole(self, columns: Sequence[tuple[Any, ...]], times: list[float]) -> list[Event | None]:
        """One event per row, None where its value is empty, or one of many errors when a row needs a closer look."""
        if self._fields:
            raise ValueError
        metrics: Any = repeat(self._metric.constant, len(times))
        if self._metric.column:
            metrics = columns[self._at[self._metric.column]]
            if not known_names().issuperset(metrics):
                raise ValueError
        values, metadata = self._values(columns, len(times)), self._metadata(columns, len(times))
        made: list[Event | None] = list(map(Event, metrics, values, times, repeat(WHOLE), repeat(1), metadata))
        if type(values) is list and None in values:
            made = [event if value is not None else None for event, value in zip(made, values, strict=True)]
        return made

    def _values(self, columns: Sequence[tuple[Any, ...]], count: int) -> Any:
        cell = self._value
        if cell.column is None:
            return repeat(cell.constant, count)
        cells = columns[self._at[cell.column]]
        kinds = {*map(type, cells)}
        if kinds == {str}:
            text = "".join(cells)
            if "_" in text or not text.isascii():
                raise ValueError  # float() takes these
        elif not kinds <= {int, float}:
            raise ValueError
        numbers = list(map(float, filter(None, cells) if "" in cells else cells))
        if cell.times != 1 or cell.by != 1:
            numbers = [number * cell.times / cell.by for number in numbers]
        if not math.isfinite(sum(numbers)):
            raise ValueError
        if len(numbers) == count:
            return numbers
        those_there = iter(numbers)
        return [next(those_there) if found else None for found in cells]

    def _metadata(self, columns: Sequence[tuple[Any, ...]], count: int) -> Any:
        constants = self._constants
        if not self._cells:
            return repeat(constants, count)
        if len(self._cells) == 1 and all(columns[self._cells[0]]):
            (key,) = self._keys
            return [{**constants, key: cell} for cell in columns[self._cells[0]]]
        chosen = zip(*(columns[index] for index in self._cells), strict=True)
        return [self._described(cells) for cells in chosen]

    def _described(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Metadata of one row; an absent label differs from an empty one, and an empty cell says that it is absent."""
        found = zip(self._keys, cells, strict=True)
        return {**self._constants, **{key: cell for key, cell in found if cell is not None and cell != ""}}

    def event(self, row: Sequence[Any], ts: float) -> Event | None:
        """The event of one row, unchecked; None when its value is not there. Raises InvalidEvent."""
        value = self._number(row, self._value)
        if value is None:
            return None
        metric = self._metric.constant if self._metric.column is None else self._cell(row, self._metric)
        metadata = self._described([row[index] for index in self._cells])
        rate, count = (self._number(row, self._fields.get(name, _ABSENT)) for name in ("sample_rate", "count"))
        if count is not None and count != int(count):
            raise InvalidEvent("count", f"{shown(count)} is not a whole number")
        whole = WHOLE if rate is None or rate == WHOLE else rate
        return Event(metric, value, ts, whole, 1 if count is None else int(count), metadata)  # type: ignore[arg-type]  # checked by the caller

    def _cell(self, row: Sequence[Any], cell: Cell) -> Any:
        assert cell.column is not None
        return row[self._at[cell.column]]

    def _number(self, row: Sequence[Any], cell: Cell) -> float | None:
        """None for nothing there."""
        if cell.column is None:
            return None if cell.constant is _NOTHING else cell.constant  # type: ignore[return-value]  # a number
        found = self._cell(row, cell)
        if found is None or (isinstance(found, str) and not found.strip()):
            return None
        number = _float(cell.column, found) * cell.times / cell.by
        if not math.isfinite(number):
            raise InvalidEvent(cell.column, f"{shown(found)} is not a finite number")
        return number


_NOTHING: Final = ""
_ABSENT: Final = Cell(None, _NOTHING)


def _float(column: str, cell: Any) -> float:
    if isinstance(cell, bool) or (isinstance(cell, str) and ("_" in cell or not cell.isascii())):
        raise InvalidEvent(column, f"{shown(cell)} is not a number")
    try:
        return float(cell)
    except (ValueError, TypeError):
        raise InvalidEvent(column, f"{shown(cell)} is not a number") from None
    except OverflowError:
        raise InvalidEvent(column, f"{shown(cell)} is not a finite number") from None

"""What is asked of an import, and each file made ready for it: its rows, and what turns them into events."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.errors import BadParameter, InvalidEvent
from vibezen.metrics.producers.importer_csv import CsvRows, check_csv
from vibezen.metrics.producers.importer_mapping import Mapping, own_events, plans, time_column
from vibezen.metrics.producers.importer_ndjson import JsonRows
from vibezen.metrics.producers.importer_rows import Convert, MappedRows, check_columns, is_blank, own_lines
from vibezen.metrics.producers.importer_source import STDIN, Chunk, Rows, Source
from vibezen.metrics.producers.importer_times import time_reader

CHUNK_EVENTS: Final = 4000
"""Events converted at a time, more or less: a call's worth."""


class Order(NamedTuple):
    """What is asked for. `key`: identity of the import; without one it follows from mapping, header and first row.
    `format`: csv, ndjson, or None for what name or content tell. `limit`: rows per file. `trial`: append nothing."""

    files: Sequence[str]
    mapping: Mapping = Mapping()
    format: str | None = None
    key: str | None = None
    rejects: Path | None = None
    limit: int | None = None
    trial: bool = False


class Prepared(NamedTuple):
    """One file made ready. `mapping` with all that was left open filled in; `size`: rows to read at a time."""

    rows: Rows
    convert: Convert
    mapping: Mapping
    size: int


def check(order: Order) -> None:
    """Everything that can be known without reading a file. Raises BadParameter."""
    mapping = order.mapping
    plans(mapping)
    time_reader("time", mapping.time_format, mapping.timezone, mapping.ambiguous)
    check_csv(mapping.delimiter, mapping.encoding)
    if len({*order.files}) < len(order.files):
        raise BadParameter("FILE", "a file is named twice")
    if order.key is not None and len(order.files) > 1:
        raise BadParameter("--idempotency-key", "names one import: give one file, or leave the key out")
    for name in order.files:
        if name != STDIN and not Path(name).exists():
            raise BadParameter("FILE", f"{name}: no such file")
        if Path(name).is_dir():
            raise BadParameter("FILE", f"{name} is a folder")


def prepare(source: Source, mapping: Mapping) -> Prepared:
    """Raises BadParameter where file and mapping do not fit, ImportStopped for a file that cannot be read."""
    return _csv(source, mapping) if source.format == "csv" else _ndjson(source, mapping)


def _csv(source: Source, mapping: Mapping) -> Prepared:
    tab = "tab" if source.is_tab_separated() else None
    delimiter, encoding = check_csv(mapping.delimiter or tab, mapping.encoding)
    rows = CsvRows(source, delimiter, encoding, mapping.columns)
    time = time_column(mapping.time, rows.columns)
    events = mapping.events or own_events(rows.columns, time)
    return _mapped(rows, msgspec.structs.replace(mapping, time=time, events=events))


def _ndjson(source: Source, mapping: Mapping) -> Prepared:
    rows = JsonRows(source)
    if not mapping.events:
        if mapping != Mapping():
            raise BadParameter(
                "--event", "say which events a row gives; without, lines are taken as the events they are"
            )
        return Prepared(rows, own_lines, mapping, CHUNK_EVENTS)
    if mapping.columns or mapping.delimiter or mapping.encoding != Mapping().encoding:
        raise BadParameter("--format", "columns, delimiter and encoding are for CSV; NDJSON is UTF-8 with named fields")
    time = time_column(mapping.time, list(rows.first_object()))
    wanted = [time, *(cell.column for plan in plans(mapping) for cell in plan.cells() if cell.column)]
    rows.ask_for(list(dict.fromkeys(wanted)))
    return _mapped(rows, msgspec.structs.replace(mapping, time=time))


def _mapped(rows: Rows, mapping: Mapping) -> Prepared:
    made, time = plans(mapping), mapping.time or ""
    check_columns(made, time, rows.columns)
    read_time = time_reader(time, mapping.time_format, mapping.timezone, mapping.ambiguous)
    convert = MappedRows(made, rows.columns, time, read_time)
    return Prepared(rows, convert, mapping, max(1, CHUNK_EVENTS // len(made)))


def key_of(prepared: Prepared, first: Chunk | None) -> str:
    """The same for the same mapping, header and first row: a file that grew is the same, a rotated one another."""
    # Delimiter and encoding say how rows are written, not what they mean.
    meant = msgspec.structs.replace(prepared.mapping, delimiter=None, encoding=Mapping().encoding, columns=())
    digest = hashlib.sha256(msgspec.json.encode(meant))
    for cell in (*prepared.rows.columns, None, *_first_row(first)):
        digest.update(repr(cell).encode("utf-8", "surrogatepass") + b"\n")
    return "content-" + digest.hexdigest()[:32]


def _first_row(chunk: Chunk | None) -> Sequence[object]:
    for index, row in enumerate(chunk.rows if chunk else ()):
        if isinstance(row, InvalidEvent):
            assert chunk is not None
            return [chunk.raw(index).strip()]
        if not is_blank(row):
            return [cell.strip() if isinstance(cell, bytes) else cell for cell in row]
    return ()

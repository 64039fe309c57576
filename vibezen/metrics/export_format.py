"""How events look in an exported file."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

import msgspec

from vibezen.metrics.clock import iso
from vibezen.metrics.event import WHOLE
from vibezen.metrics.event_table import label_columns
from vibezen.metrics.spreadsheet import csv_lines

Row = tuple[Any, ...]
"""ts, metric, value, sample_rate, count, the text of each label, metadata (JSON or None)."""


class Format(StrEnum):
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES: Final = {
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.JSONL: "application/x-ndjson",
    Format.PARQUET: "application/vnd.apache.parquet",
}
ENDINGS: Final = {
    ".csv": Format.CSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
}
_encoder: Final = msgspec.json.Encoder()


class RowFormat(Protocol):
    """A format that rows can be written in one after another. `labels`: those that get columns of their own."""

    labels: Sequence[str]

    def head(self) -> bytes: ...

    def lines(self, rows: Sequence[Row]) -> bytes: ...


class CsvFormat:
    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels

    def head(self) -> bytes:
        names = ("time", "ts", "metric", "value", "sample_rate", "count", *label_columns(self.labels).values())
        return csv_lines([[*names, "metadata"]]).encode()

    def lines(self, rows: Sequence[Row]) -> bytes:
        return csv_lines((iso(row[0]), *row) for row in rows).encode()


class _Line(msgspec.Struct, omit_defaults=True):
    """An event as the archive writes it: fields in the order of `event.Event`."""

    metric: str
    value: float
    ts: float
    sample_rate: float = WHOLE
    count: int = 1
    metadata: msgspec.Raw = msgspec.Raw()


class JsonLines:
    """Each event as it stands on its line; `vibezen-metrics import` takes them back."""

    labels: Sequence[str] = ()

    def head(self) -> bytes:
        return b""

    def lines(self, rows: Sequence[Row]) -> bytes:
        return _encoder.encode_lines([_line(*row) for row in rows])


def _line(ts: float, metric: str, value: float, sample_rate: float, count: int, metadata: str | None) -> _Line:
    rate = WHOLE if sample_rate == WHOLE else sample_rate  # the encoder leaves out this very object only
    if metadata is None:
        return _Line(metric, value, ts, rate, count)
    return _Line(metric, value, ts, rate, count, msgspec.Raw(metadata.encode()))

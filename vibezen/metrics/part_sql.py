"""The SQL that makes a part of lines and older parts, and tells whether it holds the same."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from vibezen.metrics.clock import HOUR
from vibezen.metrics.event_sql import Sql

COLUMNS: Final = 'ts, metric, value, sample_rate, "count", metadata, shard'
"""Of every part, in this order; columns are only ever added."""
_LINE: Final = (
    "{ts: 'DOUBLE', metric: 'VARCHAR', value: 'DOUBLE', sample_rate: 'DOUBLE', \"count\": 'BIGINT', metadata: 'JSON'}"
)
_MICROS: Final = 1_000_000
_NEAREST: Final = "round(ts * 1e6)::BIGINT"
MICROS_OF_LINE: Final = f"({_NEAREST} - ({_NEAREST} / 1e6 > ts)::BIGINT)"
"""A line's time in whole microseconds, rounded down: then an event stays in the second, and the hour, it was in, and a
number that was written with microseconds keeps them."""
_SHARD_OF_FILE: Final = "regexp_extract(filename, '(\\d+)-\\d+-\\d+\\.jsonl$', 1)::SMALLINT"
CONTENT: Final = (
    "count(*), coalesce(sum((md5_number_lower(concat_ws(chr(31), epoch_us(ts), metric, value, sample_rate, "
    "\"count\", coalesce(metadata, ''), shard)) >> 1)::BIGINT), 0)::VARCHAR"
)
"""Rows, and a sum over them that is the same in any order: of 63 bits of each row's MD5. Sums of two sets of rows add
up to that of both."""


class Lines(NamedTuple):
    """Closed segments of one shard."""

    shard: int
    paths: Sequence[Path]


def rows(lines: Sequence[Lines], parts: Sequence[Path], name: str = "") -> Sql:
    """The rows of these files in the form of a part. A line that is no event is an error. `name`: of its parameters.

    All files of a kind are one scan: DuckDB sets memory aside for each scan of a union.
    """
    parameters: dict[str, Any] = {}
    pieces = []
    if lines:
        parameters[f"lines{name}"] = [str(path) for _, paths in lines for path in paths]
        shard = f"{int(lines[0].shard)}::SMALLINT" if len(lines) == 1 else _SHARD_OF_FILE
        pieces.append(
            f"SELECT make_timestamp({MICROS_OF_LINE}) AS ts, metric, value, coalesce(sample_rate, 1.0) AS sample_rate,"
            f' coalesce("count", 1) AS "count", metadata::VARCHAR AS metadata, {shard} AS shard'
            f" FROM read_json($lines{name}, format='newline_delimited', hive_partitioning=false,"
            f" filename={str(len(lines) > 1).lower()}, columns={_LINE})"
        )
    if parts:
        parameters[f"parts{name}"] = list(map(str, parts))
        pieces.append(f"SELECT {COLUMNS} FROM read_parquet($parts{name}, hive_partitioning=false)")
    return Sql(" UNION ALL ".join(pieces), parameters)


def content(of: Sql) -> Sql:
    """One row: CONTENT."""
    return Sql(f"SELECT {CONTENT} FROM ({of.text})", of.parameters)


def only(of: Sql, spans: Sequence[tuple[int, int]]) -> Sql:
    """The rows in these spans, [since, until) in Unix seconds each."""
    runs = (
        f"ts >= make_timestamp({since * _MICROS}) AND ts < make_timestamp({until * _MICROS})" for since, until in spans
    )
    return Sql(f"SELECT * FROM ({of.text}) WHERE {' OR '.join(runs)}", of.parameters)


def together(pieces: Sequence[Sql]) -> Sql:
    """The rows of all; their parameters must have different names."""
    parameters = {name: value for piece in pieces for name, value in piece.parameters.items()}
    return Sql(" UNION ALL ".join(piece.text for piece in pieces), parameters)


def by_hour(of: Sql) -> Sql:
    """A row per hour: its beginning in Unix seconds, CONTENT, the times of the first and the last event in Unix
    microseconds, and how many of its rows are no events."""
    return Sql(
        f"SELECT epoch_us(ts) // {HOUR * _MICROS} * {HOUR} AS hour, {CONTENT}, min(epoch_us(ts)), max(epoch_us(ts)),"
        f" count(*) FILTER (metric IS NULL OR value IS NULL) FROM ({of.text}) GROUP BY hour",
        of.parameters,
    )


def cells(of: Sql) -> Sql:
    """A row per metric and hour, in their order: metric, the hour's beginning in Unix seconds, rows, bytes of text."""
    return Sql(
        f"SELECT metric, epoch_us(ts) // {HOUR * _MICROS} * {HOUR} AS hour, count(*),"
        f" coalesce(sum(strlen(metadata)), 0)::BIGINT FROM ({of.text}) GROUP BY metric, hour ORDER BY metric, hour",
        of.parameters,
    )

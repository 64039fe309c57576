"""The SQL of events as a table, with labels in columns of their own: what is exported, and what a view shows."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from vibezen.metrics.event_sql import Reading, Sql, Wanted, chosen

_FIELDS: Final = ("time", "ts", "metric", "value", "sample_rate", "count", "metadata")
"""Columns that events have anyway."""
_STAMP: Final = "make_timestamp(round(ts * 1e6)::BIGINT)"
"""An event's time as a TIMESTAMP in UTC, to the microsecond."""


def in_order(reading: Reading, wanted: Wanted) -> Sql:
    """The events in order of time, those of one time in the order of their content: ts (Unix seconds), metric, value,
    sample_rate, count, metadata (JSON)."""
    text, parameters = chosen(reading, wanted, None)
    return Sql(
        f'SELECT ts, metric, value, coalesce(sample_rate, 1.0) AS sample_rate, coalesce("count", 1) AS "count",'
        f' metadata FROM {text} ORDER BY ts, metric, value, metadata, sample_rate, "count"',
        parameters,
    )


def with_labels(table: str, labels: Sequence[str], *, stamped: bool = False) -> str:
    """What `in_order` found and `table` now holds, with `labels` as text in front of the metadata. `stamped`: with `ts`
    as a TIMESTAMP."""
    columns = [
        f"{_STAMP if stamped else 'ts'} AS ts",
        'metric, value, sample_rate, "count"',
        *(f'labels."{label}" AS "{column}"' for label, column in label_columns(labels).items()),
        "metadata::VARCHAR AS metadata",
    ]
    wanted = ", ".join(f'"{label}": "VARCHAR"' for label in labels)
    read = f", from_json(metadata, '{{{wanted}}}') AS labels" if labels else ""
    return f"SELECT {', '.join(columns)} FROM (SELECT *{read} FROM {table})"


def events_view(reading: Reading, wanted: Wanted, labels: Sequence[str]) -> str:
    """The events as a query for a view, which can have no parameters: ts (TIMESTAMP, UTC), metric, value, sample_rate,
    count, `labels` as text, metadata (JSON)."""
    text, parameters = chosen(reading, wanted, None)
    columns = [
        f"{_STAMP} AS ts",
        "metric, value, coalesce(sample_rate, 1.0) AS sample_rate",
        'coalesce("count", 1) AS "count"',
        *(
            # Each by itself: what a query does not name is then not read.
            f'from_json(metadata, \'{{"{label}": "VARCHAR"}}\')."{label}" AS "{column}"'
            for label, column in label_columns(labels).items()
        ),
        "metadata",
    ]
    return with_literals(Sql(f"SELECT {', '.join(columns)} FROM {text}", parameters))


def label_columns(labels: Iterable[str]) -> dict[str, str]:
    """Label → the name of its column: its own, unless an event has a field of that name."""
    return {label: f"metadata.{label}" if label in _FIELDS else label for label in labels}


def with_literals(sql: Sql) -> str:
    """The text with every parameter written out."""

    def written(match: re.Match[str]) -> str:
        name = match[1]
        return literal(sql.parameters[name]) if name in sql.parameters else match[0]

    return re.sub(r"\$(\w+)", written, sql.text)


def literal(value: object) -> str:
    """A value as DuckDB reads it back: text, numbers, and lists of them."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    if isinstance(value, bool | int | float):
        return repr(value).lower()
    raise TypeError(f"{type(value).__name__} has no literal here")

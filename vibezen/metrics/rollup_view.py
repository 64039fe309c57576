"""Stored windows as a table: the rollups that stand for what readers take, without their histograms."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from vibezen.metrics.event_sql import Wanted
from vibezen.metrics.event_table import literal
from vibezen.metrics.layout import Layout
from vibezen.metrics.parts import KEY, date_of
from vibezen.metrics.rollups import decode_footer, rollup_path
from vibezen.metrics.snapshot import Files, PartSpan

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_COLUMNS: Final = {
    **{"ts": "TIMESTAMP", "metric": "VARCHAR", "labels": "JSON", "count": "DOUBLE", "lines": "BIGINT"},
    **{"sum": "DOUBLE", "min": "DOUBLE", "max": "DOUBLE", "last": "DOUBLE", "last_ts": "TIMESTAMP", "zero": "DOUBLE"},
}


def standing_rollups(connection: "DuckDBPyConnection", layout: Layout, files: Files) -> list[str]:
    """Where the rollups of these files' day parts lie. One that was made of other rows does not stand for its part."""
    return [path for span in files.parts if (path := _rollup_of(connection, layout, span)) is not None]


def _rollup_of(connection: "DuckDBPyConnection", layout: Layout, span: PartSpan) -> str | None:
    path = rollup_path(layout, date_of(span.hours[0]), span.part.footer.rows_of)
    if span.part.path.count("/") > 1 or not path.exists():  # an hour's part has none
        return None
    told = connection.execute("SELECT value FROM parquet_kv_metadata($1) WHERE decode(key) = $2", [str(path), KEY])
    footer = told.fetchone()
    try:
        return str(path) if footer is not None and decode_footer(footer[0]).stands_for(span.part) else None
    except msgspec.MsgspecError:
        return None


def rollups_view(paths: Sequence[str], wanted: Wanted) -> str:
    """A row per minute, metric and labels; `labels` is null for the metric as a whole."""
    columns = ", ".join(f'"{name}"::{kind} AS "{name}"' for name, kind in _COLUMNS.items())
    if not paths:
        nothing = ", ".join(f'NULL AS "{name}"' for name in _COLUMNS)
        return f"SELECT {columns} FROM (SELECT {nothing}) WHERE false"
    return (
        f"SELECT {columns} FROM read_parquet({literal(list(paths))}, hive_partitioning=false)"
        f" WHERE epoch_us(ts) >= {wanted.since!r} * 1e6 AND epoch_us(ts) < {wanted.until!r} * 1e6"
    )

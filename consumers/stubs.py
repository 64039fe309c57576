"""Stubs: parts without rows, which say what became of a date's events.

A stub is published like any part, by a link that replaces nothing: before it all is there, after it all is gone, or
lies elsewhere. It is the generation right after the one it was decided on: where somebody else has published that, it
comes too late and changes nothing. What it includes is deleted later, by the sweep.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from vibezen.metrics.errors import MissingExtra
from vibezen.metrics.layout import Layout, make_folder, publish_once, space
from vibezen.metrics.parts import KEY, Footer, encode_footer, part_name

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

EMPTY: Final = "0"
"""The content of a part without rows."""

Check = Callable[[], None]
"""Raises Fenced when this process is not the compactor any more."""

_NO_ROWS: Final = (
    "SELECT NULL::TIMESTAMP AS ts, NULL::VARCHAR AS metric, NULL::DOUBLE AS value, NULL::DOUBLE AS sample_rate,"
    ' NULL::BIGINT AS "count", NULL::VARCHAR AS metadata, NULL::SMALLINT AS shard WHERE false'
)
"""With the columns of every part (part_sql.COLUMNS)."""


def publish_stub(layout: Layout, folder: str, footer: Footer, check: Check) -> bool:
    """Publish a part that has no rows in a folder below that of events; False when its generation exists.

    Raises StoreFull, Fenced.
    """
    target = layout.events / folder / part_name(footer.generation)
    make_folder(target.parent)
    with space(), TemporaryDirectory(prefix="vibezen-metrics-") as scratch:
        made = Path(scratch) / target.name
        with _duckdb().connect(":memory:", config={"threads": 1}) as connection:
            _write(connection, made, footer)
        data = made.read_bytes()
        check()
        return publish_once(target, data)


def _write(connection: "DuckDBPyConnection", target: Path, footer: Footer) -> None:
    connection.execute(
        f"COPY ({_NO_ROWS}) TO $target (FORMAT parquet, COMPRESSION zstd, KV_METADATA {{{KEY}: $footer}})",
        {"target": str(target), "footer": encode_footer(footer)},
    )


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("server", "compacting events") from None
    return duckdb

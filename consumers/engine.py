"""DuckDB as the compactor uses it: within bounds of memory, with a folder of its own for what does not fit in them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vibezen.metrics.errors import Fenced, MissingExtra, StoreError, StoreFull
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.layout import FILE_MODE, FOLDER_MODE

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY: Final = "180MB"
"""What DuckDB may hold; beside it, the compressor and Python itself take some 80 MB."""
SORTING: Final = "64MB"
"""What of that sorting may hold before it goes on on disk. Reading lines takes 64 MB, and fails where it gets none."""
THREADS: Final = 2


class Damaged(StoreError):
    """What something is to be made of is not as it was written. Nothing is made of it until a person has looked."""


class Engine:
    """One connection, made when it is first needed. `folder`: for files in the making."""

    def __init__(self, folder: Path) -> None:
        if find_spec("duckdb") is None:
            raise MissingExtra("server", "compacting events")
        self.folder = folder
        self._connection: DuckDBPyConnection | None = None

    def run(self, sql: Sql) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._connection = _connect(self.folder / "spill")
        rows: list[tuple[Any, ...]] = self._connection.execute(sql.text, sql.parameters).fetchall()
        return rows

    def write(self, rows: Sql, file: Path, options: str, parameters: dict[str, Any] | None = None) -> None:
        """A new Parquet file of these rows. `options`: of COPY, beside the format."""
        self.folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.touch(FILE_MODE)
        text = f"COPY ({rows.text}) TO $file (FORMAT parquet, USE_TMP_FILE false, {options})"
        self.run(Sql(text, {**rows.parameters, **(parameters or {}), "file": str(file)}))

    def clear(self) -> None:
        """Remove what was made and not published: where it found no space, archivers need that."""
        with suppress(FileNotFoundError):
            for path in self.folder.iterdir():
                if path.is_file():
                    path.unlink(missing_ok=True)

    def interrupt(self) -> None:
        """From another thread: end what is being done."""
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def failures(what: str) -> Iterator[None]:
    """DuckDB's errors as ours."""
    import duckdb

    try:
        yield
    except duckdb.InterruptException:
        raise Fenced("compactor: another process has taken over") from None
    except duckdb.Error as error:
        if "No space left" in str(error) or "max_temp_directory_size" in str(error):
            raise StoreFull(f"storage folder: no space left on device to compact {what}") from None
        raise Damaged(f"{what}: {str(error).partition(chr(10))[0]}") from None


def _connect(spill: Path) -> "DuckDBPyConnection":
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": str(THREADS),
        "memory_limit": MEMORY,
        "temp_directory": str(spill),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
    }
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"SET operator_memory_limit = '{SORTING}'")
    return connection

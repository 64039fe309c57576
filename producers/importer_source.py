"""Files to import, read in chunks: CSV and NDJSON, plain or gzip, or standard input.

Line numbers are those of the source, also behind quoted line ends, and every row can be shown as it stood there.
"""

import codecs
import io
import os
import select
import stat
import threading
import zlib
from collections.abc import Callable, Sequence
from gzip import GzipFile
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from vibezen.metrics.errors import ImportStopped, InvalidEvent

STDIN: Final = "-"
Row = Sequence[Any] | InvalidEvent
"""Cells by column; or why the row could not even be read. No cells at all: a blank line, which is no row."""

_STDIN_DESCRIPTOR: Final = 0
"""Not `sys.stdin`, which is None where it is closed."""
_BUFFER: Final = 256 * 1024
_GZIP: Final = b"\x1f\x8b"
BOM: Final = codecs.BOM_UTF8
_POLL: Final = 0.2
"""Seconds a silent pipe is waited for before the wish to stop is looked at."""
_ENDINGS: Final[dict[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
}
UNREADABLE: Final = (OSError, EOFError, zlib.error, UnicodeError)
"""Disk, damaged gzip, bytes that even their encoding's fallback does not take."""


class Interrupted(Exception):
    """Asked to stop while waiting."""


class Chunk(NamedTuple):
    """`rows[i]` begins on line `lines[i]` of the source, counted from 1; `raw(i)` is how it stands there.
    `plain`: no row is unreadable."""

    rows: Sequence[Row]
    lines: Sequence[int]
    raw: Callable[[int], str]
    plain: bool


class Rows(Protocol):
    """The rows of a source. `columns`: what they are called; for NDJSON the fields one asked for."""

    columns: Sequence[str]

    def read(self, size: int) -> Chunk | None:
        """Up to `size` rows; None at the end. What precedes damage is handed out before ImportStopped is raised."""


class _Pipe(io.RawIOBase):
    """Standard input or a named pipe, whose reader can be asked to stop while nothing comes."""

    def __init__(self, descriptor: int, stop: threading.Event) -> None:
        self._descriptor, self._stop, self._read = descriptor, stop, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._read

    def readinto(self, buffer: Any) -> int:
        while not select.select([self._descriptor], [], [], _POLL)[0]:
            if self._stop.is_set():
                raise Interrupted
        data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        return len(data)


class Source:
    """An opened file. `size`: bytes, None where nobody knows; `format`: csv or ndjson, as name or first bytes tell."""

    def __init__(self, name: str, stop: threading.Event, wanted: str | None = None) -> None:
        self.name = "standard input" if name == STDIN else name
        self._file: io.FileIO | None = None
        self._layers: list[io.BufferedIOBase | io.TextIOBase] = []
        try:
            self._raw, self.size = self._open(name, stop)
            buffered = io.BufferedReader(self._raw, _BUFFER)
            self._layers.append(buffered)
            zipped = buffered.peek(2)[:2] == _GZIP
            self.binary = io.BufferedReader(GzipFile(fileobj=buffered), _BUFFER) if zipped else buffered
            self._layers.append(self.binary)
            self.format = wanted or self._told_by(Path(name)) or self._guessed()
        except UNREADABLE as error:
            raise ImportStopped(f"{self.name}: cannot be read: {reason_of(error)}") from None

    def _open(self, name: str, stop: threading.Event) -> tuple[io.RawIOBase, int | None]:
        if name == STDIN:
            return _Pipe(_STDIN_DESCRIPTOR, stop), None
        self._file = file = io.FileIO(name)
        told = os.fstat(file.fileno())
        if stat.S_ISREG(told.st_mode):
            return file, told.st_size
        return _Pipe(file.fileno(), stop), None

    def _told_by(self, path: Path) -> str | None:
        return _ENDINGS.get(path.with_suffix("").suffix.lower() if path.suffix == ".gz" else path.suffix.lower())

    def _guessed(self) -> str:
        return "ndjson" if self.binary.peek(16).removeprefix(BOM).lstrip()[:1] == b"{" else "csv"

    def is_tab_separated(self) -> bool:
        return self.name.lower().removesuffix(".gz").endswith(".tsv")

    def read_bytes(self) -> int:
        """How many of `size` have been read."""
        return self._raw.tell()

    def text(self, encoding: str) -> io.TextIOWrapper:
        """The lines with their ends. A byte that is none of this encoding spoils only the cell it stands in."""
        text = io.TextIOWrapper(self.binary, encoding, errors="surrogateescape", newline="")
        self._layers.append(text)
        return text

    def close(self) -> None:
        for layer in reversed(self._layers):
            layer.close()
        if self._file is not None:
            self._file.close()


def stopped(name: str, line: int, error: BaseException) -> ImportStopped:
    return ImportStopped(
        f"{name}: cannot be read after line {line}: {reason_of(error)}; the rows before it are imported"
    )


def reason_of(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)

"""Rows of NDJSON files: lines as they are, or the fields one asks for."""

from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import msgspec

from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.producers.importer_source import BOM, UNREADABLE, Chunk, Row, Source, stopped

_LOOKED_AT: Final = 1000
"""Lines among which the first object is looked for."""
_decoder: Final = msgspec.json.Decoder()


class JsonRows:
    """Rows of NDJSON. With fields asked for, the cells are what stands there; without, the one cell is the line."""

    def __init__(self, source: Source, fields: Sequence[str] | None = None) -> None:
        self._name = source.name
        self._binary = source.binary
        self._line = 0
        self._failed: BaseException | None = None
        self._waiting: list[bytes] = []
        self._begun = False
        self.columns: Sequence[str] = fields or ()
        self._paths = [tuple(field.split(".")) for field in self.columns]

    def first_object(self) -> dict[str, Any]:
        """The first object there is; nothing of it is used up. Empty when there is none near the beginning."""
        while len(self._waiting) < _LOOKED_AT and (read := self._read(1)):
            self._waiting += read
            with suppress(InvalidEvent):
                if found := _decode(read[0]):
                    return found
        return {}

    def ask_for(self, fields: Sequence[str]) -> None:
        self.columns = fields
        self._paths = [tuple(field.split(".")) for field in fields]

    def read(self, size: int) -> Chunk | None:
        lines = self._take(size)
        if not lines:
            if self._failed is not None:
                raise stopped(self._name, self._line, self._failed)
            return None
        numbers = range(self._line + 1, self._line + len(lines) + 1)
        self._line += len(lines)
        rows: list[Row] = [self._cells(line) for line in lines] if self._paths else [(line,) for line in lines]
        plain = not any(type(row) is InvalidEvent for row in rows)
        return Chunk(rows, numbers, lambda index: lines[index].decode("utf-8", "surrogateescape"), plain)

    def _take(self, size: int) -> list[bytes]:
        if not self._waiting:
            self._waiting = self._read(size)
        taken, self._waiting = self._waiting[:size], self._waiting[size:]
        return taken

    def _read(self, size: int) -> list[bytes]:
        lines: list[bytes] = []
        try:
            lines.extend(islice(self._binary, size))  # what came before damage stays in it
        except UNREADABLE as error:
            self._failed = error
        if not self._begun and lines:
            self._begun = True
            lines[0] = lines[0].removeprefix(BOM)
        return lines

    def _cells(self, line: bytes) -> Row:
        try:
            found = _decode(line)
        except InvalidEvent as bad:
            return bad
        return [_at(found, path) for path in self._paths] if found is not None else ()


def _decode(line: bytes) -> dict[str, Any] | None:
    """None for a blank line."""
    if not line.strip():
        return None
    try:
        found = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent("row", f"not JSON: {error}") from None
    except RecursionError:
        raise InvalidEvent("row", "nested too deeply") from None
    if not isinstance(found, dict):
        raise InvalidEvent("row", "not a JSON object")
    return found


def _at(found: Any, path: tuple[str, ...]) -> Any:
    """What stands at a dotted path; None where there is nothing. A key that itself holds dots is found too."""
    if len(path) > 1 and (whole := found.get(".".join(path))) is not None:
        return whole
    for key in path:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found

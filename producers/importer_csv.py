"""Rows of CSV files, with the lines they stand on."""

import codecs
import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from vibezen.metrics.errors import BadParameter, ImportStopped, InvalidEvent
from vibezen.metrics.producers.importer_source import UNREADABLE, Chunk, Row, Source, reason_of, stopped


def check_csv(delimiter: str | None, encoding: str) -> tuple[str, str]:
    """Delimiter and encoding as the reader wants them. Raises BadParameter."""
    delimiter = {"tab": "\t", "\\t": "\t", None: ","}.get(delimiter, delimiter)
    if delimiter is None or len(delimiter) != 1 or delimiter in '"\r\n':
        raise BadParameter("--delimiter", f"{delimiter!r}: expected one character, or tab")
    try:
        found = codecs.lookup(encoding)
        "".encode(encoding)
    except LookupError:
        raise BadParameter("--encoding", f"{encoding!r} is no known text encoding, like utf-8 or latin-1") from None
    return delimiter, "utf-8-sig" if found.name == "utf-8" else encoding


class CsvRows:
    """Rows of a CSV file with a header, or with columns named by the caller."""

    def __init__(self, source: Source, delimiter: str, encoding: str, columns: Sequence[str]) -> None:
        self._name = source.name
        self._seen: list[str] = []
        self._reader = csv.reader(self._remembering(source.text(encoding)), delimiter=delimiter, strict=True)
        self._failed: BaseException | None = None
        self.columns = columns or self._header()

    def _remembering(self, text: Iterable[str]) -> Iterator[str]:
        for line in text:
            self._seen.append(line)
            yield line

    def _header(self) -> list[str]:
        try:
            header = next((row for row in self._reader if row), [])
        except (csv.Error, *UNREADABLE) as error:
            raise ImportStopped(f"{self._name}: its header cannot be read: {reason_of(error)}") from None
        if not header:
            raise ImportStopped(f"{self._name}: is empty: there is no header line")
        return [name.strip() for name in header]

    def read(self, size: int) -> Chunk | None:
        self._seen.clear()
        base = self._reader.line_num
        rows, ends = self._fill(size)
        if rows:
            return self._chunk(rows, ends, base)
        if self._failed is not None:
            raise stopped(self._name, base, self._failed)
        return None

    def _fill(self, size: int) -> tuple[list[Row], list[int]]:
        rows: list[Row] = []
        ends: list[int] = []
        while len(rows) < size and self._failed is None:
            try:
                for row in islice(self._reader, size - len(rows)):
                    rows.append(row)
                    ends.append(self._reader.line_num)
                break
            except csv.Error as error:
                rows.append(InvalidEvent("row", f"not CSV: {error}"))
                ends.append(self._reader.line_num)
            except UNREADABLE as error:
                self._failed = error
        return rows, ends

    def _chunk(self, rows: list[Row], ends: list[int], base: int) -> Chunk:
        starts = [base, *ends[:-1]]
        seen = tuple(self._seen)

        def raw(index: int) -> str:
            return "".join(seen[starts[index] - base : ends[index] - base])

        plain = not any(type(row) is InvalidEvent for row in rows)
        return Chunk(rows, [start + 1 for start in starts], raw, plain)

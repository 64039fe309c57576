"""CSV that a spreadsheet may open: no text in it is taken for a formula."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final, Literal

Cell = str | int | float | None

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\0")
"""What a spreadsheet would take for a formula at the beginning of a text."""


def inert(cell: Cell) -> Cell:
    """Text that no spreadsheet takes for a formula; numbers as they are."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def csv_lines(rows: Iterable[Sequence[Cell]]) -> str:
    """Rows as lines of CSV, each cell inert; a missing one is empty."""
    cells = [[inert(cell) for cell in row] for row in rows]
    text = _written(cells, csv.QUOTE_MINIMAL)
    # Until Python 3.13 a carriage return alone is not quoted, and ends the row for many a reader.
    return _written(cells, csv.QUOTE_NONNUMERIC) if "\r" in text else text


def _written(rows: Iterable[Sequence[Cell]], quoting: Literal[0, 2]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()

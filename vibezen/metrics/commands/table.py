"""Answers as tables for people and as CSV for programs."""

import sys
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vibezen.metrics.clock import MIN_ISO, iso
from vibezen.metrics.history import History
from vibezen.metrics.spreadsheet import csv_lines
from vibezen.metrics.window_reader import Number
from vibezen.metrics.zone import LAST, UTC_ZONE, Zone, zone_of

Row = list[str | Number]


def of_history(answer: History) -> tuple[list[str], list[Row]]:
    """A row per step and group, a column per aggregate; steps in which nothing was recorded are left out."""
    labels = list(dict.fromkeys(label for line in answer.series for label in line.labels))
    names = list(dict.fromkeys(line.agg for line in answer.series))
    cells: dict[tuple[int, tuple[str, ...]], dict[str, Number]] = {}
    for line in answer.series:
        group = tuple(line.labels.get(label, "") for label in labels)
        for start, value in line.points:
            if value is not None:
                cells.setdefault((start, group), {})[line.agg] = value
    zone = zone_of(answer.tz)
    rows: list[Row] = [
        [_time(start, zone), *group, *(found.get(name) for name in names)]
        for (start, group), found in sorted(cells.items())
    ]
    return ["time", *labels, *names], rows


def about(answer: History) -> str:
    """One line about where the numbers are from."""
    zone = zone_of(answer.tz)
    parts = (
        f"{source.source} from {_time(source.since, zone)} to {_time(source.to, zone)}" for source in answer.sources
    )
    exact = "exact" if answer.exact else "percentiles within 1.1 %"
    omitted = f"; {answer.omitted} groups with less left out" if answer.omitted else ""
    return f"{answer.metric}, one row = {answer.step} s; {exact}; {', '.join(parts)}{omitted}"


def _time(ts: float, zone: Zone) -> str:
    """ISO 8601, as the zone's clock shows it."""
    if zone is UTC_ZONE or not MIN_ISO <= ts < LAST:
        return iso(ts)
    return datetime.fromtimestamp(ts, zone.rules).isoformat(timespec="milliseconds")


def print_table(columns: Sequence[str], rows: Sequence[Row], about: str) -> None:
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:  # a pipe has no width: nothing may be cut there
        console = Console(highlight=False, emoji=False, width=10_000)
    console.print(about if rows else f"{about}: nothing recorded", style="dim", markup=False)
    if not rows:
        return
    table = Table()
    for column in columns:
        is_number = any(isinstance(row[len(table.columns)], int | float) for row in rows)
        table.add_column(Text(column), justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    needed = console.measure(table).maximum
    if console.width < needed:  # let the terminal break lines: a number that is cut looks like another number
        console = Console(highlight=False, emoji=False, width=needed)
    console.print(table, soft_wrap=True)


def print_csv(columns: Sequence[str], rows: Sequence[Row]) -> None:
    sys.stdout.write(csv_lines([columns, *rows]))


def _shown(cell: str | Number) -> str:
    if cell is None or isinstance(cell, str):
        return printable(cell or "")
    if float(cell).is_integer() and abs(cell) < 1e15:
        return f"{cell:,.0f}"
    return f"{cell:,.1f}" if 1000 <= abs(cell) < 1e15 else f"{cell:.6g}"


def printable(text: str) -> str:
    """Foreign text without what could steer a terminal."""
    return text if text.isprintable() else ascii(text)[1:-1]

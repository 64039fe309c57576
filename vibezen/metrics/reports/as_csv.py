"""A report as one table of comma separated values: a row per number, group and time."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from vibezen.metrics.reports import words
from vibezen.metrics.reports.report import Figure, Report, Section
from vibezen.metrics.spreadsheet import Cell, csv_lines
from vibezen.metrics.zone import zone_of

COLUMNS: Final = (
    *("section", "group", "time", "number", "unit"),
    *("value", "previous", "change", "relative", "verdict", "samples", "share"),
)
Row = list[Cell]


def as_csv(report: Report) -> str:
    """Times are ISO 8601 in the report's zone; a row without one is about the whole period."""
    rows: list[Row] = [list(COLUMNS)]
    for section in report.sections:
        for row in _rows(section, report.period.zone):
            missing = [""] * (len(COLUMNS) - 1 - len(row))
            rows.append([section.title, *row, *missing])
    return csv_lines(rows)


def _rows(section: Section, zone: str) -> Iterator[Row]:
    for figure in section.figures:
        yield _figure(figure)
    if section.table is not None:
        for row in section.table.rows:
            group = " / ".join(words.label(label) for label in row.labels)
            yield from (_figure(figure, group) for figure in row.figures)
        yield from (_figure(figure) for figure in section.table.total)
    if section.days is not None:
        for told in section.days.rows:
            yield _figure(told.figure)
            for start, value in zip(section.days.starts, told.values, strict=True):
                yield ["", _iso(start, zone), told.figure.name, told.figure.unit, value]
    if section.chart is not None:
        for line in section.chart.lines:
            for start, value in zip(section.chart.starts, line.values, strict=True):
                yield ["", _iso(start, zone), line.name, section.chart.unit, value]
    if section.changes is not None:
        for name in ("better", "worse", "other", "unchanged", "too_little_data"):
            yield from (["", "", sentence, "", "", "", "", "", name] for sentence in getattr(section.changes, name))


def _figure(figure: Figure, group: str = "") -> Row:
    numbers: Row = [figure.value, figure.previous, figure.change, figure.relative]
    return [group, "", figure.name, figure.unit, *numbers, str(figure.verdict), figure.samples, figure.share]


def _iso(ts: int, zone: str) -> str:
    return datetime.fromtimestamp(ts, zone_of(zone).rules).isoformat()

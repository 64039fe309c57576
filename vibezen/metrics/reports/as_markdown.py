"""A report as Markdown: headings, sentences and tables, readable as it stands."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from vibezen.metrics.reports import words
from vibezen.metrics.reports.report import Changes, Chart, Days, Figure, Report, Section, Table

MAX_CHART_ROWS: Final = 31
"""Rows of a chart's table; a longer chart is told by its summary alone."""

_SIGNS = re.compile(r"[\\`*{}\[\]<>#|!~&@]|(?<![^\W_])_|_(?![^\W_])|(?<=:)//|(?i:(?<=www)\.)")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


def plain(text: str) -> str:
    """Text in which no sign means anything, and that stays on one line."""
    return _SIGNS.sub(r"\\\g<0>", _CONTROLS.sub(" ", text)).strip()


def as_markdown(report: Report) -> str:
    return "\n".join(_lines(report)).rstrip("\n") + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {plain(report.title)}"
    yield ""
    yield f"{words.about(report.period)}, compared with {words.compared_with(report.period)}."
    yield ""
    if report.text:
        yield from (plain(report.text), "")
    if report.empty:
        yield from ("**Nothing was recorded in this period.**", "")
    for note in report.notes:
        yield from (f"> {plain(note)}", "")
    for section in report.sections:
        yield from (f"## {plain(section.title)}", "")
        if section.text:
            yield from (plain(section.text), "")
        yield from _section(section)
    yield f"*{words.origin(report)}*"


def _section(section: Section) -> Iterator[str]:
    if section.figures:
        yield from _figures(section.figures)
    if section.changes is not None:
        yield from _changes(section.changes)
    if section.table is not None:
        yield from _table(section.table)
    if section.days is not None:
        yield from _days(section.days)
    if section.chart is not None:
        yield from _chart(section.chart)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Iterator[str]:
    """A table whose first `texts` columns are text, the others numbers."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' if index < texts else '---:' for index in range(len(head)))}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _figures(figures: Sequence[Figure]) -> Iterator[str]:
    rows = [
        [
            plain(figure.name),
            plain(words.shown(figure.value, figure.unit)),
            plain(words.shown(figure.previous, figure.unit)),
            words.change(figure),
            str(figure.verdict),
        ]
        for figure in figures
    ]
    yield from _grid(["", "now", "before", "change", "verdict"], rows)


def _changes(changes: Changes) -> Iterator[str]:
    yield from (words.in_short(changes), "")
    for name, sentences in words.changes(changes):
        yield from (f"**{name}**", "")
        yield from (f"- {plain(sentence)}" for sentence in sentences)
        yield ""


def _cell(figure: Figure) -> str:
    value = words.shown(figure.value, figure.unit)
    told = [words.percent(figure.share)] if figure.share is not None else []
    change = words.change(figure)
    told += [f"{change} {figure.verdict}".strip()] if words.speaks(figure.verdict) else []
    return plain(f"{value} ({', '.join(told)})" if told else value)


def _table(table: Table) -> Iterator[str]:
    if not table.rows:
        yield from ("Nothing was recorded.", "")
        return
    rows = [
        [*(plain(words.label(label)) for label in row.labels), *(_cell(figure) for figure in row.figures)]
        for row in table.rows
    ]
    rows.append(["**all**", *([""] * (len(table.labels) - 1)), *(_cell(figure) for figure in table.total)])
    yield from _grid([*map(plain, table.labels), *map(plain, table.columns)], rows, len(table.labels))
    if table.omitted:
        yield from (f"{table.omitted} more are not shown.", "")


def _days(days: Days) -> Iterator[str]:
    head = [
        "",
        *(f"{plain(label)}{'' if whole else ' *'}" for label, whole in zip(days.labels, days.whole, strict=True)),
    ]
    rows = [
        [
            plain(row.figure.name),
            *(plain(words.shown(value, row.figure.unit)) for value in row.values),
            plain(words.shown(row.figure.value, row.figure.unit)),
            plain(words.shown(row.figure.previous, row.figure.unit)),
            words.change(row.figure),
            str(row.figure.verdict),
        ]
        for row in days.rows
    ]
    yield from _grid([*head, "whole period", "before", "change", "verdict"], rows)
    if not all(days.whole):
        yield from (r"\* as far as the period covers it", "")


def _chart(chart: Chart) -> Iterator[str]:
    yield from (plain(chart.summary), "")
    if chart.lines and len(chart.starts) <= MAX_CHART_ROWS:
        rows = [
            [plain(label), *(plain(words.shown(line.values[index], chart.unit)) for line in chart.lines)]
            for index, label in enumerate(chart.labels)
        ]
        yield from _grid(["", *(plain(line.name) for line in chart.lines)], rows)
    yield from (line for note in chart.notes for line in (plain(note), ""))

"""From a definition and the numbers that it asks for to a report."""

from collections.abc import Sequence
from typing import Final

from vibezen.metrics.gathering import Gatherer, Group
from vibezen.metrics.reports import axis, definition, savings, words
from vibezen.metrics.reports.axis import Axis
from vibezen.metrics.reports.comparison import Verdict, compare
from vibezen.metrics.reports.definition import GROUPED, Definition, Number, Show
from vibezen.metrics.reports.numbers import Numbers, Place
from vibezen.metrics.reports.period import Period
from vibezen.metrics.reports.report import Changes, Chart, DayRow, Days, Figure, Line, Report, Row, Section, Span, Table
from vibezen.metrics.settings import Settings
from vibezen.metrics.window_reader import Number as Value

MAX_NAMED: Final = 5
"""Models without a price that a note names."""
MAX_LINES: Final = 6
"""Lines of a chart that are told apart by colour."""


async def build(
    gatherer: Gatherer,
    settings: Settings,
    name: str,
    asked: Definition,
    period: Period,
    now: float,
    *,
    exact: bool = False,
) -> Report:
    """Raises BadParameter when there is too much to tell apart, StoreError when files cannot be read."""
    numbers = Numbers(gatherer, now, exact=exact)
    parts = [
        _Part(section, definition.numbers(section, settings), asked.group_by(section), period)
        for section in asked.sections
    ]
    for part in parts:
        part.want(numbers)
    await numbers.read()
    sections = [part.build(numbers, index) for index, part in enumerate(parts)]
    return Report(
        type=name,
        title=asked.title,
        text=asked.text.strip(),
        period=_span(period),
        made_at=now,
        exact=numbers.exact,
        sources=numbers.sources(),
        as_of=numbers.as_of,
        empty=numbers.newest_step < period.start,
        notes=[*_notes(asked, settings, period), *_of_savings(parts, numbers)],
        sections=sections,
    )


def _span(period: Period) -> Span:
    return Span(
        name=period.name,
        zone=period.zone,
        since=period.start,
        to=period.stop,
        previous_from=period.before,
        previous_to=period.before_stop,
        so_far=period.so_far,
    )


def _notes(asked: Definition, settings: Settings, period: Period) -> list[str]:
    unknown = [
        f"No metric {metric} is known; what is recorded under this name is taken for a distribution."
        for metric in definition.unknown_metrics(asked, settings)
    ]
    unknown += [
        f"{key} is none of the labels in aggregation.labels: its groups are read from the events."
        for key in definition.unknown_labels(asked, settings)
    ]
    length = words.length_note(period)
    return [*unknown, *([length] if length else [])]


def _of_savings(parts: Sequence["_Part"], numbers: Numbers) -> list[str]:
    if not any(part.asks(savings.METRIC) for part in parts):
        return []
    if not savings.is_known():
        return ["What the cache saved is told with the price list: pip install 'vibezen-metrics[prices]'."]
    if not numbers.unpriced:
        return []
    named = sorted(numbers.unpriced)
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return [f"No price is known for {', '.join(named[:MAX_NAMED])}{more}: what the cache saved there is not counted."]


class _Part:
    """One section: first it says what it wants to be read, then it is built from that."""

    def __init__(
        self, asked: definition.Section, numbers: tuple[Number, ...], group_by: tuple[str, ...], period: Period
    ) -> None:
        self._asked, self._numbers, self._group_by, self._period = asked, numbers, group_by, period
        # Both periods in one reading; between them may be a rest, of a day before that is compared so far.
        edges = sorted({period.before, period.before_stop, period.start, period.stop})
        self._both = Place(tuple(edges))
        self._axis: Axis | None = None
        if asked.show is Show.LINES:
            self._axis = axis.lines(period)
        elif asked.show is Show.COLUMNS:
            self._axis = axis.columns(period)
        elif asked.show is Show.DAYS:
            self._axis = axis.calendar(period)

    def asks(self, metric: str) -> bool:
        return any(number.of.metric == metric for number in self._numbers)

    def want(self, numbers: Numbers) -> None:
        show = self._asked.show
        for number in self._numbers:
            if self._axis is not None:
                self._axis.want(numbers, number, self._group_by)
            if show not in (Show.LINES, Show.COLUMNS):
                numbers.want(self._both, number, judged=True)
            if show in GROUPED:
                numbers.want(self._both._replace(group_by=self._group_by), number, judged=True)

    def build(self, numbers: Numbers, index: int) -> Section:
        show = self._asked.show
        section = Section(f"section-{index + 1}", self._asked.title, self._asked.text.strip(), show)
        if show is Show.FIGURES:
            section.figures = self._figures(numbers)
        elif show is Show.CHANGES:
            section.changes = _changes(self._figures(numbers))
        elif show is Show.DAYS:
            section.days = self._days(numbers)
        elif show in GROUPED:
            section.table = self._table(numbers)
        elif show in (Show.LINES, Show.COLUMNS):
            section.chart = self._chart(numbers)
        return section

    def _figures(self, numbers: Numbers) -> list[Figure]:
        return [self._figure(numbers, self._both, number) for number in self._numbers]

    def _figure(self, numbers: Numbers, place: Place, number: Number, group: Group = (), total: Value = None) -> Figure:
        current = numbers.value(place, self._period.start, number, group)
        previous = numbers.value(place, self._period.before, number, group)
        if number.adds_up:
            previous = previous.scaled(self._period.stretch)
        found = compare(current, previous, number.better)
        return Figure(
            name=number.name,
            unit=number.unit,
            value=current.value,
            samples=current.samples,
            previous=found.previous,
            change=found.absolute,
            relative=found.relative,
            better=None if number.better == "neither" else str(number.better),
            verdict=found.verdict,
            share=current.value / total if number.adds_up and total and current.value is not None else None,
        )

    def _table(self, numbers: Numbers) -> Table:
        place, total = self._both._replace(group_by=self._group_by), self._figures(numbers)
        recorded = {g for number in self._numbers for g in numbers.groups(place, number, self._period.start)}
        rows = []
        for group in sorted(recorded):
            figures = [
                self._figure(numbers, place, number, group, all_.value)
                for number, all_ in zip(self._numbers, total, strict=True)
            ]
            rows.append(Row([dict(group).get(label) for label in self._group_by], figures))
        rows.sort(key=lambda row: (row.figures[0].value is None, -(row.figures[0].value or 0)))
        shown = rows[: self._asked.top]
        for number, all_ in zip(self._numbers, total, strict=True):
            all_.share = 1.0 if number.adds_up and all_.value else None
        columns = [number.name for number in self._numbers]
        return Table(list(self._group_by), columns, shown, total, len(rows) - len(shown))

    def _days(self, numbers: Numbers) -> Days:
        assert self._axis is not None
        rows = [
            DayRow(figure, self._axis.values(numbers, number))
            for number, figure in zip(self._numbers, self._figures(numbers), strict=True)
        ]
        return Days(self._axis.labels, self._axis.starts, self._axis.whole, rows)

    def _chart(self, numbers: Numbers) -> Chart:
        assert self._axis is not None
        time, stacked = self._axis, self._asked.show is Show.COLUMNS
        notes: list[str] = []
        if self._group_by:
            lines = self._group_lines(numbers, time, notes, stacked=stacked)
        else:
            names = _short([number.name for number in self._numbers])
            lines = [
                Line(name, time.values(numbers, number)) for name, number in zip(names, self._numbers, strict=True)
            ]
        if all(value is None for line in lines for value in line.values):
            lines = []  # empty axes would say nothing
        labels = [
            label or words.moment(start, self._period.zone)
            for label, start in zip(time.labels, time.starts, strict=True)
        ]
        unit = self._numbers[0].unit
        summary = _summary(lines, labels, unit, stacked=stacked)
        return Chart(unit, stacked, time.starts, time.stops, labels, lines, summary, notes)

    def _group_lines(self, numbers: Numbers, time: Axis, notes: list[str], *, stacked: bool) -> list[Line]:
        (number,) = self._numbers
        found = [
            Line(group_name(group, self._group_by), time.values(numbers, number, self._group_by, group))
            for group in time.groups(numbers, number, self._group_by)
        ]
        # Of what adds up the largest; of all else the one with the most to show.
        found.sort(key=lambda line: -sum(value or 0 if stacked else value is not None for value in line.values))
        most = min(MAX_LINES, self._asked.top)
        if len(found) <= most:
            return found
        if stacked:
            rest = found[most - 1 :]
            others = [_sum(column) for column in zip(*(line.values for line in rest), strict=True)]
            return [*found[: most - 1], Line(f"{len(rest)} others", others)]
        notes.append(f"{len(found) - most} more are not shown.")
        return found[:most]


def _short(names: list[str]) -> list[str]:
    """`Response time, p50`, `Response time, p95` → `p50`, `p95`: the chart's title says the rest."""
    first = names[0].rpartition(", ")[0]
    alike = len(names) > 1 and first and all(name.rpartition(", ")[0] == first for name in names)
    return [name.rpartition(", ")[2] for name in names] if alike else names


def _sum(values: Sequence[Value]) -> Value:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def group_name(group: Group, labels: Sequence[str]) -> str:
    values = dict(group)
    return " / ".join(words.label(values.get(label)) for label in labels)


def _changes(figures: Sequence[Figure]) -> Changes:
    def told(*verdicts: Verdict) -> list[str]:
        return [words.sentence(figure) for figure in figures if figure.verdict in verdicts]

    return Changes(
        better=told(Verdict.BETTER),
        worse=told(Verdict.WORSE),
        other=told(Verdict.HIGHER, Verdict.LOWER),
        unchanged=told(Verdict.UNCHANGED),
        too_little_data=told(Verdict.TOO_LITTLE_DATA),
    )


def _summary(lines: Sequence[Line], labels: Sequence[str], unit: str, *, stacked: bool) -> str:
    """What a chart shows, in a sentence or two, for those who do not see it."""
    if stacked:
        totals = [_sum(column) for column in zip(*(line.values for line in lines), strict=True)] if lines else []
        highest = _highest(totals)
        if highest is None:
            return "Nothing was recorded."
        whole = words.shown(_sum(totals), unit)
        return f"In all {whole}; most in {labels[highest]}: {words.shown(totals[highest], unit)}."
    told = []
    for line in lines:
        highest = _highest(line.values)
        if highest is None:
            continue
        known = [value for value in line.values if value is not None]
        low, high = words.shown(min(known), unit), words.shown(max(known), unit)
        told.append(f"{line.name} {low} to {high}, highest {labels[highest]}" if low != high else f"{line.name} {low}")
    return f"{'; '.join(told)}." if told else "Nothing was recorded."


def _highest(values: Sequence[Value]) -> int | None:
    known = [(value, -index) for index, value in enumerate(values) if value is not None]
    return -max(known)[1] if known else None

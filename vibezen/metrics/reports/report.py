"""A finished report: plain data, the same for every format."""

from typing import Any

import msgspec

from vibezen.metrics.gathering import Source
from vibezen.metrics.reports.comparison import Verdict
from vibezen.metrics.reports.definition import Show
from vibezen.metrics.window_reader import Number as Value


class Span(msgspec.Struct):
    """[from, to) in Unix seconds; `zone` names the time zone, `name` is the period as it was asked for."""

    name: str
    zone: str
    since: int = msgspec.field(name="from")
    to: int = msgspec.field()
    previous_from: int = msgspec.field()
    previous_to: int = msgspec.field()
    so_far: bool = msgspec.field()


class Figure(msgspec.Struct):
    """A number against the period before. `change` is value - previous, `relative` that as a share of the previous.

    `samples`: how many it stands on. `share`: of the total, where groups add up.
    """

    name: str
    unit: str
    value: Value
    samples: Value
    previous: Value
    change: Value
    relative: Value
    better: str | None
    verdict: Verdict
    share: Value = None


class Line(msgspec.Struct):
    """`values[i]` belongs to the chart's `starts[i]`; None where nothing was recorded."""

    name: str
    values: list[Value]


class Chart(msgspec.Struct):
    """`labels`: what the times are called. `stacked`: the lines add up."""

    unit: str
    stacked: bool
    starts: list[int]
    stops: list[int]
    labels: list[str]
    lines: list[Line]
    summary: str
    notes: list[str]


class Row(msgspec.Struct):
    """A group: its labels' values (None: it has no such label), and its numbers in the order of the columns."""

    labels: list[str | None]
    figures: list[Figure]


class Table(msgspec.Struct):
    """`omitted`: groups that are not among `rows`. `total` is of all groups, the omitted ones too."""

    labels: list[str]
    columns: list[str]
    rows: list[Row]
    total: list[Figure]
    omitted: int


class DayRow(msgspec.Struct):
    figure: Figure
    values: list[Value]


class Days(msgspec.Struct):
    """A row per number, a column per day (or week, or month). `whole[i]`: the period covers all of it."""

    labels: list[str]
    starts: list[int]
    whole: list[bool]
    rows: list[DayRow]


class Changes(msgspec.Struct):
    """One sentence for each number."""

    better: list[str]
    worse: list[str]
    other: list[str]
    unchanged: list[str]
    too_little_data: list[str]


class Section(msgspec.Struct, omit_defaults=True):
    """What `show` names is there, the others are not."""

    id: str
    title: str
    text: str
    show: Show
    figures: list[Figure] = []
    chart: Chart | None = None
    table: Table | None = None
    days: Days | None = None
    changes: Changes | None = None


class Report(msgspec.Struct):
    """`exact`: every number is what the events themselves give; else percentiles are within 1.1 %, by histogram.
    `sources`: what numbers were taken from, and between when. `as_of`: the newest event seen. `empty`: nothing was
    recorded in the period."""

    type: str
    title: str
    text: str
    period: Span
    made_at: float
    exact: bool
    sources: list[Source]
    as_of: float | None
    empty: bool
    notes: list[str]
    sections: list[Section]

    def as_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

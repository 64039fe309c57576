"""The time axis of a chart or of a table by days: even steps, or the days, weeks and months of a calendar."""

from collections.abc import Sequence
from typing import Final

from vibezen.metrics.clock import DAY, floor_to
from vibezen.metrics.gathering import Group
from vibezen.metrics.reports.definition import Number
from vibezen.metrics.reports.numbers import Numbers, Place
from vibezen.metrics.reports.period import Bucket, Period, buckets
from vibezen.metrics.steps import AUTO_STEPS
from vibezen.metrics.window_reader import Number as Value

MAX_POINTS: Final = 100
"""Points of a line: a report shows how it went on the whole, and few events make many points jump."""
MAX_COLUMNS: Final = 48
"""Columns that are still seen one by one."""


class Axis:
    """`starts[i]` up to `stops[i]` is what `labels[i]` names. `whole[i]`: the period covers all of it."""

    def __init__(self, spans: Sequence[Bucket]) -> None:
        self.starts = [span.start for span in spans]
        self.stops = [span.stop for span in spans]
        self.labels = [span.label for span in spans]
        self.whole = [span.whole for span in spans]

    def want(self, numbers: Numbers, number: Number, group_by: tuple[str, ...] = ()) -> None:
        numbers.want(self._place(group_by), number)

    def groups(self, numbers: Numbers, number: Number, group_by: tuple[str, ...]) -> list[Group]:
        return numbers.groups(self._place(group_by), number)

    def values(
        self, numbers: Numbers, number: Number, group_by: tuple[str, ...] = (), group: Group = ()
    ) -> list[Value]:
        return numbers.values(self._place(group_by), number, group)

    def _place(self, group_by: tuple[str, ...]) -> Place:
        return Place((*self.starts, self.stops[-1]), group_by)


def calendar(period: Period) -> Axis:
    """By days, weeks or months."""
    return Axis(buckets(period))


def lines(period: Period) -> Axis:
    """The finest even steps that a line can show."""
    for step in AUTO_STEPS:
        if period.seconds / step <= MAX_POINTS:
            return _even(period, step)
    return calendar(period)


def columns(period: Period) -> Axis:
    """Days and longer where there are several, else hours or shorter."""
    if period.seconds >= 3 * DAY:
        return calendar(period)
    for step in AUTO_STEPS[1:]:
        if period.seconds / step <= MAX_COLUMNS:
            return _even(period, step)
    return calendar(period)


def _even(period: Period, step: int) -> Axis:
    first = floor_to(period.start, step)
    spans = [
        Bucket(
            max(start, period.start),
            min(start + step, period.stop),
            "",
            start >= period.start and start + step <= period.stop,
        )
        for start in range(first, period.stop, step)
    ]
    return Axis(spans)

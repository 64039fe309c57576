"""The time axis of a chart or of a table by days: even steps, or the days, weeks and months of a calendar."""

from collections.abc import Sequence
from typing import Final

from vibezen.metrics.clock import floor_to
from vibezen.metrics.gathering import Group
from vibezen.metrics.reports.definition import Number
from vibezen.metrics.reports.numbers import Numbers, Place
from vibezen.metrics.reports.period import DAY, Bucket, Period, buckets
from vibezen.metrics.steps import AUTO_STEPS
from vibezen.metrics.window_reader import Number as Value

MAX_POINTS: Final = 100
"""Points of a line: a report shows how it went on the whole, and few events make many points jump."""
MAX_COLUMNS: Final = 48
"""Columns that are still seen one by one."""


class Axis:
    """`starts[i]` up to `stops[i]` is what `labels[i]` names. `whole[i]`: the period covers all of it."""

    def __init__(self, period: Period, spans: Sequence[Bucket], step: int | None) -> None:
        self._period, self._step = period, step
        self.starts = [span.start for span in spans]
        self.stops = [span.stop for span in spans]
        self.labels = [span.label for span in spans]
        self.whole = [span.whole for span in spans]

    def want(self, numbers: Numbers, number: Number, group_by: tuple[str, ...] = ()) -> None:
        for place in self._places(group_by):
            numbers.want(place, number)

    def groups(self, numbers: Numbers, number: Number, group_by: tuple[str, ...]) -> list[Group]:
        return sorted({group for place in self._places(group_by) for group in numbers.groups(place, number)})

    def values(
        self, numbers: Numbers, number: Number, group_by: tuple[str, ...] = (), group: Group = ()
    ) -> list[Value]:
        if self._step is None:
            return [numbers.value(place, number, group).value for place in self._places(group_by)]
        steps = [floor_to(start, self._step) for start in self.starts]
        return numbers.values(self._places(group_by)[0], number, steps, group)

    def _places(self, group_by: tuple[str, ...]) -> list[Place]:
        if self._step is not None:
            return [Place(self._period.start, self._period.stop, self._step, group_by)]
        return [Place(start, stop, None, group_by) for start, stop in zip(self.starts, self.stops, strict=True)]


def calendar(period: Period) -> Axis:
    """By days, weeks or months."""
    found = buckets(period)
    # Days that are whole multiples of a day since 1970 are read at once.
    even = all(span.start % DAY == 0 or not span.whole for span in found[1:]) and found[-1].start % DAY == 0
    by_days = all(floor_to(span.stop - 1, DAY) == floor_to(span.start, DAY) for span in found)
    return Axis(period, found, DAY if even and by_days else None)


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
    return Axis(period, spans, step)

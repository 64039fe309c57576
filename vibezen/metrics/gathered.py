"""What came of a question: numbers by metric, group and step, and where each hour of them was taken from."""

import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.clock import HOUR
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.series import SeriesKey
from vibezen.metrics.steps import Plan
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import Total

MAX_CELLS: Final = 200_000
"""Rows that events of one question are added up to; some 100 MB."""

Group = tuple[tuple[str, str], ...]
"""Labels and their values, in the order they were asked for; those a series has not are left out."""


class Asked(NamedTuple):
    """A range [start, stop) in Unix seconds, in steps (None: the range is one), and what is asked of it.

    `step`, `edges`: as of a Plan.
    `metric`: None for all. `aggregates` decides what must be read: percentiles, or a gauge's newest values.
    """

    start: int
    stop: int
    step: int | None
    metric: str | None
    aggregates: Sequence[str]
    group_by: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    exact: bool = False
    edges: tuple[int, ...] = ()

    @property
    def plan(self) -> Plan | None:
        return None if self.step is None else Plan(self.step, self.start, self.stop, self.edges)

    def step_of(self, ts: int) -> int:
        if self.edges:
            return self.edges[bisect_right(self.edges, ts) - 1]
        return self.start if self.step is None else ts - (ts - self.start) % self.step

    def grain(self) -> int:
        """The longest windows that the steps are made of, in seconds."""
        return math.gcd(self.start, self.step or self.stop, *self.edges)


class Source(msgspec.Struct):
    """Where the answer for [from, to) was taken from: rollups, windows or events."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    source: str = "windows"


class Cell:
    """One metric, group and step. `quantiles` by their name, where the values themselves told them."""

    def __init__(self, kind: Kind) -> None:
        self.total = Total(kind)
        self.quantiles: Mapping[str, float] | None = None


class Gathered:
    """What came of a question. `exact`: percentiles are those of the values, not of histograms."""

    def __init__(self, sources: list[Source], *, exact: bool) -> None:
        self.cells: dict[tuple[str, Group, int], Cell] = {}
        self.sources, self.exact = sources, exact
        self.newest = -math.inf

    def add(self, kind: Kind, place: tuple[str, Group, int], series: SeriesKey, window: Window) -> Cell:
        cell = self.cells.get(place)
        if cell is None:
            cell = self.cells[place] = Cell(kind)
        cell.total.add(series, window)
        self.newest = max(self.newest, window.last_ts)
        return cell


def bound(gathered: Gathered) -> None:
    if len(gathered.cells) > MAX_CELLS:
        raise BadParameter("group_by", "too many series here; take a coarser step or fewer labels")


def sources_of(asked: Asked, windowed: Collection[int], rolled: Collection[int]) -> list[Source]:
    """The range in runs of one source each; what is no hour of rollups or windows is an hour of events."""
    hours = {*windowed, *rolled}
    marks = sorted({asked.start, asked.stop, *hours, *(hour + HOUR for hour in hours)})
    bounds = [mark for mark in marks if asked.start <= mark <= asked.stop]
    runs: list[Source] = []
    for since, until in pairwise(bounds):
        hour = since // HOUR * HOUR
        source = "rollups" if hour in rolled else "windows" if hour in windowed else "events"
        if runs and runs[-1].source == source:
            runs[-1].to = until
        else:
            runs.append(Source(since, until, source))
    return runs

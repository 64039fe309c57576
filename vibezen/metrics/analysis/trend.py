"""Whether a metric rises or falls over a range, and how fast: what `GET /api/trend` answers."""

from enum import StrEnum
from statistics import median
from typing import Final

import msgspec
from anyio import to_thread

from vibezen.metrics.analysis.asking import Analysis, parse_line
from vibezen.metrics.analysis.slope import Slope, pairs, slope_of
from vibezen.metrics.catalogue import Better
from vibezen.metrics.clock import DAY
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.gathering import Gatherer
from vibezen.metrics.history import History, Line, history
from vibezen.metrics.question import Parameters, Question
from vibezen.metrics.reports.comparison import UNCHANGED, Verdict, verdict_of
from vibezen.metrics.reports.definition import ADDITIVE, Reading
from vibezen.metrics.reports.units import unit_of
from vibezen.metrics.settings import Settings
from vibezen.metrics.window_reader import Number as Value

DEFAULT_RANGE: Final = "now-7d"
MAX_PAIRS: Final = 2_000_000
"""Pairs of points of all series of one answer: some two seconds of arithmetic."""
SURE: Final = 0.95
"""The confidence from which on a series is said to rise or fall."""


class Direction(StrEnum):
    RISING = "rising"
    FALLING = "falling"
    STEADY = "steady"
    """Neither more than chance makes of it, or by so little that nobody acts on it."""
    TOO_LITTLE_DATA = "too little data"


class Trended(msgspec.Struct):
    """One group. `points`: steps with a number. `per_day`: the change of the number in a day, with 95 % probability
    between `low` and `high`; `relative`: the same as a share of the median. `first`, `last`: the values of the line at
    the first and the last of the points. `confidence`: that it is no chance, from 0 to 1."""

    labels: dict[str, str]
    points: int
    direction: Direction
    verdict: Verdict
    per_day: Value = None
    low: Value = None
    high: Value = None
    relative: Value = None
    first: Value = None
    last: Value = None
    confidence: Value = None


class Trend(Analysis, kw_only=True):
    """As History, with a line in place of the points of each series."""

    series: list[Trended]


def parse_trend(parameters: Parameters, settings: Settings, now: float) -> Question:
    """Raises BadParameter."""
    question, _ = parse_line(parameters, (), settings, now, DEFAULT_RANGE)
    return question


async def trend(gatherer: Gatherer, question: Question, now: float) -> Trend:
    """Raises BadParameter when the answer would be too large, StoreError when files cannot be read."""
    found = await history(gatherer, question, now)
    spec = gatherer.catalogue[question.metric]
    return Trend(
        metric=found.metric,
        since=found.since,
        to=found.to,
        tz=found.tz,
        step=found.step,
        agg=found.agg,
        unit=unit_of(Reading(question.metric, found.agg), None, gatherer.catalogue),
        better=None if spec.better is Better.NEITHER else str(spec.better),
        exact=found.exact,
        sources=found.sources,
        as_of=found.as_of,
        known=found.known,
        omitted=found.omitted,
        series=await to_thread.run_sync(_trends, found, question, spec.better, now),
        similar=found.similar,
    )


def finished(question: Question, now: float) -> int:
    """How many of the steps can be compared with others: of a sum, not the one that has not ended."""
    if question.aggregates[0] not in ADDITIVE:
        return len(question.plan.steps())
    return sum(stop <= now for _, stop in question.plan.spans())


def _trends(found: History, question: Question, better: Better, now: float) -> list[Trended]:
    steps = finished(question, now)
    if len(found.series) * pairs(steps) > MAX_PAIRS:
        raise BadParameter("step", f"{len(found.series)} series of {steps} steps are too many here: take a coarser one")
    return [_trended(line, steps, better) for line in found.series]


def _trended(line: Line, steps: int, better: Better) -> Trended:
    points = [(float(ts), float(value)) for ts, value in line.points[:steps] if value is not None]
    slope = slope_of(points)
    if slope is None:
        return Trended(line.labels, len(points), Direction.TOO_LITTLE_DATA, Verdict.TOO_LITTLE_DATA)
    middle = abs(median(value for _, value in points))
    direction = _direction(slope, middle)
    return Trended(
        labels=line.labels,
        points=len(points),
        direction=direction,
        verdict=_verdict(direction, better),
        per_day=slope.per_second * DAY,
        low=slope.low * DAY,
        high=slope.high * DAY,
        relative=slope.per_second * DAY / middle if middle else None,
        first=slope.first,
        last=slope.last,
        confidence=slope.confidence,
    )


def _direction(slope: Slope, middle: float) -> Direction:
    change = slope.last - slope.first
    if slope.confidence < SURE or not change or abs(change) <= UNCHANGED * middle:
        return Direction.STEADY
    return Direction.RISING if change > 0 else Direction.FALLING


def _verdict(direction: Direction, better: Better) -> Verdict:
    if direction is Direction.STEADY:
        return Verdict.UNCHANGED
    return verdict_of(direction is Direction.RISING, better)

"""One metric over time: what `GET /api/metrics/history` and `vibezen-metrics query` answer."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import msgspec
from anyio import to_thread

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.gathering import Asked, Cell, Gathered, Gatherer, Group, Source
from vibezen.metrics.question import Question
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import HISTOGRAM, aggregates

MAX_ANSWER_POINTS: Final = 50_000
"""Points in all series of one answer: some 2 MB of JSON, and up to 80 MB of histograms while it is computed."""
MAX_ANSWER_BUCKETS: Final = 100_000
"""Buckets of all histograms of one answer: some 5 MB of JSON."""
SIMILAR: Final = 3
"""Names that are told to somebody who asked for one that nobody knows."""

Steps = Mapping[int, Cell]


class Line(msgspec.Struct):
    """One aggregate of one group: [Unix seconds, a Value] per step."""

    agg: str
    labels: dict[str, str]
    points: list[tuple[int, Any]]


class History(msgspec.Struct, omit_defaults=True):
    """The steps are [from, to), floored; `step` is how long one is (of days, where the clock is not changed). `as_of`
    is the newest event seen, `omitted` how many groups `top` left out.

    `exact`: every number is what the events themselves give; else percentiles are within 1.1 %, by histogram.
    `known`: whether the metric is declared, or recorded in this range; if not, `similar` names may be what was meant.
    """

    metric: str
    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    tz: str = msgspec.field()
    step: int = msgspec.field()
    agg: str = msgspec.field()
    exact: bool = msgspec.field()
    sources: list[Source] = msgspec.field()
    as_of: float | None = msgspec.field()
    known: bool = msgspec.field()
    omitted: int = msgspec.field()
    series: list[Line] = msgspec.field()
    similar: list[str] = []


async def history(gatherer: Gatherer, question: Question, now: float, most: int | None = None) -> History:
    """Raises BadParameter when the answer would have more than `most` points (None: MAX_ANSWER_POINTS), StoreError when
    files cannot be read."""
    plan = question.plan
    kind = gatherer.catalogue[question.metric].kind
    needed = question.aggregates if question.top is None else (*question.aggregates, _weight(kind))
    asked = Asked(
        plan.start,
        plan.stop,
        plan.step,
        question.metric,
        needed,
        question.group_by,
        question.where,
        question.exact,
        plan.edges,
    )
    gathered = await gatherer.gather(asked)
    lines, omitted = await to_thread.run_sync(_lines, question, kind, gathered, now, most or MAX_ANSWER_POINTS)
    known = bool(lines) or question.metric in gatherer.catalogue
    return History(
        metric=question.metric,
        since=plan.start,
        to=plan.stop,
        tz=question.tz,
        step=plan.step,
        agg=",".join(question.aggregates),
        exact=gathered.exact,
        sources=gathered.sources,
        as_of=gathered.newest if gathered.cells else None,
        known=known,
        omitted=omitted,
        series=lines,
        similar=[] if known else await _similar(gatherer, asked),
    )


async def _similar(gatherer: Gatherer, asked: Asked) -> list[str]:
    """Metrics that are declared, or recorded in the range, with a name much like the one asked for."""
    recorded = await gatherer.gather(Asked(asked.start, asked.stop, None, None, ("count",)))
    names = {*gatherer.catalogue.names(), *(metric for metric, _, _ in recorded.cells)}
    return get_close_matches(asked.metric or "", sorted(names), SIMILAR)


def _lines(question: Question, kind: Kind, gathered: Gathered, now: float, most: int) -> tuple[list[Line], int]:
    """Every aggregate of every group, groups in the order of their labels; and how many groups are left out."""
    groups: dict[Group, dict[int, Cell]] = {}
    for (_, group, start), cell in gathered.cells.items():
        groups.setdefault(group, {})[start] = cell
    shown = sorted(groups)
    if question.top is not None:
        shown = sorted(shown, key=lambda group: -_weight_of(groups[group], kind))[: question.top]
    _bound(question, [groups[group] for group in shown], most)
    steps, spans = question.plan.steps(), list(question.plan.spans())
    lines = []
    for group in sorted(shown):
        cells = groups[group]
        columns = [_told(cells.get(start), question, kind, min(stop, now) - start) for start, stop in spans]
        for index, name in enumerate(question.aggregates):
            points = [(start, column[index]) for start, column in zip(steps, columns, strict=True)]
            lines.append(Line(name, dict(group), points))
    return lines, len(groups) - len(shown)


def _weight(kind: Kind) -> str:
    """What the groups of a metric are ranked by."""
    return "sum" if kind is Kind.COUNTER else "count"


def _weight_of(steps: Steps, kind: Kind) -> float:
    totals = [cell.total.window() for cell in steps.values()]
    return sum(total.sum if kind is Kind.COUNTER else total.count for total in totals)


def _bound(question: Question, groups: Sequence[Steps], most: int) -> None:
    """Raises BadParameter when the answer would be too large."""
    if len(groups) * len(question.aggregates) * len(question.plan.steps()) > most:
        raise BadParameter(
            "group_by", f"{len(groups)} series are too many here; take a coarser step, fewer labels or top=10"
        )
    if HISTOGRAM in question.aggregates:
        windows = [cell.total.window() for steps in groups for cell in steps.values()]
        buckets = sum(len(one.positive) + len(one.negative) + bool(one.zero) for one in windows)
        if buckets > MAX_ANSWER_BUCKETS:
            raise BadParameter(
                "agg", f"histograms of {buckets} buckets are too many; take a coarser step or fewer labels"
            )


def _told(cell: Cell | None, question: Question, kind: Kind, seconds: float) -> list[Any]:
    if cell is not None:
        return aggregates_of(cell, question.aggregates, seconds, kind)
    return aggregates(Window(), question.aggregates, seconds, kind)


def aggregates_of(cell: Cell, names: tuple[str, ...], seconds: float, kind: Kind) -> list[Any]:
    """The named aggregates of a cell that is `seconds` long so far, each a Value."""
    window, known = cell.total.window(), cell.quantiles
    if known is None:
        return aggregates(window, names, seconds, kind)
    rest = iter(aggregates(window, [name for name in names if name not in known], seconds, kind))
    return [known[name] if name in known else next(rest) for name in names]

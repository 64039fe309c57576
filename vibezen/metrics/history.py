"""One metric over time: what `GET /api/metrics/history` and `vibezen-metrics query` answer."""

from typing import Final

import msgspec
from anyio import to_thread

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.gathering import Asked, Cell, Gathered, Gatherer, Group, Source
from vibezen.metrics.question import Question
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import Number, aggregates

MAX_ANSWER_POINTS: Final = 50_000
"""Points in all series of one answer: some 2 MB of JSON, and up to 80 MB of histograms while it is computed."""


class Line(msgspec.Struct):
    """One aggregate of one group: [Unix seconds, value or null] per step."""

    agg: str
    labels: dict[str, str]
    points: list[tuple[int, Number]]


class History(msgspec.Struct):
    """The steps are [from, to), floored; `as_of` is the newest event seen.

    `exact`: every number is what the events themselves give; else percentiles are within 1.1 %, by histogram.
    """

    metric: str
    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    step: int = msgspec.field()
    agg: str = msgspec.field()
    exact: bool = msgspec.field()
    sources: list[Source] = msgspec.field()
    as_of: float | None = msgspec.field()
    series: list[Line] = msgspec.field()


async def history(gatherer: Gatherer, question: Question, now: float) -> History:
    """Raises BadParameter when the answer would be too large, StoreError when files cannot be read."""
    plan = question.plan
    asked = Asked(
        plan.start,
        plan.stop,
        plan.step,
        question.metric,
        question.aggregates,
        question.group_by,
        question.where,
        question.exact,
    )
    gathered = await gatherer.gather(asked)
    lines = await to_thread.run_sync(_lines, question, gathered, now)
    return History(
        metric=question.metric,
        since=plan.start,
        to=plan.stop,
        step=plan.step,
        agg=",".join(question.aggregates),
        exact=gathered.exact,
        sources=gathered.sources,
        as_of=gathered.newest if gathered.cells else None,
        series=lines,
    )


def _lines(question: Question, gathered: Gathered, now: float) -> list[Line]:
    """Every aggregate of every group, groups in the order of their labels."""
    names, steps = question.aggregates, question.plan.steps()
    groups: dict[Group, dict[int, Cell]] = {}
    for (_, group, start), cell in gathered.cells.items():
        groups.setdefault(group, {})[start] = cell
    if len(groups) * len(names) * len(steps) > MAX_ANSWER_POINTS:
        raise BadParameter("group_by", f"{len(groups)} series are too many here; take a coarser step or fewer labels")
    lines = []
    for group in sorted(groups):
        columns = [_told(groups[group].get(start), names, min(question.plan.step, now - start)) for start in steps]
        for index, name in enumerate(names):
            points = [(start, column[index]) for start, column in zip(steps, columns, strict=True)]
            lines.append(Line(name, dict(group), points))
    return lines


def _told(cell: Cell | None, names: tuple[str, ...], seconds: float) -> list[Number]:
    return aggregates_of(cell, names, seconds) if cell is not None else aggregates(Window(), names, seconds)


def aggregates_of(cell: Cell, names: tuple[str, ...], seconds: float) -> list[Number]:
    """The named aggregates of a cell that is `seconds` long so far."""
    window, known = cell.total.window(), cell.quantiles
    if known is None:
        return aggregates(window, names, seconds)
    rest = iter(aggregates(window, [name for name in names if name not in known], seconds))
    return [known[name] if name in known else next(rest) for name in names]

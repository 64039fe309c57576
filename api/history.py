"""`GET /api/metrics/history`: one metric over time, computed from the stored windows."""

import math
from collections.abc import Mapping
from typing import Final

import anyio.to_thread
import msgspec
from redis.asyncio import Redis

from vibezen.metrics.api.question import Question
from vibezen.metrics.catalogue import Kind
from vibezen.metrics.clock import floor_to
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.keys import Keys
from vibezen.metrics.series import OVERFLOW, SeriesKey, parse_series
from vibezen.metrics.window import Window, from_blob
from vibezen.metrics.window_reader import Fetched, Number, Total, aggregates, fetch, fetch_totals

MAX_ANSWER_POINTS: Final = 50_000
"""Points in all series of one answer: some 2 MB of JSON, and up to 80 MB of histograms while it is computed."""

Group = tuple[tuple[str, str], ...]
"""Labels and their values, in the order they were asked for; those a series has not are left out."""


class Source(msgspec.Struct):
    """Where the answer for [from, to) was taken from."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    source: str = "windows"


class Line(msgspec.Struct):
    """One aggregate of one group: [Unix seconds, value or null] per step."""

    agg: str
    labels: dict[str, str]
    points: list[tuple[int, Number]]


class History(msgspec.Struct):
    """The steps are [from, to), floored; `as_of` is the newest event seen."""

    metric: str
    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    step: int = msgspec.field()
    agg: str = msgspec.field()
    exact: bool = msgspec.field()
    sources: list[Source] = msgspec.field()
    as_of: float | None = msgspec.field()
    series: list[Line] = msgspec.field()


class _Steps:
    """Windows of one metric, added up per group and step as they are read."""

    def __init__(self, question: Question, kind: Kind) -> None:
        self._question, self._kind = question, kind
        self._totals: dict[Group, dict[int, Total]] = {}
        self._groups: dict[SeriesKey, Group] = {}
        self.newest = -math.inf

    def add(self, batch: list[Fetched]) -> None:
        plan = self._question.plan
        for _, start, stored in batch:
            step = floor_to(start, plan.step)
            for name, blob in stored.items():
                series, window = name.decode(), from_blob(blob)
                totals = self._totals.setdefault(self._group(series), {})
                if step not in totals:
                    totals[step] = Total(self._kind)
                totals[step].add(series, window)
                self.newest = max(self.newest, window.last_ts)
        self._bound()

    def _bound(self) -> None:
        points = len(self._totals) * len(self._question.aggregates) * len(self._question.plan.steps())
        if points > MAX_ANSWER_POINTS:
            raise BadParameter(
                "group_by",
                f"{len(self._totals)} series and more are too many here; take a coarser step or fewer labels",
            )

    def _group(self, series: SeriesKey) -> Group:
        known = self._groups.get(series)
        if known is None:
            known = self._groups[series] = _group_of(parse_series(series).labels, self._question.group_by)
        return known

    def lines(self, now: float) -> list[Line]:
        """Every aggregate of every group, groups in the order of their labels."""
        names, plan = self._question.aggregates, self._question.plan
        result: list[Line] = []
        for group in sorted(self._totals):
            totals = self._totals[group]
            columns = [
                aggregates(totals[start].window() if start in totals else Window(), names, min(plan.step, now - start))
                for start in plan.steps()
            ]
            for index, name in enumerate(names):
                points = [(start, column[index]) for start, column in zip(plan.steps(), columns, strict=True)]
                result.append(Line(name, dict(group), points))
        return result


def _group_of(labels: Mapping[str, str], group_by: tuple[str, ...]) -> Group:
    if group_by and OVERFLOW in labels:  # of these series nobody knows the labels any more
        return ((OVERFLOW, labels[OVERFLOW]),)
    return tuple((label, labels[label]) for label in group_by if label in labels)


async def history(client: Redis, keys: Keys, shards: int, question: Question, kind: Kind, now: float) -> History:
    """Answer from the windows that are kept. Raises BadParameter when the answer would be too large."""
    plan = question.plan
    steps = _Steps(question, kind)
    # A gauge's total needs its series, and so do groups; all else is answered from the totals.
    read = fetch if question.group_by or kind is Kind.GAUGE else fetch_totals
    async for batch in read(client, keys, shards, plan.width, plan.windows(now), question.metric):
        # Decoding hours of windows must not hold up the live feed.
        await anyio.to_thread.run_sync(steps.add, batch)
    lines = await anyio.to_thread.run_sync(steps.lines, now)
    covered = max(plan.start, plan.kept_from)
    return History(
        metric=question.metric,
        since=plan.start,
        to=plan.stop,
        step=plan.step,
        agg=",".join(question.aggregates),
        exact=False,
        sources=[Source(covered, plan.stop)] if covered < plan.stop else [],
        as_of=steps.newest if steps.newest > -math.inf else None,
        series=lines,
    )

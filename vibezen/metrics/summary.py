"""Every metric over a range, against the equal range before: what `GET /api/metrics/summary` answers."""

from typing import Final

import msgspec

from vibezen.metrics.catalogue import Kind, MetricSpec
from vibezen.metrics.clock import HOUR, floor_to
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.gathering import Asked, Gathered, Gatherer, Source
from vibezen.metrics.history import aggregates_of
from vibezen.metrics.metric_numbers import SHOWN, MetricNumbers, told
from vibezen.metrics.question import Parameters, parse_metric, parse_range, parse_switch, parse_where, single
from vibezen.metrics.settings import Settings
from vibezen.metrics.window_reader import Number

PARAMETERS: Final = ("metric", "from", "to", "tz", "where", "exact")
HEADLINES: Final = {Kind.DISTRIBUTION: "p50", Kind.COUNTER: "sum", Kind.RATIO: "mean", Kind.GAUGE: "last"}
"""What stands for a metric over a range: the median of a distribution, the sum of a counter, the mean of a ratio, the
newest total of a gauge."""
_NEWEST: Final = 600
"""Seconds before the end of a range in which a gauge's newest values are looked for."""


class Span(msgspec.Struct):
    """[from, to) in Unix seconds."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()


class Summary(msgspec.Struct):
    """[from, to) is the range asked for, rounded out to whole minutes (a short one to whole windows). The `value` of
    each metric is that of HEADLINES."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    previous: Span = msgspec.field()
    exact: bool = msgspec.field()
    sources: list[Source] = msgspec.field()
    as_of: float | None = msgspec.field()
    metrics: dict[str, MetricNumbers] = msgspec.field()


class Range(msgspec.Struct, frozen=True):
    """What is asked: one metric or (None) all, in [start, stop)."""

    start: int
    stop: int
    metric: str | None
    where: tuple[Condition, ...]
    exact: bool

    def before(self) -> "Range":
        return msgspec.structs.replace(self, start=2 * self.start - self.stop, stop=self.start)


def parse_summary(parameters: Parameters, settings: Settings, now: float) -> Range:
    """Raises BadParameter."""
    texts = single(parameters, PARAMETERS)
    since, until = parse_range(texts, now, "now-24h")
    unit = 60 if until - since >= HOUR else settings.aggregation.widths[0].seconds
    metric = texts.get("metric")
    return Range(
        start=floor_to(since, unit),
        stop=-floor_to(-until, unit),
        metric=parse_metric(metric) if metric else None,
        where=parse_where(parameters.get("where", ())),
        exact=parse_switch("exact", texts.get("exact", "false")),
    )


async def summary(gatherer: Gatherer, asked: Range, now: float) -> Summary:
    """Raises StoreError when files cannot be read."""
    before = asked.before()
    current, earlier = await _told(gatherer, asked, now), await _told(gatherer, before, now)
    return Summary(
        since=asked.start,
        to=asked.stop,
        previous=Span(before.start, before.stop),
        exact=current.gathered.exact,
        sources=current.gathered.sources,
        as_of=current.gathered.newest if current.numbers else None,
        metrics={
            metric: _of(gatherer.catalogue[metric], numbers, earlier.numbers.get(metric))
            for metric, numbers in sorted(current.numbers.items())
        },
    )


class _Told(msgspec.Struct):
    gathered: Gathered
    numbers: dict[str, dict[str, Number]]


async def _told(gatherer: Gatherer, asked: Range, now: float) -> _Told:
    gathered = await gatherer.gather(
        Asked(asked.start, asked.stop, None, asked.metric, SHOWN, where=asked.where, exact=asked.exact)
    )
    seconds = min(asked.stop, now) - asked.start
    numbers: dict[str, dict[str, Number]] = {}
    for (metric, _, _), cell in gathered.cells.items():
        kind = gatherer.catalogue[metric].kind
        numbers[metric] = dict(zip(SHOWN, aggregates_of(cell, SHOWN, seconds, kind), strict=True))
        if kind is Kind.GAUGE:
            numbers[metric]["last"] = await _newest(gatherer, asked, metric, gathered.newest)
    return _Told(gathered, numbers)


async def _newest(gatherer: Gatherer, asked: Range, metric: str, newest: float) -> Number:
    """A gauge's total: the sum over its series of each one's newest value, near the end of the range."""
    stop = min(asked.stop, -floor_to(-newest - 1, 60))
    start = max(asked.start, stop - _NEWEST)
    found = await gatherer.gather(Asked(start, stop, None, metric, ("last",), where=asked.where, exact=asked.exact))
    return next((cell.total.window().last for cell in found.cells.values()), None)


def _of(spec: MetricSpec, numbers: dict[str, Number], earlier: dict[str, Number] | None) -> MetricNumbers:
    headline = HEADLINES[spec.kind]
    return told(spec, numbers[headline], earlier[headline] if earlier else None, numbers)

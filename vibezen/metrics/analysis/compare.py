"""One metric over a range against another range, or other events of the same range: what `GET /api/compare` answers."""

from collections.abc import Callable
from itertools import zip_longest
from typing import Final

import msgspec
from anyio import to_thread

from vibezen.metrics.analysis.asking import Analysis, parse_line
from vibezen.metrics.catalogue import Better
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.gathering import Gatherer, Group
from vibezen.metrics.history import MAX_ANSWER_POINTS
from vibezen.metrics.question import Parameters, Question, parse_span, parse_where, parse_zone
from vibezen.metrics.reports.comparison import Measured, Verdict
from vibezen.metrics.reports.comparison import compare as judge
from vibezen.metrics.reports.definition import Number, Reading
from vibezen.metrics.reports.numbers import Numbers, Place
from vibezen.metrics.reports.units import unit_of
from vibezen.metrics.settings import Settings
from vibezen.metrics.steps import Plan, plan, preceding
from vibezen.metrics.window_reader import Number as Value

PARAMETERS: Final = ("against_from", "against_to", "against_where")
"""Beside those of history."""

Point = tuple[int | None, int | None, Value, Value, Value, Value]
"""Where the step begins and where the one it is compared with does, both numbers, the difference, and the difference
as a share of the other number."""


class Against(msgspec.Struct):
    """What is compared with: the events of [from, to) that `where` holds for."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    where: list[str] = msgspec.field()


class Compared(msgspec.Struct):
    """One group. `value` is over all of [from, to), `against` over the other range; of sums and counts it is scaled to
    the same length of time. `relative`: `absolute` as a share of `against`. The verdict tells whether the difference is
    more than chance makes of so many samples."""

    labels: dict[str, str]
    value: Value
    against: Value
    absolute: Value
    relative: Value
    verdict: Verdict
    samples: Value
    against_samples: Value
    points: list[Point]


class Comparison(Analysis, kw_only=True):
    """The range asked for against another."""

    against: Against
    series: list[Compared]


class Compare(msgspec.Struct, frozen=True):
    """What is asked: the question, and the steps and conditions it is asked of once more."""

    question: Question
    against: Plan
    where: tuple[Condition, ...]

    @property
    def start(self) -> int:
        return min(self.question.plan.start, self.against.start)

    @property
    def stop(self) -> int:
        return max(self.question.plan.stop, self.against.stop)


def parse_compare(parameters: Parameters, settings: Settings, now: float) -> Compare:
    """Raises BadParameter."""
    question, texts = parse_line(parameters, PARAMETERS, settings, now, "now-1h")
    zone, own = parse_zone(question.tz), question.plan
    where = parse_where(parameters.get("against_where", ()), "against_where")
    since, until = texts.get("against_from"), texts.get("against_to")
    if until and not since:
        raise BadParameter("against_from", "where does the other range begin?")
    if not since:
        return Compare(question, own if where else preceding(own, zone), where or question.where)
    begin, end = _other_range(since, until, own, question.tz, now)
    try:
        other = plan(settings.aggregation.widths, begin, end, now, own.step, zone)
    except ValueError as error:
        raise BadParameter("against_to" if until else "against_from", str(error)) from None
    return Compare(question, other, where or question.where)


def _other_range(since: str, until: str | None, own: Plan, tz: str, now: float) -> tuple[float, float]:
    try:
        begin, end = parse_span({"from": since, "to": until or "", "tz": tz}, now)
    except BadParameter as error:
        raise BadParameter(f"against_{error.field}", error.reason.replace("`from`", "`against_from`")) from None
    return begin, end if until else begin + own.stop - own.start


async def compare(gatherer: Gatherer, asked: Compare, now: float) -> Comparison:
    """Raises BadParameter when the answer would be too large, StoreError when files cannot be read."""
    question = asked.question
    spec = gatherer.catalogue[question.metric]
    numbers = Numbers(gatherer, now, exact=question.exact)
    reading = Reading(question.metric, question.aggregates[0], question.where)
    unit = unit_of(reading, None, gatherer.catalogue)
    number = Number(question.metric, reading, None, unit, spec.better)
    own = _Side(numbers, question.plan, number, question.group_by, now)
    other = _Side(
        numbers,
        asked.against,
        msgspec.structs.replace(number, of=msgspec.structs.replace(reading, where=asked.where)),
        question.group_by,
        now,
    )
    await numbers.read()
    series, omitted = await to_thread.run_sync(_series, own, other, question.top)
    return Comparison(
        metric=question.metric,
        since=question.plan.start,
        to=question.plan.stop,
        against=Against(asked.against.start, asked.against.stop, [_text(one) for one in asked.where]),
        tz=question.tz,
        step=question.plan.step,
        agg=reading.agg,
        unit=unit,
        better=None if spec.better is Better.NEITHER else str(spec.better),
        exact=numbers.exact,
        sources=numbers.sources(),
        as_of=numbers.as_of,
        known=bool(series) or question.metric in gatherer.catalogue,
        omitted=omitted,
        series=series,
    )


class _Side:
    """The numbers of one of both: of the whole range, and step by step."""

    def __init__(self, numbers: Numbers, steps: Plan, number: Number, group_by: tuple[str, ...], now: float) -> None:
        self.number, self.spans, self._numbers, self._now = number, list(steps.spans()), numbers, now
        self._whole = Place((steps.start, steps.stop), group_by)
        self._steps = Place((*steps.steps(), steps.stop), group_by)
        numbers.want(self._whole, number, judged=True)
        numbers.want(self._steps, number)

    def groups(self) -> list[Group]:
        return self._numbers.groups(self._whole, self.number)

    def whole(self, group: Group) -> Measured:
        return self._numbers.value(self._whole, self._whole.edges[0], self.number, group)

    def steps(self, group: Group) -> list[Value]:
        return self._numbers.values(self._steps, self.number, group)

    def seconds(self) -> float:
        """That have passed of the range."""
        return self._passed(*self._whole.edges)

    def _passed(self, start: int, stop: int) -> float:
        return max(0.0, min(stop, self._now) - start)

    def step_seconds(self) -> list[float]:
        return [self._passed(start, stop) for start, stop in self.spans]


def _series(own: _Side, other: _Side, top: int | None) -> tuple[list[Compared], int]:
    """Groups in the order of their labels, and how many are left out."""
    groups = sorted({*own.groups(), *other.groups()})
    shown = groups if top is None else sorted(groups, key=lambda one: -(own.whole(one).samples or 0))[:top]
    if len(shown) * max(len(own.spans), len(other.spans)) * 2 > MAX_ANSWER_POINTS:
        raise BadParameter(
            "group_by", f"{len(shown)} series are too many here; take a coarser step, fewer labels or top=10"
        )
    return [_compared(own, other, group) for group in sorted(shown)], len(groups) - len(shown)


def _compared(own: _Side, other: _Side, group: Group) -> Compared:
    value, against = own.whole(group), other.whole(group)
    if own.number.adds_up:
        against = against.scaled(_factor(own.seconds(), other.seconds()))
    found = judge(value, against, own.number.better)
    return Compared(
        labels=dict(group),
        value=value.value,
        against=against.value,
        absolute=found.absolute,
        relative=found.relative,
        verdict=found.verdict,
        samples=value.samples,
        against_samples=against.samples,
        points=_points(own, other, group),
    )


def _points(own: _Side, other: _Side, group: Group) -> list[Point]:
    stretch: Callable[[float, float], float] = _factor if own.number.adds_up else lambda _own, _other: 1.0
    mine = zip(own.spans, own.steps(group), own.step_seconds(), strict=True)
    theirs = zip(other.spans, other.steps(group), other.step_seconds(), strict=True)
    nothing = ((None, None), None, 0.0)
    return [
        _point(start, against_start, value, against, stretch(seconds, against_seconds))
        for ((start, _), value, seconds), ((against_start, _), against, against_seconds) in zip_longest(
            mine, theirs, fillvalue=nothing
        )
    ]


def _point(start: int | None, other: int | None, value: Value, against: Value, factor: float) -> Point:
    against = None if against is None else against * factor
    if value is None or against is None:
        return start, other, value, against, None, None
    return start, other, value, against, value - against, (value - against) / abs(against) if against else None


def _factor(seconds: float, other: float) -> float:
    """What makes a sum over the other time one over as much time as this."""
    return seconds / other if seconds and other else 1.0


def _text(condition: Condition) -> str:
    return f"{condition.key}{'!=' if condition.negated else '='}{condition.value}"

"""Each step of each group held against its baseline: which of them stand out, and why."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from vibezen.metrics.analysis.outlier import Usual, usual
from vibezen.metrics.analysis.trend import finished
from vibezen.metrics.catalogue import Better
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.history import History, Line
from vibezen.metrics.question import Question, parse_zone
from vibezen.metrics.reports.comparison import Verdict, verdict_of
from vibezen.metrics.reports.words import shown
from vibezen.metrics.window_reader import Number as Value
from vibezen.metrics.zone import Zone

SEASON: Final = 14 * DAY
"""Seconds before a step in which the same hours of the day are looked at."""
MIN_DAYS: Final = 5
"""Days on which that hour must have numbers: of fewer, one odd day is a quarter of all."""


class Baseline(StrEnum):
    """What a step is compared with."""

    AUTO = "auto"
    """The same hour where there are enough days of it, else the steps before."""
    HOUR = "hour"
    PREVIOUS = "previous"


class Anomaly(msgspec.Struct):
    """One step [from, to) of one group. `expected`: the median of the `compared` earlier values of `baseline`; `score`:
    robust standard deviations from it, null where the earlier values were all 0. `samples`: how many the value stands
    on. `reason`: one plain sentence."""

    labels: dict[str, str]
    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    value: float = msgspec.field()
    expected: float = msgspec.field()
    score: Value = msgspec.field()
    samples: Value = msgspec.field()
    baseline: Baseline = msgspec.field()
    compared: int = msgspec.field()
    verdict: Verdict = msgspec.field()
    reason: str = msgspec.field()


class Judged(msgspec.Struct):
    """One group: steps that could be judged, steps with too little before them to be judged by, and how many stand
    out."""

    labels: dict[str, str]
    judged: int
    too_little_data: int
    anomalies: int


class Standout(msgspec.Struct, frozen=True):
    """What is asked: `question` with the steps that others are compared with before `start`, the first one judged."""

    question: Question
    start: int
    threshold: float
    baseline: Baseline
    previous: int
    limit: int


def judge(found: History, asked: Standout, unit: str, better: Better, now: float) -> tuple[list[Judged], list[Anomaly]]:
    """All groups, and all that stands out in any of them."""
    judged, standing_out = [], []
    lines = iter(found.series)
    for line, counts in zip(lines, lines, strict=True):  # each group's number, and how many samples it stands on
        group, anomalies = _Group(line, counts, asked, unit, better, now).judge()
        judged.append(group)
        standing_out += anomalies
    standing_out.sort(key=lambda one: (one.score is not None, -abs(one.score or 0), -one.since))
    return judged, standing_out


class _Group:
    """One group's numbers, step by step."""

    def __init__(self, line: Line, counts: Line, asked: Standout, unit: str, better: Better, now: float) -> None:
        plan = asked.question.plan
        self._labels, self._asked, self._unit, self._better = line.labels, asked, unit, better
        self._zone = parse_zone(asked.question.tz)
        self._values = [None if value is None else float(value) for _, value in line.points]
        self._counts = [count for _, count in counts.points]
        self._spans = list(plan.spans())
        self._stop = finished(asked.question, now)
        self._first = bisect_left(plan.steps(), asked.start)
        self._hours = _Hours(plan.steps(), self._values, self._zone)

    def judge(self) -> tuple[Judged, list[Anomaly]]:
        judged = Judged(self._labels, 0, 0, 0)
        found = []
        for index in range(self._first, self._stop):
            value = self._values[index]
            if value is None:
                continue
            for baseline, others in self._others(index):
                if (known := usual(others)) is not None:
                    judged.judged += 1
                    found += self._anomaly(index, value, known, baseline, len(others))
                    break
            else:
                judged.too_little_data += 1
        judged.anomalies = len(found)
        return judged, found

    def _others(self, index: int) -> Iterator[tuple[Baseline, Sequence[float]]]:
        """What the step may be compared with, the best first."""
        if self._asked.baseline is not Baseline.PREVIOUS:
            yield Baseline.HOUR, self._hours.before(index)
        if self._asked.baseline is not Baseline.HOUR:
            before = self._values[max(0, index - self._asked.previous) : index]
            yield Baseline.PREVIOUS, [value for value in before if value is not None]

    def _anomaly(self, index: int, value: float, known: Usual, baseline: Baseline, compared: int) -> list[Anomaly]:
        """None or one."""
        score = known.score(value)
        if score is not None and abs(score) < self._asked.threshold:
            return []
        start, stop = self._spans[index]
        return [
            Anomaly(
                labels=self._labels,
                since=start,
                to=stop,
                value=value,
                expected=known.value,
                score=score,
                samples=self._counts[index],
                baseline=baseline,
                compared=compared,
                verdict=verdict_of(value > known.value, self._better),
                reason=self._reason(value, known, score, baseline, compared),
            )
        ]

    def _reason(self, value: float, known: Usual, score: float | None, baseline: Baseline, compared: int) -> str:
        told = f"{shown(value, self._unit)}, where {shown(known.value, self._unit)} is usual"
        where = (
            "at this hour of the day in the two weeks before"
            if baseline is Baseline.HOUR
            else f"in the {self._asked.previous} steps before"
        )
        if score is None:
            return f"{told}: all {compared} values {where} were 0."
        way = "above" if score > 0 else "below"
        return f"{told}: {abs(score):.3g} robust standard deviations {way} the median of {compared} values {where}."


class _Hours:
    """The numbers of a series by the hour of the day in a zone."""

    def __init__(self, starts: Sequence[int], values: Sequence[float | None], zone: Zone) -> None:
        self._starts, self._zone = starts, zone
        self._by_hour: dict[int, tuple[list[int], list[float]]] = {}
        self._hour_of = [int(zone.reading(start) // HOUR) % 24 for start in starts]
        for start, value, hour in zip(starts, values, self._hour_of, strict=True):
            if value is not None:
                known = self._by_hour.setdefault(hour, ([], []))
                known[0].append(start)
                known[1].append(value)

    def before(self, index: int) -> Sequence[float]:
        """Those of the same hour on the days before, up to SEASON; none where there are too few days."""
        start = self._starts[index]
        starts, values = self._by_hour[self._hour_of[index]]
        since, until = bisect_left(starts, start - SEASON - 2 * HOUR), bisect_left(starts, start - DAY // 2)
        days = {(one + DAY // 2 - start) // DAY for one in starts[since:until]}
        return values[since:until] if len(days) >= MIN_DAYS else ()

"""Steps of a series that stand out from those it is usually like: what `GET /api/anomalies` answers.

Each step is compared with earlier ones: those of the same hour of the day over two weeks, since work has its hours, or
those right before it. standing_out.py judges them, and outlier.py tells what standing out means.
"""

import re
from typing import Final

import msgspec
from anyio import to_thread

from vibezen.metrics.analysis.asking import Analysis, parse_line
from vibezen.metrics.analysis.outlier import THRESHOLD
from vibezen.metrics.analysis.standing_out import SEASON, Anomaly, Baseline, Judged, Standout, judge
from vibezen.metrics.catalogue import Better
from vibezen.metrics.clock import HOUR
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.gathering import Gatherer
from vibezen.metrics.history import history
from vibezen.metrics.question import Parameters, parse_number, parse_zone
from vibezen.metrics.reports.definition import Reading
from vibezen.metrics.reports.units import unit_of
from vibezen.metrics.settings import Settings
from vibezen.metrics.steps import extended

PARAMETERS: Final = ("threshold", "baseline", "previous", "limit")
"""Beside those of history."""
DEFAULT_RANGE: Final = "now-24h"
DEFAULT_PREVIOUS: Final = 60
MAX_PREVIOUS: Final = 500
MAX_THRESHOLD: Final = 100.0
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_POINTS: Final = 200_000
"""Numbers of all series that are looked at, with how many samples each stands on: some two seconds of arithmetic. The
answer holds few of them."""
SHORT: Final = 300
"""Seconds of a step below which hours of the day are compared only where that is asked for: two weeks of short steps
cost a long reading."""
_DECIMAL = re.compile(r"\d{1,3}(?:\.\d{1,6})?\Z")


class Anomalies(Analysis, kw_only=True):
    """[from, to) as of History; what steps are compared with begins at `compared_from`. The anomalies are those that
    stand out most, the newest first of equal ones; `more`: how many `limit` left out."""

    compared_from: float
    threshold: float
    series: list[Judged]
    anomalies: list[Anomaly]
    more: int


def parse_anomalies(parameters: Parameters, settings: Settings, now: float) -> Standout:
    """Raises BadParameter."""
    question, texts = parse_line(parameters, PARAMETERS, settings, now, DEFAULT_RANGE)
    found = question.plan
    previous = parse_number("previous", texts.get("previous"), DEFAULT_PREVIOUS, MAX_PREVIOUS)
    baseline = _baseline(texts.get("baseline") or Baseline.AUTO, found.step)
    before = found.step * previous
    if baseline is not Baseline.PREVIOUS:
        before = max(before, SEASON) if baseline is Baseline.AUTO else SEASON
    longer = extended(found, before, parse_zone(question.tz))
    if 2 * len(longer.steps()) > MAX_POINTS:
        raise BadParameter(
            "step", f"two weeks of it are {len(longer.steps())} numbers, which is too many: take 5m or more"
        )
    return Standout(
        question=msgspec.structs.replace(question, plan=longer, aggregates=(*question.aggregates, "count")),
        start=found.start,
        threshold=_threshold(texts.get("threshold")),
        baseline=baseline,
        previous=previous,
        limit=parse_number("limit", texts.get("limit"), DEFAULT_LIMIT, MAX_LIMIT),
    )


def _baseline(text: str, step: int) -> Baseline:
    try:
        baseline = Baseline(text)
    except ValueError:
        raise BadParameter("baseline", f"expected {', '.join(Baseline)}") from None
    has_hours = HOUR % step == 0
    if baseline is Baseline.HOUR and not has_hours:
        raise BadParameter(
            "baseline", "an hour of the day must be made of whole steps: take a step of 1h or a part of it"
        )
    if baseline is Baseline.AUTO and not (has_hours and step >= SHORT):
        return Baseline.PREVIOUS
    return baseline


def _threshold(text: str | None) -> float:
    if not text:
        return THRESHOLD
    if not _DECIMAL.match(text) or not 1 <= float(text) <= MAX_THRESHOLD:
        raise BadParameter("threshold", f"expected a number from 1 to {MAX_THRESHOLD:g}")
    return float(text)


async def anomalies(gatherer: Gatherer, asked: Standout, now: float) -> Anomalies:
    """Raises BadParameter when the answer would be too large, StoreError when files cannot be read."""
    question = asked.question
    found = await history(gatherer, question, now, MAX_POINTS)
    spec = gatherer.catalogue[question.metric]
    agg = question.aggregates[0]
    unit = unit_of(Reading(question.metric, agg), None, gatherer.catalogue)
    series, standing_out = await to_thread.run_sync(judge, found, asked, unit, spec.better, now)
    return Anomalies(
        metric=found.metric,
        since=asked.start,
        to=found.to,
        compared_from=found.since,
        tz=found.tz,
        step=found.step,
        agg=agg,
        unit=unit,
        better=None if spec.better is Better.NEITHER else str(spec.better),
        threshold=asked.threshold,
        exact=found.exact,
        sources=found.sources,
        as_of=found.as_of,
        known=found.known,
        omitted=found.omitted,
        series=series,
        anomalies=standing_out[: asked.limit],
        more=max(0, len(standing_out) - asked.limit),
        similar=found.similar,
    )

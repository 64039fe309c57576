"""`GET /api/compare`, `/api/trend` and `/api/anomalies`"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.analysis.anomalies import Anomalies, anomalies, parse_anomalies
from vibezen.metrics.analysis.compare import Comparison, compare, parse_compare
from vibezen.metrics.analysis.trend import Trend, parse_trend, trend
from vibezen.metrics.api import parameters
from vibezen.metrics.api.answering import Inquiry, asked_in, respond, settled
from vibezen.metrics.question import Parameters
from vibezen.metrics.serving.operation import ANALYSIS, Answer, Operation, Parameter
from vibezen.metrics.settled import KeptAnswers

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard

Inquire = Callable[["MetricsDashboard", Parameters], Inquiry[Any]]


def inquire_compare(dashboard: MetricsDashboard, given: Parameters) -> Inquiry[Comparison]:
    """Raises BadParameter, as the others do."""
    now = dashboard.now()
    asked = parse_compare(given, dashboard.settings, now)
    return dashboard.inquire(asked, asked.start, asked.stop, now, partial(compare, asked=asked, now=now))


def inquire_trend(dashboard: MetricsDashboard, given: Parameters) -> Inquiry[Trend]:
    now = dashboard.now()
    question = parse_trend(given, dashboard.settings, now)
    plan, asked = question.plan, ("trend", question)  # the same question is another one to history
    return dashboard.inquire(asked, plan.start, plan.stop, now, partial(trend, question=question, now=now))


def inquire_anomalies(dashboard: MetricsDashboard, given: Parameters) -> Inquiry[Anomalies]:
    now = dashboard.now()
    asked = parse_anomalies(given, dashboard.settings, now)
    plan = asked.question.plan
    return dashboard.inquire(asked, plan.start, plan.stop, now, partial(anomalies, asked=asked, now=now))


def analysis_operations(dashboard: MetricsDashboard, kept: KeptAnswers) -> list[Operation]:
    def told(
        path: str,
        inquire: Inquire,
        summary: str,
        answers: dict[int, Answer],
        description: str,
        declared: tuple[Parameter, ...],
    ) -> Operation:
        async def handler(request: Request) -> Response:
            return await respond(request, inquire(dashboard, asked_in(request)), kept)

        return Operation(path, handler, summary, answers, description, declared, group=ANALYSIS)

    return [
        told(
            "/api/compare",
            inquire_compare,
            "One metric over a range against another range, or against other events",
            settled("Both numbers of each series, in all and by step", Comparison),
            "Sums and counts of the other side are scaled to the same length of time. The verdict tells whether the "
            "difference is more than chance makes of so many samples.",
            parameters.COMPARE,
        ),
        told(
            "/api/trend",
            inquire_trend,
            "Whether a metric rises or falls, and how fast",
            settled("A line for each series", Trend),
            "The median of the slopes between all pairs of steps (Theil-Sen), and the test of Mann and Kendall.",
            parameters.TREND,
        ),
        told(
            "/api/anomalies",
            inquire_anomalies,
            "Steps of a metric that stand out",
            settled("Those that stand out most, and how many could be judged", Anomalies),
            "By the distance from the median of earlier steps, in units of the median absolute deviation.",
            parameters.ANOMALIES,
        ),
    ]

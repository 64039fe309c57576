"""`GET /api/compare`, `/api/trend` and `/api/anomalies`"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.analysis import anomalies as standout
from vibezen.metrics.analysis.anomalies import Anomalies, Baseline, anomalies, parse_anomalies
from vibezen.metrics.analysis.compare import Comparison, compare, parse_compare
from vibezen.metrics.analysis.outlier import THRESHOLD
from vibezen.metrics.analysis.trend import DEFAULT_RANGE, Trend, parse_trend, trend
from vibezen.metrics.api.answering import Inquiry, respond
from vibezen.metrics.question import MAX_TOP, Parameters
from vibezen.metrics.serving.operation import ANALYSIS, Answer, Operation, Parameter
from vibezen.metrics.settled import KeptAnswers

if TYPE_CHECKING:
    from vibezen.metrics.api.web import MetricsDashboard

_TIME: Final = "now-1h, now-1d/d, today, yesterday, ISO 8601 or Unix seconds"
_LINE: Final = (
    Parameter("metric", str, "Which metric", required=True),
    Parameter("to", str, f"Where the range ends; now without it. {_TIME}"),
    Parameter("tz", str, "The time zone of days and of times that name none: Europe/Berlin, +05:30"),
    Parameter("step", str, "auto, or a length such as 60, 5m, 1h, 1d"),
    Parameter("group_by", str, "Metadata keys to tell apart, with commas between them"),
    Parameter("top", Annotated[int, Meta(ge=1, le=MAX_TOP)], "With group_by: only so many groups, the largest"),
    Parameter("agg", str, "One of count sum mean min max last rate p50 p75 p90 p95 p99 p99.9; what suits the metric"),
    Parameter("where", str, "key=value or key!=value; all that are given must hold", repeated=True),
    Parameter("exact", bool, "From the events themselves, whatever it costs"),
)
_AGAINST: Final = (
    Parameter("against_from", str, f"Where the other range begins; right before this one without it. {_TIME}"),
    Parameter("against_to", str, "Where the other range ends; as long as this one without it"),
    Parameter("against_where", str, "Conditions of the other side, in place of where", repeated=True),
)
_STANDOUT: Final = (
    Parameter(
        "threshold",
        Annotated[float, Meta(ge=1, le=standout.MAX_THRESHOLD)],
        f"Robust standard deviations from which on a step stands out; {THRESHOLD} without it",
    ),
    Parameter("baseline", Baseline, "What a step is compared with: the same hour of the day, or the steps before"),
    Parameter(
        "previous",
        Annotated[int, Meta(ge=1, le=standout.MAX_PREVIOUS)],
        f"How many steps before; {standout.DEFAULT_PREVIOUS} without it",
    ),
    Parameter(
        "limit",
        Annotated[int, Meta(ge=1, le=standout.MAX_LIMIT)],
        f"Anomalies in the answer, those that stand out most; {standout.DEFAULT_LIMIT} without it",
    ),
)

Inquire = Callable[["MetricsDashboard", Parameters], Inquiry[Any]]


def inquire_compare(dashboard: MetricsDashboard, parameters: Parameters) -> Inquiry[Comparison]:
    """Raises BadParameter, as the others do."""
    now = dashboard.now()
    asked = parse_compare(parameters, dashboard.settings, now)
    return dashboard.inquire(asked, asked.start, asked.stop, now, partial(compare, asked=asked, now=now))


def inquire_trend(dashboard: MetricsDashboard, parameters: Parameters) -> Inquiry[Trend]:
    now = dashboard.now()
    question = parse_trend(parameters, dashboard.settings, now)
    plan, asked = question.plan, ("trend", question)  # the same question is another one to history
    return dashboard.inquire(asked, plan.start, plan.stop, now, partial(trend, question=question, now=now))


def inquire_anomalies(dashboard: MetricsDashboard, parameters: Parameters) -> Inquiry[Anomalies]:
    now = dashboard.now()
    asked = parse_anomalies(parameters, dashboard.settings, now)
    plan = asked.question.plan
    return dashboard.inquire(asked, plan.start, plan.stop, now, partial(anomalies, asked=asked, now=now))


def analysis_operations(dashboard: MetricsDashboard, kept: KeptAnswers) -> list[Operation]:
    def told(
        path: str, inquire: Inquire, summary: str, type_: Any, since: str, more: tuple[Parameter, ...] = ()
    ) -> Operation:
        async def handler(request: Request) -> Response:
            parameters = {name: request.query_params.getlist(name) for name in request.query_params}
            return await respond(request, inquire(dashboard, parameters), kept)

        begin = Parameter("from", str, f"Where the range begins; {since} without it. {_TIME}")
        answers = {200: Answer(summary, type_), 304: Answer("The client has the answer already", media=())}
        return Operation(path, handler, summary, answers, parameters=(begin, *_LINE, *more), group=ANALYSIS)

    return [
        told(
            "/api/compare",
            inquire_compare,
            "One metric over a range against another range, or against other events",
            Comparison,
            "now-1h",
            _AGAINST,
        ),
        told("/api/trend", inquire_trend, "Whether a metric rises or falls", Trend, DEFAULT_RANGE),
        told(
            "/api/anomalies",
            inquire_anomalies,
            "Steps of a metric that stand out",
            Anomalies,
            standout.DEFAULT_RANGE,
            _STANDOUT,
        ),
    ]

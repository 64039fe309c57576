"""`GET /api/sessions` and `/api/sessions/{id}`"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.api.answering import Inquiry, respond
from vibezen.metrics.question import Parameters
from vibezen.metrics.serving.errors import ApiError, Body
from vibezen.metrics.serving.operation import ANALYSIS, Answer, Operation, Parameter
from vibezen.metrics.sessions import (
    DEFAULT_LIMIT,
    DEFAULT_RANGE,
    MAX_ID,
    MAX_LIMIT,
    Detail,
    Sessions,
    parse_session,
    parse_sessions,
    session,
    sessions,
)
from vibezen.metrics.settled import KeptAnswers

if TYPE_CHECKING:
    from vibezen.metrics.api.web import MetricsDashboard

_TIME: Final = "now-1h, now-1d/d, today, yesterday, ISO 8601 or Unix seconds"
_RANGE: Final = (
    Parameter("from", str, f"Where the range begins; {DEFAULT_RANGE} without it. {_TIME}"),
    Parameter("to", str, f"Where the range ends; now without it. {_TIME}"),
    Parameter("tz", str, "The time zone of days and of times that name none: Europe/Berlin, +05:30"),
)
_CHOICE: Final = (
    Parameter("project", str, "Only events of this project"),
    Parameter("agent", str, "Only events of this agent"),
    Parameter("where", str, "key=value or key!=value of events; all that are given must hold", repeated=True),
    Parameter("limit", Annotated[int, Meta(ge=1, le=MAX_LIMIT)], f"Sessions in the answer; {DEFAULT_LIMIT} without it"),
    Parameter("cursor", str, "What an earlier answer gave as next"),
)
_ID: Final = Parameter("id", Annotated[str, Meta(min_length=1)], "The session", required=True, place="path")
_UNCHANGED: Final = Answer("The client has the answer already", media=())


def inquire_sessions(dashboard: MetricsDashboard, parameters: Parameters) -> Inquiry[Sessions]:
    """Raises BadParameter."""
    asked = parse_sessions(parameters, dashboard.now())

    async def ask() -> Sessions:
        return await sessions(dashboard.reader, asked, await dashboard.active_sessions())

    return dashboard.inquire_now(ask)


def inquire_session(dashboard: MetricsDashboard, name: str, parameters: Parameters) -> Inquiry[Detail]:
    """Raises BadParameter; answering, ApiError where nobody knows the session."""
    now = dashboard.now()
    asked, widths = parse_session(name, parameters, now), dashboard.settings.aggregation.widths

    async def ask() -> Detail:
        found = await session(dashboard.reader, asked, await dashboard.active_sessions(), widths, now)
        if found is None:
            raise ApiError(404, "no event of this session in this range; `from` and `to` ask for another one")
        return found

    return dashboard.inquire_now(ask)


def session_operations(dashboard: MetricsDashboard, kept: KeptAnswers) -> list[Operation]:
    def asked(request: Request) -> dict[str, str | Sequence[str]]:
        return {name: request.query_params.getlist(name) for name in request.query_params}

    async def listed(request: Request) -> Response:
        return await respond(request, inquire_sessions(dashboard, asked(request)), kept)

    async def detail(request: Request) -> Response:
        name = request.path_params["id"]
        if len(name) > MAX_ID:
            raise ApiError(404, f"no session has a name of more than {MAX_ID} characters")
        return await respond(request, inquire_session(dashboard, name, asked(request)), kept)

    return [
        Operation(
            "/api/sessions",
            listed,
            "Sessions with activity, active ones first",
            {200: Answer("The sessions", Sessions), 304: _UNCHANGED},
            parameters=(*_RANGE, *_CHOICE),
            group=ANALYSIS,
        ),
        Operation(
            "/api/sessions/{id}",
            detail,
            "What one session did",
            {
                200: Answer("The session", Detail),
                304: _UNCHANGED,
                404: Answer("The range has no event of it", Body),
            },
            parameters=(_ID, *_RANGE),
            group=ANALYSIS,
        ),
    ]

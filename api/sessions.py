"""`GET /api/sessions` and `/api/sessions/{id}`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.api import parameters
from vibezen.metrics.api.answering import Inquiry, asked_in, respond, settled
from vibezen.metrics.question import Parameters
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.serving.operation import ANALYSIS, Operation, Parameter
from vibezen.metrics.sessions import (
    MAX_ID,
    Detail,
    Sessions,
    parse_session,
    parse_sessions,
    session,
    sessions,
)
from vibezen.metrics.settled import KeptAnswers

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard

_ID: Final = Parameter(
    "id",
    Annotated[str, Meta(min_length=1)],
    "The session, as `/api/sessions` tells it; one with a slash in it is found there alone, by `where`.",
    required=True,
    place="path",
)


def inquire_sessions(dashboard: MetricsDashboard, given: Parameters) -> Inquiry[Sessions]:
    """Raises BadParameter."""
    asked = parse_sessions(given, dashboard.now())

    async def ask() -> Sessions:
        return await sessions(dashboard.reader, asked, await dashboard.active_sessions())

    return dashboard.inquire_now(ask)


def inquire_session(dashboard: MetricsDashboard, name: str, given: Parameters) -> Inquiry[Detail]:
    """Raises BadParameter; answering, ApiError where nobody knows the session."""
    now = dashboard.now()
    asked, widths = parse_session(name, given, now), dashboard.settings.aggregation.widths

    async def ask() -> Detail:
        found = await session(dashboard.reader, asked, await dashboard.active_sessions(), widths, now)
        if found is None:
            raise ApiError(404, "no event of this session in this range; `from` and `to` ask for another one")
        return found

    return dashboard.inquire_now(ask)


def session_operations(dashboard: MetricsDashboard, kept: KeptAnswers) -> list[Operation]:
    async def listed(request: Request) -> Response:
        return await respond(request, inquire_sessions(dashboard, asked_in(request)), kept)

    async def detail(request: Request) -> Response:
        name = request.path_params["id"]
        if len(name) > MAX_ID:
            raise ApiError(404, f"no session has a name of more than {MAX_ID} characters")
        return await respond(request, inquire_session(dashboard, name, asked_in(request)), kept)

    return [
        Operation(
            "/api/sessions",
            listed,
            "Sessions with activity, active ones first",
            settled("The sessions, each with what it used and cost", Sessions),
            "A session is what events name in their metadata key `session`. Conditions choose events, and numbers are "
            "those of the chosen ones. `next` in an answer is the `cursor` of what follows, null at the end.",
            parameters.SESSIONS,
            group=ANALYSIS,
        ),
        Operation(
            "/api/sessions/{id}",
            detail,
            "What one session did",
            settled("The session, by metric, by model and over time", Detail),
            parameters=(_ID, *parameters.SESSION),
            errors=(404,),
            group=ANALYSIS,
        ),
    ]

"""The ASGI application: which route is answered by what."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from vibezen.metrics.api.analysis import analysis_operations
from vibezen.metrics.api.answering import respond, while_connected
from vibezen.metrics.api.login import OPEN, login_routes
from vibezen.metrics.api.pipeline import Pipeline
from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.api.replay import replay_operation
from vibezen.metrics.api.reports import report_operation
from vibezen.metrics.api.sessions import session_operations
from vibezen.metrics.api.site import Site
from vibezen.metrics.api.socket import live_socket
from vibezen.metrics.api.stream import LiveResponse, live_stream
from vibezen.metrics.api.tickets import ticket_operation
from vibezen.metrics.api.watching import SampleResponse, is_live, parse_watch
from vibezen.metrics.history import History
from vibezen.metrics.inventory import Inventory
from vibezen.metrics.search import Events
from vibezen.metrics.serving.access import Access
from vibezen.metrics.serving.answers import Health, answer
from vibezen.metrics.serving.doors import PROBES, Doors
from vibezen.metrics.serving.errors import HANDLERS, ApiError, error_response
from vibezen.metrics.serving.guard import Guard
from vibezen.metrics.serving.operation import Answer, Handler, Operation, Scope
from vibezen.metrics.settled import KeptAnswers
from vibezen.metrics.summary import Summary

if TYPE_CHECKING:
    from vibezen.metrics.api.web import MetricsDashboard

MAX_BODY: Final = 64 * 1024
"""Bytes: no route here takes more than a token."""
LIVE: Final = ("/api/stream", "/api/replay")
"""Answers that stay open, so that their number is bounded."""


def asked(request: Request) -> dict[str, list[str]]:
    """The parameters of an address, each with all the values it is given."""
    return {name: request.query_params.getlist(name) for name in request.query_params}


def build(dashboard: MetricsDashboard, access: Access) -> Starlette:
    """The application; the dashboard is opened and closed by whoever serves it."""
    answered = operations(dashboard)
    doors = Doors(Scope.READ, answered, {**PROBES, **OPEN}, LIVE)
    return Starlette(
        routes=[
            *(operation.route() for operation in answered),
            _live_socket(dashboard),
            *login_routes(access),
            _unknown_api(),
            _site(dashboard),
        ],
        middleware=[Middleware(Guard, access, doors, redeem=dashboard.tickets.redeem)],
        exception_handlers=HANDLERS,
        max_body_size=MAX_BODY,
    )


def operations(dashboard: MetricsDashboard) -> list[Operation]:
    """All that is answered over HTTP, but for the page and the login."""

    async def realtime(request: Request) -> Response:
        return answer(dashboard.realtime())

    kept = KeptAnswers(dashboard.settings.queries.cache_bytes)

    async def history(request: Request) -> Response:
        return await respond(request, dashboard.inquire_history(asked(request)), kept)

    async def summary(request: Request) -> Response:
        return await respond(request, dashboard.inquire_summary(asked(request)), kept)

    async def export(request: Request) -> Response:
        return dashboard.export(**asked(request))

    async def catalogue(request: Request) -> Response:
        return answer(await while_connected(request, partial(dashboard.catalogue, **asked(request))))

    async def events(request: Request) -> Response:
        parameters = asked(request)
        if is_live(parameters):
            return SampleResponse(dashboard.watching.join(parse_watch(parameters)))
        return answer(await while_connected(request, partial(dashboard.events, **parameters)))

    async def pipeline(request: Request) -> Response:
        return answer(await dashboard.pipeline())

    async def stream(request: Request) -> LiveResponse:
        return await live_stream(request, dashboard.hub)

    async def healthz(request: Request) -> Response:
        return answer(Health("ok"))

    async def readyz(request: Request) -> Response:
        reasons = await dashboard.troubles()
        return answer(Health("not ready", reasons), 503) if reasons else answer(Health("ready"))

    def told(path: str, handler: Handler, summary: str, type_: Any, *, scope: Scope | None = Scope.READ) -> Operation:
        return Operation(path, handler, summary, {200: Answer(summary, type_)}, scope=scope)

    return [
        told("/api/metrics/realtime", realtime, "Every metric now", Realtime),
        told("/api/metrics/history", history, "One metric over time", History),
        told("/api/metrics/summary", summary, "Every metric over a range, against the range before", Summary),
        told("/api/metrics/export", export, "Events as a file", None),
        report_operation(dashboard, kept),
        *analysis_operations(dashboard, kept),
        *session_operations(dashboard, kept),
        told("/api/catalogue", catalogue, "Metrics with unit, kind, labels and their values", Inventory),
        told("/api/events", events, "Single events, or a live sample of them", Events),
        told("/api/pipeline", pipeline, "Shards, groups, owners, lag, the books, the store, the server", Pipeline),
        told("/api/stream", stream, "The live feed as server-sent events", None),
        replay_operation(dashboard),
        ticket_operation(dashboard.tickets),
        told("/healthz", healthz, "Whether the process lives", Health, scope=None),
        told("/readyz", readyz, "Whether it can answer, and events can be stored", Health, scope=None),
    ]


def _live_socket(dashboard: MetricsDashboard) -> BaseRoute:
    async def socket(websocket: WebSocket) -> None:
        try:
            await live_socket(websocket, dashboard.hub)
        except ApiError as error:  # full, or closing: said before the connection is accepted
            await websocket.send_denial_response(error_response(error))

    return WebSocketRoute("/ws", socket)


def _unknown_api() -> BaseRoute:
    async def unknown(request: Request) -> Response:
        raise ApiError(404, f"there is no {request.url.path} here")

    return Route("/api/{rest:path}", unknown)


def _site(dashboard: MetricsDashboard) -> BaseRoute:
    return Mount("/", Site(enabled=dashboard.settings.dashboard.enabled))

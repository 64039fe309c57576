"""The ASGI application: which route is answered by what."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope
from starlette.websockets import WebSocket

from vibezen.metrics.api import parameters
from vibezen.metrics.api.analysis import analysis_operations
from vibezen.metrics.api.answering import asked_in, respond, settled, while_connected
from vibezen.metrics.api.login import OPEN, login_routes
from vibezen.metrics.api.pipeline import Pipeline
from vibezen.metrics.api.prometheus.operation import prometheus_operation
from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.api.replay import replay_operation
from vibezen.metrics.api.reports import report_operation
from vibezen.metrics.api.sessions import session_operations
from vibezen.metrics.api.site import Site
from vibezen.metrics.api.socket import live_socket
from vibezen.metrics.api.stream import stream_operation
from vibezen.metrics.api.tickets import ticket_operation
from vibezen.metrics.api.watching import Sample, SampleResponse, is_live, parse_watch
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.export_format import MEDIA_TYPES
from vibezen.metrics.history import History
from vibezen.metrics.inventory import Inventory
from vibezen.metrics.search import Events
from vibezen.metrics.serving.access import Access
from vibezen.metrics.serving.access_log import AccessLog
from vibezen.metrics.serving.answers import Health, answer
from vibezen.metrics.serving.compression import Compression
from vibezen.metrics.serving.counting import Counting
from vibezen.metrics.serving.description import About, Description
from vibezen.metrics.serving.doors import PROBES, Doors
from vibezen.metrics.serving.errors import HANDLERS, ApiError, bad_parameter, error_response
from vibezen.metrics.serving.guard import Guard
from vibezen.metrics.serving.limits import Limits
from vibezen.metrics.serving.operation import EVENT_STREAM, EVENTS, HEALTH, JSON, Answer, Operation, Scope
from vibezen.metrics.serving.reception import Reception
from vibezen.metrics.serving.version import package_version
from vibezen.metrics.settled import KeptAnswers
from vibezen.metrics.summary import Summary

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard

MAX_BODY: Final = 64 * 1024
"""Bytes: no route here takes more than a token."""
SOCKET: Final = "/ws"

TITLE: Final = "VIBEZEN Metrics: HTTP API"
TEXT: Final = """\
Metrics of AI-assisted software work: now, over time, live, and as reports. All times are Unix seconds in UTC; a missing
number is null, never 0. `HEAD` is answered wherever `GET` is, and `OPTIONS` names a path's methods. Every answer has an
`X-Request-Id`; text is compressed by gzip for who asks for it.

Events are sent to the gateway, on port 4318, which describes itself the same way."""


def build(dashboard: MetricsDashboard, access: Access) -> Starlette:
    """The application; the dashboard is opened and closed by whoever serves it."""
    description = Description(
        operations(dashboard),
        About(TITLE, TEXT, package_version(), cookie=True, open=access.keyring is None),
    )
    access_log = AccessLog(description.operations) if dashboard.settings.log.access else None
    doors = Doors(Scope.READ, description.operations, {**PROBES, **OPEN})
    paths = {*(operation.path for operation in description.operations), SOCKET, "/"}
    return Starlette(
        routes=[
            *description.routes(),
            _live_socket(dashboard),
            *login_routes(access),
            _unknown_api(),
            _site(dashboard),
        ],
        middleware=[
            Middleware(Reception, access_log),
            Middleware(Counting, dashboard.requests, paths),
            Middleware(Guard, access, doors, redeem=dashboard.tickets.redeem),
            Middleware(Compression),
            Middleware(Limits, MAX_BODY),
        ],
        exception_handlers=HANDLERS,
    )


def operations(dashboard: MetricsDashboard) -> list[Operation]:
    """All that is answered over HTTP, but for the page and the login."""
    kept = KeptAnswers(dashboard.settings.queries.cache_bytes)
    return [
        *_metrics_operations(dashboard, kept),
        report_operation(dashboard, kept),
        *analysis_operations(dashboard, kept),
        *session_operations(dashboard, kept),
        *_event_operations(dashboard),
        stream_operation(dashboard),
        replay_operation(dashboard),
        ticket_operation(dashboard.tickets),
        *_health_operations(dashboard),
        prometheus_operation(dashboard),
    ]


def _metrics_operations(dashboard: MetricsDashboard, kept: KeptAnswers) -> list[Operation]:
    async def realtime(request: Request) -> Response:
        return answer(dashboard.realtime())

    async def history(request: Request) -> Response:
        return await respond(request, dashboard.inquire_history(asked_in(request)), kept)

    async def summary(request: Request) -> Response:
        return await respond(request, dashboard.inquire_summary(asked_in(request)), kept)

    async def export(request: Request) -> Response:
        return dashboard.export(**asked_in(request))

    return [
        Operation(
            "/api/metrics/realtime",
            realtime,
            "Every metric now, over the newest minute of windows, with the change against the minute before",
            {200: Answer("The newest numbers", Realtime)},
        ),
        Operation(
            "/api/metrics/history",
            history,
            "One metric over time, any range",
            settled("Its series", History),
            "Steps in which nothing was recorded are null, for every aggregate. The range is rounded out to whole "
            "steps; `sources` tells what each hour of the answer was taken from.",
            parameters.HISTORY,
        ),
        Operation(
            "/api/metrics/summary",
            summary,
            "Every metric over a range, against the equal range before",
            settled("Totals and percentiles", Summary),
            parameters=parameters.SUMMARY,
        ),
        Operation(
            "/api/metrics/export",
            export,
            "The events themselves as a file, of any size",
            {200: Answer("The file, streamed", media=tuple(kind.partition(";")[0] for kind in MEDIA_TYPES.values()))},
            "What goes wrong after its beginning cuts the transfer, so that a short file cannot be taken for a whole "
            "one.",
            parameters.EXPORT,
        ),
    ]


def _event_operations(dashboard: MetricsDashboard) -> list[Operation]:
    async def catalogue(request: Request) -> Response:
        return answer(await while_connected(request, partial(dashboard.catalogue, **asked_in(request))))

    async def events(request: Request) -> Response:
        given = asked_in(request)
        if is_live(given):
            return SampleResponse(dashboard.watching.join(parse_watch(given)))
        return answer(await while_connected(request, partial(dashboard.events, **given)))

    return [
        Operation(
            "/api/catalogue",
            catalogue,
            "Metrics with unit, kind, labels and the values these have",
            {200: Answer("All metrics declared, and those found", Inventory)},
            parameters=parameters.CATALOGUE,
            group=EVENTS,
        ),
        Operation(
            "/api/events",
            events,
            "Single events, by time, metric and metadata; or a live sample of them",
            {200: Answer("Events in order of time; or samples", Events, (JSON, EVENT_STREAM), Sample)},
            "`next` in an answer is the `cursor` of what follows, null at the end.\n\nWith `live=true` each message is "
            "a random sample of what arrived in the last half second, and says how many events there were.",
            parameters.SEARCH,
            group=EVENTS,
        ),
    ]


def _health_operations(dashboard: MetricsDashboard) -> list[Operation]:
    async def pipeline(request: Request) -> Response:
        return answer(await dashboard.pipeline())

    async def healthz(request: Request) -> Response:
        return answer(Health("ok"))

    async def readyz(request: Request) -> Response:
        reasons = await dashboard.troubles()
        return answer(Health("not ready", reasons), 503) if reasons else answer(Health("ready"))

    return [
        Operation(
            "/api/pipeline",
            pipeline,
            "Shards, groups, owners, lag, the books, the store, the server",
            {200: Answer("How the pipeline does", Pipeline)},
            group=HEALTH,
        ),
        Operation(
            "/healthz",
            healthz,
            "Whether the process lives",
            {200: Answer("It does", Health)},
            scope=None,
            group=HEALTH,
        ),
        Operation(
            "/readyz",
            readyz,
            "Whether it can answer, and events can be stored",
            {200: Answer("Both", Health), 503: Answer("Not now, for these reasons", Health)},
            scope=None,
            group=HEALTH,
        ),
    ]


def _live_socket(dashboard: MetricsDashboard) -> BaseRoute:
    async def socket(websocket: WebSocket) -> None:
        try:
            await live_socket(websocket, dashboard.hub)
        except ApiError as error:  # full, or closing: said before the connection is accepted
            await websocket.send_denial_response(error_response(error))
        except BadParameter as error:
            await websocket.send_denial_response(error_response(bad_parameter(error)))

    return WebSocketRoute(SOCKET, socket)


class _Unknown:
    """Whatever below /api nobody knows, by any method."""

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        raise ApiError(404, f"there is no {scope['path'][:200]} here")


def _unknown_api() -> BaseRoute:
    return Route("/api/{rest:path}", _Unknown())


def _site(dashboard: MetricsDashboard) -> BaseRoute:
    return Mount("/", Site(enabled=dashboard.settings.dashboard.enabled))

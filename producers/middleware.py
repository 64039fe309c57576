"""MetricsMiddleware: response time, errors and concurrency of any ASGI application."""

import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from vibezen.metrics.catalogue import MetricType
from vibezen.metrics.event import Metadata, MetadataValue
from vibezen.metrics.producers.in_flight import InFlight
from vibezen.metrics.producers.measure import Sample
from vibezen.metrics.producers.route import route_of

if TYPE_CHECKING:
    from vibezen.metrics.producers.instruments import Instruments

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LAST_PARTS: Final = ("http.response.body", "http.response.zerocopysend", "http.response.pathsend")
NOT_ANSWERED: Final = 0
"""The status of a request whose application returned without a response, as it may when the client has gone."""


def is_server_error(status: int) -> bool:
    return status >= 500


class MetricsMiddleware:
    """Around an ASGI application: `app.add_middleware(MetricsMiddleware, collector=collector)` in Starlette or FastAPI.

    Of every HTTP request, when its last byte was handed to the server or it failed before:

    * `response_time`: milliseconds from the request to there, a stream's last part included;
    * `error_rate`: 1 when the application raised (cancellation included) or `failed(status)` holds, else 0.

    Both carry `operation`, `status` (the code as text) and `method`; `error`, the exception's class, when one was
    raised; and `metadata`. `operation` is what `name(scope)` answers, by default the route's template, else the name
    of the endpoint, else "(no route)": never a raw path, since every path would become a series of its own.

    `concurrency`: requests in flight in this process, with `metadata` alone; see InFlight for when it is recorded.

    Other scopes (lifespan, websocket) pass through, and so does every exception. What goes wrong in measuring is
    logged once and never reaches the application.
    """

    def __init__(
        self,
        app: App,
        collector: "Instruments",
        *,
        name: Callable[[Scope], str | None] = route_of,
        failed: Callable[[int], bool] = is_server_error,
        metadata: Metadata | None = None,
    ) -> None:
        self.app = app
        self._collector = collector
        self._name = name
        self._failed = failed
        self._metadata: dict[str, MetadataValue] = dict(metadata or {})
        self._in_flight = InFlight("requests in flight", self._metadata, collector.sample)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(self, scope)
        self._collector.quietly(self._in_flight.enter)
        try:
            await self.app(scope, receive, request.sending(send))
        except BaseException as error:
            request.end(error)
            raise
        finally:
            request.end()
            self._in_flight.leave()

    def record(self, request: "_Request", took: float, error: BaseException | None) -> None:
        self._collector.quietly(self._record, request, took, error)

    def _record(self, request: "_Request", took: float, error: BaseException | None) -> None:
        self._collector.record_samples(self._samples(request, took, error))

    def _samples(self, request: "_Request", took: float, error: BaseException | None) -> Iterator[Sample]:
        status = request.status or (500 if error else NOT_ANSWERED)
        shared = {
            "operation": self._name(request.scope) or "(no route)",
            "method": request.scope.get("method"),
            "status": str(status) if status else "(none)",
            **({"error": type(error).__name__} if error else {}),
            **self._metadata,
        }
        yield MetricType.RESPONSE_TIME, took, shared
        yield MetricType.ERROR_RATE, int(error is not None or self._failed(status)), shared


class _Request:
    """One request on its way. The first end counts: what a background task does afterwards is not the response."""

    def __init__(self, middleware: MetricsMiddleware, scope: Scope) -> None:
        self.scope = scope
        self.status: int | None = None
        self._middleware = middleware
        self._started = time.perf_counter()
        self._ended = False

    def sending(self, send: Send) -> Send:
        async def noting(message: Message) -> None:
            await send(message)
            kind = message.get("type")
            if kind == "http.response.start":
                self.status = message.get("status")
            elif kind in _LAST_PARTS and not message.get("more_body"):
                self.end()

        return noting

    def end(self, error: BaseException | None = None) -> None:
        if not self._ended:
            self._ended = True
            self._middleware.record(self, (time.perf_counter() - self._started) * 1000, error)

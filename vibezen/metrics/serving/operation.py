"""What an HTTP door answers to, declared once: routing, access and the OpenAPI description are made of it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import StrEnum
from http import HTTPMethod
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, request_response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"

METRICS: Final = "Metrics"
ANALYSIS: Final = "Analysis"
EVENTS: Final = "Events"
LIVE: Final = "Live"
HEALTH: Final = "Health"
"""Headings of the description."""

Handler = Callable[[Request], Awaitable[Response]]


class Scope(StrEnum):
    """What a token allows. `ADMIN` allows all of it."""

    READ = "read"
    WRITE = "write"
    """Sending events in."""
    ADMIN = "admin"
    """Changing what others see: silences, acknowledgements, replays."""


class Parameter(msgspec.Struct, frozen=True):
    """One parameter. `type`: what msgspec makes a schema of. `repeated`: may be given several times. `example`: what
    is shown in the description and makes the call that it shows. `secret`: never to be put into a log."""

    name: str
    type: Any
    description: str
    required: bool = False
    repeated: bool = False
    place: str = "query"
    example: str | None = None
    secret: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What may come back. `type`: of its JSON, or of the data of its server-sent events; None: the bytes have none.
    `message`: the latter, where it may be either. `media` is empty where there is no body."""

    description: str
    type: Any = None
    media: tuple[str, ...] = (JSON,)
    message: Any = None


class Operation(msgspec.Struct, frozen=True):
    """One method of one path. `scope`: that a token must have, None where nobody needs one. `answers` by status;
    `errors`: statuses of errors beside those that any request can be answered with (see openapi.py). `group`: under
    which heading it is described."""

    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Answer | None = None
    method: HTTPMethod = HTTPMethod.GET
    scope: Scope | None = Scope.READ
    errors: tuple[int, ...] = ()
    group: str = METRICS

    @property
    def streams(self) -> bool:
        """Whether nothing but a stream of events comes back, which has no end."""
        return all(answer.media == (EVENT_STREAM,) for answer in self.answers.values())


def routes(operations: Iterable[Operation]) -> list[Route]:
    """A route for each path, which answers every method: HEAD goes with GET, and OPTIONS tells them all."""
    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method.value] = operation
    return [Route(path, _Path(methods)) for path, methods in by_path.items()]


class _Path:
    """All that one path answers to; an object, since Starlette leaves the methods of such an endpoint to it."""

    def __init__(self, methods: Mapping[str, Operation]) -> None:
        self._methods = methods
        known = {*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}
        self._allow = {"allow": ", ".join(sorted(known))}
        self._app = request_response(self._answer)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=self._allow)
        operation = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            raise HTTPException(405, headers=self._allow)
        if request.method == "HEAD" and operation.streams:
            return _HeadOfStream(media_type=EVENT_STREAM, headers={"cache-control": "no-store"})
        return await operation.handler(request)


class _HeadOfStream(Response):
    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        super().init_headers(headers)
        del self.headers["content-length"]

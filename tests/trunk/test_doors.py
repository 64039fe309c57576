"""Which scope a path asks for."""

from http import HTTPMethod
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.serving.doors import Doors
from vibezen.metrics.serving.operation import EVENT_STREAM, JSON, Answer, Operation, Scope


async def nothing(request: Request) -> Response:
    return Response()


def operation(method: HTTPMethod, path: str, scope: Scope | None, *media: str) -> Operation:
    return Operation(path, nothing, "", {200: Answer("", media=media or (JSON,))}, method=method, scope=scope)


DOORS = Doors(
    Scope.READ,
    [
        operation(HTTPMethod.GET, "/api/openapi.json", None),
        operation(HTTPMethod.GET, "/api/silences", Scope.READ),
        operation(HTTPMethod.POST, "/api/silences", Scope.ADMIN),
        operation(HTTPMethod.POST, "/api/alerts/{fingerprint}/ack", Scope.ADMIN),
        operation(HTTPMethod.GET, "/api/feed", Scope.READ, EVENT_STREAM),
        operation(HTTPMethod.GET, "/api/events", Scope.READ, JSON, EVENT_STREAM),
    ],
)


def request(method: str, path: str, root: str = "", query: bytes = b"") -> dict[str, Any]:
    return {"type": "http", "method": method, "path": root + path, "root_path": root, "query_string": query}


def test_each_method_of_a_path_asks_for_its_own_scope() -> None:
    for root in ("", "/metrics-ui"):
        assert DOORS.asks(request("GET", "/api/silences", root)) is Scope.READ
        assert DOORS.asks(request("POST", "/api/silences", root)) is Scope.ADMIN
        assert DOORS.asks(request("POST", "/api/alerts/abc/ack", root)) is Scope.ADMIN
        assert DOORS.asks(request("GET", "/healthz", root)) is None


def test_head_asks_for_what_get_asks_for() -> None:
    assert DOORS.asks(request("HEAD", "/api/openapi.json")) is None
    assert DOORS.asks(request("POST", "/api/openapi.json")) is Scope.READ


def test_what_nobody_declared_asks_for_a_token_too() -> None:
    for method, path in (("GET", "/"), ("GET", "/healthz/x"), ("GET", "//healthz"), ("DELETE", "/api/alerts/abc/ack")):
        assert DOORS.asks(request(method, path)) is Scope.READ
    assert DOORS.asks({"type": "websocket", "path": "/healthz"}) is Scope.READ


def test_streams_and_sockets_are_live() -> None:
    assert DOORS.is_live(request("GET", "/api/feed", "/metrics-ui"))
    assert DOORS.is_live({"type": "websocket", "path": "/anything"})
    assert not DOORS.is_live(request("GET", "/api/silences"))


def test_path_that_also_answers_is_live_where_a_stream_is_asked_for() -> None:
    assert DOORS.is_live(request("GET", "/api/events", query=b"metric=cost&l%69ve=true"))
    assert not DOORS.is_live(request("GET", "/api/events", query=b"metric=cost&live=false"))
    assert not DOORS.is_live(request("GET", "/api/events"))

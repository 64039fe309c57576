"""What happens to every request first and last: it gets its name, and is told in the access log."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vibezen.metrics.clock import monotonic
from vibezen.metrics.serving import request_id
from vibezen.metrics.serving.access_log import AccessLog
from vibezen.metrics.serving.operation import EVENT_STREAM


class Reception:
    """The outermost middleware. `access_log`: None where none is wanted."""

    def __init__(self, app: ASGIApp, access_log: AccessLog | None = None) -> None:
        self._app, self._access_log = app, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        name = request_id.choose(Headers(scope=scope).get(request_id.HEADER))
        request_id.current.set(name)  # for good: the server logs a failure after we are through, in the same task
        begun, status = monotonic(), None
        size: int | None = 0

        async def told(message: Message) -> None:
            nonlocal status, size
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                status = message.get("status", 101)
                headers = MutableHeaders(raw=_headers(message))
                headers[request_id.HEADER] = name
                if kind == "websocket.accept" or headers.get("content-type", "").startswith(EVENT_STREAM):
                    size = None  # its messages go out past us (direct.py)
            elif kind in ("http.response.body", "websocket.http.response.body") and size is not None:
                size += len(message.get("body", b""))
            elif kind == "websocket.close" and status is None:
                status = 403  # what a server makes of closing before it accepted
            await send(message)

        try:
            await self._app(scope, receive, told)
        finally:
            if self._access_log is not None:
                self._access_log.write(scope, status, monotonic() - begun, size, name)


def _headers(message: Message) -> list[tuple[bytes, bytes]]:
    """The message's headers, as a list that can be changed."""
    message["headers"] = headers = list(message.get("headers", ()))
    return headers

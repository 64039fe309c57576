"""What a request may weigh before anybody looks into it, and the last resort for what nobody foresaw."""

import asyncio
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vibezen.metrics.serving import request_id
from vibezen.metrics.serving.errors import ApiError, error_response

MAX_ADDRESS: Final = 8 * 1024
"""Bytes of path and query together."""
MAX_PARAMETERS: Final = 100
MAX_HEADERS: Final = 32 * 1024
"""Bytes of names and values together; the server's parser takes some more."""
READ_SECONDS: Final = 30.0
"""Until a body that does not arrive is given up."""


def check(scope: Scope) -> None:
    """Raises ApiError: 414, 431, or 400 for too many parameters."""
    query: bytes = scope["query_string"]
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(path) + len(query) > MAX_ADDRESS:
        raise ApiError(414, f"at most {MAX_ADDRESS} bytes of path and query are taken")
    if query.count(b"&") >= MAX_PARAMETERS:
        raise ApiError(400, f"at most {MAX_PARAMETERS} parameters are taken", code="too_many_parameters")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
        raise ApiError(431, f"at most {MAX_HEADERS} bytes of headers are taken")


class Limits:
    """The innermost middleware, so that its answers get the headers of all others. `max_body`: bytes, None where the
    application sees to that by itself."""

    def __init__(self, app: ASGIApp, max_body: int | None = None) -> None:
        self._app, self._max_body = app, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            check(scope)
            received = self._bounded(scope, receive) if scope["type"] == "http" else receive
        except ApiError as error:
            await error_response(error)(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] in ("http.response.start", "websocket.accept", "websocket.close")
            await send(message)

        try:
            await self._app(scope, received, watched)
        except Exception:
            if not begun:
                what = f"something went wrong on the server; its log says what (request {request_id.current.get()})"
                await error_response(ApiError(500, what, code="internal"))(scope, receive, send)
            raise  # so that the server logs it with its place, or cuts what was begun

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """Raises ApiError 400, 408 or 413, here or when it is received from. The body of a question is nobody's: it is
        let pass."""
        if scope["method"] in ("GET", "HEAD"):
            return _without_body(receive)
        limit = self._max_body
        if limit is None:
            return receive
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise _too_large(limit)
        size, whole = 0, False
        until = asyncio.get_running_loop().time() + READ_SECONDS

        async def bounded() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, f"the body did not arrive within {READ_SECONDS:g} s") from None
            if message["type"] == "http.disconnect":
                raise ApiError(400, "the body ended early")
            size, whole = size + len(message.get("body", b"")), not message.get("more_body")
            if size > limit:
                raise _too_large(limit)
            return message

        return bounded


def _without_body(receive: Receive) -> Receive:
    async def received() -> Message:
        message = await receive()
        return {**message, "body": b""} if message.get("body") else message

    return received


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"at most {limit} bytes are taken here")

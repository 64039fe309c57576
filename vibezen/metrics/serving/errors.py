"""Every error that an HTTP door answers with, in one shape: `{"error": {"code", "message", "field"?}}`."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from vibezen.metrics.connection import UNREACHABLE
from vibezen.metrics.errors import BadParameter, MetricsError, ServerUnavailable, TooSlow

RETRY_AFTER: Final = 2
"""Seconds after which a client should try again when Redis was away."""

TOO_SLOW: Final = "too_slow"

_CODES: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    414: "address_too_long",
    415: "unsupported",
    422: "invalid",
    429: "too_many_attempts",
    431: "headers_too_large",
    503: "unavailable",
}


class Detail(msgspec.Struct, omit_defaults=True):
    """`code` is for programs, `message` one line for people, `field` the parameter that was wrong."""

    code: str
    message: str
    field: str | None = None


class Body(msgspec.Struct):
    error: Detail


class ApiError(Exception):
    """An answer that is not the one asked for. `retry_after`: seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.detail = Detail(code or _CODES.get(status, "error"), message, field)


class Away(ApiError):
    """Redis does not answer now; trying again is right."""

    def __init__(self, message: str = "no Redis or Valkey answers") -> None:
        super().__init__(503, message)


def error_response(error: ApiError) -> Response:
    headers = {"cache-control": "no-store"}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    elif error.status == 503 and error.detail.code != TOO_SLOW:  # which will take as long again
        headers["retry-after"] = str(RETRY_AFTER)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = msgspec.json.encode(Body(error.detail))
    return Response(body, error.status, headers, media_type="application/json")


async def _on_api_error(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_http_error(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = error_response(ApiError(error.status_code, error.detail))
    response.headers.update(error.headers or {})
    return response


async def _on_redis_error(request: HTTPConnection, error: Exception) -> Response:
    return error_response(Away())


def bad_parameter(error: BadParameter) -> ApiError:
    """A parameter that is wrong, as an answer."""
    return ApiError(400, error.reason, code="bad_parameter", field=error.field)


async def _on_bad_parameter(request: HTTPConnection, error: Exception) -> Response:
    assert isinstance(error, BadParameter)
    return error_response(bad_parameter(error))


async def _on_too_slow(request: HTTPConnection, error: Exception) -> Response:
    return error_response(ApiError(503, str(error), code=TOO_SLOW))


async def _on_metrics_error(request: HTTPConnection, error: Exception) -> Response:
    return error_response(ApiError(503, str(error)))


async def _on_any_error(request: Request, error: Exception) -> Response:
    """What we did not foresee; Starlette raises it again afterwards, so that it is logged with its place."""
    return error_response(ApiError(500, "something went wrong on the server; its log says what", code="internal"))


HANDLERS: Final[Mapping[Any, Callable[[Any, Exception], Awaitable[Response]]]] = {
    ApiError: _on_api_error,
    BadParameter: _on_bad_parameter,
    HTTPException: _on_http_error,
    RedisError: _on_redis_error,
    ServerUnavailable: _on_redis_error,
    TooSlow: _on_too_slow,
    MetricsError: _on_metrics_error,
    **dict.fromkeys(UNREACHABLE, _on_redis_error),
    Exception: _on_any_error,
}

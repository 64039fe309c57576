"""Cross-origin requests (CORS): what lets a listed web page send to us, and read the answers."""

from collections.abc import Collection, Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

PREFLIGHT: Final[Mapping[str, str]] = {
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "authorization, content-type, content-encoding, idempotency-key",
    "access-control-max-age": "600",
}
"""Seconds, in the last one: how long a browser need not ask again."""
API_PREFLIGHT: Final[Mapping[str, str]] = {
    "access-control-allow-methods": "GET, HEAD, POST, PUT, DELETE",
    "access-control-allow-headers": "authorization, content-type, if-none-match, last-event-id",
    "access-control-max-age": "600",
}
"""The same where there is more than taking events in."""
PRIVATE_NETWORK: Final = "access-control-request-private-network"


def cross_origin(origin: str | None, origins: Collection[str]) -> Mapping[str, str]:
    """Headers for every answer. Empty where no foreign page may come in."""
    if not origins:
        return {}
    if origin not in origins:
        return {"vary": "Origin"}
    return {
        "vary": "Origin",
        "access-control-allow-origin": origin or "",
        "access-control-expose-headers": "etag, retry-after",
    }


def is_preflight(scope: Scope, headers: Headers) -> bool:
    """Whether a browser asks what it may send."""
    asks = scope["type"] == "http" and scope["method"] == "OPTIONS"
    return asks and "origin" in headers and "access-control-request-method" in headers


def preflight_response(headers: Headers, *, api: bool = False) -> Response:
    told = dict(API_PREFLIGHT if api else PREFLIGHT)
    if headers.get(PRIVATE_NETWORK) == "true":  # a page of the internet asks for a server on this machine
        told["access-control-allow-private-network"] = "true"
    return Response(status_code=204, headers=told)

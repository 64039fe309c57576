"""What stands before every application: proxies, Host, Origin, token and scope, the number of live clients, and the
security headers of every answer."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from vibezen.metrics.serving.access import Access, Grant, check_scope, cookie_name
from vibezen.metrics.serving.doors import Doors, route_path
from vibezen.metrics.serving.errors import HANDLERS, ApiError, error_response
from vibezen.metrics.serving.operation import Scope
from vibezen.metrics.serving.origins import cross_origin, is_preflight, preflight_response

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
HSTS: Final = "max-age=31536000"
"""Seconds for which a browser asks this host by TLS alone."""
GRANT: Final = "grant"
"""Where a handler finds what let the request in: `request.state.grant`, None where nothing was needed."""
TICKET: Final = "ticket"
SECRETS: Final = frozenset({TICKET, "token", "access_token"})
"""Parameters that are taken out of every address: what is no ticket was put there by mistake, and opens nothing."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HERE: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})

Redeem = Callable[[str], Awaitable[str | None]]
"""The mark of the token that a ticket was made with, once; None when it holds no more."""


class Guard:
    """Asks `Access` before anything else is done. `redeem`: what takes tickets, None where there are none. `login`:
    whether the application has a login page to lead browsers to."""

    def __init__(
        self, app: ASGIApp, access: Access, doors: Doors, *, redeem: Redeem | None = None, login: bool = True
    ) -> None:
        self._app, self._access, self._doors, self._redeem, self._login = app, access, doors, redeem, login

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        self._access.proxies.resolve(scope)
        headers = Headers(scope=scope)
        ticket = _take_ticket(scope)
        told = {**SECURITY_HEADERS, **cross_origin(headers.get("origin"), self._access.origins)}
        if scope["scheme"] in ("https", "wss") and _is_elsewhere(headers.get("host", "")):
            told["strict-transport-security"] = HSTS

        async def guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                answered = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in told.items():
                    if name == "vary":
                        answered.add_vary_header(value)
                    else:
                        answered.setdefault(name, value)  # a report has a policy of its own
            await send(message)

        preflight = bool(self._access.origins) and is_preflight(scope, headers)
        try:
            # Of two a proxy before us may have judged the other one.
            self._access.check_host(headers.get("host") if len(headers.getlist("host")) == 1 else None)
            if scope["path"] and scope["path"] == scope.get("root_path"):
                # The page's links are relative: without the slash at its end they would lead beside the root path.
                await RedirectResponse(scope["path"].rpartition("/")[2] + "/", 307)(scope, receive, guarded)
                return
            grant = await self._check(scope, headers, ticket, preflight=preflight)
            if preflight:
                await preflight_response(headers, api=self._login)(scope, receive, guarded)
                return
            scope.setdefault("state", {})[GRANT] = grant
            await self._let_in(scope, receive, guarded, grant)
        except ApiError as error:
            await self._refusal(scope, error)(scope, receive, guarded)

    async def _let_in(self, scope: AsgiScope, receive: Receive, send: Send, grant: Grant | None) -> None:
        if not self._doors.is_live(scope):
            await self._app(scope, receive, send)
            return
        with anyio.CancelScope() as cancelled:
            with self._access.crowd.member(client_address(scope), grant.token if grant else None, cancelled.cancel):
                await self._app(scope, receive, send)
        if cancelled.cancelled_caught and scope["type"] == "websocket":
            with anyio.move_on_after(1, shield=True), contextlib.suppress(RuntimeError):  # it may be gone by itself
                await send({"type": "websocket.close", "code": 1008, "reason": "the token does not hold any more"})

    def _refusal(self, scope: AsgiScope, error: ApiError) -> Response:
        # A browser that opens the page is led to where it can log in; relative, since we may stand under any path.
        asks_for_page = error.status == 401 and scope["type"] == "http" and route_path(scope) == "/"
        return RedirectResponse("login", 303) if self._login and asks_for_page else error_response(error)

    async def _check(self, scope: AsgiScope, headers: Headers, ticket: str | None, *, preflight: bool) -> Grant | None:
        host, origin = headers.get("host"), headers.get("origin")
        is_socket, is_live = scope["type"] == "websocket", self._doors.is_live(scope)
        if is_live or preflight or scope["method"] not in _SAFE_METHODS:
            self._access.check_origin(origin, host)
        if is_live and origin is None and headers.get("sec-fetch-site") == "cross-site":  # as an image, for example
            raise ApiError(403, "not from another web page", code="foreign_origin")
        if preflight:  # browsers send it without a token
            return None
        asked = self._doors.asks(scope)
        if asked is None or self._access.keyring is None:
            return None
        grant = await self._grant(scope, headers, ticket if is_live else None)
        if is_socket and grant.by_cookie and origin is None:
            raise ApiError(403, "a browser says where it comes from", code="foreign_origin")
        check_scope(grant.token, asked)
        return grant

    async def _grant(self, scope: AsgiScope, headers: Headers, ticket: str | None) -> Grant:
        access = self._access
        assert access.keyring is not None
        if ticket is not None and self._redeem is not None:
            try:
                mark = await self._redeem(ticket)
            except Exception as error:
                raise _unavailable(error) from error
            token = access.keyring.marked(mark) if mark is not None else None
            if token is None:
                raise ApiError(401, "this ticket was used, is too old or unknown; POST /api/ticket makes one")
            check_scope(token, Scope.READ)
            return Grant(token)
        name_of_cookie = cookie_name(headers.get("host"), secure=is_secure(scope))
        grant = access.check_token(headers, client_address(scope), name_of_cookie)
        assert grant is not None
        return grant


def client_address(scope: AsgiScope) -> str:
    client: Any = scope.get("client")
    return client[0] if client else ""


def is_secure(scope: AsgiScope) -> bool:
    return scope["scheme"] in ("https", "wss")


def _take_ticket(scope: AsgiScope) -> str | None:
    """Take it, and every other secret, out of the address, so that no log of ours has it."""
    if not any(name.encode() in scope["query_string"] for name in SECRETS):
        return None
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    tickets = [value for name, value in pairs if name == TICKET]
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] not in SECRETS]).encode()
    return tickets[0] if tickets else None


def _unavailable(error: Exception) -> ApiError:
    """Redis away is an answer; anything else is a mistake of ours."""
    for kind in (OSError, *HANDLERS):
        if kind is not Exception and isinstance(kind, type) and isinstance(error, kind):
            return ApiError(503, "no Redis or Valkey answers, so no ticket can be taken")
    raise error


def _is_elsewhere(host: str) -> bool:
    """This machine's own names stand for all its ports, and others of them speak no TLS."""
    return host.lower().rpartition(":")[0] not in _HERE and host.lower() not in _HERE

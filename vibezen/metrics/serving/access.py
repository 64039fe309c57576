"""Who may ask: the Host they name, the page they come from, the token they show.

Bound to loopback the API is open to this machine, and Host and Origin keep foreign web pages out. Bound elsewhere it
wants a token, made at first start: as bearer header, or as the cookie that the login page sets.
"""

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import publish_once
from vibezen.metrics.serving.errors import ApiError, error_response
from vibezen.metrics.serving.origins import cross_origin, is_preflight, preflight_response

TOKEN_FILE: Final = "token"  # noqa: S105 - a file name
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz", "/login", "/login.js"})
"""Served without a token: probes cannot log in, and nobody could log in otherwise."""
SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Access(msgspec.Struct, frozen=True):
    """The rules of one listening address. `any_address`: every IP literal is a Host, since we listen on all.
    `origins`: foreign web pages that may come in all the same."""

    hosts: frozenset[str]
    any_address: bool
    token: str | None
    cookie: str
    origins: frozenset[str] = frozenset()

    def check_host(self, host: str | None) -> None:
        """A foreign name that leads here is how a web page reaches servers of its reader's own network."""
        name = _host_name(host or "")
        if name in self.hosts or (self.any_address and _address(name) is not None):
            return
        raise ApiError(400, "this server is not known by that name", code="unknown_host")

    def check_origin(self, origin: str | None, host: str | None) -> None:
        if origin is None or origin in self.origins:
            return
        if _netloc(origin) != (host or "").lower():
            raise ApiError(403, "not from another web page", code="foreign_origin")

    def check_token(self, headers: Headers) -> bool:
        """Whether it came as a cookie, which browsers send by themselves. ApiError 401 without a valid token."""
        if self.token is None:
            return False
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            if self.is_token(shown.strip()):
                return False
        elif self.is_token(_cookies(headers).get(self.cookie, "")):
            return True
        raise ApiError(401, "a token is needed: open the link printed at start, or send it as a bearer token")

    def is_token(self, shown: str) -> bool:
        return self.token is not None and hmac.compare_digest(shown.encode(), self.token.encode())


def access_for(host: str, bound: str, port: int, storage: Path, origins: Iterable[str] = ()) -> Access:
    """The rules for a server told to listen on `host`, which is bound to the address `bound`.

    Makes the token when one is needed and there is none. Raises StoreError when it can neither be read nor made.
    """
    address = _address(bound)
    hosts = {"localhost", "127.0.0.1", "::1", host.lower(), bound}
    everywhere = address is None or address.is_unspecified
    if everywhere:
        hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    local = address is not None and address.is_loopback
    return Access(
        hosts=frozenset(hosts - {"", "0.0.0.0", "::"}),  # noqa: S104 - taken out, not bound
        any_address=everywhere,
        token=None if local else token_of(storage),
        cookie=f"vibezen_token_{port}",
        origins=frozenset(origins),
    )


def page_url(host: str, port: int, token: str | None = None) -> str:
    """Where a browser on this machine finds the page of a server told to listen on `host`. With a token it logs in,
    and is a secret then: for a person's eyes, not for a log."""
    here = ("", "0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104 - compared, not bound
    name = "localhost" if host in here else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}" + (f"/login#token={token}" if token else "")


def token_of(storage: Path) -> str:
    """The store's token, made at first use, readable by its owner alone."""
    path = storage / TOKEN_FILE
    try:
        if not path.exists():
            publish_once(path, secrets.token_urlsafe(32).encode() + b"\n")
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: the token cannot be read: {error}") from None
    if not token:
        raise StoreError(f"{path}: holds no token; delete it and a new one is made")
    return token


class Guard:
    """Asks `Access` before anything else is done, and puts the security headers on every answer.

    `login`: whether the application has a login page to lead browsers to.
    """

    def __init__(self, app: ASGIApp, access: Access, *, login: bool = True) -> None:
        self._app, self._access, self._login = app, access, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        headers = Headers(scope=scope)
        told = {**SECURITY_HEADERS, **cross_origin(headers.get("origin"), self._access.origins)}

        async def guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                answered = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in told.items():
                    answered.setdefault(name, value)  # a report has a policy of its own
            await send(message)

        preflight = bool(self._access.origins) and is_preflight(scope, headers)
        try:
            self._check(scope, headers, preflight=preflight)
        except ApiError as error:
            # A browser that opens the page is led to where it can log in; relative, since we may stand under any path.
            asks_for_page = self._login and error.status == 401 and scope["type"] == "http" and scope["path"] == "/"
            refusal = RedirectResponse("login", 303) if asks_for_page else error_response(error)
            await refusal(scope, receive, guarded)
            return
        await (preflight_response(headers) if preflight else self._app)(scope, receive, guarded)

    def _check(self, scope: Scope, headers: Headers, *, preflight: bool) -> None:
        host, origin = headers.get("host"), headers.get("origin")
        self._access.check_host(host)
        is_socket = scope["type"] == "websocket"
        if is_socket or preflight or scope["method"] not in _SAFE_METHODS:
            self._access.check_origin(origin, host)
        if preflight:  # browsers send it without a token
            return
        if scope["path"] in OPEN_PATHS and not is_socket:
            return
        by_cookie = self._access.check_token(headers)
        if is_socket and by_cookie and origin is None:
            raise ApiError(403, "a browser says where it comes from", code="foreign_origin")


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # brackets that do not match
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _cookies(headers: Headers) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(headers.get("cookie", "")).items()}
    except CookieError:
        return {}

"""Who may ask: the Host they name, the page they come from, the token they show.

Bound to loopback the API is open to this machine, and Host and Origin keep foreign web pages out. Bound elsewhere it
wants a token, made at first start: as bearer header, or as the session that the login page leaves as a cookie.
"""

import ipaddress
import math
import re
import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers

from vibezen.metrics.serving.attempts import Attempts
from vibezen.metrics.serving.crowd import Crowd
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.serving.forwarded import Proxies
from vibezen.metrics.serving.keyring import Keyring
from vibezen.metrics.serving.operation import Scope
from vibezen.metrics.serving.tokens import Token, digest
from vibezen.metrics.settings import Dashboard, Gateway, Live, Required, Settings

COOKIE: Final = "vibezen_session_"
"""How its name begins; the port that the client named follows, since a browser sends the cookies of all ports of a host
to each of them."""

LIVE: Final = Live()
_HOST: Final = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[\]@]*))(?::[0-9]*)?\Z")


class Grant(msgspec.Struct, frozen=True):
    """What let a request in. `by_cookie`: browsers send it by themselves."""

    token: Token
    by_cookie: bool = False


class Access:
    """The rules of one listening address. `any_address`: every IP literal is a Host, since we listen on all.
    `origins`: foreign web pages that may come in all the same. `keyring`: None where no token is needed."""

    def __init__(
        self,
        hosts: frozenset[str],
        keyring: Keyring | None = None,
        *,
        any_address: bool = False,
        origins: frozenset[str] = frozenset(),
        proxies: Proxies | None = None,
        crowd: Crowd | None = None,
        attempts: Attempts | None = None,
    ) -> None:
        self.hosts, self.keyring, self.any_address, self.origins = hosts, keyring, any_address, origins
        self.proxies = proxies or Proxies()
        self.crowd = Crowd(LIVE.max_clients, LIVE.max_clients_per_address) if crowd is None else crowd
        self.attempts = Attempts() if attempts is None else attempts

    @property
    def token(self) -> str | None:
        """The first token, for the link that logs in; None where no token is needed."""
        return self.keyring.first if self.keyring is not None else None

    def refresh(self) -> None:
        """Called about once a second: live clients whose token was revoked, or ended, are let go."""
        if self.keyring is not None:
            self.keyring.refresh()
            self.crowd.dismiss(self.keyring.holds)

    def check_host(self, host: str | None) -> None:
        """A foreign name that leads here is how a web page reaches servers of its reader's own network."""
        name = _host_name(host or "")
        if name in self.hosts or (self.any_address and _address(name) is not None):
            return
        raise ApiError(400, "this server is not known by that name (auth.hosts)", code="unknown_host")

    def check_origin(self, origin: str | None, host: str | None) -> None:
        if origin is None or origin in self.origins:
            return
        if _netloc(origin) != (host or "").lower():
            raise ApiError(403, "not from another web page", code="foreign_origin")

    def check_token(self, headers: Headers, address: str, cookie: str) -> Grant | None:
        """What lets this request in, None where nothing is needed. `cookie`: the name of the session's.

        ApiError 401 without a valid token, 429 for an address that showed too many wrong ones.
        """
        if self.keyring is None:
            return None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return Grant(self.admit(shown.strip(), address))
        found = next(filter(None, map(self.keyring.of_session, _cookies(headers, cookie))), None)
        if found is None:
            raise ApiError(401, "a token is needed: open the link printed at start, or send it as a bearer token")
        return Grant(found, by_cookie=True)

    def admit(self, shown: str, address: str) -> Token:
        """The token that was shown. ApiError 401, 429; both count as, or come of, an attempt of this address."""
        assert self.keyring is not None
        waiting = self.attempts.wait(address)
        found = self.keyring.find(shown)
        if waiting and (found is None or not self.attempts.is_known(address, digest(shown))):
            raise ApiError(
                429, "too many wrong tokens from this address; try again later", retry_after=math.ceil(waiting)
            )
        if found is None:
            self.attempts.failed(address)
            raise ApiError(401, "that is not a token of this server")
        self.attempts.succeeded(address, found.sha256)
        return found


def check_scope(token: Token, scope: Scope) -> None:
    """ApiError 403 which names the scope."""
    if not token.allows(scope):
        raise ApiError(403, f"this needs a token with the scope {scope}; that of {token.name!r} has it not")


def access_for(
    host: str, bound: str, storage: Path, settings: Settings, *, section: Dashboard | Gateway | None = None
) -> Access:
    """The rules for a server told to listen on `host`, which is bound to the address `bound`. `section`: the gateway's
    settings, or the dashboard's, as without it.

    Makes the first token when one is needed and there is none. Raises StoreError when it can neither be read nor made.
    """
    served = section if section is not None else settings.dashboard
    auth = settings.auth
    address = _address(bound)
    hosts = {"localhost", "127.0.0.1", "::1", host.lower(), bound, *auth.hosts}
    everywhere = address is None or address.is_unspecified
    if everywhere:
        hosts |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return Access(
        frozenset(hosts - {"", "0.0.0.0", "::"}),  # noqa: S104 - taken out, not bound
        Keyring(storage, auth.token) if needs_token(bound, settings, served) else None,
        any_address=everywhere,
        origins=frozenset(served.origins if isinstance(served, Gateway) else auth.origins),
        proxies=Proxies(served.trusted_proxies, (isinstance(served, Dashboard) and served.root_path) or ""),
        crowd=Crowd(settings.live.max_clients, settings.live.max_clients_per_address),
    )


def needs_token(bound: str, settings: Settings, section: Dashboard | Gateway) -> bool:
    """Whether a server bound to this address asks for one. Behind a proxy everybody seems to be on this machine."""
    address = _address(bound)
    local = address is not None and address.is_loopback
    return not local or bool(section.trusted_proxies) or settings.auth.required is Required.ALWAYS


def page_url(host: str, port: int, token: str | None = None, *, secure: bool = False) -> str:
    """Where a browser on this machine finds the page of a server told to listen on `host`; `secure`: by TLS. With a
    token it logs in, and is a secret then: for a person's eyes, not for a log."""
    here = ("", "0.0.0.0", "::", "127.0.0.1", "::1")  # noqa: S104 - compared, not bound
    name = "localhost" if host in here else f"[{host}]" if ":" in host else host
    scheme = "https" if secure else "http"
    return f"{scheme}://{name}:{port}" + (f"/login#token={token}" if token else "")


def cookie_name(host: str | None, *, secure: bool) -> str:
    """Of the session, for a client that asked for `host`. The port is the one it named, not the one we listen on: so
    that one login holds for all processes behind a balancer."""
    _, _, port = (host or "").strip().rpartition("]")[2].rpartition(":")
    return COOKIE + (port if port.isascii() and port.isdigit() else "443" if secure else "80")


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets; "" for anything else."""
    found = _HOST.match(host.strip().lower())
    return (found["address"] or found["name"]) if found else ""


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


def _cookies(headers: Headers, name: str) -> list[str]:
    """All values of this name: whoever serves a neighbouring name can set one more of it. Python's own parser gives all
    up at the first cookie that it finds ill formed, and browsers send those of other programs on this host, too."""
    pairs = [pair.strip().partition("=") for line in headers.getlist("cookie") for pair in line.split(";")]
    return [value for found, _, value in pairs if found == name]

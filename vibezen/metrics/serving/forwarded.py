"""What a proxy in front of us says of the client, believed from those proxies alone that the settings name."""

import ipaddress
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from vibezen.metrics.serving.network import bare

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECURE: Final = {"http": ("http", "ws"), "https": ("https", "wss"), "ws": ("http", "ws"), "wss": ("https", "wss")}


class Proxies:
    """`trusted`: addresses and networks; `root_path`: the path under which they offer us, "" for none."""

    def __init__(self, trusted: Iterable[str] = (), root_path: str = "") -> None:
        self._trusted: tuple[Network, ...] = tuple(ipaddress.ip_network(one) for one in trusted)
        self._root = root_path

    def resolve(self, scope: Scope) -> None:
        """Put the client's own address, scheme and Host in the place of the proxy's, and the root path before the path
        when the proxy took it off: from here on both kinds of proxies look the same."""
        if peer := bare(_peer(scope)):
            scope["client"] = (str(peer), scope["client"][1])
        trusted = self._is_trusted(_peer(scope))
        if trusted:
            self._believe(scope)
        path: str = scope["path"]
        has_root = path == self._root or path.startswith(self._root + "/")
        if self._root and (trusted or has_root):
            scope["root_path"] = self._root
            if not has_root:
                scope["path"] = self._root + path
                scope["raw_path"] = self._root.encode() + (scope.get("raw_path") or path.encode())

    def _believe(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hops = [hop.strip() for line in headers.getlist("x-forwarded-for") for hop in line.split(",")]
        if client := self._client(hops):
            scope["client"] = (client, 0)
        schemes = _SECURE.get(_last(headers, "x-forwarded-proto").lower())
        if schemes:
            scope["scheme"] = schemes[scope["type"] == "websocket"]
        if host := _last(headers, "x-forwarded-host"):
            others = [pair for pair in scope["headers"] if pair[0] != b"host"]
            scope["headers"] = [(b"host", host.encode("latin-1")), *others]

    def _client(self, hops: list[str]) -> str | None:
        """The last hop that is no trusted proxy: whatever stands before it the client may have made up."""
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                return None
            if not self._is_trusted(address):
                return address
        return None

    def _is_trusted(self, address: str) -> bool:
        found = bare(address)
        return found is not None and any(found in network for network in self._trusted)


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _last(headers: Headers, name: str) -> str:
    """The last of several values: what the proxy next to us said, not what came to it."""
    values = headers.getlist(name)
    return values[-1].rpartition(",")[2].strip() if values else ""


def _address(hop: str) -> str | None:
    """An address without port and brackets; None for anything else."""
    for text in (hop, hop.rpartition(":")[0], hop.strip("[]"), hop.rpartition(":")[0].strip("[]")):
        if found := bare(text):
            return str(found)
    return None

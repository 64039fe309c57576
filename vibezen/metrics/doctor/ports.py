"""Checks of the ports we serve on: free, ours, or somebody else's."""

import http.client
import json
import socket
import ssl
from contextlib import closing
from typing import Final

from vibezen.metrics.doctor.finding import Finding, fail, ok

SECONDS: Final = 2.0
_EVERYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def port(name: str, host: str, number: int, *, secure: bool = False) -> Finding:
    """Whether `name` could listen there, or does already; `secure`: by TLS."""
    where = f"{host or '*'}:{number}"
    if _listens(_EVERYWHERE.get(host, host), number):
        if _is_ours(_EVERYWHERE.get(host, host), number, secure=secure):
            return ok(name, f"{where}: ours answers")
        return fail(name, f"{where}: taken by another program", "end it, or choose another port with --port")
    reason = _cannot_bind(host, number)
    if reason:
        return fail(name, f"{where}: {reason}", "choose another host or port")
    return ok(name, f"{where}: free")


def _listens(host: str, number: int) -> bool:
    try:
        socket.create_connection((host, number), timeout=SECONDS).close()
    except OSError:
        return False
    return True


def _is_ours(host: str, number: int, *, secure: bool) -> bool:
    """Whether `/healthz` answers as our servers do."""
    try:
        with closing(_connection(host, number, secure=secure)) as connection:
            connection.request("GET", "/healthz")
            said = json.loads(connection.getresponse().read(1024))
            return isinstance(said, dict) and said.get("status") == "ok"
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _connection(host: str, number: int, *, secure: bool) -> http.client.HTTPConnection:
    if not secure:
        return http.client.HTTPConnection(host, number, timeout=SECONDS)
    # Its certificate is for another name than the address asked here, and nothing secret is said.
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, number, timeout=SECONDS, context=unverified)


def _cannot_bind(host: str, number: int) -> str | None:
    try:
        found = socket.getaddrinfo(host or None, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
        with socket.socket(family, kind, protocol) as bound:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None

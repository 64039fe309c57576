"""Threats that come by an address: token leak by URL, cross-site WebSocket hijack, DNS rebinding."""

import logging
import time
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.serving import Served, StartDashboard
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.keys import Keys
from vibezen.metrics.serving import tokens
from vibezen.metrics.serving.operation import Scope
from vibezen.metrics.settings import Auth, Required

TOKEN = "s3cret-token-of-tests"
EVIL = "https://evil.example"


@pytest.fixture
def locked(redis_url: str, start_dashboard: StartDashboard) -> Served:
    return start_dashboard(redis_url, auth=Auth(token=TOKEN, required=Required.ALWAYS))


def bearer(token: str = TOKEN) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def a_ticket(served: Served) -> str:
    made = served.http.post("/api/ticket", headers=bearer())
    assert made.status_code == 200
    assert made.headers["cache-control"] == "no-store"
    told = made.json()
    assert 0 < told["expires"] - time.time() <= 30
    return str(told["ticket"])


def socket_status(url: str, **headers: str) -> int:
    try:
        with connect(url, additional_headers=headers, open_timeout=DEADLINE) as socket:
            socket.recv(timeout=DEADLINE)
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def stream_status(served: Served, **asked: Any) -> int:
    with served.http.stream("GET", "/api/stream", **asked) as stream:
        return stream.status_code


def test_token_leak_by_url(locked: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A token in an address is no token; a ticket is one, once; and no log has either."""
    caplog.set_level(logging.INFO)
    assert locked.http.get("/api/metrics/realtime", params={"token": TOKEN}).status_code == 401
    socket = f"ws://127.0.0.1:{locked.port}/ws"
    assert socket_status(f"{socket}?ticket={TOKEN}") == 401
    first, second = a_ticket(locked), a_ticket(locked)
    assert socket_status(f"{socket}?ticket={first}") == 101
    assert socket_status(f"{socket}?ticket={first}") == 401
    assert stream_status(locked, params={"ticket": second, "since": "x"}) == 200
    assert stream_status(locked, params={"ticket": second}) == 401
    logged = "\n".join(
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "websockets.client"))
    )
    assert "WebSocket /ws" in logged
    for secret in (TOKEN, first, second):
        assert secret not in logged


def test_ticket_opens_streams_alone_and_ends_by_itself(locked: Served, redis_url: str) -> None:
    ticket = a_ticket(locked)
    assert locked.http.get("/api/metrics/realtime", params={"ticket": ticket}).status_code == 401
    client = locked.http
    assert client.post("/api/ticket").status_code == 401
    import redis

    with redis.Redis.from_url(redis_url) as server:
        assert 0 < server.ttl(Keys().ticket(tokens.digest(ticket))) <= 30
        assert TOKEN.encode() not in (server.get(Keys().ticket(tokens.digest(ticket))) or b"")


def test_cross_site_websocket_hijack(locked: Served) -> None:
    """A page of elsewhere gets no socket and no stream, whatever its browser sends along."""
    answer = locked.http.post("/login", content=TOKEN, headers={"origin": locked.url})
    session = answer.headers["set-cookie"].partition(";")[0]
    socket = f"ws://127.0.0.1:{locked.port}/ws"
    assert socket_status(socket, cookie=session, origin=EVIL) == 403
    assert socket_status(socket, cookie=session) == 403
    assert socket_status(f"{socket}?ticket={a_ticket(locked)}", origin=EVIL) == 403
    assert socket_status(socket, cookie=session, origin=locked.url) == 101
    for headers in ({"origin": EVIL}, {"sec-fetch-site": "cross-site"}):
        assert stream_status(locked, headers={**headers, "cookie": session}) == 403


def test_dns_rebinding_to_a_local_dashboard(served: Served) -> None:
    """A name that was made to lead here is not ours, though nobody needs a token."""
    for path in ("/", "/api/metrics/realtime", "/api/stream", "/healthz", "/ws"):
        with served.http.stream("GET", path, headers={"host": f"evil.example:{served.port}"}) as answer:
            assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
            assert b"unknown_host" in answer.read()


def read_on(stream: httpx.Response) -> None:
    """Read what comes, until it is cut off or too much time has passed."""
    end = time.monotonic() + DEADLINE
    for _ in stream.iter_raw():
        assert time.monotonic() < end


def test_revoked_token_ends_what_it_has_open(
    redis_url: str, start_dashboard: StartDashboard, wait_until: WaitUntil
) -> None:
    served = start_dashboard(redis_url, auth=Auth(required=Required.ALWAYS))
    storage = served.storage
    sending, _ = tokens.create(storage, "ci", [Scope.WRITE])
    assert served.http.post("/login", content=sending).status_code == 403  # it may read nothing
    shown, _ = tokens.create(storage, "screen", [Scope.READ])
    wait_until(lambda: served.http.get("/api/metrics/realtime", headers=bearer(shown)).status_code == 200)
    session = served.http.post("/login", content=shown).headers["set-cookie"].partition(";")[0]
    cookie = {"cookie": session, "origin": served.url}
    with (
        connect(f"ws://127.0.0.1:{served.port}/ws", additional_headers=cookie) as socket,
        httpx.Client(base_url=served.url, headers=bearer(shown), timeout=DEADLINE) as client,
        client.stream("GET", "/api/stream") as stream,
    ):
        assert stream.status_code == 200
        tokens.revoke(storage, "screen")
        wait_until(lambda: _is_closed(socket))
        assert socket.close_code == 1008
        with pytest.raises(httpx.RemoteProtocolError):
            read_on(stream)
    served.http.cookies.clear()
    for headers in (bearer(shown), cookie):
        assert served.http.get("/api/metrics/realtime", headers=headers).status_code == 401


def _is_closed(socket: object) -> bool:
    from websockets.exceptions import ConnectionClosed

    try:
        socket.recv(timeout=0.1)  # type: ignore[attr-defined]
    except TimeoutError:
        return False
    except ConnectionClosed:
        return True
    return False

"""What comes in before it is a request: heads without an end, requests sent ahead, clients that say nothing."""

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from tests.support.serving import Served, StartDashboard
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.serving import limits, protocol
from vibezen.metrics.serving.protocol import MAX_HEAD, BoundedHttp, BoundedWebSocket
from vibezen.metrics.settings import Auth, Required

pytestmark = pytest.mark.server

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
PING = b"\x89\xfd\0\0\0\0" + b"a" * 125
POST = b"POST /login HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), timeout=DEADLINE) as client:
        yield client


def until_closed(client: socket.socket) -> bytes:
    """All that comes; TimeoutError when the connection stays open."""
    told = b""
    try:
        while piece := client.recv(65536):
            told += piece
    except ConnectionError:  # closed with something of ours not read
        pass
    return told


@pytest.fixture
def locked(redis_url: str, start_dashboard: StartDashboard) -> Served:
    return start_dashboard(redis_url, auth=Auth(token="s3cret-token-of-tests", required=Required.ALWAYS))


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /",
        b"GET /healthz HTTP/1.1\r\nX: ",
        b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_HEAD // 6),
        CHUNKED + b"5;extension=",
        CHUNKED + b"0\r\nTrailer: ",
        HANDSHAKE + b"X: ",
    ],
)
def test_what_has_no_end_is_not_kept(locked: Served, begun: bytes) -> None:
    with connected(locked) as client:
        try:
            client.sendall(begun + b"a" * 4 * MAX_HEAD)
        except ConnectionError:
            return
        assert until_closed(client)[:12] in (b"HTTP/1.1 431", b"")


@pytest.mark.parametrize("sent", [b"NO SUCH THING\r\n\r\n", HANDSHAKE + b"X: " + b"a" * 20_000 + b"\r\n\r\n"])
def test_what_is_no_request_is_answered_in_the_shape_of_every_error(served: Served, sent: bytes) -> None:
    with connected(served) as client:
        client.sendall(sent)
        told = until_closed(client)
        assert told.startswith(b"HTTP/1.1 400")
        assert b"content-security-policy" in told
        assert b'{"error":{"code":"bad_request"' in told


def test_of_two_hosts_neither_is_believed(served: Served) -> None:
    with connected(served) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", b"\r\n"])
def test_who_sends_no_whole_head_is_not_waited_for(
    served: Served, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    with connected(served) as client:
        client.sendall(sent)
        until_closed(client)


def test_stream_is_open_for_longer_than_a_head_may_take(
    served: Served, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
    with connected(served) as client, connected(served) as silent:
        client.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_until(lambda: served.hub.subscribers == 1)
        with connected(served) as silent:
            until_closed(silent)
        assert served.hub.subscribers == 1


def test_body_that_ends_early_or_never_is_no_mistake_of_ours(
    locked: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    monkeypatch.setattr(limits, "READ_SECONDS", 0.1)
    with connected(locked) as client:
        client.sendall(POST + b"Content-Length: 9\r\n\r\nabc")
        assert client.recv(65536).startswith(b"HTTP/1.1 408")
    monkeypatch.undo()
    with connected(locked) as client:
        client.sendall(POST + b"Content-Length: 9\r\n\r\nabc")
        wait_until(lambda: locked.connections > 0)
    wait_until(lambda: locked.connections == 0)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


class Wire(asyncio.Transport):
    """Counts nothing but whether it is read from, and the answers."""

    reading, answers = True, 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.answers += bytes(data).startswith(b"HTTP/1.1 200")

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.speaks

    speaks: asyncio.BaseProtocol


def answering(turns: asyncio.Semaphore) -> ASGIApp:
    """An application that gives one answer for each turn."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await turns.acquire()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return app


def test_nothing_is_read_while_requests_that_were_sent_ahead_wait() -> None:
    # The last one runs from the second turn on.
    assert asyncio.run(read_from_in_turns()) == [False, True, True]


async def read_from_in_turns() -> list[bool]:
    """Whether more is read, after each answer to three requests that came at once."""
    turns = asyncio.Semaphore(0)
    config = uvicorn.Config(answering(turns), lifespan="off", log_config=None)
    config.load()
    wire = Wire()
    wire.speaks = http = BoundedHttp(config, ServerState(), {})
    http.connection_made(wire)
    http.data_received(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 3)
    seen = []
    for turn in (1, 2, 3):
        turns.release()
        while wire.answers < turn:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append(wire.reading)
    http.connection_lost(None)
    return seen


def test_nothing_is_read_from_a_socket_whose_client_takes_nothing_in() -> None:
    """Else each ping would add a pong to what waits for it."""
    assert asyncio.run(read_from_while_stuck()) == [True, False, True, False]


async def read_from_while_stuck() -> list[bool]:
    """Whether more is read: after a handshake, after a ping while the client takes nothing in, and afterwards; then
    while a message waits for the application."""
    config = uvicorn.Config(answering(asyncio.Semaphore(0)), lifespan="off", log_config=None)
    config.load()
    wire = Wire()
    wire.speaks = taken = BoundedWebSocket(config, ServerState(), {})
    taken.connection_made(wire)
    taken.data_received(HANDSHAKE + b"\r\n")
    seen = [wire.reading]
    taken.pause_writing()
    taken.data_received(PING)
    seen.append(wire.reading)
    taken.resume_writing()
    seen.append(wire.reading)
    taken.pause_writing()
    taken.data_received(PING)
    taken.read_paused = True
    taken.resume_writing()
    return [*seen, wire.reading]

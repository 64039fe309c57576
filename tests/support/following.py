"""Clients of the live feed: those that never read, and those that come back wherever they are let in."""

import itertools
import json
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

import httpx
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import connect

from tests.support.serving import Json
from tests.support.waiting import DEADLINE

UPGRADE: Final = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_AGAIN: Final = 0.02
"""Seconds before a client tries again."""


def bare(port: int, path: str) -> socket.socket:
    """A client of `/ws` or `/api/stream` whose buffers are soon full when nobody reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    upgrade = UPGRADE if path == "/ws" else ""
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{upgrade}\r\n".encode())
    return client


def many(port: int, count: int, opened: ExitStack) -> list[socket.socket]:
    """So many of each kind, until `opened` is closed."""
    return [opened.enter_context(bare(port, path)) for path in ("/ws", "/api/stream") for _ in range(count)]


class Reader(threading.Thread):
    """Reads all that comes, from many clients, until each is told that it is over; ends then."""

    def __init__(self, clients: Iterable[socket.socket]) -> None:
        super().__init__(name="reader", daemon=True)
        self._waiting = selectors.DefaultSelector()
        for client in clients:
            self._waiting.register(client, selectors.EVENT_READ)

    def run(self) -> None:
        with self._waiting:
            while self._waiting.get_map():
                for key, _ in self._waiting.select(DEADLINE):
                    if not key.fileobj.recv(65536):  # type: ignore[union-attr]
                        self._waiting.unregister(key.fileobj)


class Follower(threading.Thread):
    """Follows the feed until it has seen the id `upto`, over whichever of the places is there; each time it is cut off
    it goes on behind the last id it knows. `messages`: all it was told, heartbeats left out.

    `places`: ports, which change while it runs; one that is None is away.
    """

    def __init__(self, transport: str, places: Sequence[int | None]) -> None:
        super().__init__(name=transport, daemon=True)
        self._listen = {"socket": self._over_websocket, "events": self._as_event_source}[transport]
        self._places = places
        self._last: str | None = None
        self.upto: str | None = None
        self.messages: list[Json] = []
        self.connections = 0
        self.failure: BaseException | None = None

    @property
    def is_done(self) -> bool:
        return self.upto is not None and self._last == self.upto

    def run(self) -> None:
        try:
            for port in itertools.cycle(range(len(self._places))):
                if self.is_done:
                    break
                place = self._places[port]
                if place is not None:
                    self._listen(place)
                time.sleep(_AGAIN)
        except BaseException as failure:  # told by the test, on the main thread
            self.failure = failure

    def _take(self, message: Json) -> None:
        self._last = message["id"]
        if message["type"] != "heartbeat":
            self.messages.append(message)

    def _over_websocket(self, port: int) -> None:
        since = "" if self._last is None else f"?since={self._last}"
        try:
            with connect(f"ws://127.0.0.1:{port}/ws{since}", open_timeout=DEADLINE) as connection:
                self.connections += 1
                while not self.is_done:
                    self._take(json.loads(connection.recv(timeout=1.0)))
        except (OSError, InvalidHandshake, WebSocketException, TimeoutError):
            return

    def _as_event_source(self, port: int) -> None:
        """As a browser does it: an event that was not received whole is none."""
        headers = {} if self._last is None else {"last-event-id": self._last}
        try:
            with httpx.stream(
                "GET", f"http://127.0.0.1:{port}/api/stream", headers=headers, timeout=httpx.Timeout(DEADLINE, read=1.0)
            ) as answer:
                if answer.status_code != 200:
                    return
                self.connections += 1
                for data in _events(answer.iter_lines()):
                    self._take(json.loads(data))
                    if self.is_done:
                        return
        except httpx.TransportError:
            return


def _events(lines: Iterator[str]) -> Iterator[str]:
    data = ""
    for line in lines:
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
        elif not line and data:
            yield data
            data = ""


def resident() -> int:
    """Bytes of memory that this process takes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

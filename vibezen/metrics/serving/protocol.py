"""HTTP and WebSocket as uvicorn speaks them, with bounds that it leaves to a proxy: nobody needs a token to reach this
far, and not every door has a proxy before it.

Seen without: headers are kept for as long as they come, and 100 MB of them held up the process for 40 seconds; 20 MB of
requests sent ahead took 800 MB; 100 MB of pings 94 MB; a connection that says nothing stays for good.
"""

import asyncio
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from vibezen.metrics.serving.errors import ApiError, Body
from vibezen.metrics.serving.guard import SECURITY_HEADERS

MAX_HEAD: Final = 64 * 1024
"""Bytes that may come without being a whole head or a piece of a body; `Limits` tells kindly of what is below."""
HEAD_SECONDS: Final = 30.0
"""Until a request's head has to be there, from the connection's beginning or the head's first byte."""


class BoundedHttp(HttpToolsProtocol):
    """Refuses what has no end, and takes no more requests in while some wait for their turn."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._without_headway = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._without_headway += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            self._unwatch()
        elif self._without_headway > MAX_HEAD:
            self._refuse(431, f"at most {MAX_HEAD} bytes of headers are taken")
        elif self._waits():
            self._watch()
        else:
            self._unwatch()

    def on_headers_complete(self) -> None:
        self._without_headway = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._without_headway = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipeline:  # uvicorn reads on after each answer: then those that wait would grow without end
            self.flow.pause_reading()

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        taken = self.transport.get_protocol()
        # Of a handshake it cannot read, for its long headers for example, the protocol says nothing, and waits.
        if isinstance(taken, WebSocketsSansIOProtocol) and not taken.handshake_initiated:
            self._refuse(400, "this WebSocket handshake cannot be read, or its headers are too long")

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def _waits(self) -> bool:
        """Whether the next thing to come is a request."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's type leaves None out
        return cycle is None or cycle.response_complete

    def _watch(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._waits() and not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Close; with an answer, where it would not get into the middle of another one."""
        if self._waits() or not (self.pipeline or self.cycle.response_started):
            body = msgspec.json.encode(Body(ApiError(status, message).detail))
            headers = {
                "content-type": "application/json",
                "content-length": str(len(body)),
                "cache-control": "no-store",
                "connection": "close",
                **SECURITY_HEADERS,
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            self.transport.write(STATUS_LINE[status] + lines.encode() + b"\r\n" + body)
        self.transport.close()


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """Reads no more from a client that takes nothing in: each of its pings would add a pong to what waits for it."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.writable.is_set():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not (self.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

"""`WS /ws`: the live feed over WebSocket, and the answer to a client that asks for the time."""

import contextlib
from typing import Final

import anyio
import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from vibezen.metrics.api.fanout import End, Subscriber
from vibezen.metrics.api.hub import Hub
from vibezen.metrics.api.messages import Pong
from vibezen.metrics.clock import wall

CLOSE_CODES: Final = {End.SLOW: 1013, End.CLOSING: 1012}
"""1013: try again later; 1012: the service restarts. Both invite the client back."""
_CLOSE_WITHIN: Final = 1.0
"""Seconds a close may wait for a client that does not read."""


class Ping(msgspec.Struct, tag="ping"):
    t: int | float


_ping_decoder = msgspec.json.Decoder(Ping)
_encode = msgspec.json.encode


async def live_socket(websocket: WebSocket, hub: Hub) -> None:
    """Serve one client until it leaves, is too slow, or the server closes."""
    with await hub.subscribe(websocket.query_params.get("since")) as subscriber:
        await websocket.accept()
        async with anyio.create_task_group() as tasks:
            subscriber.bind(tasks.cancel_scope)
            tasks.start_soon(_listen, websocket, tasks.cancel_scope)
            await _tell(websocket, subscriber)
            tasks.cancel_scope.cancel()
        if subscriber.ended is not None and websocket.client_state is WebSocketState.CONNECTED:
            with anyio.move_on_after(_CLOSE_WITHIN), contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await websocket.close(CLOSE_CODES[subscriber.ended], subscriber.ended.value)


async def _tell(websocket: WebSocket, subscriber: Subscriber) -> None:
    with contextlib.suppress(WebSocketDisconnect):
        while message := await subscriber.next():
            await websocket.send_text(message.text)


async def _listen(websocket: WebSocket, scope: anyio.CancelScope) -> None:
    """Answer pings; what we do not know may come from a newer page, and is let pass."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            received = await websocket.receive()
            if received["type"] == "websocket.disconnect":
                break
            try:
                ping = _ping_decoder.decode(received.get("text") or received.get("bytes") or b"")
            except (ValueError, RecursionError):
                continue
            await websocket.send_text(_encode(Pong(ping.t, wall())).decode())
    scope.cancel()

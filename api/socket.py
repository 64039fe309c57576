"""`WS /ws`: the live feed over WebSocket; the client may choose anew at any time, and ask for the time."""

import contextlib
from typing import Final

import anyio
import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from vibezen.metrics.api.choice import Choice
from vibezen.metrics.api.fanout import End, Subscriber
from vibezen.metrics.api.hub import Hub
from vibezen.metrics.api.messages import Mistake, Pong
from vibezen.metrics.api.stream import asked_of
from vibezen.metrics.clock import wall
from vibezen.metrics.errors import BadParameter
from vibezen.metrics.serving.direct import Line, direct_line
from vibezen.metrics.serving.errors import ApiError, bad_parameter

CLOSE_CODES: Final = {End.SLOW: 1013, End.CLOSING: 1012}
"""1013: try again later; 1012: the service restarts. Both invite the client back."""
_CLOSE_WITHIN: Final = 1.0
"""Seconds a close may wait for a client that does not read."""


class _Said(msgspec.Struct):
    """Of any message that a client may send."""

    type: str


class Ping(msgspec.Struct, tag="ping"):
    t: int | float


_said_decoder = msgspec.json.Decoder(_Said)
_ping_decoder = msgspec.json.Decoder(Ping)
_encode = msgspec.json.encode


async def live_socket(websocket: WebSocket, hub: Hub) -> None:
    """Serve one client until it leaves, is too slow, or the server closes. Raises BadParameter, ApiError before it is
    accepted."""
    asked = asked_of(websocket, hub)
    with await hub.subscribe(asked.since, asked.choice) as subscriber:
        await websocket.accept()
        async with anyio.create_task_group() as tasks:
            subscriber.bind(tasks.cancel_scope)
            # What is woken for every message should not lie deep below everything a request passes through.
            tasks.start_soon(_tell, direct_line(websocket.scope, websocket.send), subscriber, tasks.cancel_scope)
            await _listen(websocket, subscriber, hub)
            tasks.cancel_scope.cancel()
        if subscriber.ended is not None and websocket.client_state is WebSocketState.CONNECTED:
            with anyio.move_on_after(_CLOSE_WITHIN), contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await websocket.close(CLOSE_CODES[subscriber.ended], subscriber.ended.value)


async def _tell(line: Line, subscriber: Subscriber, scope: anyio.CancelScope) -> None:
    with contextlib.suppress(WebSocketDisconnect, OSError):  # as uvicorn says that the client is gone
        while message := await subscriber.next():
            await line.send({"type": "websocket.send", "text": message.text})
            line.size += len(message.text)
    scope.cancel()


async def _listen(websocket: WebSocket, subscriber: Subscriber, hub: Hub) -> None:
    """Do what the client says; what we do not know may come from a newer page, and is let pass."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            received = await websocket.receive()
            if received["type"] == "websocket.disconnect":
                break
            said = received.get("text") or received.get("bytes") or b""
            match _type_of(said):
                case "ping":
                    await _answer(websocket, said)
                case "subscribe":
                    await _choose(websocket, subscriber, hub, said)


def _type_of(said: str | bytes) -> str | None:
    try:
        return _said_decoder.decode(said).type
    except (ValueError, RecursionError):
        return None


async def _answer(websocket: WebSocket, said: str | bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        await websocket.send_text(_encode(Pong(_ping_decoder.decode(said).t, wall())).decode())


async def _choose(websocket: WebSocket, subscriber: Subscriber, hub: Hub, said: str | bytes) -> None:
    try:
        choice: Choice = hub.choices.of_message(said)
        await hub.choose(subscriber, choice)
    except BadParameter as error:
        await _refuse(websocket, bad_parameter(error))
    except ApiError as error:
        await _refuse(websocket, error)
    await anyio.sleep(hub.interval)  # a new choice costs more than a message does


async def _refuse(websocket: WebSocket, error: ApiError) -> None:
    await websocket.send_text(_encode(Mistake(error.detail)).decode())

"""Live clients, many in one process: WebSockets by the `websockets` library, event streams over plain sockets.

The same for every contestant. Each frame is judged when it has come in, by the time it says it was made at.
"""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any, Final, NamedTuple

AT_ONCE: Final = 50
"""Handshakes at the same time."""
_AT: Final = re.compile(rb'"type":"frame","id":"[^"]*","at":([0-9.]+)')
_READ: Final = 65536


class Seen(NamedTuple):
    """A frame at one client: when it says it was made, and when it was received, in Unix seconds; bytes of what came
    with it."""

    made: float
    received: float
    size: int


class _Taken:
    """What one client has seen."""

    def __init__(self) -> None:
        self.frames: list[Seen] = []

    def take(self, message: bytes) -> None:
        now = time.time()
        self.frames.extend(Seen(float(at), now, len(message)) for at in _AT.findall(message))


def follow(transport: str, port: int, clients: int, ready: Event, done: Event, answer: Connection) -> None:
    """Connect so many clients, say when all are `ready`, and read until `done`; then `answer` what each has seen, or
    what went wrong. `transport`: websocket, sse."""
    one = {"websocket": _websocket, "sse": _event_stream}[transport]
    try:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] | None = uvloop.new_event_loop
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        try:
            answer.send(runner.run(_follow(one, port, clients, ready, done)))
        except Exception as error:  # told where it is waited for
            answer.send(f"{type(error).__name__}: {error}")


async def _follow(
    one: Callable[[int, _Taken, Callable[[], None]], Coroutine[Any, Any, None]],
    port: int,
    clients: int,
    ready: Event,
    done: Event,
) -> list[list[Seen]]:
    door, taken = asyncio.Semaphore(AT_ONCE), [_Taken() for _ in range(clients)]
    connected = asyncio.Event()
    missing = clients

    def arrived() -> None:
        nonlocal missing
        missing -= 1
        door.release()
        if not missing:
            connected.set()

    async def client(each: _Taken) -> None:
        await door.acquire()
        await one(port, each, arrived)
        raise ConnectionError("the server has let a client go")

    async def ended() -> None:
        await connected.wait()
        ready.set()
        await asyncio.to_thread(done.wait)

    tasks = [asyncio.create_task(client(each)) for each in taken]
    ending = asyncio.create_task(ended())
    finished, _ = await asyncio.wait([ending, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in finished:
        task.result()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return [each.frames for each in taken]


async def _websocket(port: int, taken: _Taken, arrived: Callable[[], None]) -> None:
    from websockets.asyncio.client import connect

    async with connect(
        f"ws://127.0.0.1:{port}/ws", compression=None, ping_interval=None, open_timeout=60, close_timeout=0
    ) as socket:
        arrived()
        while True:
            taken.take(await socket.recv(decode=False))


async def _event_stream(port: int, taken: _Taken, arrived: Callable[[], None]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError(f"/api/stream answers {head[:40]!r}")
    arrived()
    held = b""
    while more := await reader.read(_READ):
        whole, end, held = (held + more).rpartition(b"\r\n\r\n")
        if end:
            taken.take(whole)

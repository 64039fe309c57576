"""The bare loop beside the live feed: the same HTTP server, told by a clock to send the same bytes to everyone.

No position, no choice, no queue, nobody who leaves: each client's task waits for the next frame, and sends it.
"""

import asyncio
import time
from typing import Final

from starlette.types import Receive, Scope, Send

_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]


def serve(port: int, size: int, rate: float) -> None:
    """Frames of `size` bytes, `rate` of them a second, at `/ws` and `/api/stream`; anything else is answered by 200."""
    from vibezen.metrics.serving.listener import Server, listen, loop_factory

    async def main() -> None:
        loop = asyncio.get_running_loop()
        coming: asyncio.Future[tuple[str, bytes]] = loop.create_future()

        async def beat() -> None:
            nonlocal coming
            began, number = loop.time(), 0
            while True:
                number += 1
                await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
                text = frame(number, size)
                event = b"event: frame\r\nid: %d\r\ndata: %b\r\n\r\n" % (number, text.encode())
                sent, coming = coming, loop.create_future()
                sent.set_result((text, event))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.accept"})
                while True:
                    await send({"type": "websocket.send", "text": (await coming)[0]})
            if scope["path"] != "/api/stream":
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
                return
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            while True:
                await send({"type": "http.response.body", "body": (await coming)[1], "more_body": True})

        beating = asyncio.create_task(beat())
        await Server(app, lambda: None, lambda: True).serve([listen("127.0.0.1", port)])
        beating.cancel()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


def frame(number: int, size: int) -> str:
    text = f'{{"type":"frame","id":"{number}","at":{time.time():.6f},"rest":"'
    return text + "x" * (size - len(text) - 2) + '"}'

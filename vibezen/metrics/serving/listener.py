"""The listening socket, and uvicorn around it without its signal handling."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from vibezen.metrics.errors import AddressInUse
from vibezen.metrics.serving import request_id
from vibezen.metrics.serving.direct import Direct
from vibezen.metrics.serving.protocol import BoundedHttp, BoundedWebSocket
from vibezen.metrics.serving.tls import Tls

USER_TIMEOUT_MS: Final = 30_000
"""After this long without the client taking anything in, the kernel gives the connection up: nothing else frees a
client that stopped reading (seen with uvicorn: pings and closing both wait behind what it does not read)."""
SEND_BUFFER: Final = 64 * 1024
"""Bytes the kernel holds for one client; by default it grows to megabytes."""
GRACEFUL_SECONDS: Final = 5
STUCK_SECONDS: Final = 1.0
"""On closing, a client that takes nothing in for so long is not waited for."""
MAX_MESSAGE: Final = 64 * 1024
"""Bytes in one WebSocket message from a client."""

TICKS_A_SECOND: Final = 10
"""Of uvicorn."""


def listen(host: str, port: int, setting: str = "--port") -> socket.socket:
    """A bound socket; whatever it accepts inherits its options. Raises AddressInUse in one line, which names the
    `setting` that would choose another port."""
    where = f"{host or '*'}:{port}"
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise AddressInUse(f"{where}: the host name is not known") from None
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        bound.bind(address)
        bound.listen(2048)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"{where}: the port is taken by another program; choose one with {setting}") from None
        raise AddressInUse(f"{where}: {(error.strerror or str(error)).lower()}") from None
    bound.setblocking(False)
    return bound


class Server(uvicorn.Server):
    """Says when it listens and before it closes, and closes when what it serves is not `alive` any more.

    Signals are the caller's: uvicorn would end the process with them. `tls`: None serves without.
    """

    def __init__(
        self,
        app: ASGIApp,
        closing: Callable[[], None],
        alive: Callable[[], bool],
        *,
        each_second: Callable[[], None] = lambda: None,
        tls: Tls | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                Direct(app),
                http=BoundedHttp,
                ws=BoundedWebSocket,
                ws_max_size=MAX_MESSAGE,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # the guard believes the proxies that the settings name, and no other
                ssl_context_factory=None if tls is None else lambda *_: tls.context,
            )
        )
        self.listening = asyncio.Event()
        self._closing, self._alive, self._each_second, self._tls = closing, alive, each_second, tls

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        log = logging.getLogger("uvicorn.error")
        filters = (_is_no_cut_stream, request_id.add_to)
        for each in filters:
            log.addFilter(each)
        try:
            yield
        finally:
            for each in filters:
                log.removeFilter(each)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_A_SECOND == 0:
            self._each_second()
            if self._tls is not None:
                self._tls.refresh()
        return await super().on_tick(counter) or not self._alive()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams end before uvicorn waits for them to.
        self._closing()
        cutting = asyncio.create_task(self._cut_stuck())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()

    async def _cut_stuck(self) -> None:
        """Give up connections whose clients take nothing in: they would be waited for until the last moment."""
        await asyncio.sleep(STUCK_SECONDS)
        waiting = self._unsent()
        await asyncio.sleep(STUCK_SECONDS)
        for transport, size in self._unsent().items():
            if waiting.get(transport) == size:
                transport.abort()

    def _unsent(self) -> dict[asyncio.WriteTransport, int]:
        """Bytes that wait to be sent, by connection, where there are any."""
        transports = [connection.transport for connection in self.server_state.connections]
        sizes = {transport: transport.get_write_buffer_size() for transport in transports}
        return {transport: size for transport, size in sizes.items() if size}


@contextlib.asynccontextmanager
async def served(server: Server, bound: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    """Serve for as long as the block lasts, which begins once it listens; the task is that of serving."""
    serving = asyncio.create_task(server.serve([bound]), name="server")
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
        yield serving
    finally:
        listening.cancel()
        server.should_exit = True
        await serving


def end_signals() -> asyncio.Event:
    """An event that Ctrl-C and SIGTERM set from now on; for the main thread only."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    return asked


async def until_asked(asked: asyncio.Event, serving: asyncio.Task[None]) -> None:
    """Return when `asked` is set, or when what is served ends by itself."""
    waiting = asyncio.create_task(asked.wait())
    await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _is_no_cut_stream(record: logging.LogRecord) -> bool:
    """Uvicorn takes a stream that we cut, because its client does not read, for a mistake; and a handshake refused."""
    return record.msg not in (
        "ASGI callable returned without completing response.",
        "ASGI callable returned without completing handshake.",
    )

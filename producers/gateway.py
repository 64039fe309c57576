"""The gateway: takes events in over HTTP, and answers only after Redis has them.

Beside that it sends what applications that are no more have left in the spool of its store.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.errors import MetricsError, StoreError
from vibezen.metrics.layout import make_folder
from vibezen.metrics.producers.adopting import Adopting
from vibezen.metrics.producers.appender import Appender
from vibezen.metrics.producers.body import Room
from vibezen.metrics.producers.gateway_app import build
from vibezen.metrics.serving.access import Access, access_for, needs_token, page_url
from vibezen.metrics.serving.access_log import show_on_stderr
from vibezen.metrics.serving.listener import Server, end_signals, listen, loop_factory, served, until_asked
from vibezen.metrics.serving.tls import tls_of
from vibezen.metrics.serving.tokens import FIRST_FILE
from vibezen.metrics.settings import Settings

SETTING: Final = "gateway.port or --port"
"""What chooses the port, as an error names it."""
STOP_SECONDS: Final = 3.0
"""For the last calls, after requests had their time."""


@dataclass(frozen=True)
class Gateway:
    """A running one: where it is, its rules, and the task that ends when it does."""

    url: str
    port: int
    access: Access
    serving: asyncio.Task[None]


@asynccontextmanager
async def gateway(settings: Settings, *, port: int | None = None, clock: Clock = wall) -> AsyncIterator[Gateway]:
    """Serve for as long as the block lasts, which begins once it listens; port 0 takes a free one.

    At the end requests in flight get some seconds to be answered. Raises AddressInUse, StoreError. That Redis is away
    is no error: `/readyz` says so until it is back.
    """
    host = settings.gateway.host
    bound = listen(host, settings.gateway.port if port is None else port, SETTING)
    try:
        address, found = bound.getsockname()[:2]
        served_by = settings.gateway
        tls = tls_of(served_by.tls_certificate, served_by.tls_key, "gateway")
        if needs_token(address, settings, served_by):
            _make_folder(settings.storage_dir)
        access = access_for(host, address, settings.storage_dir, settings, section=served_by)
        appender = Appender(settings)
        adopting = Adopting(settings)
    except BaseException:
        bound.close()
        raise
    if settings.log.access:
        show_on_stderr()
    app = build(appender, access, clock, Room(), access_log=settings.log.access)
    server = Server(app, lambda: None, appender.is_alive, each_second=access.refresh, tls=tls)
    appender.start()
    adopting.start()
    try:
        async with served(server, bound) as serving:
            yield Gateway(page_url(host, found, secure=tls is not None), found, access, serving)
    finally:
        adopting.ask_stop()
        await asyncio.to_thread(appender.stop, STOP_SECONDS)
        await asyncio.to_thread(adopting.wait, STOP_SECONDS)


def _make_folder(folder: Path) -> None:
    """For the token, which the API of the same store asks for, too."""
    try:
        make_folder(folder)
    except OSError as error:
        raise StoreError(f"storage folder {folder}: {(error.strerror or str(error)).lower()}") from None


def serve(settings: Settings) -> None:
    """The role: serve until Ctrl-C or SIGTERM. Says on standard output where, once it listens."""

    def started(running: Gateway) -> None:
        asks = running.access.token is not None and settings.auth.token is None
        token = f", token in {settings.storage_dir / FIRST_FILE}" if asks else ""
        print(f"Gateway: {running.url}/api/events{token}", flush=True)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(settings, started))


async def _serve(settings: Settings, started: Callable[[Gateway], None]) -> None:
    asked = end_signals()
    async with gateway(settings) as running:
        started(running)
        await until_asked(asked, running.serving)
    if not asked.is_set():
        raise MetricsError("the gateway ended by itself; its log says why")

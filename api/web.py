"""Serving a dashboard over HTTP, as programs and the role `api` start it."""

import asyncio
import gc
import os
import socket
from collections.abc import Callable
from typing import Final, Self

from vibezen.metrics.api.app import build
from vibezen.metrics.api.dashboard import MetricsDashboard
from vibezen.metrics.config import DEMO_VARIABLE
from vibezen.metrics.serving.access import Access, access_for, page_url
from vibezen.metrics.serving.access_log import show_on_stderr
from vibezen.metrics.serving.listener import Server, end_signals, listen, loop_factory, until_asked
from vibezen.metrics.serving.tls import tls_of
from vibezen.metrics.settings import Settings
from vibezen.metrics.storage import MetricsStorage

FIRST_LOOK: Final = 3.0
"""Until a start no longer waits for the first numbers: whoever asks right after it should not be told to come again."""


class WebDashboard:
    """Serves a dashboard. `host` and `port` win over the settings; port 0 takes a free one."""

    def __init__(self, dashboard: MetricsDashboard, *, host: str | None = None, port: int | None = None) -> None:
        served = dashboard.settings.dashboard
        self._dashboard = dashboard
        self._host = served.host if host is None else host
        self._port = served.port if port is None else port
        self._access: Access | None = None
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._port

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        return page_url(self._host, self._port, secure=self._secure)

    @property
    def link(self) -> str:
        """The same, and it logs in where a token is needed. A secret then: for a person's eyes, not for a log."""
        token = self._access.token if self._access else None
        return page_url(self._host, self._port, token, secure=self._secure)

    @property
    def _secure(self) -> bool:
        return self._dashboard.settings.dashboard.tls_certificate is not None

    async def start(self) -> None:
        """Serve in the running event loop; returns once listening, with the newest numbers read where Redis answers.

        Raises AddressInUse when the port is taken, ConfigError for a certificate that cannot be used, StoreError when
        the storage folder cannot be used. That Redis is away is no error: `/readyz` says so until it is back.
        """
        if self._server is not None:
            raise RuntimeError("a dashboard can be started once")
        self._dashboard.storage.open()
        bound = listen(self._host, self._port)
        try:
            self._server = server = self._make_server(bound)
        except BaseException:
            bound.close()
            raise
        self._serving = asyncio.create_task(self._run(server, bound), name="dashboard")
        listening = asyncio.create_task(server.listening.wait())
        try:
            await asyncio.wait([self._serving, listening], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not listening.done():
                listening.cancel()
                await self.stop()
        await self._dashboard.hub.first_look(FIRST_LOOK)

    def _make_server(self, bound: socket.socket) -> Server:
        address, self._port = bound.getsockname()[:2]
        settings = self._dashboard.settings
        if settings.log.access:
            show_on_stderr()
        self._access = access = access_for(self._host, address, self._dashboard.storage.path, settings)
        return Server(
            build(self._dashboard, access),
            self._dashboard.end_streams,
            self._dashboard.is_alive,
            each_second=access.refresh,
            tls=tls_of(settings.dashboard.tls_certificate, settings.dashboard.tls_key, "dashboard"),
        )

    async def _run(self, server: Server, bound: socket.socket) -> None:
        async with self._dashboard:
            await server.serve([bound])

    async def stop(self) -> None:
        """End every stream and stop listening; done within some seconds, also when clients do not read."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def serve(self, started: Callable[["WebDashboard"], None] | None = None) -> None:
        """Serve until Ctrl-C or SIGTERM; blocks, and belongs to the main thread. Calls `started` once listening."""
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve(started))

    async def _serve(self, started: Callable[["WebDashboard"], None] | None) -> None:
        asked = end_signals()
        async with self:
            if started is not None:
                started(self)
            assert self._serving is not None
            await until_asked(asked, self._serving)


def _rarely_look_for_garbage() -> None:
    """Looking through all that two thousand live clients hold took 240 ms, and every frame of that time was late. For a
    process of our own alone."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 1000)


def serve(settings: Settings, host: str | None = None, port: int | None = None) -> None:
    """The role `api`: serve until Ctrl-C or SIGTERM. Says on standard output where, once it listens."""
    _rarely_look_for_garbage()
    dashboard = MetricsDashboard(
        MetricsStorage(settings.storage_dir), settings=settings, demo=os.environ.get(DEMO_VARIABLE) == "1"
    )
    WebDashboard(dashboard, host=host, port=port).serve(lambda web: print(f"Dashboard: {web.link}", flush=True))

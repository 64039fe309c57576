"""`GET /api/metrics/export`: events as a file, streamed."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from vibezen.metrics.clock import wall
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.export import Export, Exporter, exported
from vibezen.metrics.export_format import MEDIA_TYPES
from vibezen.metrics.serving.errors import ApiError

EXPORTS: Final = 2
"""Exports that run at the same time; each may hold half a gigabyte while it sorts."""


class Exports:
    """Those that are under way in this process. Belongs to the event loop."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self.running: set[ExportResponse] = set()
        self._closing = False

    def begin(self, asked: Export) -> "ExportResponse":
        if self._closing or len(self.running) >= EXPORTS:
            raise ApiError(503, "this server is closing" if self._closing else f"{EXPORTS} exports are running already")
        return ExportResponse(self, Exporter(self._reader, asked))

    def close(self) -> None:
        """End every export; their clients see that they are cut."""
        self._closing = True
        for response in self.running:
            response.scope.cancel()


class ExportResponse(Response):
    """Until the first block is there it can still become another answer. Whatever goes wrong later is raised, so that
    the server cuts the connection: a client sees a broken transfer, never a short file. When the client has gone, the
    query stops.
    """

    def __init__(self, exports: Exports, exporter: Exporter) -> None:
        format_ = exporter.asked.format
        name = f"vibezen-metrics-{datetime.fromtimestamp(wall(), UTC):%Y-%m-%dT%H-%M-%SZ}.{format_}"
        headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
        super().__init__(None, 200, headers, MEDIA_TYPES[format_])
        del self.headers["content-length"]  # nobody knows it before the end
        self._exports, self._exporter = exports, exporter
        self.scope = anyio.CancelScope()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._exports.running.add(self)
        gone = asyncio.create_task(self._until_gone(receive))
        try:
            with self.scope:
                await self._send(send, body=scope["method"] != "HEAD")
        finally:
            gone.cancel()
            self._exports.running.discard(self)

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.scope.cancel()

    async def _send(self, send: Send, *, body: bool) -> None:
        start: Message = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if body:
            async with aclosing(exported(self._exporter)) as blocks:
                async for block in blocks:
                    if start:
                        await send(start)
                        start = {}
                    await send({"type": "http.response.body", "body": block, "more_body": True})
        if start:
            await send(start)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

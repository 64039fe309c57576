"""Requests counted by path and status, as this process has answered them."""

from collections import Counter
from collections.abc import Collection
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vibezen.metrics.serving.doors import route_path

OTHER: Final = "other"
"""In place of paths that are none of ours: whoever asks invents them."""

Requests = Counter[tuple[str, int]]
"""(path, status) → how many."""


class Counting:
    """Counts an answer when it begins, into `requests`; under their own name those to `paths`. A WebSocket's status is
    that of its handshake."""

    def __init__(self, app: ASGIApp, requests: Requests, paths: Collection[str]) -> None:
        self._app, self._requests, self._paths = app, requests, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                self._count(route_path(scope), message["status"])
            elif message["type"] == "websocket.accept":
                self._count(route_path(scope), 101)
            await send(message)

        await self._app(scope, receive, counted)

    def _count(self, path: str, status: int) -> None:
        self._requests[path if path in self._paths else OTHER, status] += 1

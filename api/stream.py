"""`GET /api/stream`: the live feed as server-sent events."""

from collections.abc import AsyncIterator

import anyio
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from vibezen.metrics.api.fanout import Subscriber
from vibezen.metrics.api.hub import Hub


async def live_stream(request: Request, hub: Hub) -> "LiveResponse":
    """Resumes after `Last-Event-ID`, which a browser sends by itself when it reconnects, else after `?since=`."""
    since = request.headers.get("last-event-id") or request.query_params.get("since")
    return LiveResponse(await hub.subscribe(since))


async def _events(subscriber: Subscriber) -> AsyncIterator[bytes]:
    while message := await subscriber.next():
        yield message.event


class LiveResponse(EventSourceResponse):
    """Ends with its subscription, also when the client does not read and a message is stuck on its way."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        super().__init__(_events(subscriber), ping=0)  # the feed has heartbeats of its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._subscriber, anyio.CancelScope() as cancelled:
            self._subscriber.bind(cancelled)
            await super().__call__(scope, receive, send)

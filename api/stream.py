"""`GET /api/stream`: the live feed as server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from vibezen.metrics.api.answering import asked_in
from vibezen.metrics.api.choice import MAX_GROUPED, MAX_INTERVAL, MAX_METRICS, Choice
from vibezen.metrics.api.fanout import Subscriber
from vibezen.metrics.api.hub import Hub
from vibezen.metrics.api.messages import AlertMessage, Frame, Gap, Heartbeat, Snapshot
from vibezen.metrics.serving.direct import Line, direct_line
from vibezen.metrics.serving.operation import EVENT_STREAM, LIVE, Answer, Operation, Parameter

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard

_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",
    "content-type": f"{EVENT_STREAM}; charset=utf-8",
}
"""A proxy must pass on each message as it comes."""

_END_WITHIN: Final = 1.0
"""Seconds that the end of a stream may wait for a client that does not read."""


class Asked(NamedTuple):
    since: str | None
    choice: Choice


def asked_of(connection: HTTPConnection, hub: Hub) -> Asked:
    """What a client asks for, and after which position: `Last-Event-ID`, which a browser sends by itself when it
    reconnects, else `?since=`. Raises BadParameter."""
    since = connection.headers.get("last-event-id") or connection.query_params.get("since")
    return Asked(since, hub.choices.of_parameters(asked_in(connection)))


def stream_operation(dashboard: MetricsDashboard) -> Operation:
    """`GET /api/stream`"""

    async def stream(request: Request) -> Response:
        asked = asked_of(request, dashboard.hub)
        return LiveResponse(await dashboard.hub.subscribe(asked.since, asked.choice))

    return Operation(
        "/api/stream",
        stream,
        "The live feed as server-sent events",
        {
            200: Answer(
                "Events snapshot, frame, alert, gap, heartbeat",
                Snapshot | Frame | AlertMessage | Gap | Heartbeat,
                (EVENT_STREAM,),
            )
        },
        parameters=(
            Parameter(
                "metric", str, f"Metrics to tell, with commas between them, at most {MAX_METRICS}; without it, all"
            ),
            Parameter("where", str, "Only series with these labels: key=value or key!=value", repeated=True),
            Parameter(
                "group_by", str, f"Labels to tell apart, with commas between them, of at most {MAX_GROUPED} metrics"
            ),
            Parameter("interval", float, f"Seconds between two frames at least, up to {MAX_INTERVAL:g}"),
            Parameter("since", str, "The id after which to go on"),
            Parameter("last-event-id", str, "The same, as browsers send it", place="header"),
        ),
        group=LIVE,
    )


class LiveResponse(Response):
    """Ends with its subscription, also when the client does not read and a message is stuck on its way.

    A task of its own sends, and nothing but that: one that is woken for every message should not lie deep below
    everything a request passes through.
    """

    def __init__(self, subscriber: Subscriber) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._subscriber = subscriber

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._subscriber:
            async with anyio.create_task_group() as tasks:
                self._subscriber.bind(tasks.cancel_scope)
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                events = self._send_events if scope["method"] != "HEAD" else self._end
                tasks.start_soon(events, direct_line(scope, send), tasks.cancel_scope)
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

    async def _send_events(self, line: Line, scope: anyio.CancelScope) -> None:
        while message := await self._subscriber.next():
            await line.send({"type": "http.response.body", "body": message.event, "more_body": True})
            line.size += len(message.event)
        await self._end(line, scope)

    async def _end(self, line: Line, scope: anyio.CancelScope) -> None:
        with anyio.move_on_after(_END_WITHIN):
            await line.send({"type": "http.response.body", "body": b""})
        scope.cancel()

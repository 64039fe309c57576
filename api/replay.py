"""`GET /api/replay`: a recorded range as frames, at a chosen speed."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from sse_starlette.sse import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from vibezen.metrics.api.answering import asked_in, while_connected
from vibezen.metrics.api.hub import HEARTBEAT
from vibezen.metrics.api.messages import Frame, Gap, Heartbeat, Snapshot
from vibezen.metrics.api.parameters import REPLAY
from vibezen.metrics.api.recording import MAX_DAYS, End, Recording, Show, Windows
from vibezen.metrics.clock import floor_to, monotonic
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.pace import Pace
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.serving.operation import EVENT_STREAM, LIVE, Answer, Operation
from vibezen.metrics.serving.operation import Scope as TokenScope

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard

REPLAYS: Final = 4
"""Replays that run at the same time in one process."""
STUCK: Final = 60.0
"""Seconds for which a client may read nothing before it is let go; it can go on behind the last id it has."""

log = logging.getLogger(__name__)

Read = Callable[[int, int], Awaitable[Windows]]
"""The windows of [since, until)."""
Piece = tuple[int, Windows]
"""Windows, and until when they are all."""


class Player:
    """One replay: reads a piece ahead of what is shown, and never more."""

    def __init__(self, recording: Recording, show: Show, read: Read) -> None:
        self._recording, self._show, self._read = recording, show, read
        self._spans = recording.spans()
        self._first: Piece = (recording.warm_up, {})
        self._sent = monotonic()

    async def begin(self) -> None:
        """Read the first piece: what is wrong then is an answer of its own."""
        self._first = await self._next() or self._first

    async def _next(self) -> Piece | None:
        span = next(self._spans, None)
        return None if span is None else (span[1], await self._read(*span))

    async def fill(self, pieces: MemoryObjectSendStream[Piece]) -> None:
        """Read what follows; waits while it is not wanted yet."""
        async with pieces:
            piece: Piece | None = self._first
            while piece is not None:
                await pieces.send(piece)
                piece = await self._next()

    async def events(self, pieces: MemoryObjectReceiveStream[Piece]) -> AsyncIterator[bytes]:
        pace = Pace(self._recording.position, self._recording.speed)
        if self._recording.gap:
            yield self._sending(self._show.gap())
        opened = self._recording.since is not None  # whoever goes on has seen a snapshot
        while True:
            piece: Piece | None = None
            with anyio.move_on_after(HEARTBEAT):
                try:
                    piece = await pieces.receive()
                except anyio.EndOfStream:
                    break
            if piece is None:
                yield self._sending(self._show.heartbeat())
                continue
            async for event in self._played(piece, pace, opened=opened):
                opened = True
                yield event
        yield self._sending(self._show.end())

    async def _played(self, piece: Piece, pace: Pace, *, opened: bool) -> AsyncIterator[bytes]:
        until, windows = piece
        step, position = self._recording.step, self._recording.position
        seen = [start for start in windows if start < position]
        for start in sorted(seen):
            self._show.take(start, windows[start])
        if not opened and until > position:
            yield self._sending(self._show.snapshot())
        for start in sorted(windows.keys() - seen):
            async for event in self._waiting(start + step, pace):
                yield event
            self._show.take(start, windows[start])
            yield self._sending(self._show.frame(start, sorted(windows[start])))
            await anyio.lowlevel.checkpoint()  # a client that takes all at once must not hold up the others
        if until > position:
            async for event in self._waiting(until, pace):
                yield event
            self._show.reach(until)

    async def _waiting(self, until: int, pace: Pace) -> AsyncIterator[bytes]:
        """Signs of life until the recording's time has come."""
        while left := pace.wait(until):
            await anyio.sleep(min(left, max(0.0, self._sent + HEARTBEAT - monotonic())))
            if monotonic() - self._sent >= HEARTBEAT:
                self._show.reach(min(floor_to(pace.at(), self._recording.step), until - self._recording.step))
                yield self._sending(self._show.heartbeat())

    def _sending(self, event: bytes) -> bytes:
        self._sent = monotonic()
        return event


class Replays:
    """Those that are under way in this process. Belongs to the event loop."""

    def __init__(self) -> None:
        self.running: set[ReplayResponse] = set()
        self._closing = False

    def check(self) -> None:
        """Raises ApiError when no other may begin."""
        if self._closing or len(self.running) >= REPLAYS:
            raise ApiError(503, "this server is closing" if self._closing else f"{REPLAYS} replays are running already")

    def close(self) -> None:
        """End every replay; clients that come back to another process go on there."""
        self._closing = True
        for response in self.running:
            response.scope.cancel()


class ReplayResponse(EventSourceResponse):
    """Ends with its client: then the query that runs for it stops, too."""

    def __init__(self, player: Player, replays: Replays) -> None:
        replays.check()
        self._player, self._replays = player, replays
        self._wanted, self._pieces = anyio.create_memory_object_stream[Piece](0)
        self.scope = anyio.CancelScope()
        super().__init__(player.events(self._pieces), ping=0)  # it has heartbeats of its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            with anyio.move_on_after(STUCK) as stuck:
                await send(message)
            if stuck.cancelled_caught:
                log.info("the client of a replay does not read and is let go")
                self.scope.cancel()

        self._replays.running.add(self)
        try:
            with self.scope, self._pieces:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._fill)
                    await super().__call__(scope, receive, sent)
                    tasks.cancel_scope.cancel()
        finally:
            self._replays.running.discard(self)

    async def _fill(self) -> None:
        try:
            await self._player.fill(self._wanted)
        except MetricsError as error:
            log.warning("a replay is cut: %s", error)
            self.scope.cancel()  # without its end, so that nobody takes it for whole


def replay_operation(dashboard: MetricsDashboard) -> Operation:
    async def replay(request: Request) -> Response:
        recording = dashboard.recording(asked_in(request), request.headers.get("last-event-id"))
        if recording.is_over:
            return Response(status_code=204)  # which tells a browser not to come again
        dashboard.replays.check()
        if request.method == "HEAD":
            return Response(media_type=EVENT_STREAM)
        player = dashboard.player(recording)
        await while_connected(request, player.begin)
        return ReplayResponse(player, dashboard.replays)

    return Operation(
        "/api/replay",
        replay,
        "A recorded range as the frames of the live feed, at a chosen speed",
        {
            200: Answer(
                "Messages in order of time, `end` the last of them",
                Snapshot | Frame | Gap | Heartbeat | End,
                (EVENT_STREAM,),
            ),
            204: Answer("The position given is the end of the range: nothing follows", media=()),
        },
        f"Made of what is stored, at most {MAX_DAYS} days. An id names how far the replay is: sent as `Last-Event-ID`, "
        "or as `since`, it goes on there. It waits for a client that reads slowly, and skips nothing.",
        REPLAY,
        scope=TokenScope.ADMIN,
        group=LIVE,
    )

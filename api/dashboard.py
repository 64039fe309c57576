"""What the API answers: metrics now and over time, and how the pipeline does."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Self, TypeVar

import anyio
from anyio import to_thread
from redis.exceptions import RedisError

from vibezen.metrics.active_sessions import seen_since
from vibezen.metrics.api.answering import Inquiry
from vibezen.metrics.api.choice import Choices
from vibezen.metrics.api.export import ExportResponse, Exports
from vibezen.metrics.api.hub import Hub
from vibezen.metrics.api.pipeline import Pipeline, pipeline, troubles
from vibezen.metrics.api.realtime import Realtime
from vibezen.metrics.api.recording import Recording, Show, parse_recording, read
from vibezen.metrics.api.replay import Player, Replays
from vibezen.metrics.api.state import LiveState
from vibezen.metrics.api.tail import Tail
from vibezen.metrics.api.tickets import Tickets
from vibezen.metrics.api.watching import Watching
from vibezen.metrics.asking import answered
from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.config import load
from vibezen.metrics.connection import (
    UNREACHABLE,
    async_primaries,
    check_suitable,
    connect,
    connect_async,
    redis_url,
    server_info,
)
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.export import parse_export
from vibezen.metrics.gathering import Gatherer
from vibezen.metrics.history import History, history
from vibezen.metrics.inventory import Inventory, inventory, parse_inventory
from vibezen.metrics.keys import Keys
from vibezen.metrics.question import Parameters, parse_question
from vibezen.metrics.reports.asking import parse_report, report
from vibezen.metrics.reports.report import Report
from vibezen.metrics.search import Events, parse_search, search
from vibezen.metrics.serving.counting import Requests
from vibezen.metrics.serving.errors import Away
from vibezen.metrics.serving.version import package_version
from vibezen.metrics.sessions import ACTIVE_SECONDS
from vibezen.metrics.settings import Settings
from vibezen.metrics.settled import Settled
from vibezen.metrics.storage import MetricsStorage, check_same_store
from vibezen.metrics.summary import Summary, parse_summary, summary
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import shard_count

T = TypeVar("T")

HISTORIES: Final = 4
"""Questions about history that are computed at the same time; more wait their turn."""
CLOSE_SECONDS: Final = 2.0
"""Until connections to Redis are given up on closing."""


class MetricsDashboard:
    """Answers from Redis: metrics now and over time, and how the pipeline does. Open it as a context manager.

    `demo`: the traffic is simulated, and every answer says so. Without settings, those that hold here apply.
    """

    def __init__(
        self,
        storage: MetricsStorage,
        *,
        settings: Settings | None = None,
        demo: bool = False,
        clock: Clock = wall,
    ) -> None:
        self.storage = storage
        self.settings = settings if settings is not None else load(storage_dir=storage.path)
        self.version = package_version()
        self.requests = Requests()
        self._clock = clock
        self._keys = Keys(self.settings.redis.prefix)
        self._catalogue = self.settings.catalogue()
        self._url = redis_url(self.settings)
        self._commands = connect_async(self._url)
        self._reader = connect_async(self._url)
        self.watching = Watching(lambda: connect(self._url), self._keys, self.settings.streams.shards)
        self.tickets = Tickets(self._commands, self._keys, clock)
        self._histories = asyncio.Semaphore(HISTORIES)
        self.reader = EventReader(storage.layout)
        self._exports = Exports(self.reader)
        self.replays = Replays()
        self._demo = demo
        self._gatherer = Gatherer(
            self.reader, self._commands, self._keys, self.settings, clock, lambda: self.hub.trouble is not None
        )
        self._settled = Settled(self.reader, self.settings)
        self._following: asyncio.Task[None] | None = None
        finest = self.settings.aggregation.widths[0].seconds
        self.hub = Hub(
            LiveState(finest, self._catalogue, version=self.version, demo=demo, clock=clock),
            Tail(self._commands, self._reader, self._keys, self.settings.streams.shards),
            self._check,
            Choices(self.settings.aggregation.labels, self.settings.live.interval_seconds),
        )

    @property
    def trouble(self) -> str | None:
        """Why it cannot answer now, in one line; None when it can."""
        return self.hub.trouble

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self.hub.run(), name="live feed")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._following is not None
        self.end_streams()
        self._following.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        finally:
            with anyio.move_on_after(CLOSE_SECONDS):
                await self._commands.aclose()
                await self._reader.aclose()

    def end_streams(self) -> None:
        """Let no live client keep the server from closing."""
        self.hub.close()
        self.watching.close()
        self._exports.close()
        self.replays.close()

    def is_alive(self) -> bool:
        """Whether the live feed is followed; what it died of is raised on closing."""
        return self._following is not None and not self._following.done()

    def realtime(self) -> Realtime:
        """Every metric now. Raises errors.Away while Redis does not answer."""
        return self.hub.realtime()

    def windows(self, at: float) -> dict[str, Window]:
        """What `realtime` told of at the time `at`, by metric: the newest minute of windows as one."""
        return self.hub.windows(at)

    async def history(self, /, **parameters: str | Sequence[str]) -> History:
        """One metric over time; parameters as in the address of `/api/metrics/history`. Raises BadParameter."""
        return await self.inquire_history(parameters).answer()

    def inquire_history(self, parameters: Parameters) -> Inquiry[History]:
        """The same question, which may be answered or not. Raises BadParameter."""
        now = self._clock()
        question = parse_question(parameters, self.settings, now)
        plan = question.plan
        return Inquiry(
            partial(self._settled.name, question, plan.start, plan.stop, now),
            partial(self._answer, partial(history, self._gatherer, question, now)),
        )

    async def summary(self, /, **parameters: str | Sequence[str]) -> Summary:
        """Every metric over a range, against the range before; parameters as for `/api/metrics/summary`."""
        return await self.inquire_summary(parameters).answer()

    def inquire_summary(self, parameters: Parameters) -> Inquiry[Summary]:
        """The same question, which may be answered or not. Raises BadParameter."""
        now = self._clock()
        asked = parse_summary(parameters, self.settings, now)
        return Inquiry(
            partial(self._settled.name, asked, asked.before().start, asked.stop, now),
            partial(self._answer, partial(summary, self._gatherer, asked, now)),
        )

    async def report(self, /, **parameters: str | Sequence[str]) -> Report:
        """A report; parameters as for `/api/metrics/report`. Raises BadParameter, ConfigError."""
        return await (await self.inquire_report(parameters)).answer()

    async def inquire_report(self, parameters: Parameters) -> Inquiry[Report]:
        """The same question, which may be answered or not. Raises BadParameter, ConfigError."""
        now = self._clock()
        asked = await to_thread.run_sync(parse_report, parameters, self.settings, now)
        return Inquiry(
            partial(self._settled.name, asked, asked.period.before, asked.period.stop, now),
            partial(self._answer, partial(report, self._gatherer, self.settings, asked, now)),
        )

    def inquire(
        self, asked: Any, since: float, until: float, now: float, ask: Callable[[Gatherer], Awaitable[T]]
    ) -> Inquiry[T]:
        """A question about [since, until), `asked` in plain data, that `ask` answers."""
        return Inquiry(
            partial(self._settled.name, asked, since, until, now),
            partial(self._answer, partial(ask, self._gatherer)),
        )

    def inquire_now(self, ask: Callable[[], Awaitable[T]]) -> Inquiry[T]:
        """A question whose answer may change whatever is asked."""
        return Inquiry(_unnamed, partial(self._answer, ask))

    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

    async def active_sessions(self) -> dict[str, float] | None:
        """Sessions at work; None while Redis does not tell."""
        if self.trouble is not None:
            return None
        try:
            shards = await shard_count(self._commands, self._keys, self.settings.streams.shards)
            return await seen_since(self._commands, self._keys, range(shards), self._clock() - ACTIVE_SECONDS)
        except (RedisError, *UNREACHABLE):
            return None

    async def catalogue(self, /, **parameters: str | Sequence[str]) -> Inventory:
        """Which metrics there are, and their metadata; parameters as for `/api/catalogue`."""
        now = self._clock()
        asked = parse_inventory(parameters, now)
        labels = self.settings.aggregation.labels
        return await self._answer(partial(inventory, self.reader, self._catalogue, labels, asked))

    async def events(self, /, **parameters: str | Sequence[str]) -> Events:
        """Single events; parameters as for `/api/events`."""
        now = self._clock()
        asked = parse_search(parameters, now)
        return await self._answer(partial(search, self.reader, asked))

    async def _answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Raises TooSlow; the time begins when it is this question's turn."""
        async with self._histories:
            return await answered(ask, self.settings.queries.seconds)

    def export(self, /, **parameters: str | Sequence[str]) -> ExportResponse:
        """Events as a file; parameters as for `/api/metrics/export`."""
        labels = self.settings.aggregation.labels
        return self._exports.begin(parse_export(parameters, labels, self._clock()))

    def recording(self, parameters: Parameters, last_event_id: str | None) -> Recording:
        """What shall be replayed; parameters as for `/api/replay`. Raises BadParameter."""
        return parse_recording(parameters, last_event_id, self._clock())

    def player(self, recording: Recording) -> Player:
        """Plays a recorded range as frames."""
        show = Show(recording, self._catalogue, version=self.version, demo=self._demo)
        return Player(recording, show, lambda since, until: read(self._gatherer, recording, since, until, self._answer))

    async def pipeline(self) -> Pipeline:
        """Shards, groups, positions, lag and owners."""
        shards, damaged = self.settings.streams.shards, self.reader.damaged
        return await pipeline(self._commands, self._keys, self.storage, shards, damaged, self._clock())

    async def troubles(self) -> list[str]:
        """Why questions cannot be answered or events cannot be stored now, a line each; empty when all is well."""
        if self.trouble is not None:
            return [self.trouble]
        try:
            return await troubles(self._commands, self._keys, self.settings.streams.shards)
        except UNREACHABLE:
            return [str(Away())]

    async def _check(self) -> None:
        """See that the server may be used, and that it belongs to our store."""
        for server in await async_primaries(self._commands):
            check_suitable(server_info(await server.info()), self._url)
        check_same_store(self.storage.layout, await self._commands.get(self._keys.store))


async def _unnamed() -> None:
    """Of an answer that may change."""

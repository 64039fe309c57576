"""A dashboard served in a thread, and windows written the way an aggregator commits them."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import redis
from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import DEADLINE
from vibezen.metrics import config
from vibezen.metrics.api.dashboard import MetricsDashboard
from vibezen.metrics.api.hub import Hub
from vibezen.metrics.api.web import WebDashboard
from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.coverage import shape_of
from vibezen.metrics.keys import Keys
from vibezen.metrics.live import FIELD, Change, Frame, encode_frame
from vibezen.metrics.series import metric_of, series_key
from vibezen.metrics.settings import Aggregation
from vibezen.metrics.storage import MetricsStorage
from vibezen.metrics.window import Window, from_blob, merged, to_blob, window_of

NOW: Final = 1_763_985_635.0
"""Half way through the window that begins at OPEN."""
OPEN: Final = 1_763_985_630

SHARDS: Final = 2
"""More than tests have use for."""

Json = dict[str, Any]


def samples(*values: float, at: float) -> Window:
    """A window of these values, all recorded at one time."""
    return window_of(values, [at] * len(values))


class Windows:
    """Commits windows as an aggregator does: hash first, then a live frame, whose id it answers.

    From the start all shards' windows count as complete, as those of a new store do.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self.keys = Keys()
        for shard in range(SHARDS):
            self.complete(shard)

    def complete(self, shard: int, floor: float = 0.0, **books: str | float) -> None:
        """Let the shard's windows be complete since `floor`; `books` of the aggregator replace the usual ones."""
        told = {"shape": shape_of(Aggregation()), "shaped": 0, "position": "0-0", **books}
        self._client.set(self.keys.floor(shard), floor)
        fields: dict[Any, Any] = {f"aggregate.{name}": value for name, value in told.items()}
        self._client.hset(self.keys.books(shard), mapping={**fields, "archive.epoch": 1})

    def store(self, start: int, metric: str, window: Window, shard: int = 0, width: int = 10, **labels: str) -> None:
        name = self.keys.window(shard, width, start)
        self._client.hset(name, series_key(metric, labels), to_blob(window))
        stored: Any = self._client.hgetall(name)
        of_metric = [from_blob(blob) for series, blob in stored.items() if metric_of(series.decode()) == metric]
        self._client.hset(self.keys.totals(shard, width, start), metric, to_blob(merged(of_metric)))

    def commit(self, start: int, metric: str, window: Window, shard: int = 0, **labels: str) -> str:
        self.store(start, metric, window, shard, 10, **labels)
        return self.show([Change(start, series_key(metric, labels), window)], shard)

    def alert(self, number: int) -> str:
        """A transition in the alert stream; its entry's id."""
        added = self._client.xadd(self.keys.transitions, {"transition": f'{{"number": {number}}}'})
        assert isinstance(added, bytes)
        return added.decode()

    def show(self, changes: Sequence[Change], shard: int = 0) -> str:
        """A frame alone, with nothing stored."""
        newest = max(change.window.last_ts for change in changes)
        frame = encode_frame(Frame(shard, 10, list(changes), newest, newest))
        added = self._client.xadd(self.keys.frames, {FIELD: frame})
        assert isinstance(added, bytes)
        return added.decode()


class Served:
    """One API in this process: `http` asks it, `socket` and `events` listen to it."""

    def __init__(self, dashboard: MetricsDashboard, web: WebDashboard) -> None:
        self.hub: Hub = dashboard.hub
        self._web = web
        self.port = web.port
        self.storage: Path = dashboard.storage.path
        self.url = f"http://127.0.0.1:{web.port}"
        self.http = httpx.Client(base_url=self.url, timeout=DEADLINE)

    @property
    def connections(self) -> int:
        """Connections that the server holds."""
        assert self._web._server is not None
        return len(self._web._server.server_state.connections)

    def get(self, path: str, /, **parameters: str) -> Json:
        answer = self.http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def refused(self, path: str, /, **parameters: str) -> tuple[int, Json]:
        answer = self.http.get(path, params=parameters)
        return answer.status_code, answer.json()["error"]

    @contextmanager
    def socket(self, since: str | None = None, *, choice: str = "", **options: Any) -> Iterator["Socket"]:
        """`choice`: as in an address, `metric=cost&interval=1`."""
        query = choice if since is None else f"since={since}&{choice}"
        with connect(f"ws://127.0.0.1:{self.port}/ws?{query}", open_timeout=DEADLINE, **options) as connection:
            yield Socket(connection)

    @contextmanager
    def events(self, since: str | None = None, *, choice: str = "") -> Iterator[Iterator[Json]]:
        headers = {} if since is None else {"last-event-id": since}
        with self.http.stream("GET", f"/api/stream?{choice}", headers=headers) as answer:
            assert answer.status_code == 200, answer.read()
            yield _events(answer.iter_lines())


class Socket:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def next(self) -> Json:
        message: Json = json.loads(self.connection.recv(timeout=DEADLINE))
        return message

    def say(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def until(self, condition: Callable[[Json], bool]) -> list[Json]:
        """Messages up to and with the first that meets the condition."""
        messages = [self.next()]
        while not condition(messages[-1]):
            messages.append(self.next())
        return messages

    def until_id(self, position: str) -> list[Json]:
        return self.until(lambda message: bool(message["id"] == position))


def _events(lines: Iterator[str]) -> Iterator[Json]:
    """Server-sent events: what `data` says, with the event's own id and name as `sse_id` and `sse_event`."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield {**json.loads(fields["data"]), "sse_id": fields["id"], "sse_event": fields["event"]}
            fields = {}


class StartDashboard(Protocol):
    def __call__(self, redis_url: str, *, clock: Clock = wall, ready: bool = True, **settings: Any) -> Served: ...


@contextmanager
def dashboard_in_thread(
    redis_url: str, folder: Path, clock: Clock = wall, settings: Mapping[str, Any] | None = None
) -> Iterator[Served]:
    """Serves on a free port until the block ends."""
    started: Future[Served] = Future()
    ending: Future[Callable[[], None]] = Future()

    async def run() -> None:
        from msgspec.structs import replace

        storage = MetricsStorage(folder)
        all_settings = config.load(redis_url=redis_url, storage_dir=storage.path)
        dashboard = MetricsDashboard(storage, settings=replace(all_settings, **(settings or {})), clock=clock)
        web = WebDashboard(dashboard, port=0)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        ending.set_result(lambda: _call(loop, ended))
        async with web:
            started.set_result(Served(dashboard, web))
            await ended.wait()

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=body, name="dashboard")
    thread.start()
    try:
        served = started.result(DEADLINE)
        with served.http:
            yield served
    finally:
        ending.result(DEADLINE)()
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the dashboard does not end"


def _call(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    loop.call_soon_threadsafe(ended.set)

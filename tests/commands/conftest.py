import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.waiting import DEADLINE

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

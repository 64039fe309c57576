"""When the one thread that appends dies, the gateway does not go on as if nothing were."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from vibezen.metrics.config import load
from vibezen.metrics.errors import MetricsError
from vibezen.metrics.producers import gateway
from vibezen.metrics.producers.appender import Appender
from vibezen.metrics.settings import Gateway, Settings


def settings_for(folder: Path, port: int) -> Settings:
    from msgspec.structs import replace

    return replace(load(redis_url="redis://127.0.0.1:1", storage_dir=folder), gateway=Gateway(port=port))


def test_gateway_whose_thread_died_ends_with_an_error(
    tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Appender, "_run", lambda self: None)
    with pytest.raises(MetricsError, match="ended by itself"):
        asyncio.run(asyncio.wait_for(gateway._serve(settings_for(tmp_path, unused_port), lambda running: None), 20))


def test_gateway_that_was_asked_to_end_does_so_without_one(tmp_path: Path, unused_port: int) -> None:
    def started(running: gateway.Gateway) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    asyncio.run(asyncio.wait_for(gateway._serve(settings_for(tmp_path, unused_port), started), 20))

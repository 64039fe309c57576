"""The live feed's messages go past the middleware; what that tells and adds must not be lost by it."""

import json
import logging

import pytest

from tests.support.serving import OPEN, StartDashboard, Windows, samples
from tests.support.waiting import WaitUntil
from vibezen.metrics.serving.guard import SECURITY_HEADERS
from vibezen.metrics.settings import Log

pytestmark = pytest.mark.server


def test_streams_have_the_headers_of_all_answers_and_their_bytes_in_the_access_log(
    redis_url: str,
    windows: Windows,
    start_dashboard: StartDashboard,
    caplog: pytest.LogCaptureFixture,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("vibezen.access"), "handlers", [caplog.handler])
    served = start_dashboard(redis_url, log=Log(access=True))
    windows.commit(OPEN, "tokens", samples(1, at=OPEN + 1.0))
    with served.http.stream("GET", "/api/stream") as answer:
        assert answer.headers.items() >= SECURITY_HEADERS.items()
        size = next(len(piece) for piece in answer.iter_raw())
    with served.socket() as socket:
        socket.next()

    def told(path: str) -> int:
        lines = [json.loads(record.message) for record in caplog.records if record.name == "vibezen.access"]
        return sum(line["bytes"] for line in lines if line["path"] == path)

    assert size > 100
    wait_until(lambda: told("/api/stream") >= size)
    wait_until(lambda: told("/ws") > 100)

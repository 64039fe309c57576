"""Clocks that are set back and ahead by an hour, under the server and under its readers."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.feeding import Feed, event, lag, total, values_on_disk
from tests.support.processes import StartRole
from tests.support.servers import SURE, Server
from tests.support.waiting import WaitUntil
from vibezen.metrics.batch import id_order
from vibezen.metrics.keys import GROUPS

pytestmark = pytest.mark.server

BATCH: Final = 50


def faketime() -> str:
    """The library that lies about the time; skips the test where there is none, and fails it in CI."""
    for found in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"):
        return str(found)
    reason = "no libfaketime here: apt install faketime"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class FakeClock:
    """A clock that all programs with `environ` go by."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environ = {
            "LD_PRELOAD": faketime(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set("+0")

    def set(self, offset: str) -> None:
        """`+1h`, `-1h`: against the true time."""
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(offset)
        fresh.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path / "clock")


@pytest.fixture
def server(clock: FakeClock, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server("valkey", folder, SURE)  # Debian's Redis does not start under the library
    server.environ = clock.environ
    server.start()
    yield server
    server.kill()


def test_clock_an_hour_back_or_ahead_loses_and_doubles_nothing_and_reuses_no_id(
    clock: FakeClock, server: Server, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    store = tmp_path / "store"
    where = ("--redis-url", server.url, "--storage-dir", str(store))
    roles = [start_role("consume", group, *where, **clock.environ) for group in GROUPS]
    ids: list[tuple[int, int]] = []
    with server.client() as client:
        feed = Feed(client)
        for turn, offset in enumerate(("+0", "-1h", "+1h", "+0")):
            for batch in range(20):
                if batch == 10:  # with entries read that are not committed yet
                    clock.set(offset)
                first = (20 * turn + batch) * BATCH
                values = range(first, first + BATCH)
                ids.append(id_order(feed.append([event(value, time.time() - 5) for value in values])))
            wait_until(lambda: lag(client, "archive") == lag(client, "aggregate") == 0)
        server_time = client.time()
        assert abs(float(server_time[0]) - time.time()) < 60
        assert ids == sorted(set(ids)), "an ID is given once, and they only grow"
        assert ids[-1][0] - ids[0][0] > 3_500_000, "the clock was ahead in between"
        sent = 80 * BATCH
        on_disk = values_on_disk(store)
        assert len(on_disk) == on_disk.total() == sent
        window = total(client)
        assert (window.count, window.sum) == (sent, float(sum(range(sent))))
    assert [role.stop() for role in roles] == [0, 0]

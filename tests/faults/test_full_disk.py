"""A disk without space: nothing is committed and everybody is told why; when there is space, it goes on by itself."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.support.feeding import Feed, event, lag, total, values_on_disk
from tests.support.processes import StartRole
from tests.support.serving import Served, dashboard_in_thread
from tests.support.waiting import WaitUntil
from vibezen.metrics.config import load
from vibezen.metrics.doctor import examine
from vibezen.metrics.keys import GROUPS, Keys

pytestmark = pytest.mark.server

KEYS = Keys()
BATCH: Final = 100
NO_SPACE: Final = "storage folder: no space left on device"


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler, suppress(OSError):
        while True:
            filler.write(bytes(4096))


def trouble(client: redis.Redis) -> str:
    said = client.hget(KEYS.books(0), "archive.trouble")
    return said.decode() if isinstance(said, bytes) else ""


def doctors_word(redis_url: str, store: Path) -> Any:
    settings = load(redis_url=redis_url, storage_dir=store, environ={})
    return next(found for found in examine(lambda: settings) if found.name == "group archive, shard 0")


def assert_told(served: Served, redis_url: str, store: Path) -> None:
    ready = served.http.get("/readyz")
    assert (ready.status_code, ready.json()["reasons"]) == (503, [f"archive of shard 0: {NO_SPACE}"])
    groups = served.get("/api/pipeline")["shards"][0]["groups"]
    assert [groups[group]["trouble"] for group in GROUPS] == [NO_SPACE, None]
    found = doctors_word(redis_url, store)
    assert (found.status, found.seen.partition(";")[0]) == ("fail", NO_SPACE)
    assert served.get("/api/metrics/history", metric="response_time")["series"], "readers answer meanwhile"


def test_full_disk_stops_the_archive_says_why_and_loses_nothing(
    client: redis.Redis, redis_url: str, small: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    store = small / "store"
    roles = [start_role("consume", group, "--redis-url", redis_url, "--storage-dir", str(store)) for group in GROUPS]
    feed, sent = Feed(client), 0

    def send(batches: int) -> None:
        nonlocal sent
        for _ in range(batches):
            feed.append([event(value, time.time(), model="m" * 40) for value in range(sent, sent + BATCH)])
            sent += BATCH

    send(20)
    wait_until(lambda: lag(client, "archive") == lag(client, "aggregate") == 0)
    fill(small / "filler")
    position = client.hget(KEYS.books(0), "archive.position")
    send(30)
    wait_until(lambda: trouble(client) == NO_SPACE and lag(client, "aggregate") == 0)
    with dashboard_in_thread(redis_url, store) as served:
        wait_until(lambda: served.hub.trouble is None)
        assert_told(served, redis_url, store)
        assert client.hget(KEYS.books(0), "archive.position") == position
        (small / "filler").unlink()
        wait_until(lambda: lag(client, "archive") == 0)
        wait_until(lambda: served.http.get("/readyz").status_code == 200)
    assert trouble(client) == ""
    on_disk = values_on_disk(store)
    assert len(on_disk) == on_disk.total() == sent == total(client).count
    archive = roles[0]
    wait_until(lambda: "there is space again" in archive.said)
    assert archive.said.count("no space left on device; nothing is committed until there is space") == 1
    assert archive.said.count("there is space again") == 1
    assert [role.stop() for role in roles] == [0, 0]

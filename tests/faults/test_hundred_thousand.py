"""A hundred thousand events from four processes of eight threads: on disk once, in the windows once."""

import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import redis

from tests.support.feeding import lag, lines_on_disk, total
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics.keys import Keys

PROCESSES: Final = 4
THREADS: Final = 8
EACH: Final = 3125
EVENTS: Final = PROCESSES * THREADS * EACH
KEYS: Final = Keys()
GROUPS: Final = ("archive", "aggregate")

APPLICATION: Final = """
import sys, threading
from vibezen.metrics import MetricsCollector
first, threads, each = map(int, sys.argv[1:])
with MetricsCollector() as collector:
    def work(start):
        for value in range(start, start + each):
            collector.record_nowait("response_time", value, {"provider": "openai", "number": value})
    workers = [threading.Thread(target=work, args=(first + n * each,)) for n in range(threads)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    left = collector.close_sync(60)
print(left, collector.stats().recorded, collector.stats().appended)
"""


@pytest.mark.parametrize("kills", [0, 3], ids=["undisturbed", "killed"])
def test_each_recorded_event_is_on_disk_and_in_the_windows_once(
    client: redis.Redis,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start_role: StartRole,
    wait_until: WaitUntil,
    kills: int,
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("VIBEZEN_METRICS__REDIS__URL", redis_url)
    monkeypatch.setenv("VIBEZEN_METRICS__STORAGE_DIR", str(store))
    roles = {group: start_role("consume", group) for group in GROUPS}
    command = [sys.executable, "-c", APPLICATION]
    applications = [
        subprocess.Popen(
            [*command, str(number * THREADS * EACH), str(THREADS), str(EACH)], stdout=subprocess.PIPE, text=True
        )
        for number in range(PROCESSES)
    ]
    for left in reversed(range(kills)):
        for group in GROUPS:
            seen = client.hget(KEYS.books(0), f"{group}.events")
            wait_until(partial(moved_on, client, group, seen))
            roles[group].kill()
            if left:  # the last lease of each group runs out by itself
                client.delete(KEYS.lease(0, group))
            roles[group] = start_role("consume", group)
    said = [application.communicate(timeout=120)[0].split() for application in applications]
    assert said == [["0", str(THREADS * EACH), str(THREADS * EACH)]] * PROCESSES
    wait_until(lambda: all(done(client, group) and client.exists(KEYS.lease(0, group)) for group in GROUPS), 60)
    assert Counter(line["value"] for line in lines_on_disk(store)) == Counter(range(EVENTS))
    for width in (10, 60):
        window = total(client, width)
        assert (window.count, window.sum) == (EVENTS, float(sum(range(EVENTS))))
        assert sum(window.positive.values()) + window.zero == EVENTS
    for role in roles.values():
        assert role.stop() == 0


def moved_on(client: redis.Redis, group: str, events: object) -> bool:
    return client.hget(KEYS.books(0), f"{group}.events") != events or done(client, group)


def done(client: redis.Redis, group: str) -> bool:
    if client.hget(KEYS.books(0), f"{group}.events") != str(EVENTS).encode():
        return False
    return lag(client, group) == 0

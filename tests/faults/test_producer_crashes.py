"""Applications killed or ended while the server comes and goes: what was safe arrives once, and the rest is told."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import redis

from tests.support.feeding import values_in_stream
from tests.support.proxy import Proxy, StartProxy
from tests.support.servers import StartServer
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.batch import read_entry
from vibezen.metrics.keys import Keys
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.settings import Settings

LEDGER: Final = """
import sys
from vibezen.metrics import MetricsCollector
from vibezen.metrics.settings import Durability, Settings
url, durability, value = sys.argv[1], Durability(sys.argv[2]), int(sys.argv[3])
collector = MetricsCollector(settings=Settings(durability=durability, buffer_size=20), redis_url=url)
while True:
    for _ in range(50):
        collector.record_nowait("m", value)
        value += 1
    if collector.flush_sync(0.3) == 0:
        print(value, flush=True)
"""
"""Records values counted up, and says up to which all were acknowledged."""

RUN: Final = 1_000_000
"""Values of one life of the application."""


class Lives:
    """The application, killed and started again; `acknowledged`: values it was told are safe."""

    def __init__(self, url: str, durability: str, folder: Path) -> None:
        self._command = [sys.executable, "-c", LEDGER, url, durability]
        self._ledger = folder / "ledger"
        self.acknowledged: set[int] = set()

    def live_and_die(self, life: int, chance: random.Random) -> None:
        """Killed at a random moment after its first acknowledgement, or while it waits for that."""
        with (
            self._ledger.open("wb") as ledger,
            subprocess.Popen([*self._command, str(life * RUN)], stdout=ledger) as process,
        ):
            end = time.monotonic() + DEADLINE
            while not self._said() and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(chance.uniform(0.0, 0.3))  # no state is waited for: any moment is meant
            process.kill()
        said = self._said()
        assert said, "it never got anything to safety"
        self.acknowledged.update(range(life * RUN, said[-1]))

    def _said(self) -> list[int]:
        """Whole lines; the last one may be torn by the kill."""
        lines = self._ledger.read_bytes().splitlines(keepends=True)
        return [int(line) for line in lines if line.endswith(b"\n")]


@pytest.mark.parametrize(
    ("durability", "kills"),
    [
        ("spool", 6),
        ("server", 3),
        pytest.param("spool", 20, marks=pytest.mark.soak),
        pytest.param("server", 20, marks=pytest.mark.soak),
    ],
)
def test_a_killed_application_loses_nothing_that_was_acknowledged_and_doubles_nothing(
    durability: str, kills: int, redis_url: str, start_proxy: StartProxy, tmp_path: Path, wait_until: WaitUntil
) -> None:
    proxy, chance = start_proxy(redis_url), random.Random(kills)
    proxy.cut_share(0.1, seed=kills)
    lives = Lives(proxy.url, durability, tmp_path)
    for life in range(kills):
        if durability == "spool" and life % 3 == 1:
            proxy.go_down()
        lives.live_and_die(life, chance)
        proxy.come_back()
    drain(proxy, tmp_path, wait_until)
    found = Counter(values_in_stream(redis_url, "m"))
    assert set(found.values()) == {1}
    assert lives.acknowledged - found.keys() == set()
    assert_no_number_twice(redis_url)


def drain(proxy: Proxy, folder: Path, wait_until: WaitUntil) -> None:
    """The next process sends what the dead ones left."""
    proxy.cut_share(0.0)
    with MetricsCollector(settings=Settings(storage_dir=folder / "metrics_data"), redis_url=proxy.url) as collector:
        collector.record_nowait("other", 1)
        spool = folder / "metrics_data" / "spool"
        wait_until(lambda: not spool.exists() or not any(spool.iterdir()))


def assert_no_number_twice(url: str) -> None:
    with redis.Redis.from_url(url, legacy_responses=False, protocol=2) as client:
        stored: Any = client.xrange(Keys().events(0))
    last: Counter[str | None] = Counter()
    for entry_id, fields in stored:
        entry = read_entry(entry_id, fields)
        assert entry.seq > last[entry.producer], "numbers rise"
        last[entry.producer] = entry.seq + entry.n - 1


ENDING: Final = """
import atexit, logging, signal, sys, time
logging.basicConfig()
atexit.register(lambda: print(msgspec.json.encode(collector.stats()).decode(), flush=True))  # runs last
import msgspec
from vibezen.metrics import MetricsCollector
from vibezen.metrics.settings import Durability, Settings
from vibezen.metrics.producers import lifetime
lifetime.CLOSE_DEADLINE = 1.0
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
collector = MetricsCollector(settings=Settings(durability=Durability(sys.argv[2])), redis_url=sys.argv[1])
for value in range(30_000):
    collector.record_nowait("m", value)
print("recorded", flush=True)
while len(sys.argv) > 3:
    time.sleep(0.05)  # signal.pause() would miss a signal that comes just before it
"""


@pytest.mark.parametrize(
    ("state", "how", "durability"),
    [
        ("there", "SIGTERM", "server"),
        ("there", "exit", "spool"),
        ("hangs", "exit", "memory"),
        ("hangs", "SIGTERM", "server"),
        ("hangs", "exit", "spool"),
    ],
)
def test_an_end_flushes_or_reports_exactly_within_its_deadline(
    state: str, how: str, durability: str, start_server: StartServer, tmp_path: Path, wait_until: WaitUntil
) -> None:
    server = start_server()
    if state == "hangs":
        os.kill(server.pid, signal.SIGSTOP)
    command = [sys.executable, "-c", ENDING, server.url, durability, *(["wait"] if how == "SIGTERM" else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "recorded\n"
        start = time.monotonic()
        if how == "SIGTERM":
            process.terminate()
        said, logged = process.communicate(timeout=60)
        took = time.monotonic() - start
    if state == "hangs":
        os.kill(server.pid, signal.SIGCONT)
    assert process.returncode == 0
    assert took < 20  # five seconds of waiting, and what a busy machine adds
    stats = msgspec.json.decode(said, type=Stats)
    assert stats.recorded == 30_000
    if state == "there":
        assert (stats.appended, logged) == (30_000, "")
    elif durability == "memory":
        assert "30000 events could not be sent" in logged
    else:
        assert "30000 events were not sent" in logged
        assert stats.spooled == 30_000
        with MetricsCollector(redis_url=server.url) as collector:
            collector.record_nowait("other", 1)
            wait_until(lambda: len(values_in_stream(server.url, "m")) == 30_000)
    if state == "there" or durability != "memory":
        assert values_in_stream(server.url, "m") == list(range(30_000))

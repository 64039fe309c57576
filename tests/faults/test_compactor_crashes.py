"""Compactors that are killed at any moment: what is read all the while is exactly what was committed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.segments import commit, values
from tests.support.waiting import DEADLINE, wait_until
from vibezen.metrics.clock import HOUR
from vibezen.metrics.committed import Snapshot
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.event_sql import Wanted
from vibezen.metrics.layout import Layout

PROGRAM: Final = Path(__file__).parent / "compacting_process.py"
DATE: Final = 1_763_942_400
BATCH: Final = 30
"""Events of a segment; the n-th event has value n, and its hour is one of HOURS."""
HOURS: Final = 30
LONGEST: Final = 0.3
"""Seconds that a compactor lives at most."""


class Committed:
    """Values 1, 2, 3, … in segments of one shard. `least`: so many can be read for certain; `most`: so many at most."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.least = self.most = 0

    def commit(self) -> None:
        begin = self.least + 1
        self.most += BATCH
        hour = DATE + begin // BATCH % HOURS * HOUR
        commit(self._layout, [Event(f"m{n % 4}", float(n), hour + n / 1000) for n in range(begin, begin + BATCH)])
        self.least = self.most


class Reader(threading.Thread):
    """Reads everything over and over. `looks`: how often; `wrong`: what it should not have read."""

    def __init__(self, layout: Layout, committed: Committed) -> None:
        super().__init__()
        self._reader = EventReader(layout)
        self._committed = committed
        self.ended = threading.Event()
        self.looks = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.ended.is_set():
            least = self._committed.least
            try:
                count, total = self._reader.ask(self._sums)
            except Exception as error:
                self.wrong.append(repr(error))
                return
            self.looks += 1
            if not least <= count <= self._committed.most or total != count * (count + 1) / 2:
                self.wrong.append(f"{count} events, sum {total}, of {least} to {self._committed.most}")

    def _sums(self, snapshot: Snapshot) -> tuple[int, float]:
        rows = self._reader.steps(snapshot.files(snapshot.hours()), Wanted(0, 4e9), None)
        return sum(row.lines for row in rows), sum(row.window.sum for row in rows)


class Compactors:
    """Starts compactors, one at a time, and kills them."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(PROGRAM), str(folder)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, order: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=DEADLINE)


@contextmanager
def reading(layout: Layout, committed: Committed) -> Iterator[Reader]:
    reader = Reader(layout, committed)
    reader.start()
    try:
        yield reader
    finally:
        reader.ended.set()
        reader.join()


def kill_at_random(layout: Layout, kills: int) -> None:
    chance = random.Random(kills)
    committed = Committed(layout)
    committed.commit()
    compactors = Compactors(layout.root)
    try:
        with reading(layout, committed) as reader:
            for _ in range(kills):
                pid = compactors.ask("start")
                end = time.monotonic() + chance.uniform(0, LONGEST)
                while time.monotonic() < end:
                    committed.commit()
                    time.sleep(0.02)  # spreads the events over the compactor's life; nothing is waited for
                os.kill(pid, signal.SIGKILL)
                assert compactors.ask("wait") == -signal.SIGKILL
            assert reader.wrong == []
            assert reader.looks > kills // 2
            pid = compactors.ask("start")
            wait_until(lambda: is_compacted(layout), 60)
            os.kill(pid, signal.SIGKILL)
            compactors.ask("wait")
        assert reader.wrong == []
    finally:
        compactors.close()
    assert dict(values(layout)) == dict.fromkeys(map(float, range(1, committed.most + 1)), 1)


def is_compacted(layout: Layout) -> bool:
    """Whether there is a part for each day and nothing else; not even what those who were killed had in the making."""
    try:
        held = Holdings(layout, lambda shard: 1).look()
    except FileNotFoundError:
        return False
    merged = all(one.view.day is not None and not one.pending for one in held)
    files = [path for path in layout.events.rglob("*") if path.is_file()]
    making = [path for path in layout.compacting.glob("*") if path.is_dir()]
    return merged and len(files) == len(held) and len(making) <= 1


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    layout.create()
    return layout


def test_a_compactor_killed_at_25_moments_loses_and_doubles_nothing(layout: Layout) -> None:
    kill_at_random(layout, 25)


@pytest.mark.soak
def test_a_compactor_killed_at_two_hundred_moments_loses_and_doubles_nothing(layout: Layout) -> None:
    kill_at_random(layout, 200)

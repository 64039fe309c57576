"""A compactor that drops dates, or moves them out, and is killed at any moment: a date is there whole, or is gone, and
what lies outside is not missed."""

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.feeding import event
from tests.support.processes import RoleProcess, StartRole
from tests.support.segments import ALL, commit
from tests.support.storages import s3_server
from tests.support.waiting import WaitUntil
from vibezen.metrics.clock import DAY
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.keys import ARCHIVE, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.parts import date_of
from vibezen.metrics.snapshot import Snapshot

FIRST = 1_756_684_800
"""2025-09-01T00:00:00Z."""
DAYS = 8
KILLS = 3
PER_DAY = 24


@pytest.fixture
def layout(tmp_path: Path, client: redis.Redis) -> Layout:
    client.set(Keys().fence(0, ARCHIVE), "1:an archiver that nobody has replaced")
    layout = Layout(tmp_path / "store")
    layout.create()
    events = [event(float(n), FIRST + n // PER_DAY * DAY + n % PER_DAY * 1800.0) for n in range(DAYS * PER_DAY)]
    commit(layout, events, at=FIRST)
    return layout


def by_date(layout: Layout) -> Counter[int]:
    reader = EventReader(layout)

    def count(snapshot: Snapshot) -> Counter[int]:
        lines = reader.lines(snapshot.files(snapshot.hours()), ALL, 100_000)
        assert len({line.value for line in lines}) == len(lines)
        return Counter((date_of(int(line.ts)) - FIRST) // DAY for line in lines)

    return reader.ask(count)


def start(start_role: StartRole, layout: Layout, url: str, settings: str, **environment: str) -> RoleProcess:
    config = layout.root.parent / "vibezen.yaml"
    config.write_text(
        f"vibezen: {{metrics: {{storage_dir: {layout.root}, redis: {{url: '{url}'}}, "
        f"compaction: {{grace_seconds: 0.01}}, {settings}}}}}"
    )
    return start_role("consume", "compact", "--once", "--config", str(config), **environment)


def kill_now_and_then(once: Callable[[], RoleProcess], check: Callable[[], None]) -> None:
    chance = random.Random(5)
    for _ in range(KILLS):
        process = once()
        time.sleep(chance.uniform(0.9, 2.2))  # a moment of its work; nothing is waited for
        process.kill()
        check()


def test_dates_that_are_moved_are_never_missed(
    layout: Layout, redis_url: str, start_role: StartRole, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Counter(dict.fromkeys(range(DAYS), PER_DAY))
    with s3_server() as server:
        url = server.use(monkeypatch, "bucket")
        settings = f"retention_days: 100000, external: {{url: '{url}', after_days: 7}}"

        def once() -> RoleProcess:
            return start(start_role, layout, redis_url, settings)

        def check() -> None:
            assert by_date(layout) == whole

        kill_now_and_then(once, check)

        def settled() -> bool:
            assert once().wait() == 0
            check()
            left = [path for path in layout.events.rglob("*") if path.is_file()]
            return len(left) == DAYS and all(path.stat().st_size < 10_000 for path in left)

        wait_until(settled, 60.0)


def test_dates_that_are_dropped_go_whole(
    layout: Layout, redis_url: str, start_role: StartRole, wait_until: WaitUntil
) -> None:
    kept = DAYS // 2
    settings = f"retention_days: {int((time.time() - FIRST) / DAY) - kept}"

    def once() -> RoleProcess:
        return start(start_role, layout, redis_url, settings)

    def check() -> None:
        found = by_date(layout)
        assert all(found[number] in (0, PER_DAY) for number in range(DAYS))
        assert all(found[number] == PER_DAY for number in range(kept, DAYS))

    kill_now_and_then(once, check)

    def settled() -> bool:
        assert once().wait() == 0
        check()
        return set(by_date(layout)) == set(range(kept, DAYS))

    wait_until(settled, 60.0)

"""The compactor as people start it: against a server, one at a time."""

import os
import signal
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest
import redis

from tests.support.feeding import NOON, event
from tests.support.processes import PythonProcess, StartRole
from tests.support.segments import commit, seal, values
from tests.support.waiting import WaitUntil
from vibezen.metrics.clock import HOUR
from vibezen.metrics.consumers.lease import LEASE_MS
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout

KEYS = Keys()


@pytest.fixture
def filled(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Two past hours, written long ago and kept all the same, of a shard whose owner is gone."""
    monkeypatch.setenv("VIBEZEN_METRICS__RETENTION_DAYS", "100000")
    commit(layout, [event(1, NOON), event(2, NOON + 1), event(3, NOON + HOUR)], at=NOON)
    seal(layout)
    return layout


def parts(layout: Layout) -> list[str]:
    return sorted(path.relative_to(layout.events).as_posix() for path in layout.events.rglob("part-*.parquet"))


def test_once_compacts_what_is_due_and_a_dry_run_only_says_so(
    filled: Layout, redis_url: str, client: redis.Redis, start_role: StartRole
) -> None:
    where = ("--redis-url", redis_url, "--storage-dir", str(filled.root))
    dry = start_role("consume", "compact", "--once", "--dry-run", *where)
    assert dry.wait() == 0
    assert "hour 2025-11-24T12: 1 segments (2 events," in dry.said
    assert parts(filled) == []
    once = start_role("consume", "compact", "--once", *where)
    assert once.wait() == 0, once.said
    assert parts(filled)[-1] == "date=2025-11-24/part-1.parquet"
    assert values(filled) == Counter([1, 2, 3])
    books = client.hgetall(KEYS.compact_books)
    assert (books[b"waiting_hours"], books[b"damaged"]) == (b"0", b"0")
    assert client.get(KEYS.compact_lease) is None
    dry = start_role("consume", "compact", "--dry-run", *where)
    assert (dry.wait(), dry.said.strip()) == (0, "nothing is due")


def test_dry_run_without_a_server_is_one_line(filled: Layout, start_role: StartRole) -> None:
    away = "redis://127.0.0.1:1"
    dry = start_role("consume", "compact", "--dry-run", "--redis-url", away, "--storage-dir", str(filled.root))
    assert dry.wait() == 1
    (line,) = dry.said.splitlines()
    assert f"{away}: no Redis or Valkey answers" in line


def test_one_compacts_and_the_next_one_begins_when_it_ends(
    filled: Layout, redis_url: str, client: redis.Redis, start_role: StartRole, wait_until: WaitUntil
) -> None:
    where = ("--redis-url", redis_url, "--storage-dir", str(filled.root))
    first = start_role("consume", "compact", *where)
    wait_until(lambda: client.get(KEYS.compact_lease))
    second = start_role("consume", "compact", *where)
    wait_until(lambda: client.hget(KEYS.compact_books, "updated"))
    holder = client.get(KEYS.compact_lease)
    waiting = start_role("consume", "compact", "--once", *where)
    assert waiting.wait() == 0
    assert "another process is at work" in waiting.said
    assert first.stop() == 0, first.said
    wait_until(lambda: client.get(KEYS.compact_lease) not in (None, holder))
    assert second.stop() == 0, second.said
    assert list(filled.compacting.iterdir()) == []


def test_who_slept_through_its_lease_stops_and_begins_anew_behind_the_next(
    filled: Layout, redis_url: str, client: redis.Redis, start_role: StartRole, wait_until: WaitUntil
) -> None:
    where = ("--redis-url", redis_url, "--storage-dir", str(filled.root))
    sleeper = start_role("consume", "compact", *where)
    wait_until(lambda: client.get(KEYS.compact_lease))
    os.kill(sleeper.pid, signal.SIGSTOP)
    holder = client.get(KEYS.compact_lease)
    client.delete(KEYS.compact_lease)  # it would run out by itself, in LEASE_MS
    successor = start_role("consume", "compact", *where)
    wait_until(lambda: client.get(KEYS.compact_lease) not in (None, holder))
    os.kill(sleeper.pid, signal.SIGCONT)
    wait_until(lambda: "taken over" in sleeper.said)
    assert int(client.pttl(KEYS.compact_lease)) <= LEASE_MS
    assert (successor.stop(), sleeper.stop()) == (0, 0)
    assert values(filled) == Counter([1, 2, 3])


def test_without_duckdb_it_says_in_one_line_what_to_install(tmp_path: Path, redis_url: str, layout: Layout) -> None:
    code = """
        import sys
        sys.modules["duckdb"] = None
        from vibezen.metrics.cli import main
        main()
        """
    where = ("--redis-url", redis_url, "--storage-dir", str(layout.root))
    arguments = ("consume", "compact", "--once", *where)
    process = PythonProcess(tmp_path / "said", "-c", textwrap.dedent(code), *arguments)
    assert process.wait() == 2
    assert process.said.count("\n") == 1
    assert "pip install 'vibezen-metrics[server]'" in process.said
    assert sys.executable not in process.said

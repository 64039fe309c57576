"""An import that is killed at any moment and started again: each event once, in the stream and on disk."""

import random
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.support.feeding import lag, values_on_disk
from tests.support.processes import RoleProcess, StartRole
from tests.support.proxy import StartProxy
from tests.support.servers import SURE, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics.batch import read_entry
from vibezen.metrics.keys import Keys

KEYS = Keys()
ROWS: Final = 150_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.csv"
    rows = (f"{1_700_000_000 + row / 100:.2f},{row},{row + ROWS}\n" for row in range(ROWS))
    path.write_text("ts,a,b\n" + "".join(rows))
    return path


def shortened(path: Path, rows: int) -> int:
    """For tests that may find the import at its end when they look."""
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: rows + 1]))
    return rows


def both_of_each(rows: int) -> Counter[float]:
    """What these rows say."""
    return Counter(float(value) for row in range(rows) for value in (row, row + ROWS))


def start(start_role: StartRole, path: Path, url: str) -> RoleProcess:
    events = ("--event", "m={a}", "--event", "m={b},type=output")
    return start_role("import", str(path), *events, "--redis-url", url)


def appended(client: redis.Redis) -> int:
    stored: Any = client.hvals(KEYS.producers(0))
    return sum(int(told.split()[0]) for told in stored)


def reached(client: redis.Redis, role: RoleProcess, target: int) -> bool:
    return appended(client) >= target or not role.running()


def numbers(client: redis.Redis) -> list[tuple[int, int]]:
    """(first number, events) of every entry."""
    found: Any = client.xrange(KEYS.events(0))
    entries = [read_entry(entry_id, fields) for entry_id, fields in found]
    return [(entry.seq, entry.n) for entry in entries]


def assert_exact(client: redis.Redis, rows: int = ROWS) -> None:
    """Every number once and in order."""
    expected = 1
    for seq, n in numbers(client):
        assert seq == expected
        expected += n
    assert expected == 2 * rows + 1


def test_killed_at_random_moments_and_started_again_each_event_is_there_once(
    client: redis.Redis, redis_url: str, path: Path, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    chance, rows = random.Random(5), shortened(path, 60_000)
    kills = 0
    while kills < 8:
        role = start(start_role, path, redis_url)
        target = appended(client) + chance.randrange(1, 16_000)
        wait_until(partial(reached, client, role, target))
        if not role.running():
            break
        role.kill()
        kills += 1
    last = start(start_role, path, redis_url)
    assert last.wait() == 0, last.said
    assert kills >= 5
    assert_exact(client, rows)
    store = tmp_path / "store"
    archive = start_role("consume", "archive", "--once", "--redis-url", redis_url, "--storage-dir", str(store))
    assert archive.wait(60) == 0, archive.said
    assert values_on_disk(store) == both_of_each(rows)


def test_a_tenth_of_all_replies_lost_adds_nothing(
    client: redis.Redis,
    redis_url: str,
    path: Path,
    start_role: StartRole,
    start_proxy: StartProxy,
    wait_until: WaitUntil,
) -> None:
    rows = shortened(path, 50_000)
    proxy = start_proxy(redis_url)
    role = start(start_role, path, proxy.url)
    wait_until(partial(appended, client))  # at the start, a server that does not answer is an error
    proxy.cut_share(0.1, seed=2)
    assert role.wait(60) == 0, role.said
    assert proxy.cuts > 2
    assert_exact(client, rows)


def test_a_server_killed_in_the_middle_is_waited_for(
    path: Path, start_server: StartServer, start_role: StartRole, wait_until: WaitUntil
) -> None:
    server = start_server(None, *SURE)
    with server.client() as client:
        role = start(start_role, path, server.url)
        wait_until(partial(appended, client))
        server.kill()
        wait_until(lambda: "takes no events now" in role.said)
        assert role.running()
        server.start()
        assert role.wait(60) == 0, role.said
        assert role.said.count("takes no events now") == 1
        assert_exact(client)


def test_ctrl_c_ends_it_in_order_and_the_same_command_goes_on(
    client: redis.Redis, redis_url: str, path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    role = start(start_role, path, redis_url)
    wait_until(partial(appended, client))
    assert role.stop() == 1
    there = appended(client)
    assert f"interrupted: {there:,} events are in the stream; run the same command again to go on" in role.said
    again = start(start_role, path, redis_url)
    assert again.wait() == 0
    assert f"{2 * ROWS - there:,} appended, {there:,} there already" in again.said
    assert_exact(client)


def test_readers_at_work_see_each_event_once(
    client: redis.Redis, redis_url: str, path: Path, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    store, rows = tmp_path / "store", shortened(path, 50_000)
    roles = [
        start_role("consume", group, "--redis-url", redis_url, "--storage-dir", str(store))
        for group in ("archive", "aggregate")
    ]
    role = start(start_role, path, redis_url)
    assert role.wait(60) == 0, role.said
    wait_until(lambda: all(lag(client, group) == 0 for group in ("archive", "aggregate")), 60)
    assert [consumer.stop() for consumer in roles] == [0, 0]
    assert values_on_disk(store) == both_of_each(rows)

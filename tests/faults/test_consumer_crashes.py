"""Owners that are killed, put to sleep and cut off: each event stays on disk once and in the windows once."""

import json
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import duckdb
import pytest
import redis

from tests.support.feeding import Feed, event, lag, total, values_on_disk
from tests.support.processes import RoleProcess, StartRole
from tests.support.proxy import StartProxy
from tests.support.servers import SURE, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics.keys import Keys

KEYS = Keys()
EVENTS: Final = 20_000
BATCH: Final = 20
GROUPS: Final = ("archive", "aggregate")
DRAIN: Final = 60.0
"""Seconds in which everything must be read after the last fault: a lease and some take-overs."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def start(start_role: StartRole, group: str, url: str, store: Path) -> RoleProcess:
    return start_role("consume", group, "--redis-url", url, "--storage-dir", str(store))


@contextmanager
def feeding(url: str, *, events: int = EVENTS, producers: int = 4) -> Iterator[threading.Thread]:
    """Append values 0 … events - 1, spread over the run, with several producers taking turns."""

    def feed() -> None:
        with redis.Redis.from_url(url) as client:
            feeds = [Feed(client, f"p{number}") for number in range(producers)]
            for start in range(0, events, BATCH):
                now = time.time()
                batch = [event(value, now - value % 30) for value in range(start, start + BATCH)]
                feeds[start // BATCH % producers].append(batch)
                time.sleep(0.005)  # spreads the events over the faults; nothing is waited for

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()


def owner(client: redis.Redis, group: str) -> bytes | None:
    held = client.get(KEYS.lease(0, group))
    return held if isinstance(held, bytes) else None


def replaced(client: redis.Redis, group: str, before: bytes | None) -> bool:
    return owner(client, group) not in (None, before)


def moved_on(client: redis.Redis, group: str, position: object) -> bool:
    """Whether the group has committed something since it stood at `position`, or has nothing left to commit."""
    return client.hget(KEYS.books(0), f"{group}.position") != position or drained(client, group)


def assert_exact(client: redis.Redis, store: Path, events: int = EVENTS) -> None:
    """lost 0, double 0, sum error 0."""
    on_disk = values_on_disk(store)
    assert [value for value, times in on_disk.items() if times > 1] == []
    assert set(on_disk) == {float(value) for value in range(events)}
    for width in (10, 60):
        window = total(client, width)
        assert (window.count, window.sum) == (events, float(sum(range(events))))


def drained(client: redis.Redis, *groups: str) -> bool:
    return all(lag(client, group) == 0 for group in groups or GROUPS)


def test_owners_killed_at_random_lose_and_double_nothing(
    client: redis.Redis, redis_url: str, store: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    chance = random.Random(1)
    roles = {group: start(start_role, group, redis_url, store) for group in GROUPS}
    with feeding(redis_url) as feeder:
        kills = 0
        while feeder.is_alive() and kills < 12:
            group = chance.choice(GROUPS)
            seen = client.hget(KEYS.books(0), f"{group}.position")
            wait_until(partial(moved_on, client, group, seen))
            roles[group].kill()
            client.delete(KEYS.lease(0, group))  # the lease would run out by itself; this only saves the waiting
            roles[group] = start(start_role, group, redis_url, store)
            kills += 1
    wait_until(lambda: drained(client) and all(owner(client, group) for group in GROUPS), DRAIN)
    for role in roles.values():
        assert role.stop() == 0
    assert_exact(client, store)
    assert kills >= 4


def test_an_owner_that_slept_past_its_lease_writes_into_nothing(
    client: redis.Redis, redis_url: str, store: Path, start_role: StartRole, wait_until: WaitUntil
) -> None:
    pairs = {group: [start(start_role, group, redis_url, store) for _ in range(2)] for group in GROUPS}
    with feeding(redis_url):
        for _ in range(2):
            wait_until(lambda: all(owner(client, group) for group in GROUPS))
            before = {group: owner(client, group) for group in GROUPS}
            sleepers = [holder(pair, before[group]) for group, pair in pairs.items()]
            for sleeper in sleepers:
                sleeper.pause()
            wait_until(lambda: all(replaced(client, group, before[group]) for group in GROUPS), DRAIN)  # noqa: B023 - called at once
            for sleeper in sleepers:
                sleeper.resume()
    wait_until(lambda: drained(client), DRAIN)
    assert_exact(client, store)
    assert_readers_see(store, EVENTS)
    for role in (role for pair in pairs.values() for role in pair):
        assert role.stop() == 0
    assert_readers_see(store, EVENTS)


def holder(pair: list[RoleProcess], lease: bytes | None) -> RoleProcess:
    """Which of the two holds the lease."""
    one, other = pair
    return one if lease is not None and f":{one.pid}:".encode() in lease else other


def assert_readers_see(store: Path, events: int) -> None:
    """What `jq` and DuckDB make of the folder, with no knowledge of commit logs."""
    pattern = f"{store}/events/*/*/*.jsonl"
    question = "select count(*), count(distinct value) from read_json(?, format='nd')"
    with duckdb.connect() as connection:
        answer = connection.execute(question, [pattern])
        assert answer is not None
        (counted,) = answer.fetchall()
    assert counted == (events, events)
    if shutil.which("jq"):
        files = sorted(map(str, store.glob("events/*/*/*.jsonl")))
        said = subprocess.run(["jq", "-c", ".value", *files], capture_output=True, text=True, check=True).stdout
        assert Counter(map(json.loads, said.split())) == Counter(range(events))


def test_lost_replies_change_nothing(
    client: redis.Redis,
    redis_url: str,
    store: Path,
    start_role: StartRole,
    start_proxy: StartProxy,
    wait_until: WaitUntil,
) -> None:
    """A fifth of all answers never reach the consumers, commits among them."""
    proxy = start_proxy(redis_url)
    roles = [start(start_role, group, proxy.url, store) for group in GROUPS]
    wait_until(lambda: all(owner(client, group) for group in GROUPS))
    proxy.cut_share(0.2, seed=3)
    with feeding(redis_url, events=10_000):
        pass
    wait_until(lambda: proxy.cuts > 10, DRAIN)
    proxy.cut_share(0)
    wait_until(lambda: drained(client), DRAIN)
    assert_exact(client, store, 10_000)
    for role in roles:
        assert role.stop() == 0


def test_a_server_killed_under_load_comes_back_exact(
    store: Path, start_server: StartServer, start_role: StartRole, wait_until: WaitUntil
) -> None:
    server = start_server(None, *SURE)
    roles = [start(start_role, group, server.url, store) for group in GROUPS]
    events = 6000
    with server.client() as client:
        feeds = [Feed(client, f"p{n}") for n in range(2)]
        for start_value in range(0, events, 100):
            if start_value in (2000, 4000):
                server.kill()
                server.start()
            now = time.time()
            feeds[start_value // 100 % 2].append([event(v, now) for v in range(start_value, start_value + 100)])
        wait_until(lambda: drained(client), DRAIN)
        assert_exact(client, store, events)
    for role in roles:
        assert role.running()
        assert role.stop() == 0


@pytest.mark.parametrize("group", GROUPS)
def test_sigterm_under_load_hands_over_at_once(
    client: redis.Redis, redis_url: str, store: Path, start_role: StartRole, wait_until: WaitUntil, group: str
) -> None:
    role = start(start_role, group, redis_url, store)
    with feeding(redis_url, events=5000):
        wait_until(lambda: owner(client, group))
        assert role.stop(10) == 0
        assert owner(client, group) is None
        successor = start(start_role, group, redis_url, store)
        wait_until(lambda: owner(client, group))
    wait_until(lambda: drained(client, group), DRAIN)
    assert successor.stop() == 0

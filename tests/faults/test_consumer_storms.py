"""Several faults at once, in a short form and, marked soak, in the full measure of the promise."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.support.feeding import NOON, Feed, event, lag, lines_on_disk, total, values_on_disk
from tests.support.processes import RoleProcess, StartRole
from tests.support.proxy import StartProxy
from tests.support.servers import SURE, StartServer
from tests.support.waiting import WaitUntil
from vibezen.metrics.connection import UNREACHABLE, connect
from vibezen.metrics.consumers.lease import LEASE_MS
from vibezen.metrics.consumers.shard import Reader
from vibezen.metrics.event import encode_lines
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.layout import partition_of
from vibezen.metrics.producers.append import Batch, append

pytestmark = pytest.mark.server

KEYS = Keys()
BATCH: Final = 20
DRAIN: Final = 90.0
"""Seconds in which everything must be read after the last fault."""


class Appending:
    """Values 0, 1, 2, … by a producer that repeats what it got no answer for, until `stop`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.acknowledged = 0
        self.stop = threading.Event()

    def run(self) -> None:
        client = connect(self._url)
        try:
            while not self.stop.is_set():
                values = range(self.acknowledged, self.acknowledged + BATCH)
                lines = encode_lines([event(value, time.time()) for value in values])
                if self._append(client, lines):
                    self.acknowledged += BATCH
                self.stop.wait(0.01)  # spreads the events over the faults; nothing is waited for
        finally:
            client.close()

    def _append(self, client: redis.Redis, lines: bytes) -> bool:
        with suppress(*UNREACHABLE):
            append(client, KEYS, 0, "p", self.acknowledged + 1, [Batch(BATCH, lines)])
            return True
        return False


@contextmanager
def appending(url: str) -> Iterator[Appending]:
    made = Appending(url)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.stop.set()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def start(start_role: StartRole, group: str, url: str, store: Path) -> RoleProcess:
    return start_role("consume", group, "--redis-url", url, "--storage-dir", str(store))


def drained(client: redis.Redis) -> bool:
    return all(lag(client, group) == 0 for group in GROUPS)


def moved_on(client: redis.Redis, group: str, position: object) -> bool:
    return client.hget(KEYS.books(0), f"{group}.position") != position


def assert_exact(client: redis.Redis, store: Path, events: int) -> None:
    """lost 0, double 0, sum error 0."""
    assert values_on_disk(store) == Counter(map(float, range(events)))
    window = total(client)
    assert (window.count, window.sum) == (events, float(sum(range(events))))


@pytest.mark.parametrize(
    ("kills", "falls"),
    [(6, 2), pytest.param(60, 10, marks=pytest.mark.soak), pytest.param(100, 0, marks=pytest.mark.soak)],
)
def test_owners_and_server_killed_together(
    start_server: StartServer, store: Path, start_role: StartRole, wait_until: WaitUntil, kills: int, falls: int
) -> None:
    """C2, with an append-only file that is synced every second; the last is C1."""
    server, chance = start_server(None, *SURE), random.Random(2)
    roles = {group: start(start_role, group, server.url, store) for group in GROUPS}
    with server.client() as client, appending(server.url) as made:
        for number in range(kills):
            # Both: one that gets no answer at its start says so and ends.
            wait_until(lambda: all(client.get(KEYS.lease(0, name)) for name in GROUPS), DRAIN)
            group = chance.choice(GROUPS)
            seen = client.hget(KEYS.books(0), f"{group}.position")
            wait_until(partial(moved_on, client, group, seen), DRAIN)
            roles[group].kill()
            if falls and number % (kills // falls) == 0:
                server.kill()
                server.start()
            client.delete(KEYS.lease(0, group))  # it would run out by itself; this only saves the waiting
            roles[group] = start(start_role, group, server.url, store)
        made.stop.set()
    with server.client() as client:
        wait_until(lambda: drained(client), DRAIN)
        assert_exact(client, store, made.acknowledged)
    assert [role.stop() for role in roles.values()] == [0, 0]


@pytest.mark.soak
@pytest.mark.parametrize("group", GROUPS)
def test_owner_that_slept_for_three_leases(
    client: redis.Redis, redis_url: str, store: Path, start_role: StartRole, wait_until: WaitUntil, group: str
) -> None:
    """C3; in short form in test_consumer_crashes."""
    roles = [start(start_role, name, redis_url, store) for name in (*GROUPS, group)]
    with appending(redis_url) as made:
        for _ in range(3):
            holder: Any = wait_until(lambda: client.get(KEYS.lease(0, group)))
            sleeper = next(role for role in roles if f":{role.pid}:".encode() in holder)
            sleeper.pause()
            made.stop.wait(3 * LEASE_MS / 1000)
            assert client.get(KEYS.lease(0, group)) not in (None, holder)
            sleeper.resume()
    wait_until(lambda: drained(client), DRAIN)
    assert_exact(client, store, made.acknowledged)
    assert [role.stop() for role in roles] == [0, 0, 0]


@pytest.mark.parametrize("stalls", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_four_owners_that_stall_and_lose_replies(
    client: redis.Redis,
    redis_url: str,
    store: Path,
    start_role: StartRole,
    start_proxy: StartProxy,
    wait_until: WaitUntil,
    stalls: int,
) -> None:
    """C4: a fifth of the answers never come, and now and then one of them sleeps, sometimes past its lease."""
    proxy, chance = start_proxy(redis_url), random.Random(4)
    roles = [start(start_role, group, proxy.url, store) for group in (*GROUPS, *GROUPS)]
    # All four: one that gets no answer at its start says so and ends.
    wait_until(lambda: all(client.zcard(KEYS.members(group)) == 2 for group in GROUPS))
    proxy.cut_share(0.2, seed=4)
    with appending(redis_url) as made:
        for number in range(stalls):
            role = chance.choice(roles)
            role.pause()
            made.stop.wait(1.2 * LEASE_MS / 1000 if number % 6 == 5 else chance.uniform(0.05, 0.5))
            role.resume()
    assert proxy.cuts > stalls
    proxy.cut_share(0)
    wait_until(lambda: drained(client), DRAIN)
    assert_exact(client, store, made.acknowledged)
    assert [role.stop() for role in roles] == [0, 0, 0, 0], [role.said for role in roles]


def test_reads_that_are_cut_off_skip_nothing(
    client: redis.Redis, redis_url: str, start_proxy: StartProxy, wait_until: WaitUntil
) -> None:
    """C5: three hundred replies are lost, each with the entries in it, while others are appended."""
    proxy = start_proxy(redis_url)
    reading, cursor, seen = connect(proxy.url), "0-0", list[bytes]()
    reader = Reader(reading, KEYS.events(0))
    with appending(redis_url) as made:
        wait_until(lambda: made.acknowledged)
        proxy.cut(b"XREAD", times=300)
        while proxy.cuts < 300 or not seen or made.acknowledged > BATCH * len(seen):
            with suppress(*UNREACHABLE):
                found = [entry_id for entry_id, _ in reader.read(cursor, 1)]
                seen += found
                cursor = found[-1].decode() if found else cursor
            if proxy.cuts >= 300:
                made.stop.set()
    entries: Any = client.xrange(KEYS.events(0))
    assert seen == [entry_id for entry_id, _ in entries]
    reading.close()


@pytest.mark.parametrize(("seconds", "share"), [(4, 0.2), pytest.param(90, 0.02, marks=pytest.mark.soak)])
def test_idle_owners_stay_connected_and_cost_little(
    client: redis.Redis,
    redis_url: str,
    store: Path,
    start_role: StartRole,
    wait_until: WaitUntil,
    seconds: int,
    share: float,
) -> None:
    """C8, with the client's own settings, whose time limit must be longer than a blocking read."""
    roles = [start(start_role, group, redis_url, store) for group in GROUPS]
    wait_until(lambda: all("is ours" in role.said for role in roles))
    before, said = [cpu_seconds(role) for role in roles], [role.said for role in roles]
    threading.Event().wait(seconds)
    for role, used, heard in zip(roles, before, said, strict=True):
        assert cpu_seconds(role) - used < share * seconds
        assert role.said == heard, "there is nothing to say"
    assert all(client.get(KEYS.lease(0, group)) for group in GROUPS)
    assert [role.stop() for role in roles] == [0, 0]


def cpu_seconds(role: RoleProcess) -> float:
    fields = Path(f"/proc/{role.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.soak)])
def test_each_event_is_in_the_partition_of_its_time_around_midnight(
    client: redis.Redis, redis_url: str, store: Path, start_role: StartRole, wait_until: WaitUntil, kills: int
) -> None:
    """F5: late ones among them, and the archiver killed while it writes to both days."""
    midnight, chance, times = NOON + 12 * 3600, random.Random(5), list[float]()
    feed, role = Feed(client), start(start_role, "archive", redis_url, store)
    for _ in range(kills):
        seen = client.hget(KEYS.books(0), "archive.position")
        for _ in range(20):
            batch = [midnight + chance.choice([-3600, -1, -1e-6, 0, 1e-6, 1, 3600]) for _ in range(BATCH)]
            feed.append([event(len(times) + number, ts) for number, ts in enumerate(batch)])
            times += batch
        wait_until(partial(moved_on, client, "archive", seen))
        role.kill()
        client.delete(KEYS.lease(0, "archive"))
        role = start(start_role, "archive", redis_url, store)
    wait_until(lambda: lag(client, "archive") == 0 and client.get(KEYS.lease(0, "archive")), DRAIN)
    assert role.stop() == 0
    found = {path: lines_on_disk(path) for path in store.glob("events/*/*")}
    assert sum(map(len, found.values())) == len(times)
    for path, lines in found.items():
        assert {partition_of(line["ts"]) for line in lines} == {str(path.relative_to(store / "events"))}
        assert all(abs(line["ts"] - times[int(line["value"])]) < 1e-6 for line in lines)

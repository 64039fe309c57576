"""Questions asked all the while that owners write, seal, are killed, put to sleep and taken over from."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import pytest
import redis

from tests.support.feeding import Feed, event, lag
from tests.support.pipeline import Pipeline, values_of
from tests.support.processes import RoleProcess, StartRole
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.history import History
from vibezen.metrics.keys import Keys

pytestmark = pytest.mark.server

KEYS = Keys()
GROUPS: Final = ("archive", "aggregate")
OLD: Final = 1_700_157_600.0
HOURS: Final = 3
BATCH: Final = 10
SMALL: Final = {
    "VIBEZEN_METRICS__ARCHIVE__SEGMENT_BYTES": "4096",
    "VIBEZEN_METRICS__ARCHIVE__COMMIT_INTERVAL_SECONDS": "0.02",
    "VIBEZEN_METRICS__AGGREGATION__COMMIT_INTERVAL_SECONDS": "0.1",
}
"""Settings under which segments are closed all the time, and commits are many."""


class Appended:
    """Values 1, 2, 3, … of one producer, each once in an old hour (`number % HOURS`) and once now, until `stop`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.asked = 0
        """How many have been appended at most."""
        self.ended = threading.Event()

    def feed(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            feed = Feed(client)
            while not self.ended.is_set():
                numbers = range(self.asked + 1, self.asked + BATCH + 1)
                self.asked += BATCH
                past = [event(number, OLD + number % HOURS * 3600 + number / 1e4) for number in numbers]
                feed.append([*past, *(event(number, time.time(), "cost") for number in numbers)])
                self.ended.wait(0.003)  # spreads the events over the faults; nothing is waited for


@contextmanager
def appending(url: str) -> Iterator[Appended]:
    appended = Appended(url)
    thread = threading.Thread(target=appended.feed)
    thread.start()
    try:
        yield appended
    finally:
        appended.ended.set()
        thread.join()


def prefix_of(answer: History) -> int:
    """The number up to which everything is in an answer about the old hours, and nothing else."""
    told = [values_of(answer, agg).get((), [None] * HOURS) for agg in ("count", "sum", "max")]
    known = sum(count or 0 for count in told[0])
    for hour, (count, total, largest) in enumerate(zip(*told, strict=True)):
        members = [number for number in range(1, known + 1) if number % HOURS == hour]
        assert (count or 0, total or 0, largest or 0) == (len(members), sum(members), max(members, default=0))
    return known


class Asking:
    """Asks about the old hours and about now, and sees that each answer is what some prefix of the events gives."""

    def __init__(self, pipeline: Pipeline, client: redis.Redis, appended: Appended) -> None:
        self._pipeline, self._client, self._appended = pipeline, client, appended
        self.answers = 0
        self.seen = 0
        self.sources: set[str] = set()

    def run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self.about_the_past()
            self.about_now()
            self.answers += 1

    def about_the_past(self) -> None:
        asked: dict[str, Any] = {"since": OLD, "until": OLD + HOURS * 3600, "step": "1h", "agg": "count,sum,max"}
        known = prefix_of(self._pipeline.history(**asked))
        assert self.seen <= known <= self._appended.asked
        self.seen = known

    def about_now(self) -> None:
        books: Any = self._client.hgetall(KEYS.books(0))
        known = min(int(books.get(f"{group}.events".encode(), 0)) for group in GROUPS) // 2
        answer = self._pipeline.history("cost", since="now-2h", until="now-0s", step="1h", agg="count")
        count = sum(value or 0 for values in values_of(answer).values() for value in values)
        self.sources |= {source.source for source in answer.sources}
        assert known <= count <= self._appended.asked


def start(start_role: StartRole, group: str, url: str, store: Path) -> RoleProcess:
    return start_role("consume", group, "--redis-url", url, "--storage-dir", str(store), **SMALL)


def moved_on(client: redis.Redis, group: str, position: object) -> bool:
    return client.hget(KEYS.books(0), f"{group}.position") != position


def answered(asking: Asking, times: int, failures: list[BaseException]) -> bool:
    return asking.answers >= times or bool(failures)


@pytest.mark.parametrize("faults", [8, pytest.param(40, marks=pytest.mark.soak)])
def test_every_answer_is_whole_while_owners_are_killed_and_put_to_sleep(
    client: redis.Redis, redis_url: str, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil, faults: int
) -> None:
    chance = random.Random(5)
    store = tmp_path / "store"
    pipeline = Pipeline(client, redis_url, store)
    roles = {group: start(start_role, group, redis_url, store) for group in GROUPS}
    failures: list[BaseException] = []
    ended = threading.Event()
    with appending(redis_url) as appended:
        asking = Asking(pipeline, client, appended)

        def ask() -> None:
            try:
                asking.run(ended)
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for number in range(faults):
                group = chance.choice(GROUPS)
                seen, answers = client.hget(KEYS.books(0), f"{group}.position"), asking.answers
                wait_until(partial(moved_on, client, group, seen))
                sleeper = roles[group] if number % 3 == 0 else None
                if sleeper is not None:
                    sleeper.pause()
                else:
                    roles[group].kill()
                client.delete(KEYS.lease(0, group))  # it would run out by itself; this only saves the waiting
                roles[group] = start(start_role, group, redis_url, store)
                wait_until(partial(moved_on, client, group, client.hget(KEYS.books(0), f"{group}.position")))
                if sleeper is not None:
                    sleeper.resume()
                wait_until(partial(answered, asking, answers + 2, failures))
                if failures:
                    break
        finally:
            ended.set()
            thread.join()
    if failures:
        raise failures[0]
    wait_until(lambda: all(lag(client, group) == 0 for group in GROUPS))
    asking.about_the_past()
    assert asking.seen == appended.asked
    assert asking.answers >= 2 * faults
    assert len(list(pipeline.layout.segments())) > faults


PAST: Final = {"from": str(OLD), "to": str(OLD + HOURS * 3600), "step": "1h", "agg": "count,sum,max"}


def over_http(url: str) -> History:
    answer = httpx.get(f"{url}/api/metrics/history", params={"metric": "response_time", **PAST}, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=History)


def by_command(url: str, store: Path) -> History:
    options = [word for name, value in PAST.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "vibezen.metrics", "query", "response_time", "--json", *options]
    place = ("--redis-url", url, "--storage-dir", str(store))
    done = subprocess.run([*command, *place], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode(done.stdout, type=History)


def _listens(api: RoleProcess) -> bool:
    return "Dashboard: " in api.said


def test_every_reader_beside_the_writers_has_whole_answers(
    client: redis.Redis,
    redis_url: str,
    tmp_path: Path,
    start_role: StartRole,
    wait_until: WaitUntil,
    free_tcp_port_factory: Callable[[], int],
) -> None:
    """Two processes of the API, and the command line."""
    store = tmp_path / "store"
    place = ("--redis-url", redis_url, "--storage-dir", str(store))
    for group in GROUPS:
        start(start_role, group, redis_url, store)
    ports = [free_tcp_port_factory() for _ in range(2)]
    for api in [start_role("api", "--port", str(port), *place) for port in ports]:
        wait_until(partial(_listens, api))
    readers: list[Callable[[], History]] = [*(partial(over_http, f"http://127.0.0.1:{port}") for port in ports)]
    readers.append(partial(by_command, redis_url, store))
    with appending(redis_url) as appended, ThreadPoolExecutor() as threads:

        def ask(reader: Callable[[], History], times: int) -> None:
            seen = 0
            for _ in range(times):
                known = prefix_of(reader())
                assert seen <= known <= appended.asked
                seen = known

        asking = [threads.submit(ask, reader, times) for reader, times in zip(readers, (12, 12, 1), strict=True)]
        for reader in asking:
            reader.result()
    wait_until(lambda: all(lag(client, group) == 0 for group in GROUPS))
    assert [prefix_of(reader()) for reader in readers] == [appended.asked] * 3

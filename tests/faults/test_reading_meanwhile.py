"""Questions asked all the while that owners write, seal, are killed, put to sleep and taken over from."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from tests.support.feeding import Feed, event, lag
from tests.support.pipeline import Pipeline, values_of
from tests.support.processes import RoleProcess, StartRole
from tests.support.waiting import WaitUntil
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
        answer = self._pipeline.history(**asked)
        told = [values_of(answer, agg).get((), [None] * HOURS) for agg in ("count", "sum", "max")]
        known = sum(count or 0 for count in told[0])
        # Everything up to a number, and nothing else: no hour lacks or doubles any.
        for hour, (count, total, largest) in enumerate(zip(*told, strict=True)):
            members = [number for number in range(1, known + 1) if number % HOURS == hour]
            assert (count or 0, total or 0, largest or 0) == (len(members), sum(members), max(members, default=0))
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


def test_every_answer_is_whole_while_owners_are_killed_and_put_to_sleep(
    client: redis.Redis, redis_url: str, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil
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
            for number in range(16):
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
    assert asking.answers > 30
    assert len(list(pipeline.layout.segments())) > 20

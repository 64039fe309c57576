"""A replay: the events of the files once more, into another prefix, each once however often it is cut off."""

import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
import redis
from msgspec.structs import replace

from tests.support.feeding import event, lines_on_disk, values_on_disk
from tests.support.pipeline import Pipeline
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics.consumers.supervisor import run
from vibezen.metrics.errors import BadParameter, ImportStopped
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import Wanted
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.producers.importer_report import Balance
from vibezen.metrics.producers.replay import NOW, Order, Replayer
from vibezen.metrics.window import Window, from_blob

pytestmark = pytest.mark.server

AGAIN: Final = "again"
EVENTS: Final = 3000


class Replaying:
    """A store of half an hour of events, and another prefix with a store of its own."""

    def __init__(self, client: redis.Redis, url: str, folder: Path) -> None:
        self.client, self.url = client, url
        self.now = time.time()
        self.since = self.now // 60 * 60 - 2400
        self.first = Pipeline(client, url, folder / "first")
        redis_settings = replace(self.first.settings.redis, prefix=AGAIN)
        self.settings = replace(self.first.settings, redis=redis_settings, storage_dir=folder / "again")
        self.layout = Layout(folder / "again")
        self.layout.create()
        self.first.take_in([self._event(number) for number in range(EVENTS)])

    def _event(self, number: int) -> Event:
        ts = self.since + number * 0.6
        metric = ("response_time", "cost", "concurrency", "error_rate")[number % 4]
        made = event(float(number), ts, metric, provider=f"p{number % 3}", session=f"s{number}")
        if metric == "concurrency":
            made.metadata["producer"] = f"one{number % 5}"
        made.count = 1 + number % 2
        if number % 7 == 0:
            made.sample_rate = 0.5
        return made

    def order(self, **given: Any) -> Order:
        return Order(Wanted(self.since, self.now), **given)

    def replay(self, stop_after: int | None = None, order: Order | None = None, prefix: str = AGAIN) -> Balance:
        stop = threading.Event()

        def progress(done: int, total: int | None) -> None:
            if stop_after is not None and done >= stop_after:
                stop.set()

        replayer = Replayer(self.first.reader, order or self.order(), stop, progress, lambda: self.now)
        return replayer.append(self.first.settings, prefix, lambda line: None)

    def consume(self) -> None:
        assert run("archive", self.settings, once=True) == 0
        assert run("aggregate", self.settings, once=True) == 0


@pytest.fixture
def replaying(client: redis.Redis, redis_url: str, tmp_path: Path) -> Replaying:
    return Replaying(client, redis_url, tmp_path)


def windows(client: redis.Redis, prefix: str, shift: int = 0) -> dict[tuple[str, int], dict[str, Window]]:
    """Every stored window and total: by its kind and width, and its start before the shift."""
    found = {}
    for name in client.scan_iter(f"{prefix}:{{0}}:[wt]:*"):
        kind, width, start = name.decode().split(":")[2:]
        stored: Any = client.hgetall(name)
        series = {key.decode(): from_blob(blob) for key, blob in stored.items()}
        found[f"{kind}:{width}", int(start) - shift] = series
    return found


def assert_equal(first: Any, second: Any, shift: int = 0) -> None:
    assert first.keys() == second.keys()
    for place, series in first.items():
        assert series.keys() == second[place].keys()
        for key, window in series.items():
            other = second[place][key]
            assert (other.count, other.min, other.max) == (window.count, window.min, window.max)
            assert (other.last, other.last_ts) == (window.last, window.last_ts + shift)
            assert other.sum == pytest.approx(window.sum, rel=1e-9)
            assert (other.positive, other.negative, other.zero) == (window.positive, window.negative, window.zero)


def test_windows_and_lines_of_the_other_prefix_equal_the_first(replaying: Replaying) -> None:
    before = replaying.client.xlen(Keys().events(0))
    balance = replaying.replay()
    replaying.consume()
    assert (balance.appended, balance.already_there, balance.complete) == (EVENTS, 0, True)
    first = windows(replaying.client, "vibezen")
    assert len(first) > 400
    assert_equal(first, windows(replaying.client, AGAIN))

    def lines(root: Path) -> Counter[str]:
        return Counter(json.dumps(line, sort_keys=True) for line in lines_on_disk(root))

    assert lines(replaying.layout.root) == lines(replaying.first.layout.root)
    assert replaying.client.xlen(Keys().events(0)) == before, "never the live stream again"


@pytest.mark.parametrize("order", [Order(Wanted(0, 0)), Order(Wanted(0, 0), shift=NOW)], ids=["as it was", "moved"])
def test_a_replay_that_is_cut_off_goes_on_and_doubles_nothing(
    replaying: Replaying, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibezen.metrics.export.BLOCK_ROWS", 700)
    monkeypatch.setattr("vibezen.metrics.producers.importer_delivery.CALL_BATCHES", 1)
    order = order._replace(wanted=replaying.order().wanted)
    cut = replaying.replay(700, order)
    assert not cut.complete
    assert 0 < cut.appended < EVENTS
    replaying.now += 3600
    whole = replaying.replay(None, order)
    assert (whole.already_there, whole.appended, whole.complete) == (cut.appended, EVENTS - cut.appended, True)
    twice = replaying.replay(None, order)
    assert (twice.already_there, twice.appended) == (EVENTS, 0)
    replaying.consume()
    assert values_on_disk(replaying.layout.root) == Counter(map(float, range(EVENTS)))


def test_times_are_moved_so_that_the_range_ends_now(replaying: Replaying) -> None:
    replaying.now += 900
    order = replaying.order(shift=NOW)._replace(wanted=Wanted(replaying.since, replaying.since + 1800))
    replaying.replay(None, order)
    replaying.consume()
    shift = int((replaying.now - replaying.since - 1800) // 60 * 60)
    times = [line["ts"] for line in lines_on_disk(replaying.layout.root)]
    assert min(times) == replaying.since + shift
    assert 0 <= replaying.now - max(times) < 62


def test_the_own_prefix_is_refused_under_whatever_settings(replaying: Replaying) -> None:
    with pytest.raises(BadParameter, match="would count twice"):
        replaying.replay(prefix="vibezen")
    other = replace(replaying.first.settings, redis=replace(replaying.first.settings.redis, prefix="other"))
    replayer = Replayer(replaying.first.reader, replaying.order(), threading.Event(), lambda done, total: None)
    with pytest.raises(BadParameter, match="would count twice"):
        replayer.append(other, "vibezen", lambda line: None)
    assert replaying.client.xlen(Keys().events(0)) <= EVENTS / 500


def test_a_range_that_has_changed_is_refused(replaying: Replaying) -> None:
    replaying.replay()
    replaying.first.take_in([event(7, replaying.since + 1)], "late")
    with pytest.raises(ImportStopped, match="differ"):
        replaying.replay()


def test_a_killed_replay_with_a_pace_goes_on_when_it_is_run_again(
    replaying: Replaying, start_role: StartRole, wait_until: WaitUntil
) -> None:
    def start(speed: str) -> Any:
        where = ("--storage-dir", str(replaying.first.layout.root), "--redis-url", replaying.url)
        times = ("--from", repr(replaying.since), "--to", repr(replaying.now))
        return start_role("replay", *where, *times, "--into-prefix", AGAIN, "--speed", speed)

    slow = start("300")
    wait_until(lambda: replaying.client.xlen(Keys(AGAIN).events(0)) >= 2)
    slow.kill()
    last = start("max")
    assert last.wait() == 0, last.said
    replaying.consume()
    assert values_on_disk(replaying.layout.root) == Counter(map(float, range(EVENTS)))
    assert_equal(windows(replaying.client, "vibezen"), windows(replaying.client, AGAIN))


def test_lines_are_printed_in_order_of_time(replaying: Replaying) -> None:
    printed: list[bytes] = []
    replayer = Replayer(replaying.first.reader, replaying.order(), threading.Event(), lambda done, total: None)
    assert replayer.show(printed.append)
    values = [json.loads(line)["value"] for line in b"".join(printed).splitlines()]
    assert values == [float(number) for number in range(EVENTS)]

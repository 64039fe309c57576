"""The spool: what the server does not take is on disk, in order, within its bound, and sent when it can be."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import redis

from tests.producers.conftest import Arrived, MakeCollector
from tests.support.proxy import StartProxy
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector, MetricType
from vibezen.metrics.config import load
from vibezen.metrics.event import Event
from vibezen.metrics.keys import Keys
from vibezen.metrics.producer_stats import Stats
from vibezen.metrics.producers.adopter import Adopter
from vibezen.metrics.producers.append import Batch
from vibezen.metrics.producers.append_call import AppendCall, Damaged, Expired, decode_call, encode_call
from vibezen.metrics.producers.buffer import Buffer
from vibezen.metrics.producers.call_maker import CallMaker
from vibezen.metrics.producers.outbox import Outbox
from vibezen.metrics.producers.spool import MAX_AGE, Spool, SpoolFull
from vibezen.metrics.producers.spool_folder import LOCK, SpoolFolder, take
from vibezen.metrics.producers.uplink import Uplink
from vibezen.metrics.settings import Collection, Durability, Redis, Settings
from vibezen.metrics.settings import Spool as SpoolSettings

AWAY: Final = "redis://127.0.0.1:1/0"
MIB: Final = 1_048_576


def call(first: int = 1, events: int = 3, size: int = 100, producer: str = "p", made: float = 2e9) -> AppendCall:
    payload = b"x" * (size - 1) + b"\n"
    return AppendCall("vibezen", producer, 0, first, [Batch(events, payload)], b"{}", made)


def record(collector: MetricsCollector, values: range, **metadata: str) -> None:
    for value in values:
        collector.record_nowait("m", value, metadata)


def spooled_files(root: Path) -> list[Path]:
    return sorted(root.glob("spool/*/*.batch"), key=lambda path: int(path.name.partition("-")[0]))


def spooled(collector: MetricsCollector, events: int) -> bool:
    return collector.stats().spooled == events


def balances(stats: Stats) -> bool:
    settled = stats.appended + sum(stats.refused.values()) + sum(stats.dropped.values())
    return stats.recorded == settled + stats.buffered + stats.in_flight + stats.spooled


# --- a file


def test_a_call_comes_back_as_it_was_written() -> None:
    original = call(first=7)
    assert decode_call(encode_call(original)) == original


def test_a_file_with_any_byte_changed_or_missing_is_damaged() -> None:
    data = encode_call(call(size=40))
    for at in range(len(data)):
        with pytest.raises(Damaged):
            decode_call(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(Damaged):
            decode_call(data[:at])


# --- a spool by itself


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", "p", 5000, tmp_path / "quarantine")


def test_calls_come_out_in_the_order_of_their_numbers_and_are_readable_by_nobody_else(
    spool: Spool, tmp_path: Path
) -> None:
    for first in (1, 4, 1000):
        spool.put(call(first))
    assert [spool.read(file).first for file in spool.files] == [1, 4, 1000]
    for folder in (spool.root, spool.path):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in spool.path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_full_spool_makes_room_by_its_oldest_but_never_by_the_call_that_may_be_with_the_server(spool: Spool) -> None:
    for first in (1, 4, 7, 10):
        spool.put(call(first, size=1000))
    assert [file.first for file in spool.make_room(1500, spare=1)] == [4]
    assert [file.first for file in spool.files] == [1, 7, 10]
    with pytest.raises(SpoolFull):
        spool.make_room(4500, spare=1)
    assert [file.first for file in spool.files] == [1, 7, 10], "nothing is dropped in vain"


def test_the_bound_counts_what_other_producers_hold(spool: Spool, tmp_path: Path) -> None:
    other = Spool(tmp_path / "spool", "0" * 32, 5000, tmp_path / "quarantine")
    other.put(call(size=4000))
    with pytest.raises(SpoolFull):
        spool.make_room(1000, spare=None)


def test_a_spool_is_held_by_one_process_at_a_time_and_leaves_nothing_when_empty(spool: Spool) -> None:
    spool.put(call())
    assert take(spool.path) is None
    spool.remove(spool.files[0])
    spool.close(call(events=0))
    assert not spool.path.exists()


def test_a_folder_removed_under_its_holder_is_made_anew(spool: Spool) -> None:
    spool.put(call(1))
    shutil.rmtree(spool.path)
    spool.put(call(4))
    assert spool.read(spool.files[1]).first == 4
    assert take(spool.path) is None


def test_a_lock_removed_under_its_holder_is_held_anew(spool: Spool) -> None:
    spool.put(call(1))
    (spool.path / LOCK).unlink()
    spool.put(call(4))
    assert take(spool.path) is None
    assert [spool.read(file).first for file in spool.files] == [1, 4]


def test_who_came_to_hold_a_spool_that_is_in_use_removes_only_what_it_has_seen(spool: Spool) -> None:
    spool.put(call(1))
    (spool.path / LOCK).unlink()
    other = take(spool.path)
    assert other is not None
    seen = other.files()
    with pytest.raises(OSError, match="another process holds the spool"):
        spool.put(call(4))
    (spool.path / LOCK).unlink()
    spool.put(call(4))
    other.remove(seen)
    assert sorted(path.name for path in spool.path.iterdir()) == ["4-3.batch", LOCK]
    assert take(spool.path) is None


def test_a_call_older_than_servers_remember_numbers_is_not_sent(spool: Spool) -> None:
    spool.put(call(1, made=1e9))
    spool.put(call(4))
    with pytest.raises(Expired):
        spool.read(spool.files[0])
    assert MAX_AGE < 30 * 86_400


def test_what_is_new_queues_behind_what_is_in_the_spool(spool: Spool) -> None:
    """A stream takes a producer's numbers in their order: lower ones that come later would be taken for repeated."""
    buffer = Buffer(10)
    outbox = Outbox(buffer, CallMaker(Settings(), buffer), spool, lambda: None, disk_first=False)
    buffer.events.append(Event("m", 1.0, time.time()))
    failed, _ = outbox.next(1, tell_drops=False)
    assert failed is not None
    outbox.keep()
    buffer.events.append(Event("m", 2.0, time.time()))
    assert outbox.next(1, tell_drops=False) == (spool.read(spool.files[0]), 1)
    outbox.landed(failed, 1)
    following, _ = outbox.next(1, tell_drops=False)
    assert following is not None
    assert (failed.first, following.first) == (1, 2)


# --- with a collector


def test_what_a_server_does_not_take_is_on_disk_and_arrives_in_order_once(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    proxy = start_proxy(redis_url)
    collector = make_collector(proxy.url, flush_interval_seconds=0.05)
    record(collector, range(1000))
    assert collector.flush_sync() == 0
    proxy.go_down()
    record(collector, range(1000, 9000))
    wait_until(lambda: collector.stats().spooled == 8000)
    assert collector.flush_sync(0.01) == 8000, "on this machine's disk is not on the server"
    assert spooled_files(tmp_path / "metrics_data")
    assert balances(collector.stats())
    proxy.come_back()
    assert collector.flush_sync(20) == 0
    assert arrived.values() == list(range(9000))
    assert spooled_files(tmp_path / "metrics_data") == []
    assert collector.stats() == Stats(recorded=9000, appended=9000, bound=100_000)


def test_while_a_server_is_away_files_are_few(
    make_collector: MakeCollector, tmp_path: Path, wait_until: WaitUntil
) -> None:
    collector = make_collector(AWAY, buffer_size=10, flush_interval_seconds=3600.0)
    record(collector, range(100))
    wait_until(lambda: collector.stats().spooled)
    before = len(spooled_files(tmp_path / "metrics_data"))
    for value in range(20_000):
        collector.record_nowait("m", value)
    wait_until(lambda: collector.stats().buffered < 4000)
    assert len(spooled_files(tmp_path / "metrics_data")) - before <= 8


def test_a_full_spool_drops_its_oldest_counts_them_and_tells_of_them_by_an_event(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(proxy.url, flush_interval_seconds=0.05, spool=SpoolSettings(max_bytes=MIB))
    for start in range(0, 6000, 500):
        record(collector, range(start, start + 500), text="x" * 500)
        wait_until(lambda: not collector.stats().buffered)
    stats = collector.stats()
    assert stats.dropped["spool_full"] > 2000
    assert balances(stats)
    assert sum(path.stat().st_size for path in spooled_files(tmp_path / "metrics_data")) <= MIB
    proxy.come_back()
    collector.flush_sync(20)  # may tell of events that were dropped just now, for the last ones that came
    assert collector.flush_sync(20) == 0
    values, dropped = arrived.values("m"), collector.stats().dropped
    assert len(values) == len(set(values)) == 6000 - dropped["spool_full"]
    assert values == sorted(values)
    assert values[-1] == 5999
    wait_until(lambda: arrived.drops() == dropped)
    assert "the spool" in caplog.text


def test_a_disk_that_takes_nothing_is_told_once_and_events_stay_in_memory(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "metrics_data").write_text("a file where the folder should be")
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(proxy.url, buffer_max_events=1000, flush_interval_seconds=0.05)
    record(collector, range(5000))
    assert collector.flush_sync(0.3) > 0
    assert len([line for line in caplog.messages if "cannot be kept" in line]) == 1
    stats = collector.stats()
    assert stats.buffered <= 1000
    assert balances(stats)
    proxy.come_back()
    assert collector.flush_sync(20) == 0
    values = arrived.values("m")
    assert len(values) == len(set(values)) == 5000 - collector.stats().dropped["overflow"]


def test_a_damaged_file_is_set_aside_counted_and_told_and_the_others_arrive(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(proxy.url, flush_interval_seconds=0.05)
    for start in (0, 100, 200):
        record(collector, range(start, start + 100))
        wait_until(partial(spooled, collector, start + 100))
    files = spooled_files(tmp_path / "metrics_data")
    damaged = files[1]
    damaged.write_bytes(damaged.read_bytes()[:-5])
    lost = int(damaged.stem.partition("-")[2])
    proxy.come_back()
    assert collector.flush_sync(20) == lost
    assert len(arrived.values("m")) == 300 - lost
    assert collector.stats().dropped == {"spool_damaged": lost}
    assert [path.name for path in (tmp_path / "metrics_data" / "quarantine").iterdir()] == [
        f"{collector.producer}-{damaged.name}"
    ]
    assert "cannot be sent: not a whole call" in caplog.text


@pytest.mark.parametrize("sent", [True, False])
def test_a_file_that_is_gone_counts_as_appended_where_the_server_has_its_numbers_and_as_lost_where_not(
    sent: bool,
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(proxy.url, flush_interval_seconds=0.05)
    for start in (0, 100):
        record(collector, range(start, start + 100))
        wait_until(partial(spooled, collector, start + 100))
    folder = tmp_path / "metrics_data" / "spool" / str(collector.producer)
    if sent:
        (folder / LOCK).unlink()
        settings = load(redis_url=redis_url)
        adopter, uplink = Adopter(settings, None), Uplink(settings, "nothing")
        while adopter.step(uplink):
            pass
        uplink.close()
        assert not folder.exists()
    else:
        shutil.rmtree(folder)
    record(collector, range(200, 300))
    wait_until(partial(spooled, collector, 300))
    proxy.come_back()
    assert collector.flush_sync(20) == (0 if sent else 200)
    assert arrived.values("m") == list(range(0 if sent else 200, 300))
    stats = collector.stats()
    assert stats.dropped == ({} if sent else {"spool_damaged": 200})
    assert balances(stats)


def test_where_no_thread_can_be_started_the_end_leaves_everything_on_disk(
    make_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    collector = make_collector(AWAY)
    record(collector, range(10))
    assert collector.close_sync(0.2) == 10
    assert collector.stats() == Stats(recorded=10, spooled=10, bound=100_000, closed=True)


def test_a_disk_that_hangs_does_not_hold_up_the_end(
    make_collector: MakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def hang(self: SpoolFolder, call: AppendCall) -> None:
        released.wait(60)
        raise OSError("gone")

    monkeypatch.setattr(SpoolFolder, "write", hang)
    collector = make_collector(AWAY, buffer_size=1)
    record(collector, range(10))
    start = time.monotonic()
    try:
        assert collector.close_sync(0.5) == 10
        assert time.monotonic() - start < 20
    finally:
        released.set()


def test_by_durability_spool_events_are_safe_once_on_disk(make_collector: MakeCollector, tmp_path: Path) -> None:
    collector = make_collector(AWAY, durability=Durability.SPOOL)
    record(collector, range(300))
    assert collector.flush_sync(20) == 0
    assert sum(decode_call(path.read_bytes()).events for path in spooled_files(tmp_path / "metrics_data")) == 300
    assert collector.close_sync() == 0


def test_by_durability_spool_every_call_is_on_disk_before_it_is_sent(
    make_collector: MakeCollector, redis_url: str, client: redis.Redis, arrived: Arrived, tmp_path: Path
) -> None:
    collector = make_collector(redis_url, durability=Durability.SPOOL)
    client.client_pause(600)
    record(collector, range(10))
    assert collector.flush_sync(0.4) == 0
    assert len(spooled_files(tmp_path / "metrics_data")) == 1
    assert collector.close_sync() == 0
    assert arrived.values() == list(range(10))
    assert list((tmp_path / "metrics_data" / "spool").iterdir()) == []


# --- left behind


def test_what_close_could_not_send_is_sent_by_the_next_process_with_books_that_balance(
    make_collector: MakeCollector,
    redis_url: str,
    arrived: Arrived,
    client: redis.Redis,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    first = make_collector(AWAY)
    record(first, range(250))
    assert first.close_sync(0.3) == 250
    second = make_collector(redis_url)
    second.record_nowait("other", 1)
    assert second.flush_sync() == 0
    wait_until(lambda: list((tmp_path / "metrics_data" / "spool").iterdir()) == [])
    assert arrived.values("m") == list(range(250))
    assert {entry.producer for entry in arrived.entries()} == {first.producer, second.producer}
    told = stored_stats(client, first)
    assert told == Stats(recorded=250, appended=250, bound=100_000, closed=True)


def stored_stats(client: redis.Redis, collector: MetricsCollector) -> Stats:
    value: Any = client.hget("vibezen:{0}:producers", str(collector.producer))
    return msgspec.json.decode(value.split(b" ", 2)[2], type=Stats)


APPLICATION: Final = """
import sys, time
from vibezen.metrics import MetricsCollector, MetricType
collector = MetricsCollector(redis_url=sys.argv[1])
for value in range(int(sys.argv[2]), int(sys.argv[3])):
    collector.record_nowait("m", value)
collector.flush_sync(0.5)
print(collector.producer, collector.stats().spooled, flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_had_spooled_is_sent_once_under_its_own_numbers(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived, tmp_path: Path, wait_until: WaitUntil
) -> None:
    command = [sys.executable, "-c", APPLICATION, AWAY, "0", "700"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        producer, spooled = process.stdout.readline().split()
        assert spooled == "700"
        process.send_signal(signal.SIGKILL)
    collectors = [make_collector(redis_url) for _ in range(4)]
    for collector in collectors:
        collector.record_nowait("other", 1)
    wait_until(lambda: list((tmp_path / "metrics_data" / "spool").iterdir()) == [])
    assert arrived.values("m") == list(range(700))
    entries = [entry for entry in arrived.entries() if entry.producer == producer]
    assert entries[0].seq == 1
    assert sum(entry.n for entry in entries) == 700


def test_a_living_process_keeps_its_spool_and_a_forked_child_is_a_producer_without_one(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(proxy.url, flush_interval_seconds=0.05)
    record(collector, range(100))
    wait_until(partial(spooled, collector, 100))
    path = tmp_path / "metrics_data" / "spool" / str(collector.producer)
    child = os.fork()
    if child == 0:
        fine = collector.stats() == Stats(bound=100_000) and take(path) is None
        os._exit(0 if fine else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert take(path) is None
    proxy.come_back()
    assert collector.flush_sync(20) == 0
    assert arrived.values() == list(range(100))


FORKING: Final = """
import os, sys, time
from vibezen.metrics import MetricsCollector
collector = MetricsCollector(redis_url=sys.argv[1])
collector.record_nowait("m", 1)
collector.flush_nowait()
while not collector.stats().spooled:
    time.sleep(0.01)
is_there, child_is_there = os.pipe()
if child := os.fork():
    os.read(is_there, 1)
    print(collector.producer, child, flush=True)
else:
    os.write(child_is_there, b"!")
time.sleep(60)
"""


def test_a_forked_child_does_not_hold_the_spool_of_its_dead_parent(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FORKING, AWAY], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        producer, child = process.stdout.readline().split()
        process.kill()
        process.wait()
        try:
            folder = take(tmp_path / "metrics_data" / "spool" / producer)
            assert folder is not None
            folder.release()
        finally:
            os.kill(int(child), signal.SIGKILL)


def test_what_is_dropped_while_a_flush_waits_is_not_told_as_safe(
    make_collector: MakeCollector, wait_until: WaitUntil
) -> None:
    collector = make_collector(AWAY, spool=SpoolSettings(max_bytes=MIB), flush_interval_seconds=0.05)
    record(collector, range(20_000))
    wait_until(partial(spooled, collector, 20_000))
    told: list[int] = []
    flushing = threading.Thread(target=lambda: told.append(collector.flush_sync(1)))
    flushing.start()
    record(collector, range(8000), text="x" * 100)
    flushing.join()
    assert collector.stats().dropped["spool_full"] > 0
    assert told == [20_000]


def left_behind(make_collector: MakeCollector, events: int, **settings: Any) -> MetricsCollector:
    collector = make_collector(AWAY, **settings)
    record(collector, range(events))
    assert collector.close_sync(0.2) == events
    return collector


def test_what_is_for_another_prefix_is_left_alone(
    make_collector: MakeCollector,
    redis_url: str,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = left_behind(make_collector, 10, redis=Redis(prefix="theirs"))
    second = make_collector(redis_url)
    second.record_nowait("other", 1)
    wait_until(lambda: "are not sent from here" in caplog.text)
    assert second.close_sync() == 0
    assert [path.name for path in (tmp_path / "metrics_data" / "spool").iterdir()] == [first.producer]
    assert arrived.values("m") == []


def test_what_is_for_another_store_is_left_alone(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    client: redis.Redis,
    arrived: Arrived,
    wait_until: WaitUntil,
    caplog: pytest.LogCaptureFixture,
) -> None:
    proxy = start_proxy(redis_url)
    client.set(Keys().store, "one")
    first = make_collector(proxy.url)
    first.record_nowait("m", 1)
    assert first.flush_sync() == 0
    proxy.go_down()
    first.record_nowait("m", 2)
    assert first.close_sync(0.2) == 1
    client.set(Keys().store, "another")
    second = make_collector(redis_url)
    second.record_nowait("other", 1)
    wait_until(lambda: "it is for another store" in caplog.text)
    assert second.close_sync() == 0
    assert arrived.values("m") == [1]


def test_what_the_server_takes_of_nobody_is_left_alone_and_does_not_hold_up_others(
    redis_url: str, client: redis.Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibezen.metrics.producers.adopter.LOOK_SECONDS", 0.0)
    settings = load(redis_url=redis_url)
    for producer, shard in (("a" * 32, 1), ("b" * 32, 0)):
        dead = Spool(settings.spool_dir, producer, MIB, settings.storage_dir)
        dead.put(msgspec.structs.replace(call(producer=producer, made=time.time()), shard=shard))
        dead.close(msgspec.structs.replace(call(4, 0, producer=producer), batches=[], shard=shard))
    client.set(Keys().events(1), "no stream")
    adopter, uplink = Adopter(settings, None), Uplink(settings, "nothing")
    for _ in range(20):
        adopter.step(uplink)
        assert not uplink.away
    uplink.close()
    assert client.xlen(Keys().events(0)) == 1
    assert [path.name for path in settings.spool_dir.iterdir()] == ["a" * 32]
    assert caplog.text.count("are not sent from here") == 1


def test_folders_and_files_of_others_in_the_spool_are_left_alone(redis_url: str, tmp_path: Path) -> None:
    settings = load(redis_url=redis_url, storage_dir=tmp_path)
    theirs = [settings.spool_dir / "letters" / "one.txt", settings.spool_dir / ("a" * 32) / "two.txt"]
    for path in theirs:
        path.parent.mkdir(parents=True)
        path.write_text("not ours")
    ours, empty = settings.spool_dir / ("b" * 32), settings.spool_dir / "empty"
    ours.mkdir()
    empty.mkdir()
    adopter, uplink = Adopter(settings, None), Uplink(settings, "nothing")
    while adopter.step(uplink):
        pass
    assert not ours.exists()
    assert empty.exists()
    assert [path.read_text() for path in theirs] == ["not ours", "not ours"]
    assert list(theirs[0].parent.iterdir()) == theirs[:1]


def test_what_was_left_too_long_ago_is_set_aside_and_counted_as_its_producers_loss(
    make_collector: MakeCollector,
    redis_url: str,
    client: redis.Redis,
    arrived: Arrived,
    tmp_path: Path,
    wait_until: WaitUntil,
) -> None:
    first = left_behind(make_collector, 250)
    files = spooled_files(tmp_path / "metrics_data")
    for file in files:
        old = msgspec.structs.replace(decode_call(file.read_bytes()), made=time.time() - MAX_AGE - 60)
        file.write_bytes(encode_call(old))
    second = make_collector(redis_url)
    second.record_nowait("other", 1)
    wait_until(lambda: not list((tmp_path / "metrics_data" / "spool").iterdir()))
    assert arrived.values("m") == []
    aside = {path.name for path in (tmp_path / "metrics_data" / "quarantine").iterdir()}
    assert aside == {f"{first.producer}-{file.name}" for file in files if "-0." not in file.name}
    assert stored_stats(client, first) == Stats(
        recorded=250, dropped={"spool_expired": 250}, bound=100_000, closed=True
    )


def test_a_producer_whose_files_cannot_be_removed_does_not_say_that_it_is_closed(
    make_collector: MakeCollector,
    start_proxy: StartProxy,
    redis_url: str,
    client: redis.Redis,
    arrived: Arrived,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Servers soon forget those that closed, and what was sent would be found and sent again."""
    monkeypatch.setattr(SpoolFolder, "discard", lambda self, file: None)
    monkeypatch.setattr(SpoolFolder, "remove", lambda self, done: self.release())
    collector = make_collector(redis_url, durability=Durability.SPOOL)
    record(collector, range(10))
    assert collector.close_sync() == 0
    assert stored_stats(client, collector) == Stats(recorded=10, appended=10, bound=100_000, closed=False)
    second = make_collector(redis_url)
    second.record_nowait("other", 1)
    wait_until(lambda: not stored_stats(client, collector).closed and second.stats().appended == 1)
    assert second.close_sync() == 0
    assert arrived.values("m") == list(range(10)), "found, sent again, and known"


# --- counters


def test_the_last_call_of_a_producer_brings_counters_that_balance(
    collector: MetricsCollector, client: redis.Redis
) -> None:
    record(collector, range(10))
    assert collector.close_sync() == 0
    assert stored_stats(client, collector) == Stats(recorded=10, appended=10, bound=100_000, closed=True)


def test_an_idle_producer_brings_its_counters_too(
    make_collector: MakeCollector,
    redis_url: str,
    client: redis.Redis,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vibezen.metrics.producers.sender.STATS_SECONDS", 0.1)
    collector = make_collector(redis_url)
    record(collector, range(10))
    assert collector.flush_sync() == 0
    wait_until(lambda: stored_stats(client, collector) == Stats(recorded=10, appended=10, bound=100_000))


def test_whoever_switched_the_system_family_off_gets_no_events_about_drops(
    make_collector: MakeCollector, start_proxy: StartProxy, redis_url: str, arrived: Arrived
) -> None:
    proxy = start_proxy(redis_url)
    proxy.go_down()
    collector = make_collector(
        proxy.url,
        buffer_max_events=1000,
        durability=Durability.MEMORY,
        collection=Collection(system_metrics=False),
    )
    for value in range(5000):
        collector.record_nowait(MetricType.COST, value)
    proxy.come_back()
    assert collector.close_sync(20) == 0
    assert collector.stats().dropped["overflow"] > 0
    assert arrived.drops() == {}

"""`verify` on stores with one kind of damage each, and on healthy ones, also while they are written to."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import redis
from msgspec.structs import replace

from tests.support.clusters import StartCluster
from tests.support.feeding import NOON, Feed, event
from tests.support.pipeline import Pipeline
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics import config
from vibezen.metrics.clock import iso, wall
from vibezen.metrics.commitlog import encode_record, read_log
from vibezen.metrics.connection import connect
from vibezen.metrics.consumers.rebuild import rebuild
from vibezen.metrics.consumers.supervisor import run as consume
from vibezen.metrics.dead_letters import overview
from vibezen.metrics.doctor.finding import Finding
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.producers import dead
from vibezen.metrics.producers.append import Batch, append, raise_shards
from vibezen.metrics.series import overflow_key
from vibezen.metrics.settings import Aggregation
from vibezen.metrics.verify import books as sides
from vibezen.metrics.verify import examine, files
from vibezen.metrics.window import Window, from_blob, to_blob

pytestmark = pytest.mark.server

Run = Callable[..., "subprocess.CompletedProcess[str]"]
KEYS = Keys()


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


@pytest.fixture
def verify(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> "Verify":
    monkeypatch.setattr(files, "PAUSE", 0.01)
    monkeypatch.setattr(sides, "PAUSE", 0.01)
    return lambda offline=False: list(examine(pipeline.settings, lambda _: None, offline=offline))


Verify = Callable[..., list[Finding]]


def wrong(found: list[Finding], status: str = "fail") -> list[str]:
    """`name: seen` of what differs."""
    return [f"{one.name}: {one.seen}" for one in found if one.status == status]


def fill(pipeline: Pipeline) -> list[Path]:
    """Two hours of events in files, of two epochs; the segments, oldest first."""
    for start in (0, 3600):
        pipeline.take_in([event(number, NOON + start + number, provider=f"p{number % 3}") for number in range(100)])
    return list(pipeline.layout.segments())


@contextmanager
def rewritten(path: Path) -> Iterator[bytearray]:
    data = bytearray(path.read_bytes())
    yield data
    path.write_bytes(data)


def relative(pipeline: Pipeline, path: Path) -> str:
    return str(path.relative_to(pipeline.layout.root))


# --- files


def test_a_healthy_store_differs_in_nothing(pipeline: Pipeline, verify: Verify) -> None:
    fill(pipeline)
    found = verify()
    assert wrong(found) == []
    assert any("2 files, 200 events" in one for one in wrong(found, "ok"))


def test_a_byte_that_turned_over_is_found(pipeline: Pipeline, verify: Verify) -> None:
    path, _ = fill(pipeline)
    with rewritten(path) as data:
        at = data.index(b'"value":7,')
        data[at + 8] ^= 1
    (found,) = wrong(verify(offline=True))
    assert found.startswith(f"segments: {relative(pipeline, path)}: checksum ")
    assert "the log says" in found


def test_a_line_that_is_no_event_any_more_is_named(pipeline: Pipeline, verify: Verify) -> None:
    path, _ = fill(pipeline)
    with rewritten(path) as data:
        data[data.index(b"\n") + 1] = ord("x")
    (found,) = wrong(verify(offline=True))
    assert "line 2 is no event" in found


@pytest.mark.parametrize("which", [0, 1], ids=["closed", "open"])
def test_a_file_that_was_cut_is_found(pipeline: Pipeline, verify: Verify, which: int) -> None:
    path = fill(pipeline)[which]
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - 30)
    (found,) = wrong(verify(offline=True))
    assert f"{relative(pipeline, path)}: {whole - 30} bytes, the log says {whole}" in found


def test_a_line_that_is_missing_is_found(pipeline: Pipeline, verify: Verify) -> None:
    path, _ = fill(pipeline)
    with rewritten(path) as data:
        del data[: data.index(b"\n") + 1]
    (found,) = wrong(verify(offline=True))
    assert "99 lines, the log says 100" in found


def test_a_file_that_is_gone_is_found(pipeline: Pipeline, verify: Verify) -> None:
    path, _ = fill(pipeline)
    size = path.stat().st_size
    path.unlink()
    assert wrong(verify(offline=True)) == [
        f"segments: {relative(pipeline, path)}: the file is gone, the log says 100 events in {size} bytes"
    ]


def test_windows_are_not_held_against_a_file_that_is_gone(pipeline: Pipeline, verify: Verify) -> None:
    live(pipeline)
    for path in pipeline.layout.segments():
        path.unlink()
    found = verify()
    assert {one.split(": ")[0] for one in wrong(found)} == {"segments"}
    assert "not compared: " in wrong(found, "unknown")[0]
    assert "no such file" in wrong(found, "unknown")[0]


def test_bytes_behind_a_closed_segment_are_found_and_behind_an_open_one_are_not_data(
    pipeline: Pipeline, verify: Verify
) -> None:
    closed, still_open = fill(pipeline)
    with still_open.open("ab") as file:
        file.write(b'{"not":"committed"')
    assert wrong(verify(offline=True)) == []
    with closed.open("ab") as file:
        file.write(b"x")
    (found,) = wrong(verify(offline=True))
    assert relative(pipeline, closed) in found


@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_damaged_record_of_a_log_is_found(pipeline: Pipeline, verify: Verify, place: str) -> None:
    fill(pipeline)
    _, log = pipeline.layout.logs(0)[-1]
    with log.open("ab") as file:
        file.write(encode_record(read_log(log).last))
    with rewritten(log) as data:
        lines = bytes(data).splitlines(keepends=True)
        at = len(lines[0]) if place == "middle" else len(data) - len(lines[-1])
        data[at + 20] ^= 1
    found = wrong(verify(offline=True))
    number, following = (2, "; 1 good ones after it") if place == "middle" else (3, "")
    assert any(f"commits/{log.name}: record {number}, at byte" in one and following in one for one in found), found


def test_a_log_that_is_gone_is_found_by_what_the_archive_counted(pipeline: Pipeline, verify: Verify) -> None:
    path, _ = fill(pipeline)
    pipeline.layout.logs(0)[0][1].unlink()
    assert wrong(verify(offline=True)) == [
        "commit logs: shard 0: its logs name 100 events, the archive counted 200",
        f"other files: {relative(pipeline, path)}: a segment that no log names",
    ]


def test_a_torn_record_is_no_difference(pipeline: Pipeline, verify: Verify) -> None:
    fill(pipeline)
    _, log = pipeline.layout.logs(0)[-1]
    with log.open("ab") as file:
        file.write(b"12345678 {")
    found = verify(offline=True)
    assert wrong(found) == []
    assert "ends in 10 bytes of a record that was never finished" in wrong(found, "warn")[0]


def test_files_no_log_names_are_told(pipeline: Pipeline, verify: Verify) -> None:
    path, _ = fill(pipeline)
    path.with_name("0-1-9.jsonl").write_bytes(path.read_bytes())
    path.with_name(".0-1-8.jsonl.new").write_bytes(b"")
    path.with_name(".0-99-1.jsonl.new").write_bytes(b"")
    path.with_name("notes.txt").write_bytes(b"")
    found = verify(offline=True)
    folder = path.parent.relative_to(pipeline.layout.root)
    assert wrong(found) == [f"other files: {folder}/0-1-9.jsonl: a segment that no log names"]
    assert wrong(found, "warn") == [
        f"other files: 1 left by a crash: {folder}/.0-1-8.jsonl.new",
        f"other files: 1 not ours: {folder}/notes.txt",
    ]


def test_without_a_server_the_files_are_looked_at_and_the_rest_is_said(
    pipeline: Pipeline, run_here: Run, free_port: int
) -> None:
    fill(pipeline)
    away = ("--redis-url", f"redis://127.0.0.1:{free_port}", "--storage-dir", str(pipeline.layout.root))
    done = run_here("verify", *away)
    assert done.returncode == 0
    assert "ok      segments: 2 files" in done.stdout
    assert "unknown windows: not compared: " in done.stdout
    assert "unknown books: not compared: " in done.stdout


def test_the_command_says_what_differs_and_its_exit_code_that_something_does(pipeline: Pipeline, run_here: Run) -> None:
    path, _ = fill(pipeline)
    where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
    done = run_here("verify", "--json", *where)
    assert (done.returncode, {one["status"] for one in json.loads(done.stdout)}) == (0, {"ok"})
    path.unlink()
    done = run_here("verify", *where, "--offline")
    assert (done.returncode, done.stdout.splitlines()[1].startswith("fail    segments: ")) == (1, True)


def test_what_cannot_be_looked_at_is_one_line(pipeline: Pipeline, verify: Verify) -> None:
    fill(pipeline)
    pipeline.client.hset(KEYS.books(0), "aggregate.position", "nonsense")
    (found,) = wrong(verify())
    assert found.startswith("books: foreign data in them: ")
    path = list(pipeline.layout.segments())[-1]
    path.unlink()
    path.mkdir()
    (found,) = wrong(verify(offline=True))
    assert f"{path.name}: the file cannot be read: is a directory" in found
    pipeline.layout.log(0, 99).mkdir()
    with pytest.raises(StoreError, match="its commit logs"):
        verify()


def test_a_folder_that_is_no_store_is_one_line(run_here: Run, tmp_path: Path) -> None:
    done = run_here("verify", "--storage-dir", str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


def books(client: redis.Redis) -> dict[str, str]:
    stored: Any = client.hgetall(KEYS.books(0))
    return {name.decode(): value.decode() for name, value in stored.items()}


# --- windows


def now_of(client: redis.Redis) -> float:
    """The server's time, at the middle of a 10 s window of the minute before."""
    seconds: Any = client.time()
    return float((seconds[0] - 60) // 10 * 10 + 5)


def live(pipeline: Pipeline) -> tuple[str, int]:
    """Events in two windows of this hour; the key of the newer 10 s window, and where it starts."""
    now = now_of(pipeline.client)
    weighted = [Event("cost", 2.5, now, sample_rate=0.3), Event("cost", 1.25, now - 20, count=7)]
    plain = [event(number * 1.1, now - number % 30, provider=f"p{number % 3}") for number in range(300)]
    gauges = [event(number, now, "concurrency") for number in range(5)]
    pipeline.take_in([*plain, *weighted, *gauges])
    pipeline.take_in([event(9, now, "concurrency", producer="other")], "p2")
    start = int(now) // 10 * 10
    return KEYS.window(0, 10, start), start


def test_windows_are_held_against_the_events_on_disk(pipeline: Pipeline, verify: Verify) -> None:
    live(pipeline)
    found = verify()
    assert wrong(found) == []
    (windows,) = [one for one in wrong(found, "ok") if one.startswith("windows")]
    compared = int(windows.removeprefix("windows: shard 0: ").split()[0])
    assert compared == sum(1 for _ in pipeline.client.scan_iter("vibezen:{0}:w:*"))


def changed(client: redis.Redis, key: str, change: Callable[[Window], Window]) -> str:
    """Change one series of a window, by `change`; its key."""
    stored: Any = client.hgetall(key)
    series = min(name for name in stored if b"response_time" in name)
    client.hset(key, series, to_blob(change(from_blob(stored[series]))))
    return str(series.decode())


def plus_one(window: Window) -> Window:
    return msgspec.structs.replace(window, count=window.count + 1)


def a_little_more(window: Window) -> Window:
    return msgspec.structs.replace(window, total=window.total * (1 + 3e-9))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (plus_one, "count "),
        (a_little_more, "sum "),
        (lambda window: msgspec.structs.replace(window, min=window.min - 1), "min "),
        (lambda window: msgspec.structs.replace(window, max=window.max + 1), "max "),
    ],
)
def test_a_window_that_was_changed_is_found(
    pipeline: Pipeline, verify: Verify, change: Callable[[Window], Window], what: str
) -> None:
    key, start = live(pipeline)
    series = changed(pipeline.client, key, change)
    (found,) = wrong(verify())
    assert found.startswith(f"windows: shard 0, 10 s from {iso(start)}: {series}: {what}")
    assert "the events on disk give" in found


def test_rounding_is_no_difference(pipeline: Pipeline, verify: Verify) -> None:
    key, _ = live(pipeline)
    changed(pipeline.client, key, lambda window: msgspec.structs.replace(window, total=window.total * (1 + 3e-10)))
    assert wrong(verify()) == []


def test_totals_are_held_against_them_too(pipeline: Pipeline, verify: Verify) -> None:
    _, start = live(pipeline)
    minute = start // 60 * 60
    changed(pipeline.client, KEYS.totals(0, 60, minute), plus_one)
    (found,) = wrong(verify())
    assert found.startswith(f"windows: shard 0, 60 s from {iso(minute)}: total of response_time: count ")


def test_a_window_that_is_missing_or_one_too_many_is_found(pipeline: Pipeline, verify: Verify) -> None:
    key, start = live(pipeline)
    blobs: Any = pipeline.client.hgetall(key)
    pipeline.client.hset(KEYS.window(0, 10, start - 600), mapping=blobs)
    pipeline.client.delete(key)
    more, less = wrong(verify())
    assert f"10 s from {iso(start - 600)}: " in more
    assert "no event is on disk" in more
    assert f"10 s from {iso(start)}: " in less
    assert "no window, the events on disk give count" in less


def test_a_blob_that_is_none_is_found(pipeline: Pipeline, verify: Verify) -> None:
    key, start = live(pipeline)
    pipeline.client.hset(key, min(pipeline.client.hkeys(key)), b"\x01?")
    (found,) = wrong(verify())
    assert f"10 s from {iso(start)}: cannot be read: a stored window is damaged" in found


def test_folded_series_are_held_against_the_events_they_are_made_of(pipeline: Pipeline, verify: Verify) -> None:
    pipeline.settings = replace(pipeline.settings, aggregation=Aggregation(max_series=3))
    now = now_of(pipeline.client)
    pipeline.take_in([event(number, now, model=f"m{number}") for number in range(8)])
    assert wrong(verify()) == []
    key, series = KEYS.window(0, 10, int(now) // 10 * 10), overflow_key("response_time")
    stored: Any = pipeline.client.hget(key, series)
    pipeline.client.hset(key, series, to_blob(plus_one(from_blob(stored))))
    (found,) = wrong(verify())
    assert '"overflow":"true"' in found


def test_windows_that_are_not_complete_are_not_compared(pipeline: Pipeline, verify: Verify) -> None:
    key, _ = live(pipeline)
    pipeline.client.delete(key)
    pipeline.client.set(KEYS.floor(0), int(now_of(pipeline.client)))
    found = verify()
    assert wrong(found) == []
    assert "not compared: they are complete only from" in wrong(found, "unknown")[0]


def test_the_folder_of_another_store_is_not_compared(pipeline: Pipeline, verify: Verify) -> None:
    live(pipeline)
    pipeline.client.set(KEYS.store, "another")
    (found,) = wrong(verify())
    assert found.startswith("store: ")


def test_windows_are_made_anew_on_demand(pipeline: Pipeline, verify: Verify, run_here: Run) -> None:
    key, _ = live(pipeline)
    pipeline.client.delete(key)
    assert len(wrong(verify())) == 1
    where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
    done = run_here("verify", "--rebuild-windows", *where)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("ok      rebuilt windows: shard 0: made anew of 308 events, up to entry ")
    assert pipeline.client.exists(key)
    assert run_here("verify", "--rebuild-windows", "--offline", *where).returncode == 2
    path = list(pipeline.layout.segments())[-1]
    path.unlink()
    done = run_here("verify", "--rebuild-windows", *where)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert f"{path.name} is damaged or gone" in done.stderr


# --- books


def test_books_that_do_not_balance_are_told_with_both_sides(pipeline: Pipeline, verify: Verify) -> None:
    live(pipeline)
    account = json.loads(books(pipeline.client)["aggregate.account"])
    pipeline.client.hset(
        KEYS.books(0), "aggregate.account", json.dumps(account | {"accepted": account["accepted"] - 2})
    )
    found = wrong(verify())
    assert any("shard 0, aggregate: " in one and ", but for 2" in one for one in found)


def test_what_was_trimmed_unread_is_told(pipeline: Pipeline, verify: Verify) -> None:
    live(pipeline)
    account = json.loads(books(pipeline.client)["archive.account"])
    account |= {"accepted": account.get("accepted", 0) - 2, "trimmed": 2}
    pipeline.client.hset(KEYS.books(0), "archive.account", json.dumps(account))
    assert any("2 trimmed" in one for one in wrong(verify(), "warn"))


def test_producers_are_held_to_their_word(pipeline: Pipeline, verify: Verify) -> None:
    live(pipeline)
    good = {"recorded": 10, "appended": 5, "buffered": 1, "in_flight": 1, "spooled": 1, "refused": {"ts": 1}}
    good |= {"dropped": {"overflow": 1}, "bound": 100}
    now = int(now_of(pipeline.client) + 60) * 1000
    put = {"well": (now, good), "short": (now, good | {"recorded": 11}), "gone": (now - 300_000, good)}
    put |= {"closed": (now - 300_000, good | {"closed": True})}
    for name, (heard, stats) in put.items():
        pipeline.client.hset(KEYS.producers(0), name, f"6 {heard} {json.dumps(stats)}")
    found = verify()
    assert wrong(found) == ["producers: shard 0, short: 11 recorded, 10 accounted for"]
    (silent,) = [one for one in wrong(found, "unknown") if one.startswith("producers")]
    assert "1 ended without closing; what they lost is unknown, at most their buffers, 100 events each: gone" in silent


# --- under load


@contextmanager
def load(pipeline: Pipeline, start_role: StartRole) -> Iterator[None]:
    """Both groups at work as processes, and events coming in all the time."""
    where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
    roles = [start_role("consume", group, *where) for group in ("archive", "aggregate")]
    stop, random = threading.Event(), Random(7)

    def feed() -> None:
        with closing(connect(pipeline.url)) as client:
            feed = Feed(client, "busy")
            while not stop.is_set():
                now = wall()
                feed.append([event(random.random(), now - random.choice((0, 0, 0, 15, 300))) for _ in range(200)])
                stop.wait(0.02)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        assert [role.stop() for role in roles] == [0, 0]


def test_a_busy_store_differs_in_nothing_and_damage_is_found_all_the_same(
    pipeline: Pipeline, verify: Verify, start_role: StartRole, wait_until: WaitUntil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibezen.metrics.verify.windows.LOOKS", 3)
    key, start = live(pipeline)
    with load(pipeline, start_role):
        wait_until(lambda: int(books(pipeline.client).get("aggregate.events", 0)) > 2000)
        found = verify()
        assert wrong(found) == []
        (windows,) = [one for one in wrong(found, "ok") if one.startswith("windows")]
        assert int(windows.removeprefix("windows: shard 0: ").split()[0]) > 4
        changed(pipeline.client, key, plus_one)
        (told,) = wrong(verify())
        assert told.startswith(f"windows: shard 0, 10 s from {iso(start)}: ")


def test_over_a_cluster_every_shard_is_looked_at_and_made_anew(start_cluster: StartCluster, tmp_path: Path) -> None:
    cluster = start_cluster(replicas=0)
    loaded = config.load(redis_url=cluster.url, storage_dir=tmp_path / "store", environ={})
    settings = replace(loaded, streams=replace(loaded.streams, shards=3))
    with closing(connect(cluster.url)) as client:
        raise_shards(client, KEYS, 3)
        now = wall()
        for shard in range(3):
            lines = encode_lines([event(shard, now), event(1, 5.0)])
            append(client, KEYS, shard, "p", 1, [Batch(2, lines)])
        for group in ("archive", "aggregate"):
            assert consume(group, settings, once=True) == 0
        found = list(examine(settings, lambda _: None))
        assert (wrong(found), sum("1 dead" in one for one in wrong(found, "ok"))) == ([], 6)
        client.delete(KEYS.window(1, 60, int(now) // 60 * 60))
        assert "windows: shard 1, 60 s from" in "".join(wrong(list(examine(settings, lambda _: None))))
        for shard in range(3):
            assert rebuild(client, KEYS, Layout(settings.storage_dir), settings, shard).complete
        assert wrong(list(examine(settings, lambda _: None))) == []
        letters = overview(client, KEYS, range(3))
        assert [dead.requeue(client, KEYS, one.shard, one.id, now, force=True) for one in letters] == [True] * 3
        assert overview(client, KEYS, range(3)) == []

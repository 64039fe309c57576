"""Backups: whole, told apart from what is not, and a store again on an empty server: nothing lost, nothing double."""

import json
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support import stored
from tests.support.feeding import NOON, event, values_on_disk
from tests.support.pipeline import Pipeline, values_of
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics.backup import MANIFEST, backup, copying, read_manifest, restore
from vibezen.metrics.backup.plan import plan
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.consumers.rebuild import rebuild
from vibezen.metrics.doctor.finding import Status
from vibezen.metrics.errors import StoreError
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.verify import examine

Run = Callable[..., "subprocess.CompletedProcess[str]"]
KEYS = Keys()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A store with a compacted hour, late events beside it, and an hour that is still written to."""
    layout = Layout(tmp_path / "store")
    layout.create()
    stored.archive(layout, [event(value, NOON + value) for value in range(100)])
    stored.compact_hour(layout, int(NOON))
    stored.archive(layout, [event(100 + value, NOON + 200 + value) for value in range(5)])
    stored.archive(layout, [event(200 + value, NOON + HOUR + value) for value in range(50)], shard=1, closed=False)
    return layout


def copy(layout: Layout, target: Path, **options: Any) -> copying.Made:
    return backup(layout, target, version="test", **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def failures(layout: Layout) -> list[str]:
    from msgspec.structs import replace

    from vibezen.metrics import config

    settings = replace(config.load(storage_dir=layout.root, environ={}))
    return [str(one) for one in examine(settings, lambda _: None, offline=True) if one.status is Status.FAIL]


def test_a_backup_holds_what_is_committed_and_nothing_else(layout: Layout, tmp_path: Path) -> None:
    segment = next(path for path in layout.segments() if path.name.startswith("1-"))
    with segment.open("ab") as file:
        file.write(b'{"metric":"not committed"')
    made = copy(layout, tmp_path / "backup")
    restore(tmp_path / "backup", Layout(tmp_path / "again"))
    assert made.manifest.events == 155
    assert made.manifest.damaged == []
    assert failures(Layout(tmp_path / "again")) == []
    again = Layout(tmp_path / "again")
    assert again.read() == layout.read()
    assert (again.events / segment.relative_to(layout.events)).read_bytes() + b'{"metric":"not committed"' == (
        segment.read_bytes()
    )
    assert not (again.root / MANIFEST).exists()
    assert {path.stat().st_mode & 0o777 for path in again.root.rglob("*")} == {0o600, 0o700}


def test_a_restored_file_keeps_its_time_since_retention_counts_from_it(layout: Layout, tmp_path: Path) -> None:
    segment = next(layout.segments())
    os.utime(segment, (NOON, NOON))
    copy(layout, tmp_path / "backup")
    restore(tmp_path / "backup", Layout(tmp_path / "again"))
    for path in (tmp_path / "again" / "events").rglob("*.jsonl"):
        before = layout.events / path.relative_to(tmp_path / "again" / "events")
        assert path.stat().st_mtime == before.stat().st_mtime


def test_what_a_part_replaces_while_it_is_copied_is_taken_from_the_part(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, plans = plan, 0

    def look(given: Layout) -> Any:
        nonlocal plans
        plans += 1
        made = real(given)
        if plans == 1:  # a compactor publishes right after the look, and sweeps
            before = {path for path in layout.segments() if path.name.startswith("0-")}
            stored.compact_day(layout, int(NOON // DAY * DAY))
            for path in before:
                path.unlink()
        return made

    monkeypatch.setattr(copying, "plan", look)
    made = copy(layout, tmp_path / "backup")
    assert plans == 2
    assert (made.manifest.events, made.manifest.damaged) == (155, [])
    restore(tmp_path / "backup", Layout(tmp_path / "again"))
    assert failures(Layout(tmp_path / "again")) == []


def test_the_next_backup_links_what_the_one_before_has(layout: Layout, tmp_path: Path) -> None:
    note = layout.quarantine / "note"
    layout.quarantine.mkdir()
    note.write_text("before")
    copy(layout, tmp_path / "first")
    note.write_text("behind")
    stored.archive(layout, [event(300, NOON + 2 * HOUR)])
    made = copy(layout, tmp_path / "second", base=tmp_path / "first")
    first, second = files_of(tmp_path / "first"), files_of(tmp_path / "second")
    same = [path for path in second if first.get(path) == second[path]]
    linked = [path for path in same if (tmp_path / "first" / path).samefile(tmp_path / "second" / path)]
    assert made.linked == len(linked) >= 4
    assert second["quarantine/note"] == b"behind", "of the same size, and yet another file"
    shutil.rmtree(tmp_path / "first")
    restore(tmp_path / "second", Layout(tmp_path / "again"))
    assert failures(Layout(tmp_path / "again")) == []


def test_a_damaged_store_is_copied_and_told(layout: Layout, tmp_path: Path, run_here: Run) -> None:
    segments = [path for path in layout.segments() if not path.name.startswith("0-1-1")]
    segments[0].write_bytes(segments[0].read_bytes().replace(b"response_time", b"response-time", 1))
    segments[1].unlink()
    told = run_here("backup", tmp_path / "backup", "--storage-dir", layout.root)
    assert told.returncode == 1
    assert told.stdout.count("damaged: events/") == 2
    assert "is gone" in told.stdout
    assert "differ" in told.stdout


@pytest.mark.parametrize("harm", ["changed", "cut", "gone"])
def test_a_backup_that_was_harmed_is_not_restored(layout: Layout, tmp_path: Path, harm: str) -> None:
    copy(layout, tmp_path / "backup")
    victim = sorted((tmp_path / "backup" / "events").rglob("*.jsonl"))[-1]
    if harm == "gone":
        victim.unlink()
    else:
        data = victim.read_bytes()
        victim.write_bytes(data[:-1] if harm == "cut" else data.replace(b"2", b"3", 1))
    with pytest.raises(StoreError, match=f"{victim.name}: is .*nothing was restored"):
        restore(tmp_path / "backup", Layout(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_each_refusal_is_one_line(layout: Layout, tmp_path: Path, run_here: Run) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    other = Layout(tmp_path / "other")
    other.create()
    copy(other, tmp_path / "of-other")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for words, reason in (
        (("backup", tmp_path / "full"), "is there already"),
        (("backup", tmp_path / "link"), "is a link"),
        (("backup", "/dev"), "a disk's own folder"),
        (("backup", layout.root / "copy"), "inside the storage folder"),
        (("backup", tmp_path / "new", "--base", tmp_path / "full"), "no backup"),
        (("backup", tmp_path / "new", "--base", tmp_path / "of-other"), "another store"),
        (("restore", tmp_path / "nowhere"), "no backup"),
        (("restore", tmp_path / "of-other"), "holds a store"),
        (("restore", tmp_path / "of-other", "--storage-dir", tmp_path / "full"), "is not empty (letter)"),
    ):
        given = words if "--storage-dir" in words else (*words, "--storage-dir", layout.root)
        told = run_here(*given)
        assert (told.returncode, told.stderr.count("\n")) == (1, 1), told.stderr
        assert reason in told.stderr
    assert not (tmp_path / "new").exists()


def test_programs_read_what_was_made(layout: Layout, tmp_path: Path, run_here: Run) -> None:
    target, again = tmp_path / "backup", tmp_path / "again"
    told = json.loads(run_here("backup", target, "--storage-dir", layout.root, "--json").stdout)
    assert (told["events"], told["folder"], told["linked"]) == (155, str(target), 0)
    assert told["files"] == len(files_of(target)) - 1
    assert told["bytes"] == sum(map(len, files_of(target).values())) - (target / MANIFEST).stat().st_size
    back = json.loads(run_here("restore", target, "--storage-dir", again, "--json").stdout)
    assert (back["events"], back["folder"]) == (155, str(again))


def test_a_killed_backup_is_no_backup_and_the_next_one_clears_it_away(
    tmp_path: Path, layout: Layout, start_role: StartRole, wait_until: WaitUntil
) -> None:
    target, partial = tmp_path / "backup", tmp_path / "backup.partial"
    slow = layout.root / "quarantine" / "pipe"
    slow.parent.mkdir()
    slow.write_bytes(b"x" * 200_000_000)
    role = start_role("backup", str(target), "--storage-dir", str(layout.root))
    wait_until(lambda: (partial / "quarantine" / "pipe").exists() or not role.running())
    role.kill()
    assert not target.exists()
    with pytest.raises(StoreError, match="no backup"):
        read_manifest(partial)
    slow.unlink()
    copy(layout, target)
    assert not partial.exists()
    assert read_manifest(target).events == 155


def test_a_full_disk_is_one_line_and_leaves_nothing(
    layout: Layout, tmp_path: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    for words in (("backup", tmp_path / "backup"),):
        told = run_here(*words, "--storage-dir", layout.root)
        assert (told.returncode, told.stderr.count("\n")) == (1, 1)
        assert "no space left on device" in told.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


@pytest.mark.server
def test_a_store_comes_back_on_an_empty_server_with_every_event_once(
    client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    now = time.time()
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(value, now - 600 + value) for value in range(100)], "p1")
    pipeline.feed([event(value, now - 400 + value) for value in range(100, 150)], "p1")
    copy(pipeline.layout, tmp_path / "backup")
    shutil.rmtree(pipeline.layout.root)
    client.flushall()

    restore(tmp_path / "backup", pipeline.layout)
    again = Pipeline(client, redis_url, tmp_path / "store")
    again._feeds = pipeline._feeds  # the application goes on as if nothing had been
    again.archive()
    again.aggregate()
    again.take_in([event(value, now - 300 + value) for value in range(150, 200)], "p1")
    again.take_in([event(value, now - 200 + value) for value in range(200, 220)], "p2")
    there = [*range(100), *range(150, 220)]
    assert values_on_disk(tmp_path / "store") == Counter(map(float, there)), "but for what the stream alone had"
    assert again.layout.read().id.encode() == client.get(KEYS.store)
    rebuild(client, KEYS, again.layout, again.settings, 0)
    answer = again.history(since=now - 3600, until=now + 60, agg="count,sum")
    assert sum(filter(None, values_of(answer, "count")[()])) == len(there)
    assert sum(filter(None, values_of(answer, "sum")[()])) == sum(there)
    found = list(examine(again.settings, lambda _: None))
    assert [str(one) for one in found if one.status is Status.FAIL] == []


@pytest.mark.server
def test_a_backup_is_whole_at_any_moment_of_a_store_that_is_written_to(
    client: redis.Redis, redis_url: str, tmp_path: Path, wait_until: WaitUntil
) -> None:
    pipeline, ended, fed = Pipeline(client, redis_url, tmp_path / "store"), threading.Event(), 0
    now = time.time()

    def write() -> None:
        nonlocal fed
        while not ended.is_set():
            pipeline.feed([event(fed + value, now - 7200 + fed % 7000) for value in range(20)])
            fed += 20
            pipeline.archive()  # each time a new owner, who seals what the one before left

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(6):
            wait_until(lambda more=fed + 60: fed >= more or not writer.is_alive())  # type: ignore[misc]
            copy(pipeline.layout, tmp_path / f"backup-{number}")
    finally:
        ended.set()
        writer.join()
    for number in range(6):
        layout = Layout(tmp_path / f"again-{number}")
        manifest = restore(tmp_path / f"backup-{number}", layout)
        assert manifest.damaged == []
        values = values_on_disk(layout.root)
        assert values == Counter(map(float, range(manifest.events))), "the first ones, each once, without a hole"
        assert failures(layout) == []


@pytest.mark.server
def test_a_server_that_is_ahead_of_a_restored_store_doubles_nothing(
    client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    now = time.time()
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(value, now - 600 + value) for value in range(100)])
    copy(pipeline.layout, tmp_path / "backup")
    pipeline.take_in([event(value, now - 400 + value) for value in range(100, 150)])
    pipeline.feed([event(value, now - 300 + value) for value in range(150, 160)])
    shutil.rmtree(pipeline.layout.root)

    restore(tmp_path / "backup", pipeline.layout)
    again = Pipeline(client, redis_url, tmp_path / "store")
    again.archive()
    again.aggregate()
    there = values_on_disk(tmp_path / "store")
    assert set(there.values()) == {1}
    assert there.keys() >= {*map(float, range(100)), *map(float, range(150, 160))}
    rebuild(client, KEYS, again.layout, again.settings, 0)
    answer = again.history(since=now - 3600, until=now + 60, agg="count")
    assert sum(filter(None, values_of(answer)[()])) == len(there)
    assert [str(one) for one in examine(again.settings, lambda _: None) if one.status is Status.FAIL] == []

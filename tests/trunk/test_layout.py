"""The storage folder: where things lie, who may see them, and that files come to be whole."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import (
    Layout,
    SegmentName,
    StoreFile,
    make_folder,
    partition_of,
    publish,
    publish_copy,
    publish_once,
    segment_name,
)
from vibezen.metrics.storage import MetricsStorage


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("ts", "partition"),
    [
        (1795449600.0, "date=2026-11-23/hour=16"),
        (1795449599.999999, "date=2026-11-23/hour=15"),
        (1795478399.9, "date=2026-11-23/hour=23"),
        (1795478400.0, "date=2026-11-24/hour=00"),
        (946684800.0, "date=2000-01-01/hour=00"),
    ],
)
def test_partition_is_the_utc_hour_of_the_event(ts: float, partition: str) -> None:
    assert partition_of(ts) == partition


def test_segment_names_read_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    path = layout.segment("date=2026-11-23/hour=16", SegmentName(3, 12, 7))
    assert path.relative_to(tmp_path).as_posix() == "events/date=2026-11-23/hour=16/3-12-7.jsonl"
    assert segment_name(path) == SegmentName(3, 12, 7)
    assert segment_name(path.with_name("3-12-7.jsonl.gz")) is None
    assert segment_name(path.with_name(".3-12-7.jsonl.new")) is None


def test_only_whole_segments_are_listed_oldest_hour_first(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    later, earlier = "date=2026-11-24/hour=00", "date=2026-11-23/hour=23"
    for partition in (later, earlier):
        path = layout.segment(partition, SegmentName(0, 1, 1))
        make_folder(path.parent)
        for name in (path.name, ".0-1-2.jsonl.new", ".0-1-1.jsonl.ab12.tmp", "notes.jsonl"):
            path.with_name(name).touch()
    found = [path.relative_to(layout.events).as_posix() for path in layout.segments()]
    assert found == [f"{earlier}/0-1-1.jsonl", f"{later}/0-1-1.jsonl"]


def test_logs_are_listed_by_epoch_as_a_number(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    for name in ("0-9.log", "0-10.log", "1-2.log", "0-11.log.tmp"):
        (layout.commits / name).touch()
    assert [epoch for epoch, _ in layout.logs(0)] == [9, 10]
    assert layout.shards() == [0, 1]


def test_folder_becomes_a_store_once_and_stays_the_same(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "deep" / "store")
    first = layout.create()
    assert layout.create() == first == layout.read()
    assert MetricsStorage(tmp_path / "deep" / "store").open() == first
    assert names(layout.root) == ["STORE", "commits", "events"]
    assert (mode(layout.root), mode(layout.store_file)) == (0o700, 0o600)


def test_processes_that_create_it_at_once_agree_on_its_identity(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "store")
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(layout.create().id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert set(ids) == {layout.read().id}


def test_looking_at_a_store_touches_nothing(tmp_path: Path) -> None:
    storage = MetricsStorage(tmp_path / "none")
    assert storage.path == tmp_path / "none"
    assert not storage.path.exists()
    with pytest.raises(StoreError, match="not a store yet"):
        storage.layout.read()


def test_unusable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as refused:
        Layout(tmp_path / "file" / "store").create()
    assert str(refused.value) == f"storage folder {tmp_path}/file/store: not a directory"


def test_newer_and_damaged_stores_are_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.store_file.write_bytes(msgspec.json.encode(StoreFile("x", 99)))
    with pytest.raises(StoreError, match="format 99 is newer than this version knows"):
        layout.create()
    layout.store_file.write_text("{")
    with pytest.raises(StoreError, match="not readable as a store's identity"):
        layout.create()


def test_published_file_appears_whole_and_private(tmp_path: Path) -> None:
    target = tmp_path / "file"
    publish(target, b"first")
    publish(target, b"second")
    assert target.read_bytes() == b"second"
    assert mode(target) == 0o600
    assert names(tmp_path) == ["file"]


def test_publishing_once_never_replaces(tmp_path: Path) -> None:
    assert publish_once(tmp_path / "file", b"first")
    assert not publish_once(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("how", [publish, publish_once, publish_copy])
def test_file_is_durable_before_it_has_its_name_and_then_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[..., Any]
) -> None:
    """After a loss of power a name may lead to an empty file otherwise."""
    (tmp_path / "source").write_bytes(b"data")
    steps: list[str] = []

    def note(call: str) -> None:
        real = getattr(os, call)

        def noting(what: Any, *rest: Any) -> None:
            is_folder = call == "fsync" and stat.S_ISDIR(os.fstat(what).st_mode)
            steps.append("fsync folder" if is_folder else call)
            real(what, *rest)

        monkeypatch.setattr(os, call, noting)

    for call in ("fsync", "rename", "link"):
        note(call)
    how(*((tmp_path / "source", tmp_path / "file", 4) if how is publish_copy else (tmp_path / "file", b"data")))
    assert steps == ["fsync", "link" if how is publish_once else "rename", "fsync folder"]


def test_writer_of_a_sealed_file_writes_into_nothing(tmp_path: Path) -> None:
    segment = tmp_path / "0-1-1.jsonl"
    with segment.open("wb") as sleeper:
        sleeper.write(b"committed\nnot committed")
        sleeper.flush()
        publish_copy(segment, segment, len(b"committed\n"))
        sleeper.write(b" and more\n")
        sleeper.flush()
        os.fsync(sleeper.fileno())
    assert segment.read_bytes() == b"committed\n"
    assert names(tmp_path) == ["0-1-1.jsonl"]


def test_copy_of_a_file_that_lost_committed_bytes_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"short")
    with pytest.raises(StoreError, match="3 committed bytes are missing"):
        publish_copy(source, tmp_path / "target", 8)
    assert names(tmp_path) == ["source"]

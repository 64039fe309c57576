"""What is data: exactly what commit records name, whatever else lies in the folder."""

import os
from pathlib import Path

import pytest

from vibezen.metrics.commitlog import Extent, Record, encode_record
from vibezen.metrics.committed import CommittedFiles, Snapshot, hours_of
from vibezen.metrics.errors import StoreError
from vibezen.metrics.layout import Layout, hidden, publish

HOUR = 1_763_985_600
PARTITION = "date=2025-11-24/hour=12"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create()
    (layout.events / PARTITION).mkdir(parents=True)
    return layout


def extent(name: str, events: int, *, closed: bool = False) -> Extent:
    return Extent(f"{PARTITION}/{name}.jsonl", events * 10, events, HOUR, HOUR + 1.0, 0, closed)


def log(layout: Layout, epoch: int, *records: Record, shard: int = 0) -> Path:
    path = layout.log(shard, epoch)
    publish(path, b"".join(map(encode_record, records)))
    return path


def lines(snapshot: Snapshot) -> dict[str, int]:
    return {segment.path.name: segment.lines for segment in snapshot.files([HOUR]).segments}


def test_segments_are_those_that_records_name_as_far_as_the_last_one_says(layout: Layout) -> None:
    log(layout, 1, Record("1-0", [extent("0-1-1", 2)]), Record("2-0", [extent("0-1-1", 5), extent("0-1-2", 1)]))
    (layout.events / PARTITION / "0-1-9.jsonl").write_text("not data")
    snapshot = CommittedFiles(layout).snapshot()
    assert lines(snapshot) == {"0-1-1.jsonl": 5, "0-1-2.jsonl": 1}
    assert (snapshot.positions, snapshot.hours()) == ({0: "2-0"}, [HOUR])


def test_what_is_appended_later_is_seen_and_the_rest_is_not_read_again(layout: Layout) -> None:
    path = log(layout, 1, Record("1-0", [extent("0-1-1", 2)]))
    files = CommittedFiles(layout)
    before = files.snapshot()
    whole = encode_record(Record("2-0", [extent("0-1-1", 7)]))
    with path.open("ab") as file:
        file.write(whole[:20])
    assert lines(files.snapshot()) == {"0-1-1.jsonl": 2}
    with path.open("ab") as file:
        file.write(whole[20:])
    assert lines(files.snapshot()) == {"0-1-1.jsonl": 7}
    assert lines(before) == {"0-1-1.jsonl": 2}


def test_a_log_that_a_successor_sealed_is_read_anew(layout: Layout) -> None:
    log(layout, 1, Record("1-0", [extent("0-1-1", 2)]), Record("2-0", [extent("0-1-1", 3)]))
    files = CommittedFiles(layout)
    files.snapshot()
    log(layout, 1, Record("2-0", [extent("0-1-1", 3, closed=True)], sealed=True))
    log(layout, 2, Record("2-0"), Record("3-0", [extent("0-2-1", 4)]))
    snapshot = files.snapshot()
    assert lines(snapshot) == {"0-1-1.jsonl": 3, "0-2-1.jsonl": 4}
    assert {segment.path.name: segment.closed for segment in snapshot.files([HOUR]).segments} == {
        "0-1-1.jsonl": True,
        "0-2-1.jsonl": False,
    }
    assert snapshot.positions == {0: "3-0"}


def test_what_a_sleeper_adds_to_a_log_that_was_replaced_is_not_seen(layout: Layout) -> None:
    path = log(layout, 1, Record("1-0", [extent("0-1-1", 2)]))
    sleeper = os.open(path, os.O_WRONLY | os.O_APPEND)
    log(layout, 1, Record("1-0", [extent("0-1-1", 2, closed=True)], sealed=True))
    os.write(sleeper, encode_record(Record("9-0", [extent("0-1-1", 9)])))
    os.close(sleeper)
    assert lines(CommittedFiles(layout).snapshot()) == {"0-1-1.jsonl": 2}


def test_shards_have_positions_of_their_own(layout: Layout) -> None:
    log(layout, 1, Record("5-0", [extent("0-1-1", 2)]))
    log(layout, 1, Record("10-0", [extent("1-1-1", 3)]), shard=1)
    snapshot = CommittedFiles(layout).snapshot()
    assert snapshot.positions == {0: "5-0", 1: "10-0"}
    assert lines(snapshot) == {"0-1-1.jsonl": 2, "1-1-1.jsonl": 3}


def test_segment_that_was_not_made_public_yet_is_read_under_its_hidden_name(layout: Layout) -> None:
    log(layout, 1, Record("1-0", [extent("0-1-1", 2)]))
    (segment,) = CommittedFiles(layout).snapshot().files([HOUR]).segments
    hidden(segment.path).write_text("x")
    assert segment.to_read() == hidden(segment.path)
    segment.path.write_text("x")
    assert segment.to_read() == segment.path


def test_store_without_commits_is_empty(layout: Layout) -> None:
    snapshot = CommittedFiles(layout).snapshot()
    assert (snapshot.hours(), snapshot.positions) == ([], {})


def test_log_that_comes_and_goes_is_looked_for_again(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    path = log(layout, 1, Record("1-0", [extent("0-1-1", 2)]))
    calls: list[int] = []

    def logs(shard: int) -> list[tuple[int, Path]]:
        calls.append(shard)
        return [(1, path)] if len(calls) > 2 else [(1, path), (2, path.with_name("0-2.log"))]

    monkeypatch.setattr(layout, "logs", logs)
    assert lines(CommittedFiles(layout).snapshot()) == {"0-1-1.jsonl": 2}
    monkeypatch.setattr(layout, "logs", lambda shard: [(2, path.with_name("0-2.log"))])
    with pytest.raises(StoreError, match="come and go"):
        CommittedFiles(layout).snapshot()


def test_what_is_no_log_is_an_error_in_one_line(layout: Layout) -> None:
    layout.log(0, 9).mkdir()
    with pytest.raises(StoreError, match="its commit logs"):
        CommittedFiles(layout).snapshot()
    layout.log(0, 9).rmdir()
    log(layout, 9, Record("1-0", [Extent("elsewhere/0-1-1.jsonl", 10, 1, HOUR, HOUR, 0)]))
    with pytest.raises(StoreError, match="lies in no partition"):
        CommittedFiles(layout).snapshot()


def test_hours_are_those_a_range_touches() -> None:
    assert list(hours_of(HOUR + 1, HOUR + 3600)) == [HOUR]
    assert list(hours_of(HOUR, HOUR + 3600.5)) == [HOUR, HOUR + 3600]

"""DuckDB over committed lines: no torn, uncommitted or foreign line counts, and none that was committed is missed."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.feeding import event
from vibezen.metrics import event_reader
from vibezen.metrics.committed import Files, Segment
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.event_reader import Condition, EventReader, FilesChanged, Wanted
from vibezen.metrics.layout import Layout, hidden

HOUR = 1_763_985_600
ALL = Wanted(0.0, 1e12)


@pytest.fixture
def reader(tmp_path: Path) -> EventReader:
    return EventReader(Layout(tmp_path))


def segment(path: Path, events: Sequence[Event], *, closed: bool = True, behind: bytes = b"") -> Segment:
    lines = encode_lines(events)
    path.write_bytes(lines + behind)
    return Segment(path, HOUR, len(lines), len(events), closed)


def some(count: int, value: float = 1.0, **metadata: Any) -> list[Event]:
    return [event(value, HOUR + number / 1000, **metadata) for number in range(count)]


def count(reader: EventReader, *segments: Segment, wanted: Wanted = ALL) -> int:
    return sum(row.lines for row in reader.steps(Files(segments), wanted, None))


@pytest.mark.parametrize(
    "behind", [b"", b'{"metric":"response_time","value":7,"ts":1763985601}\n', b'{"metric":"resp', b"\0\0"]
)
def test_lines_behind_what_is_committed_do_not_count(tmp_path: Path, reader: EventReader, behind: bytes) -> None:
    open_one = segment(tmp_path / "open", some(5), closed=False, behind=behind)
    closed = segment(tmp_path / "closed", some(3))
    assert count(reader, open_one, closed) == 8
    assert count(reader, open_one) == 5


def test_first_lines_of_a_large_open_segment_are_its_committed_ones(tmp_path: Path, reader: EventReader) -> None:
    """DuckDB reads a file in parts, on several threads; still the first lines are meant."""
    many = [event(number, HOUR + number / 1000, padding="x" * 900) for number in range(60_000)]
    found = segment(tmp_path / "open", many, closed=False)._replace(lines=41_234, size=1)
    (row,) = reader.steps(Files([found]), ALL, None)
    assert (row.lines, row.window.max, row.window.sum) == (41_234, 41_233, sum(range(41_234)))


def test_as_many_open_segments_as_an_archiver_may_hold_are_read_at_once(tmp_path: Path, reader: EventReader) -> None:
    found = [segment(tmp_path / f"{n}", some(1 + n % 3), closed=False, behind=b'{"metr') for n in range(1024)]
    assert count(reader, *found) == sum(one.lines for one in found)
    found[7].path.unlink()
    with pytest.raises(FilesChanged):
        count(reader, *found)


@pytest.mark.parametrize("cut", range(1, 120))
def test_file_cut_anywhere_gives_all_its_whole_lines(tmp_path: Path, reader: EventReader, cut: int) -> None:
    found = segment(tmp_path / "damaged", some(3, provider="openai"))
    whole = found.path.read_bytes()
    found.path.write_bytes(whole[:-cut])
    last = whole[:-cut].rpartition(b"\n")[2]
    assert count(reader, found) == whole[:-cut].count(b"\n") + (last.endswith(b"}}"))


def test_damaged_lines_are_left_out_and_counted(tmp_path: Path, reader: EventReader, caplog: Any) -> None:
    found = segment(tmp_path / "damaged", some(3), behind=b"no event\n\n{}\n" + encode_lines(some(2)))
    assert count(reader, found, segment(tmp_path / "good", some(4))) == 9
    assert reader.damaged == 2
    assert "2 lines in 2 segments are no events" in caplog.text


def test_line_without_a_value_is_no_event(tmp_path: Path, reader: EventReader) -> None:
    found = segment(tmp_path / "s", some(3))
    found.path.write_bytes(found.path.read_bytes().replace(b"value", b"vblue", 1))
    assert count(reader, found) == 2
    assert len(reader.lines(Files([found]), ALL, 5)) == 2


def test_full_disk_is_an_error_of_the_store(tmp_path: Path, reader: EventReader, monkeypatch: Any) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(event_reader, "_copy_beginning", full)
    with pytest.raises(StoreError, match="No space left"):
        count(reader, *(segment(tmp_path / f"{n}", some(1), closed=False) for n in range(20)))


def test_file_that_is_gone_asks_for_a_new_snapshot(tmp_path: Path, reader: EventReader) -> None:
    found = segment(tmp_path / "gone", some(3))
    found.path.unlink()
    for one in (found, found._replace(closed=False)):
        with pytest.raises(FilesChanged):
            count(reader, one)


def test_hidden_segment_is_read(tmp_path: Path, reader: EventReader) -> None:
    found = segment(tmp_path / "0-1-1.jsonl", some(3), closed=False)
    found.path.rename(hidden(found.path))
    assert count(reader, found) == 3


@pytest.mark.parametrize("name", ["a [b].jsonl", "it's.jsonl", "a*.jsonl", "what?.jsonl", "date=2020-01-01"])
def test_paths_are_taken_as_they_are(tmp_path: Path, reader: EventReader, name: str) -> None:
    (tmp_path / name).mkdir()
    assert count(reader, segment(tmp_path / name / "x.jsonl", some(3))) == 3


def test_conditions_compare_the_text_of_any_value(tmp_path: Path, reader: EventReader) -> None:
    values: list[Any] = ["a", "", 5, 1.5, 1e22, True, False, None, "null", "it's", 'say "x"', "\0", "ü€😀"]
    found = segment(tmp_path / "s", [event(1, HOUR, key=value) for value in values] + [event(1, HOUR)])
    for text, expected in [
        *(("a", 1), ("", 1), ("5", 1), ("1.5", 1), ("1e+22", 1), ("true", 1), ("false", 1), ("null", 1)),
        *(("it's", 1), ('say "x"', 1), ("\0", 1), ("ü€😀", 1), ("A", 0), ("5.0", 0)),
    ]:
        for negated in (False, True):
            condition = Condition("key", text, negated)
            told = count(reader, found, wanted=ALL._replace(where=[condition]))
            assert told == (len(values) + 1 - expected if negated else expected), condition
            assert len(reader.lines(Files([found]), ALL._replace(where=[condition]), 100)) == told


def test_names_with_dots_are_keys_not_paths(tmp_path: Path, reader: EventReader) -> None:
    found = segment(tmp_path / "s", [Event("m", 1.0, HOUR, metadata={"a.b": "x", "a": "y"})])
    assert count(reader, found, wanted=ALL._replace(where=[Condition("a.b", "x"), Condition("a", "y")])) == 1
    (row,) = reader.steps(Files([found]), ALL, None, ["a.b", "a"])
    assert row.labels == ("x", "y")


def test_range_is_half_open(tmp_path: Path, reader: EventReader) -> None:
    found = segment(tmp_path / "s", [event(1, HOUR + second) for second in range(10)])
    assert count(reader, found, wanted=Wanted(HOUR + 2, HOUR + 5)) == 3


def test_microseconds_are_kept(tmp_path: Path, reader: EventReader) -> None:
    found = segment(tmp_path / "s", [event(1, 1763985600.123456), event(2, 1763985600.123457)])
    assert [line.ts for line in reader.lines(Files([found]), ALL, 10)] == [1763985600.123457, 1763985600.123456]


def test_nothing_to_read_is_nothing(reader: EventReader) -> None:
    assert reader.steps(Files(), ALL, None) == []
    assert reader.buckets(Files(), ALL, None) == {}
    assert reader.lines(Files(), ALL, 5) == []


def test_values_of_every_size_add_up(tmp_path: Path, reader: EventReader) -> None:
    values = [1e300, 1.0, -1e300, 5e-324, 0.0, -2.5, 2**53 + 0.0]
    (row,) = reader.steps(
        Files([segment(tmp_path / "s", [event(value, HOUR) for value in values])]), ALL, None, (), (0.5,)
    )
    assert row.window.min == -1e300
    assert row.window.max == 1e300
    assert row.quantiles == [5e-324]


@pytest.mark.parametrize("values", [(1, 3, 2), (3, 2, 1), (1, 2, 3)])
def test_of_one_time_the_largest_value_is_the_last(tmp_path: Path, reader: EventReader, values: Sequence[int]) -> None:
    """Lines that have become a part have no order but that of time."""
    found = segment(tmp_path / "s", [event(value, HOUR + number * 1e-7) for number, value in enumerate(values)])
    (row,) = reader.steps(Files([found]), ALL, None)
    assert row.window.last == 3

"""The commit log: whatever happens to its end, what is read is a state that was once committed."""

import random
import zlib
from pathlib import Path

import pytest

from vibezen.metrics.commitlog import (
    Counters,
    DeadLetter,
    Extent,
    LogState,
    Record,
    Seen,
    encode_record,
    fold,
    read_log,
)

NOTHING = LogState(0, {}, {}, Record())


def extent(number: int, end: int, closed: bool = False) -> Extent:
    path = f"date=2026-11-23/hour=16/0-1-{number}.jsonl"
    return Extent(path, end, end // 10, 1763913600.25, 1763913600.25 + end, end * 7, closed)


RECORDS = [
    Record("0-0", [], {"old": Seen(40, 1763000000.0)}),
    Record("1-1", [extent(1, 100)], {"a": Seen(10, 1.5)}, counters=Counters(1, 10, 0, 0, 0)),
    Record("2-0", [extent(1, 250), extent(2, 50)], {"b": Seen(3, 2.0)}, counters=Counters(2, 30, 0, 0, 0)),
    Record(
        "2-5", [], {"a": Seen(17, 2.5)}, [DeadLetter("2-5/0", "ts: Ünicode\n", 2.5, "\r\n\u2028\0")], Counters(3, 30, 1)
    ),
    Record(
        "9-0", [extent(1, 400, closed=True), extent(3, 10)], {"a": Seen(20, 9.0)}, counters=Counters(4, 46, 1, 2, 3)
    ),
]
LINES = [encode_record(record) for record in RECORDS]
STATES = [NOTHING]
for _index, _record in enumerate(RECORDS):
    STATES.append(
        LogState(
            sum(map(len, LINES[: _index + 1])),
            {**STATES[-1].extents, **{found.path: found for found in _record.segments}},
            {**STATES[-1].producers, **_record.producers},
            _record,
        )
    )


def whole_lines(length: int) -> int:
    """How many lines the first `length` bytes hold."""
    return b"".join(LINES)[:length].count(b"\n")


def test_empty_log_is_the_beginning() -> None:
    assert fold(b"") == NOTHING


def test_record_is_one_line() -> None:
    for line in LINES:
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert b"\r" not in line


def test_records_add_up_to_the_state() -> None:
    state = fold(b"".join(LINES))
    assert state == STATES[-1]
    assert state.extents == {found.path: found for found in (extent(1, 400, closed=True), extent(2, 50), extent(3, 10))}
    assert state.producers == {"old": Seen(40, 1763000000.0), "a": Seen(20, 9.0), "b": Seen(3, 2.0)}
    assert (state.last.position, state.last.counters) == ("9-0", Counters(4, 46, 1, 2, 3))


def test_record_comes_back_with_all_it_says() -> None:
    full = Record(
        "7-7", [extent(1, 1)], {"p": Seen(1, 1.0)}, [DeadLetter("7-7/0", "r", 1.0, "p")], Counters(1), "6-0", True
    )
    assert fold(encode_record(full)).last == full


@pytest.mark.parametrize("kept", range(3))
def test_log_cut_at_any_byte_of_its_last_records_is_a_state_that_was(kept: int) -> None:
    data = b"".join(LINES)
    first = sum(map(len, LINES[: kept + 2]))
    for length in range(first, first + len(LINES[kept + 2]) + 1):
        assert fold(data[:length]) == STATES[whole_lines(length)]


def test_log_cut_anywhere_and_written_on_ends_at_the_cut() -> None:
    """A torn line is not repaired by what follows: the writer cuts it off first."""
    data = b"".join(LINES[:3])
    for length in range(len(data) + 1):
        state = STATES[whole_lines(length)]
        if state.length == length:
            continue
        assert fold(data[:length] + LINES[3] + LINES[4]) == state


@pytest.mark.parametrize("bit", range(8))
def test_flipped_bit_ends_the_log_where_it_is(bit: int) -> None:
    data = b"".join(LINES)
    for at in range(sum(map(len, LINES[:2])), len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << bit
        assert fold(bytes(damaged)) == STATES[whole_lines(at)]


def test_any_damage_leaves_a_state_that_was() -> None:
    source = random.Random(11)
    data = b"".join(LINES)
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(damaged))
            damaged[at : at + source.randint(0, 6)] = source.randbytes(source.randint(0, 6))
        untouched = next((i for i, (a, b) in enumerate(zip(damaged, data, strict=False)) if a != b), len(data))
        assert fold(bytes(damaged)) == STATES[whole_lines(min(untouched, len(damaged)))]


@pytest.mark.parametrize(
    "tail",
    [b"\n", b"\0" * 100, b"\0\n", b"00000000 \n", b"00000000 {}\n", b"garbage\n", b"a3830348 {}\r\n", b"\r\n", b"\r"],
)
def test_foreign_tail_is_not_read(tail: bytes) -> None:
    assert fold(LINES[0] + tail) == STATES[1]
    assert fold(LINES[0] + tail + LINES[1]) == STATES[1]


def test_line_with_a_right_checksum_that_is_no_record_ends_the_log() -> None:
    for body in (b"[]", b'{"position":1}', b'{"segments":[["x"]]}', b"\xff", b""):
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        assert fold(LINES[0] + line + LINES[1]) == STATES[1]


def test_field_of_a_later_version_is_passed_over() -> None:
    body = b'{"position":"3-0","colour":"red"}'
    assert fold(b"%08x %s\n" % (zlib.crc32(body), body)).last == Record("3-0")


def test_log_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "0-1.log"
    path.write_bytes(b"".join(LINES) + b"torn")
    assert read_log(path) == STATES[-1]

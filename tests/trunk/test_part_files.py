"""Parts in their folders: which of them are read, and what is said of those that cannot be."""

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from msgspec.structs import replace

from tests.support.feeding import NOON, event
from tests.support.stored import archive, compact_day, compact_hour, sweep, write_part
from vibezen.metrics import part_files, part_sql
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.committed import CommittedFiles
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event_reader import EventReader, FilesChanged, Wanted
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.layout import Layout, date_folder, partition_of
from vibezen.metrics.part_files import PartFiles
from vibezen.metrics.parts import Moved
from vibezen.metrics.snapshot import Snapshot

FIRST = int(NOON)
DATE = FIRST // DAY * DAY
ALL = Wanted(0.0, 1e12)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "store")
    layout.create()
    return layout


@pytest.fixture
def reader(layout: Layout) -> EventReader:
    return EventReader(layout)


def take_in(layout: Layout, count: int, hour: int = FIRST, *, shard: int = 0, closed: bool = True) -> None:
    archive(layout, [event(1, hour + 1 + number / 7) for number in range(count)], shard=shard, closed=closed)


def count(reader: EventReader, within: range | None = None) -> int:
    def asked(snapshot: Snapshot) -> int:
        files = snapshot.files(snapshot.hours())
        found = sum(row.lines for row in reader.steps(files, ALL, None))
        assert found == files.lines
        return found

    return reader.ask(asked, within)


def test_newest_generation_is_read_with_the_segments_it_does_not_include(layout: Layout, reader: EventReader) -> None:
    take_in(layout, 5)
    assert count(reader) == 5
    first = compact_hour(layout, FIRST)
    assert count(reader) == 5
    take_in(layout, 3, shard=1)
    assert count(reader) == 8
    second = compact_hour(layout, FIRST)
    assert (first.name, second.name) == ("part-1.parquet", "part-2.parquet")
    take_in(layout, 2, closed=False)
    assert count(reader) == 10
    sweep(layout)
    assert (first.exists(), count(reader), count(EventReader(layout))) == (False, 10, 10)


def test_day_replaces_its_hours_until_one_of_them_has_more(layout: Layout, reader: EventReader) -> None:
    for number in range(3):
        take_in(layout, 1 + number, FIRST + number * HOUR)
        compact_hour(layout, FIRST + number * HOUR)
    assert count(reader) == 6
    compact_day(layout, DATE)
    assert count(reader) == 6
    sweep(layout)
    assert [path.parent.name for path in layout.events.rglob("*.parquet")] == [date_folder(DATE)]
    assert count(reader) == 6
    take_in(layout, 10, FIRST + HOUR)
    assert count(reader) == 16
    compact_hour(layout, FIRST + HOUR)
    assert count(reader) == 16
    assert count(reader, range(FIRST + HOUR, FIRST + 2 * HOUR, HOUR)) == 12
    assert count(reader, range(FIRST, FIRST + HOUR, HOUR)) == 1


def test_hours_of_a_day_are_read_without_the_others(layout: Layout, reader: EventReader) -> None:
    for number in range(4):
        take_in(layout, 1 + number, FIRST + number * HOUR)
    compact_day(layout, DATE)
    (span,) = reader.snapshot().files([FIRST + 2 * HOUR, FIRST, FIRST + HOUR]).parts
    assert (span.hours, span.spans) == ((FIRST, FIRST + HOUR, FIRST + 2 * HOUR), ((FIRST, FIRST + 3 * HOUR),))
    (whole,) = reader.snapshot().files(range(DATE, DATE + DAY, HOUR)).parts
    assert whole.spans is None


def test_stub_hides_what_was_dropped_and_what_comes_late_is_read(layout: Layout, reader: EventReader) -> None:
    take_in(layout, 5)
    take_in(layout, 2, FIRST + HOUR)
    compact_day(layout, DATE)
    drop(layout)
    assert (count(reader), reader.snapshot().hours()) == (0, [])
    sweep(layout)
    take_in(layout, 4)
    assert (count(reader), reader.snapshot().hours()) == (4, [FIRST])


def drop(layout: Layout) -> Path:
    (span,) = CommittedFiles(layout).snapshot().files(range(DATE, DATE + DAY, HOUR)).parts
    footer = span.part.footer
    nothing = part_sql.rows((), [Path(span.place)])
    nothing = Sql(f"SELECT * FROM ({nothing.text}) WHERE false", nothing.parameters)
    return write_part(
        layout, date_folder(DATE), footer.inputs, nothing, lambda made: replace(made, dropped=footer.events)
    )


def test_moved_rows_are_read_where_they_lie(layout: Layout, reader: EventReader, tmp_path: Path) -> None:
    take_in(layout, 5)
    take_in(layout, 2, FIRST + HOUR)
    whole = compact_day(layout, DATE)
    (span,) = reader.snapshot().files(range(DATE, DATE + DAY, HOUR)).parts
    elsewhere = tmp_path / "elsewhere.parquet"
    elsewhere.write_bytes(whole.read_bytes())
    nothing = part_sql.rows((), [whole])
    nothing = Sql(f"SELECT * FROM ({nothing.text}) WHERE false", nothing.parameters)
    data = elsewhere.read_bytes()
    moved = Moved(elsewhere.as_uri(), len(data), hashlib.sha256(data).hexdigest())
    write_part(
        layout,
        date_folder(DATE),
        span.part.footer.inputs,
        nothing,
        lambda made: replace(made, hours=span.part.footer.hours, moved=moved),
    )
    sweep(layout)
    assert not whole.exists()
    assert (count(reader), count(reader, range(FIRST, FIRST + HOUR, HOUR))) == (7, 5)


def meanwhile(monkeypatch: pytest.MonkeyPatch, method: str, done: Callable[[], object]) -> list[str]:
    """Let something happen once, after the first call of a method of PartFiles that an hour or a date is behind."""
    original, calls = getattr(PartFiles, method), list[str]()

    def patched(self: PartFiles, *arguments: Any) -> Any:
        found = original(self, *arguments)
        if not calls:
            calls.append(method)
            done()
        return found

    monkeypatch.setattr(PartFiles, method, patched)
    return calls


@pytest.mark.parametrize("method", ["views", "_find", "_listed"])
def test_what_is_compacted_and_removed_while_it_is_looked_for_is_read_once(
    layout: Layout, reader: EventReader, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for number in range(3):
        take_in(layout, 1 + number, FIRST + number * HOUR)
    compact_hour(layout, FIRST)

    def done() -> None:
        compact_day(layout, DATE)
        sweep(layout)

    calls = meanwhile(monkeypatch, method, done)
    assert count(reader) == 6
    assert calls


def test_file_removed_while_it_is_read_is_looked_for_again(layout: Layout, reader: EventReader) -> None:
    take_in(layout, 5)
    compact_hour(layout, FIRST)
    before = reader.snapshot()
    take_in(layout, 2)
    compact_hour(layout, FIRST)
    sweep(layout)
    with pytest.raises(FilesChanged):
        reader.steps(before.files([FIRST]), ALL, None)
    assert count(reader) == 7


def test_damaged_part_is_named(layout: Layout, tmp_path: Path) -> None:
    take_in(layout, 3000)
    path = compact_hour(layout, FIRST)
    good = path.read_bytes()
    footer = int.from_bytes(good[-8:-4], "little")
    rnd = random.Random(1)
    told = 0
    for number in range(40):
        damaged = bytearray(good)
        first = rnd.randrange(len(good)) if number % 2 else len(good) - 8 - rnd.randrange(footer)
        damaged[first : first + 4] = rnd.randbytes(4)
        path.write_bytes(damaged[: len(good)])
        told += is_told(layout, path)
    for size in (0, 1, 11, 100, len(good) - 9, len(good) - 1):
        path.write_bytes(good[:size])
        assert is_told(layout, path)
    assert told > 10


def is_told(layout: Layout, path: Path) -> bool:
    """Damage that no reader can see is left to `verify`."""
    reader = EventReader(layout)
    try:
        reader.ask(lambda snapshot: reader.lines(snapshot.files([FIRST]), ALL, 5000))
    except StoreError as error:
        told = str(error)
    else:
        return False
    assert str(path) in told
    assert "\n" not in told
    return True


def test_what_is_no_part_of_this_place_is_refused_by_name(layout: Layout, reader: EventReader, tmp_path: Path) -> None:
    take_in(layout, 5)
    take_in(layout, 2, FIRST + HOUR)
    part = compact_hour(layout, FIRST)
    foreign = part.with_name("part-9.parquet")
    foreign.write_bytes(part.read_bytes())
    with pytest.raises(StoreError, match=r"part-9\.parquet: is a part of another hour, or another generation"):
        count(reader)
    foreign.rename(layout.events / partition_of(FIRST + HOUR) / part.name)
    with pytest.raises(StoreError, match=r"hour=13/part-1\.parquet: is a part of another hour"):
        count(reader)
    (layout.events / partition_of(FIRST + HOUR) / part.name).unlink()
    duckdb.execute("COPY (SELECT 1 AS x) TO $target (FORMAT parquet)", {"target": str(foreign)})
    with pytest.raises(StoreError, match=r"part-9\.parquet: no part of a store"):
        count(reader)
    foreign.rename(foreign.with_name("mine.parquet"))
    (part.parent / "part-x.parquet").write_text("x")
    (part.parent / ".part-7.parquet.ab12.tmp").write_text("x")
    assert count(reader) == 7


def test_part_of_another_store_is_refused(layout: Layout, reader: EventReader, tmp_path: Path) -> None:
    take_in(layout, 5)
    other = Layout(tmp_path / "other")
    other.create()
    take_in(other, 3)
    part = compact_hour(other, FIRST)
    part.rename(layout.events / part.relative_to(other.events))
    with pytest.raises(StoreError, match="is a part of another store"):
        count(reader)


def test_copy_of_a_folder_beside_it_is_no_part_of_the_store(layout: Layout, reader: EventReader) -> None:
    take_in(layout, 5)
    folder = compact_hour(layout, FIRST).parent
    shutil.copytree(folder, folder.with_name(f"{folder.name}.bak"))
    shutil.copytree(folder, folder.with_name("hour=99"))
    assert count(reader) == 5


def test_part_of_a_newer_format_is_refused(layout: Layout, reader: EventReader) -> None:
    take_in(layout, 5)
    rows = part_sql.rows([part_sql.Lines(0, list(layout.segments()))], ())
    write_part(layout, partition_of(FIRST), [], rows, lambda made: replace(made, format=2))
    with pytest.raises(StoreError, match="format 2 is newer than this version knows"):
        count(reader)


def test_folders_that_stay_as_they_are_are_listed_once(
    layout: Layout, reader: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(layout, 5)
    compact_hour(layout, FIRST)
    for folder in (layout.events / partition_of(FIRST), layout.events / date_folder(DATE)):
        os.utime(folder, (1, 1))
    assert count(reader) == 5
    listed: list[str] = []
    listing = part_files._list

    def noted(where: str, folder: str, changed_ns: int) -> Any:
        listed.append(folder)
        return listing(where, folder, changed_ns)

    monkeypatch.setattr(part_files, "_list", noted)
    monkeypatch.setattr(part_files, "read_footers", None)
    assert (count(reader), listed) == (5, [])
    monkeypatch.undo()
    take_in(layout, 2, closed=True)
    compact_hour(layout, FIRST)
    assert count(reader) == 7


def test_snapshot_of_an_hour_looks_at_its_date_alone(
    layout: Layout, reader: EventReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    for date in range(40):
        take_in(layout, 1, FIRST + date * DAY)
        compact_day(layout, DATE + date * DAY)
    looked: list[str] = []
    listing = part_files._list

    def noted(where: str, folder: str, changed_ns: int) -> Any:
        looked.append(folder)
        return listing(where, folder, changed_ns)

    monkeypatch.setattr(part_files, "_list", noted)
    assert count(reader, range(FIRST, FIRST + HOUR, HOUR)) == 1
    assert {folder.partition("/")[0] for folder in looked} == {date_folder(DATE)}
    assert count(reader) == 40

"""Exports: every event of the range once, in order of time, in each format; whole, or an error."""

import csv
import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import duckdb
import msgspec
import pytest

from tests.support.feeding import event
from tests.support.stored import compact_day, sweep
from tests.support.stores import Store
from tests.support.waiting import wait_until
from vibezen.metrics import event_table
from vibezen.metrics import export as module
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.errors import BadParameter, StoreError
from vibezen.metrics.event import WHOLE, Event, encode_lines
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.export import Export, Exporter, Stopped, exported, parse_export
from vibezen.metrics.snapshot import Snapshot

START = 1_763_985_600
LABELS = ("provider", "model")

Ask = Callable[..., bytes]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def ask(store: Store) -> Ask:
    def ask(**parameters: Any) -> bytes:
        return b"".join(exporter(store, **parameters).blocks())

    return ask


def exporter(store: Store, **parameters: Any) -> Exporter:
    named = {"from" if name == "since" else name: value for name, value in parameters.items()}
    return Exporter(EventReader(store.layout), parse_export(named, LABELS, START))


def mixed(count: int, hours: int = 3) -> list[Event]:
    """Events of every kind, in no order."""
    step = hours * HOUR / count
    made = [
        Event(
            ("response_time", "tokens", "vibezen.x")[number % 3],
            number / 7 - 5,
            round(START + number * 7919 % count * step + 0.123456, 6),
            (WHOLE, 0.25)[number % 5 == 0],
            1 + (number % 11 == 0),
            {"provider": ("openai", "anthropic", "")[number % 3], "cached": number % 2 == 0, "turn": number}
            if number % 4
            else {},
        )
        for number in range(count)
    ]
    assert len({(one.ts, one.value) for one in made}) == count
    return made


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda one: one.ts or 0)


def test_jsonl_is_the_lines_of_the_archive_in_order_of_time(store: Store, ask: Ask) -> None:
    events = mixed(500)
    store.add(events[:300])
    store.add(events[300:], closed=False, behind=b'{"metric":"response_time","value":1,"ts":1763985600}\n{"met')
    assert ask(format="jsonl") == encode_lines(in_order(events))


def test_csv_has_a_row_per_event_with_labels_and_all_metadata(store: Store, ask: Ask) -> None:
    events = mixed(200)
    store.add(events)
    head, *rows = csv.reader(io.StringIO(ask(format="csv").decode(), newline=""))
    assert head == ["time", "ts", "metric", "value", "sample_rate", "count", "provider", "model", "metadata"]
    assert len(rows) == 200
    for row, one in zip(rows, in_order(events), strict=True):
        assert row[0].startswith("2025-11-24T1")
        told = (float(row[1]), row[2], float(row[3]), float(row[4]), int(row[5]))
        assert told == (one.ts, one.metric, one.value, one.sample_rate, one.count)
        assert (row[6], row[7]) == (one.metadata.get("provider", ""), "")
        assert (msgspec.json.decode(row[8]) if row[8] else {}) == one.metadata


def test_csv_is_inert(store: Store, ask: Ask) -> None:
    store.add([event(-1, START, provider="=HYPERLINK(1)", model="-2")])
    row = list(csv.reader(io.StringIO(ask(format="csv").decode())))[1]
    assert (row[3], row[6], row[7]) == ("-1.0", "'=HYPERLINK(1)", "'-2")


def test_parquet_has_the_same_events(store: Store, ask: Ask, tmp_path: Path) -> None:
    events = mixed(500)
    store.add(events)
    (tmp_path / "x.parquet").write_bytes(ask(format="parquet"))
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT epoch_us(ts), metric, value, sample_rate, count, provider, metadata, typeof(ts)"
            f" FROM '{tmp_path}/x.parquet'"
        ).fetchall()
    for row, one in zip(found, in_order(events), strict=True):
        assert one.ts is not None
        assert row[:5] == (round(one.ts * 1e6), one.metric, one.value, one.sample_rate, one.count)
        assert row[5] == one.metadata.get("provider")
        assert (msgspec.json.decode(row[6]) if row[6] else {}) == one.metadata
        assert row[7] == "TIMESTAMP"


@pytest.mark.parametrize("parameters", [{}, {"metric": "cost"}, {"since": "2030-01-01"}])
def test_nothing_is_a_file_without_events(store: Store, ask: Ask, parameters: dict[str, str], tmp_path: Path) -> None:
    if parameters:
        store.add(mixed(10))
    assert ask(format="jsonl", **parameters) == b""
    assert ask(format="csv", **parameters).count(b"\n") == 1
    (tmp_path / "x.parquet").write_bytes(ask(format="parquet", **parameters))
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT count(*) FROM '{tmp_path}/x.parquet'").fetchall() == [(0,)]


def test_only_what_is_asked_for(store: Store, ask: Ask) -> None:
    events = mixed(300)
    store.add(events)
    told = ask(
        format="jsonl",
        metric="tokens,vibezen.x",
        since=str(START + HOUR),
        to=str(START + 2 * HOUR),
        where=["provider!=anthropic", "cached=true"],
    )
    wanted = [
        one
        for one in in_order(events)
        if one.metric in ("tokens", "vibezen.x")
        and one.ts is not None
        and START + HOUR <= one.ts < START + 2 * HOUR
        and one.metadata.get("provider") != "anthropic"
        and one.metadata.get("cached") is True
    ]
    assert wanted
    assert told == encode_lines(wanted)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"format": "xml"}, "format"),
        ({"metric": "tokens,Bad"}, "metric"),
        ({"since": "later"}, "from"),
        ({"since": "2025-01-01", "to": "2025-01-01"}, "from"),
        ({"where": "x"}, "where"),
        ({"nonsense": "1"}, "nonsense"),
    ],
)
def test_impossible_question_is_refused_and_named(store: Store, parameters: dict[str, str], field: str) -> None:
    with pytest.raises(BadParameter) as caught:
        exporter(store, **parameters)
    assert caught.value.field == field


def test_label_that_is_named_as_a_field_has_a_column_of_its_own(store: Store) -> None:
    store.add([Event("response_time", 1.0, START, metadata={"value": "high", "metric": "no"})])
    asked = parse_export({"format": "csv"}, ("value", "provider"), START)
    head, row = csv.reader(io.StringIO(b"".join(Exporter(EventReader(store.layout), asked).blocks()).decode()))
    assert (head[6:8], row[6:8]) == (["metadata.value", "provider"], ["high", ""])
    assert (head[3], row[3]) == ("value", "1.0")


def test_progress_ends_at_what_was_there(store: Store) -> None:
    store.add(mixed(300))
    for parameters, written in (({}, 300), ({"metric": "tokens"}, 100)):
        for format_ in ("csv", "jsonl", "parquet"):
            running = exporter(store, format=format_, **parameters)
            assert b"".join(running.blocks())
            assert (running.done, running.total, running.written) == (300, 300, written)


@pytest.fixture
def snapshots(monkeypatch: pytest.MonkeyPatch) -> list[Snapshot]:
    """Those taken so far."""
    taken: list[Snapshot] = []
    take = EventReader.snapshot

    def snapshot(reader: EventReader, within: range | None = None) -> Snapshot:
        taken.append(take(reader, within))
        return taken[-1]

    monkeypatch.setattr(EventReader, "snapshot", snapshot)
    return taken


def compact(store: Store) -> None:
    """Put parts in the place of all segments."""
    compact_day(store.layout, START // DAY * DAY)
    sweep(store.layout)
    assert not list(store.layout.segments())


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_compaction_changes_nothing_in_an_export(store: Store, ask: Ask, format_: str) -> None:
    store.add(mixed(300))
    before = ask(format=format_)
    compact(store)
    assert ask(format=format_) == before
    store.add([event(1.5, START + 10)])
    assert ask(format="jsonl").count(b"\n") == 301


def test_hours_that_are_compacted_meanwhile_are_neither_doubled_nor_cut(
    store: Store, monkeypatch: pytest.MonkeyPatch, snapshots: list[Snapshot]
) -> None:
    monkeypatch.setattr(module, "BLOCK_ROWS", 10)
    monkeypatch.setattr(module, "STEP_EVENTS", 150)
    events = mixed(300)
    store.add(events)
    running = exporter(store, format="jsonl")
    blocks = running.blocks()
    told = [next(blocks)]
    compact(store)  # the first hour has been begun
    assert b"".join([*told, *blocks]) == encode_lines(in_order(events))
    assert (len(snapshots), running.done, running.total) == (2, 300, 300)


def test_step_is_begun_again_when_a_file_vanishes_before_it_is_sorted(
    store: Store, monkeypatch: pytest.MonkeyPatch, snapshots: list[Snapshot]
) -> None:
    store.add(mixed(300))
    sort = Exporter._sort

    def late(self: Exporter, snapshot: Snapshot, hours: Sequence[int]) -> None:
        if len(snapshots) == 1:
            compact(store)
        sort(self, snapshot, hours)

    monkeypatch.setattr(Exporter, "_sort", late)
    running = exporter(store, format="parquet")
    assert b"".join(running.blocks()).endswith(b"PAR1")
    assert (len(snapshots), running.written) == (2, 300)


def test_file_that_stays_away_is_an_error_not_a_short_export(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_EVENTS", 100)
    _, second, _ = store.add(mixed(300))
    second.unlink()
    blocks = exporter(store, format="jsonl").blocks()
    assert next(blocks).count(b"\n") == 100
    with pytest.raises(StoreError, match="cannot be read"):
        next(blocks)


def test_damaged_lines_are_left_out_and_told(store: Store, ask: Ask, caplog: Any) -> None:
    events = mixed(30, hours=1)
    (path,) = store.add(events)
    path.write_bytes(path.read_bytes().replace(b'{"metric"', b"{{", 1))
    assert ask(format="jsonl").count(b"\n") == 29
    assert "1 lines are no events" in caplog.text


@pytest.mark.parametrize("format_", ["csv", "jsonl", "parquet"])
def test_nothing_is_left_behind(store: Store, format_: str) -> None:
    store.add(mixed(100))
    for blocks in (1, 100):
        running = exporter(store, format=format_).blocks()
        for _ in zip(range(blocks), running, strict=False):
            pass
        running.close()
        assert list(store.layout.exports.iterdir()) == []


def test_stopped_export_gives_nothing_more_and_leaves_nothing(store: Store) -> None:
    store.add(mixed(100))
    running = exporter(store, format="jsonl")
    running.next()
    running.stop()
    running.stop()
    with pytest.raises(Stopped):
        running.next()
    assert list(store.layout.exports.iterdir()) == []


def test_running_query_stops_when_nobody_waits_any_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(mixed(100))
    endless = "SELECT count(*) FROM range(1000000000) AS a, range(1000000000) AS b WHERE a.range % 7 = b.range % 5"
    monkeypatch.setattr(event_table, "in_order", lambda *_: Sql(endless, {}))
    running = exporter(store, format="jsonl")

    async def cancelled() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(first)
                await anyio.to_thread.run_sync(wait_until, lambda: running._connection is not None)
                scope.cancel()

    async def first() -> None:
        async for _ in exported(running):
            raise AssertionError

    anyio.run(cancelled)
    wait_until(lambda: list(store.layout.exports.iterdir()) == [])


def test_half_a_million_events_leave_in_bounded_memory(store: Store) -> None:
    """170 MB in twelve hours, read hour by hour: 270 MB at the peak, and 130 more when all text is kept, 250 more when
    all of it is sorted at once."""
    line = encode_lines([event(1.5, START, provider="openai", model="m" * 40, note="x" * 200)])
    for hour in range(12):
        lines = line.replace(str(START).encode(), str(START + hour * HOUR).encode()) * 42_000
        store.add_lines(START + hour * HOUR, lines, 42_000)
    code = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from vibezen.metrics import export\n"
        "from vibezen.metrics.event_reader import EventReader\n"
        "from vibezen.metrics.layout import Layout\n"
        "export.STEP_EVENTS = 42_000\n"
        "asked = export.parse_export({'format': 'jsonl'}, (), 0)\n"
        "running = export.Exporter(EventReader(Layout(sys.argv[1])), asked)\n"
        "size = sum(map(len, running.blocks()))\n"
        # Not what `resource` tells: that is the parent's peak where it was higher.
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]\n"
        "print(running.written, size, peak)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(store.layout.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    written, size, peak = map(int, done.stdout.split())
    assert written == 504_000
    assert size > 150e6
    assert peak < 340_000, f"{peak} kB"


def test_every_parameter_of_an_export_is_a_value() -> None:
    asked = parse_export({}, LABELS, START)
    assert isinstance(asked, Export)
    assert (asked.format, asked.labels, asked.wanted.metrics) == ("csv", LABELS, ())

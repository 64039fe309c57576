"""Dates go whole, the oldest first, and never one that is still needed; what comes for them later is kept."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import stored
from tests.support.feeding import event
from vibezen.metrics import part_sql
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.consumers.holdings import Holding, Holdings
from vibezen.metrics.consumers.retention import Drop, Goes, Limits, carry_out, due, retain
from vibezen.metrics.consumers.standing import Standing, hours_of_date, standings
from vibezen.metrics.errors import Fenced
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import EventReader, Wanted
from vibezen.metrics.layout import Layout, date_folder, hour_of, partition_of
from vibezen.metrics.verify import files

FIRST = 1_756_684_800
"""2025-09-01T00:00:00Z."""
DAYS = 60
NOW = float(FIRST + DAYS * DAY + HOUR)
ALL = Wanted(0.0, 1e12)
MEBIBYTE = 1 << 20


def date(number: int) -> int:
    return FIRST + number * DAY


def stands(number: int, **changes: object) -> Standing:
    usual = Standing(date(number), 100, 0, MEBIBYTE, 0, date(number + 1), False, False, 0, ())
    return usual._replace(**changes)  # type: ignore[arg-type]


def dates(drops: Sequence[Drop]) -> list[int]:
    return [(drop.date - FIRST) // DAY for drop in drops]


def test_date_goes_by_its_age() -> None:
    store = [stands(number) for number in range(DAYS)]
    assert dates(due(store, Limits(30), date(DAYS))) == list(range(29))
    assert dates(due(store, Limits(30), date(DAYS) + 1)) == list(range(30))


@pytest.mark.parametrize(
    "kept", [{"unsettled": True}, {"outside": 100}, {"outside": 50}, {"events": 0, "dropped": 100}]
)
def test_date_stays_that_is_written_to_or_lies_outside_or_is_gone(kept: dict[str, object]) -> None:
    assert due([stands(0, **kept)], Limits(30, 0), NOW) == []


def test_age_counts_from_the_last_arrival() -> None:
    assert due([stands(0, arrived=date(58))], Limits(30), NOW) == []
    assert dates(due([stands(0, arrived=date(30))], Limits(30), NOW)) == [0]


def test_oldest_dates_go_until_the_size_fits() -> None:
    store = [stands(number, rollup_bytes=MEBIBYTE) for number in range(20)]
    assert dates(due(store, Limits(1000, 30 * MEBIBYTE), NOW)) == [0, 1, 2, 3, 4]
    assert due(store, Limits(1000, 40 * MEBIBYTE), NOW) == []


def test_size_counts_what_age_takes_first() -> None:
    store = [stands(number) for number in range(40)]
    now = float(date(40) + 1)
    assert dates(due(store, Limits(30, 30 * MEBIBYTE), now)) == list(range(10))
    assert dates(due(store, Limits(30, 28 * MEBIBYTE), now)) == list(range(12))


def test_today_stays_however_large() -> None:
    assert dates(due([stands(0), stands(1, bytes=1 << 40)], Limits(30, 1), date(1) + 7200.0)) == [0]


def test_nothing_that_lies_here_alone_goes_while_there_is_external_storage() -> None:
    store = [stands(number) for number in range(DAYS)]
    assert due(store, Limits(30, 1, external=True), NOW) == []


def test_of_what_lies_outside_the_rollups_go_by_size() -> None:
    store = [stands(number, outside=100, bytes=0, rollup_bytes=MEBIBYTE) for number in range(10)]
    drops = due(store, Limits(1, 8 * MEBIBYTE, external=True), NOW)
    assert (dates(drops), {drop.goes for drop in drops}) == ([0, 1], {Goes.ROLLUPS})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create()
    return layout


def fill(layout: Layout, days: int = DAYS, *, shard: int = 0, epoch: int = 1) -> list[Event]:
    """Twelve events a day in two hours, as files that came when they say."""
    events = [
        event(float(number), date(number // 12) + HOUR * (1 + number % 2) + number % 12, provider=f"p{number % 3}")
        for number in range(days * 12)
    ]
    stored.archive(layout, events, shard=shard, epoch=epoch)
    age(layout)
    return events


def age(layout: Layout) -> None:
    for path in layout.segments():
        came = hour_of(path.relative_to(layout.events).as_posix()) + HOUR
        os.utime(path, (came, came))


def holdings(layout: Layout) -> list[Holding]:
    return Holdings(layout, lambda shard: 1).look()


def look(layout: Layout, limits: Limits, now: float = NOW) -> list[Drop]:
    return due(standings(layout, holdings(layout)), limits, now)


def drop_all(layout: Layout, limits: Limits, now: float = NOW) -> list[Drop]:
    return retain(layout, holdings(layout), limits, now, lambda: None)


def size(layout: Layout) -> int:
    return sum(one.bytes for one in standings(layout, holdings(layout)))


def values(layout: Layout) -> list[float]:
    reader = EventReader(layout)
    snapshot = reader.snapshot()
    return sorted(line.value for line in reader.lines(snapshot.files(snapshot.hours()), ALL, 10_000))


def compact(layout: Layout, days: range) -> None:
    for number in days:
        for hour in hours_of_date(date(number)):
            if (layout.events / partition_of(hour)).exists():
                stored.compact_hour(layout, hour)
        if number % 2:
            stored.compact_day(layout, date(number))


def test_store_of_sixty_days_shrinks_to_thirty(layout: Layout) -> None:
    """Some of it compacted, some of that merged."""
    events = fill(layout)
    compact(layout, range(26, 32))
    drops = drop_all(layout, Limits(30))
    assert dates(drops) == list(range(30))
    assert sum(drop.events for drop in drops) == 30 * 12
    kept = sorted(one.value for one in events[30 * 12 :])
    assert values(layout) == kept
    stored.sweep(layout)
    assert values(layout) == kept
    assert look(layout, Limits(30)) == []
    assert [finding.seen for finding in files.checks(layout, lambda _: None) if finding.status != "ok"] == []
    left = [path for path in layout.events.glob("date=2025-09-0*/**/*") if path.is_file()]
    assert {path.name for path in left} <= {"part-1.parquet", "part-2.parquet"}
    assert len(left) == 9


def test_store_shrinks_to_a_size(layout: Layout) -> None:
    events = fill(layout, 10)
    compact(layout, range(2))
    whole = size(layout)
    drops = drop_all(layout, Limits(1000, whole // 2))
    assert dates(drops) == list(range(len(drops)))
    assert len(drops) >= 2
    assert values(layout) == [one.value for one in events[len(drops) * 12 :]]
    assert size(layout) <= whole // 2
    assert drop_all(layout, Limits(1000, whole // 2)) == []


def test_what_comes_late_for_a_dropped_date_is_read_and_kept_its_time(layout: Layout) -> None:
    fill(layout, 1)
    drop_all(layout, Limits(30))
    stored.sweep(layout)
    assert values(layout) == []
    stored.archive(layout, [event(7.0, FIRST + 2 * HOUR), event(8.0, FIRST + HOUR)])
    for path in layout.segments():
        os.utime(path, (NOW, NOW))
    assert values(layout) == [7.0, 8.0]
    stored.compact_day(layout, FIRST)
    stored.sweep(layout)
    assert values(layout) == [7.0, 8.0]


def test_dropped_again_it_counts_all_that_it_lost(layout: Layout) -> None:
    fill(layout, 1)
    drop_all(layout, Limits(30))
    stored.archive(layout, [event(7.0, FIRST + HOUR)])
    age(layout)
    assert [drop.events for drop in drop_all(layout, Limits(30))] == [1]
    (one,) = standings(layout, holdings(layout))
    assert (one.events, one.dropped, one.bytes) == (0, 13, 0)


def test_date_with_an_open_segment_stays_until_it_is_closed(layout: Layout) -> None:
    fill(layout, 1)
    stored.archive(layout, [event(7.0, FIRST + HOUR)], shard=1, closed=False)
    age(layout)
    assert look(layout, Limits(30)) == []
    assert len(values(layout)) == 13


def test_what_came_since_the_date_was_looked_at_is_kept(layout: Layout) -> None:
    fill(layout, 1)
    (drop,), (held,) = look(layout, Limits(30)), holdings(layout)
    stored.archive(layout, [event(7.0, FIRST + HOUR)], shard=1)
    assert carry_out(layout, held, drop, lambda: None)
    assert values(layout) == [7.0]


def test_date_of_which_a_newer_part_was_made_meanwhile_stays(layout: Layout) -> None:
    fill(layout, 1)
    stored.compact_day(layout, FIRST)
    (drop,), (held,) = look(layout, Limits(30)), holdings(layout)
    stored.archive(layout, [event(7.0, FIRST + HOUR)], shard=1)
    stored.compact_day(layout, FIRST)
    assert not carry_out(layout, held, drop, lambda: None)
    stored.sweep(layout)
    assert len(values(layout)) == 13


def test_compactor_that_was_replaced_drops_nothing(layout: Layout) -> None:
    def fenced() -> None:
        raise Fenced("another one")

    fill(layout, 1)
    before = sorted(path for path in layout.root.rglob("*"))
    with pytest.raises(Fenced):
        retain(layout, holdings(layout), Limits(30), NOW, fenced)
    assert sorted(path for path in layout.root.rglob("*")) == before


def test_two_who_drop_the_same_date_drop_it_once(layout: Layout) -> None:
    fill(layout, 1)
    (drop,), (held,) = look(layout, Limits(30)), holdings(layout)

    def meanwhile() -> None:
        assert carry_out(layout, held, drop, lambda: None)

    assert not carry_out(layout, held, drop, meanwhile)
    assert [one.dropped for one in standings(layout, holdings(layout))] == [12]


def test_date_is_gone_whole_whatever_of_it_was_deleted_already(layout: Layout) -> None:
    """A sweep may be killed between any two files."""
    fill(layout, 2)
    compact(layout, range(1))
    drop_all(layout, Limits(30), date(1) + 30 * DAY + 1.0)
    kept = values(layout)
    for path in sorted((layout.events / date_folder(FIRST)).glob("hour=*/*")):
        path.unlink()
        assert values(layout) == kept
    assert len(kept) == 12


def test_looking_changes_nothing(layout: Layout) -> None:
    fill(layout, 2)
    before = {path: path.stat() for path in layout.root.rglob("*")}
    assert [str(drop).partition(", ")[0] for drop in look(layout, Limits(30))] == [
        "2025-09-01: 12 events",
        "2025-09-02: 12 events",
    ]
    assert {path: path.stat() for path in layout.root.rglob("*")} == before


def test_stub_is_private_and_readable_by_anything(layout: Layout) -> None:
    import duckdb

    fill(layout, 1)
    drop_all(layout, Limits(30))
    (stub,) = layout.events.glob("date=*/part-*.parquet")
    assert stub.stat().st_mode & 0o777 == 0o600
    found = duckdb.connect().execute(f"SELECT {part_sql.COLUMNS} FROM read_parquet($1)", [str(stub)])
    assert found.fetchall() == []

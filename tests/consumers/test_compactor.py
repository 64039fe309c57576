"""Two compactors on one store, each of which may sleep or end at any step: readers see each event once throughout."""

import os
import shutil
import time
from collections import Counter
from pathlib import Path

import duckdb
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from tests.support.segments import close, commit, seal, values
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.consumers import runs
from vibezen.metrics.consumers.compacting import Job
from vibezen.metrics.consumers.compactor import Compactor
from vibezen.metrics.consumers.engine import Damaged
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.consumers.part_writer import Made
from vibezen.metrics.consumers.sweeping import Sweeper
from vibezen.metrics.errors import Fenced, StoreFull
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.layout import FILE_MODE, Layout, date_folder, partition_of
from vibezen.metrics.parts import KEY, Part, encode_footer
from vibezen.metrics.settings import Compaction, Settings

DATE = 1_763_942_400
MUCH_LATER = 4_000_000_000
AFTER = 100.0
KEPT = 100_000
"""Days, so that nothing here is too old to be compacted."""


def event(value: float, hour: int = 0) -> Event:
    return Event("m", value, DATE + hour * HOUR + value / 1000, metadata={"a": "x"})


def archive(layout: Layout, *events: Event, shard: int = 0, epoch: int = 1) -> None:
    commit(layout, events, shard=shard, epoch=epoch, at=DATE)


def compactor(layout: Layout, *, epoch: int = 1, now: float = MUCH_LATER, grace: float = 0.001) -> Compactor:
    policy = Compaction(after_seconds=AFTER, grace_seconds=grace, rollups=False)
    settings = Settings(retention_days=KEPT, storage_dir=layout.root, compaction=policy)
    return Compactor(layout, settings, Holdings(layout, lambda shard: 1), epoch, lambda: None, lambda: now)


def parts(layout: Layout) -> list[str]:
    return sorted(path.relative_to(layout.events).as_posix() for path in layout.events.rglob("part-*.parquet"))


def segments(layout: Layout) -> list[str]:
    return [path.name for path in layout.segments()]


def run(layout: Layout, **how: float) -> Compactor:
    one = compactor(layout, **how)  # type: ignore[arg-type]
    while one.round():
        pass
    return one


@pytest.fixture
def hour(layout: Layout) -> str:
    """Three events of one hour in two segments."""
    archive(layout, event(1), event(2))
    archive(layout, event(3), shard=1)
    return partition_of(DATE)


def test_closed_segments_of_an_hour_become_a_part_and_are_deleted(layout: Layout, hour: str) -> None:
    run(layout, now=DATE + 5 * HOUR)
    assert parts(layout) == [f"{hour}/part-1.parquet"]
    assert segments(layout) == ["0-1-1.jsonl", "1-1-1.jsonl"]  # by this clock, the part is not even made yet
    assert values(layout) == Counter([1, 2, 3])
    run(layout)
    assert segments(layout) == []
    assert values(layout) == Counter([1, 2, 3])


def test_parts_are_private_and_nothing_is_left_of_their_making(layout: Layout, hour: str) -> None:
    run(layout, now=DATE + 5 * HOUR).close()
    assert (layout.events / hour / "part-1.parquet").stat().st_mode & 0o777 == FILE_MODE
    assert list(layout.compacting.iterdir()) == []
    assert [path.name for path in (layout.events / hour).iterdir() if path.name.startswith(".")] == []


def test_what_is_replaced_stays_for_the_grace(layout: Layout, hour: str) -> None:
    one = run(layout, now=DATE + 5 * HOUR)
    published = (layout.events / hour / "part-1.parquet").stat().st_ctime
    run(layout, now=published + 299, grace=300)
    assert len(segments(layout)) == 2
    one.close()
    run(layout, now=published + 301, grace=300)
    assert segments(layout) == []


def test_late_events_become_the_next_generation_and_the_one_before_is_deleted(layout: Layout, hour: str) -> None:
    run(layout, now=DATE + 5 * HOUR)
    archive(layout, event(4))
    assert values(layout) == Counter([1, 2, 3, 4])
    run(layout, now=DATE + 6 * HOUR)
    assert parts(layout) == [f"{hour}/part-1.parquet", f"{hour}/part-2.parquet"]
    assert values(layout) == Counter([1, 2, 3, 4])


def test_days_are_merged_and_take_in_what_comes_later(layout: Layout, hour: str) -> None:
    archive(layout, event(5, 7))
    run(layout)
    day = partition_of(DATE).partition("/")[0]
    assert (parts(layout), segments(layout)) == ([f"{day}/part-1.parquet"], [])
    archive(layout, event(6), event(7, 23))
    assert values(layout) == Counter([1, 2, 3, 5, 6, 7])
    run(layout)
    assert (parts(layout), segments(layout)) == ([f"{day}/part-2.parquet"], [])
    assert values(layout) == Counter([1, 2, 3, 5, 6, 7])


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_what_is_too_much_to_be_sorted_at_once_is_sorted_piece_by_piece(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(runs, "RUN_ROWS", at_once)
    wanted: Counter[float] = Counter()
    for number in range(40):
        some = [Event(f"m{value % 3}", value, DATE + value * 97.0) for value in (number, number + 100.0)]
        archive(layout, *some)
        wanted.update(one.value for one in some)
    run(layout)
    assert values(layout) == wanted
    (part,) = parts(layout)
    found = duckdb.execute("SELECT metric, ts FROM read_parquet($1)", [str(layout.events / part)]).fetchall()
    assert found == sorted(found)


def test_without_space_what_may_be_deleted_is_and_nothing_is_left_half_made(
    layout: Layout, hour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(layout, now=DATE + 5 * HOUR)
    archive(layout, event(4), event(5, 1))
    one = compactor(layout)
    made = one.writer.make

    def full(job: Job) -> Made:
        if job.hour == DATE:
            (one.engine.folder / "begun.parquet").write_bytes(b"PAR1")
            raise StoreFull("no space")
        return made(job)

    one.engine.folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(one.writer, "make", full)
    with pytest.raises(StoreFull):
        one.round()
    assert segments(layout) == ["0-1-2.jsonl", "0-1-3.jsonl"]
    assert f"{partition_of(DATE + HOUR)}/part-1.parquet" in parts(layout)
    assert [path.name for path in one.engine.folder.iterdir() if path.is_file()] == []
    assert values(layout) == Counter([1, 2, 3, 4, 5])


def test_empty_folders_of_a_merged_day_are_removed_after_a_while(layout: Layout, hour: str) -> None:
    one = run(layout, now=time.time() + 10)
    assert list((layout.events / hour).iterdir()) == []
    changed = (layout.events / parts(layout)[0]).stat().st_ctime
    one._now = lambda: changed + DAY + 1
    one.round()
    assert not (layout.events / hour).exists()
    assert values(layout) == Counter([1, 2, 3])


@pytest.mark.parametrize("change", ["cut", "changed", "gone"])
def test_an_hour_with_a_damaged_segment_stays_as_it_is_and_is_told(layout: Layout, hour: str, change: str) -> None:
    path = layout.events / hour / "0-1-1.jsonl"
    data = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-10] if change == "cut" else data.replace(b'"value":1', b'"value":9'))
    archive(layout, event(5, 7))
    one = run(layout)
    assert parts(layout) == [f"{partition_of(DATE + 7 * HOUR)}/part-1.parquet"]
    assert "1-1-1.jsonl" in segments(layout)
    books = one.books()
    assert (books["damaged"], books["waiting_hours"]) == ("1", "1")
    assert "events/date=" in books["trouble"]


def test_a_part_that_cannot_be_read_is_told_and_the_other_dates_go_on(layout: Layout, hour: str) -> None:
    run(layout, now=DATE + 5 * HOUR)
    (layout.events / hour / "part-1.parquet").write_bytes(b"PAR1 but not really PAR1")
    archive(layout, event(8, 24))
    one = run(layout)
    assert f"{partition_of(DATE + DAY).partition('/')[0]}/part-1.parquet" in parts(layout)
    assert "part-1.parquet" in one.books()["trouble"]


def test_rows_of_a_part_that_changed_since_are_noticed(layout: Layout, hour: str) -> None:
    """Else its footer would vouch for what is not there."""
    run(layout, now=DATE + 5 * HOUR)
    path = layout.events / hour / "part-1.parquet"
    footer = Holdings(layout, lambda shard: 1).look()[0].view.by_hour[DATE].footer
    duckdb.execute(
        "COPY (SELECT * REPLACE (value + 1 AS value) FROM read_parquet($file)) TO $other (FORMAT parquet,"
        f" KV_METADATA {{{KEY}: $footer}})",
        {"file": str(path), "other": str(path) + ".new", "footer": encode_footer(footer)},
    )
    os.rename(f"{path}.new", path)
    archive(layout, event(4))
    one = run(layout, now=DATE + 6 * HOUR)
    assert parts(layout) == [f"{hour}/part-1.parquet"]
    assert one.books()["damaged"] == "1"


def test_who_lost_the_lease_publishes_and_deletes_nothing(layout: Layout, hour: str) -> None:
    def lost() -> None:
        raise Fenced("another")

    policy = Compaction(after_seconds=AFTER, grace_seconds=0.001, merge_days=False)
    settings = Settings(retention_days=KEPT, storage_dir=layout.root, compaction=policy)
    one = Compactor(layout, settings, Holdings(layout, lambda shard: 1), 1, lost, lambda: MUCH_LATER)
    with pytest.raises(Fenced):
        one.round()
    assert parts(layout) == []
    run(layout, now=DATE + 5 * HOUR)
    with pytest.raises(Fenced):
        one.round()
    assert len(segments(layout)) == 2


def test_a_segment_that_no_part_includes_stays(layout: Layout, hour: str) -> None:
    run(layout)
    commit(layout, [event(4)])
    run(layout, now=time.time() + AFTER / 2)
    assert segments(layout) == ["0-1-2.jsonl"]
    assert values(layout) == Counter([1, 2, 3, 4])


def test_a_sleeper_that_wakes_up_replaces_no_generation(layout: Layout, hour: str) -> None:
    sleeper, other = (compactor(layout, epoch=epoch, now=DATE + 5 * HOUR) for epoch in (1, 2))
    made = sleeper.writer.make(*sleeper.look()[1])
    archive(layout, event(4), event(5), event(6))
    other.round()
    before = (layout.events / hour / "part-1.parquet").read_bytes()
    assert not sleeper.writer.publish(made)
    assert (layout.events / hour / "part-1.parquet").read_bytes() == before
    assert values(layout) == Counter([1, 2, 3, 4, 5, 6])


def test_what_a_replaced_owner_may_have_added_to_its_log_is_not_taken(layout: Layout, hour: str) -> None:
    """Its successor looks at the log after the fence was raised, and may not have seen it."""
    settings = Settings(retention_days=KEPT, storage_dir=layout.root, compaction=Compaction(after_seconds=AFTER))
    fence = {0: 2, 1: 1}
    one = Compactor(layout, settings, Holdings(layout, fence.get), 1, lambda: None, lambda: DATE + 5 * HOUR)
    assert one.look()[1] == []
    seal(layout)
    (job,) = one.look()[1]
    assert len(job.segments) == 2


def test_who_slept_before_publishing_while_another_took_over_publishes_nothing(layout: Layout, hour: str) -> None:
    one = compactor(layout)
    made = one.writer.make(one.look()[1][0])
    compactor(layout, epoch=2).clear()
    assert not one.writer.publish(made)
    assert parts(layout) == []


def test_what_crashed_compactors_left_is_removed_but_not_what_a_newer_one_makes(layout: Layout) -> None:
    for epoch in (1, 3):
        (layout.compacting / str(epoch)).mkdir(parents=True)
    compactor(layout, epoch=2).clear()
    assert [path.name for path in layout.compacting.iterdir()] == ["3"]


def test_stub_whose_maker_was_killed_is_removed_but_not_one_in_the_making(layout: Layout) -> None:
    folder = layout.events / date_folder(DATE)
    folder.mkdir(parents=True)
    for name, age in (("old", 100), ("new", 1)):
        stub = folder / f".part-2.parquet.{name}.tmp"
        stub.touch()
        os.utime(stub, (MUCH_LATER - age, MUCH_LATER - age))
    compactor(layout, epoch=2).clear()
    assert [path.name for path in folder.iterdir()] == [".part-2.parquet.new.tmp"]


def test_logs_of_dropped_events_are_removed_and_no_others(layout: Layout, hour: str) -> None:

    seal(layout)
    run(layout)
    archive(layout, event(9, 30), epoch=2)
    holdings = Holdings(layout, lambda shard: 2)
    found = holdings.look()
    Sweeper(layout, 0.001, lambda: None).sweep(found, holdings.logs, MUCH_LATER)
    assert layout.log(0, 1).exists()
    day = found[0].view.day
    assert day is not None
    stub = Part(day.path, replace(day.footer, hours={}, dropped=3))
    dropped = [found[0]._replace(view=found[0].view._replace(by_hour={}, day=stub)), *found[1:]]
    Sweeper(layout, 0.001, lambda: None).sweep(dropped, holdings.logs, MUCH_LATER)
    assert not layout.log(0, 1).exists()
    assert layout.log(0, 2).exists()
    assert layout.log(1, 1).exists()


class Sleepers(RuleBasedStateMachine):
    """Compactors that work at any pace beside archivers; the lease is left out: nothing rests on it."""

    root: Path

    def __init__(self) -> None:
        super().__init__()
        shutil.rmtree(self.root, ignore_errors=True)
        self.layout = Layout(self.root)
        self.layout.create()
        self.reader = EventReader(self.layout)
        self.expected: Counter[float] = Counter()
        self.value = 0.0
        self.open: list[object] = []
        self.now = DATE + 3 * HOUR + AFTER
        self.workers = [compactor(self.layout, epoch=epoch) for epoch in (1, 2)]
        for one in self.workers:
            one._now = lambda: self.now
        self.looked: list[list[Job]] = [[], []]
        self.made: list[list[Made]] = [[], []]

    @rule(hour=st.integers(0, 2), closed=st.booleans(), many=st.integers(1, 3))
    def archive(self, hour: int, closed: bool, many: int) -> None:
        events = []
        for _ in range(many):
            self.value += 1
            events.append(event(self.value, hour))
        written = commit(self.layout, events, closed=closed, at=DATE)
        self.expected.update(one.value for one in events)
        if not closed:
            self.open += written

    @precondition(lambda self: self.open)
    @rule()
    def close_segments(self) -> None:
        close(self.layout, self.open)  # type: ignore[arg-type]
        self.open = []

    @rule()
    def the_day_ends(self) -> None:
        self.now = MUCH_LATER

    @rule(who=st.integers(0, 1))
    def look(self, who: int) -> None:
        self.looked[who] = self.workers[who].look()[1]

    @precondition(lambda self: any(self.looked))
    @rule(who=st.integers(0, 1), which=st.integers(0, 2))
    def make(self, who: int, which: int) -> None:
        if len(self.looked[who]) > which:
            job = self.looked[who].pop(which)
            try:
                self.made[who].append(self.workers[who].writer.make(job))
            except (FileNotFoundError, Damaged):
                return  # another one has made it, and deleted what it was made of

    @precondition(lambda self: any(self.made))
    @rule(who=st.integers(0, 1))
    def publish(self, who: int) -> None:
        if self.made[who]:
            self.workers[who].writer.publish(self.made[who].pop(0))

    @rule(who=st.integers(0, 1))
    def sweep_at_once(self, who: int) -> None:
        one = self.workers[who]
        holdings = one._holdings.look()
        one._sweeper.sweep(holdings, one._holdings.logs, MUCH_LATER)

    @invariant()
    def each_event_is_read_once(self) -> None:
        assert values(self.layout, self.reader) == self.expected

    def teardown(self) -> None:
        for one in self.workers:
            one.close()


@pytest.fixture
def sleepers(tmp_path: Path) -> type[Sleepers]:
    class Here(Sleepers):
        root = tmp_path / "sleepers"

    return Here


def test_any_interleaving_of_two_compactors_keeps_each_event_once(sleepers: type[Sleepers]) -> None:
    run_state_machine_as_test(
        sleepers, settings=hypothesis_settings(max_examples=15, stateful_step_count=20, deadline=None)
    )


def test_what_comes_for_a_dropped_day_keeps_what_was_dropped(layout: Layout, hour: str) -> None:
    """Else it would be read once more."""
    run(layout)
    (held,) = Holdings(layout, lambda shard: 1).look()
    assert held.view.day is not None
    stub = replace(held.view.day.footer, generation=2, hours={}, content="0", dropped=3)
    duckdb.execute(
        f"COPY (SELECT * FROM read_parquet($file) LIMIT 0) TO $other (FORMAT parquet, KV_METADATA {{{KEY}: $footer}})",
        {
            "file": str(layout.events / held.view.day.path),
            "other": str(layout.events / held.view.day.path.replace("-1.", "-2.")),
            "footer": encode_footer(stub),
        },
    )
    run(layout)
    assert values(layout) == Counter()
    archive(layout, event(4))
    run(layout)
    assert values(layout) == Counter([4])
    (held,) = Holdings(layout, lambda shard: 1).look()
    assert held.view.day is not None
    assert (held.view.day.footer.dropped, len(held.view.day.footer.inputs)) == (3, 3)

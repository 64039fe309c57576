"""What is due: decided from what there is, and from nothing else."""

from collections.abc import Sequence

from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.consumers.compacting import MERGED_BYTES, PATIENCE, Job, due
from vibezen.metrics.consumers.holdings import Holding, Pending, State
from vibezen.metrics.layout import partition_of
from vibezen.metrics.parts import Footer, HourOf, Input, Moved, Part, part_name, view
from vibezen.metrics.settings import Compaction

DATE = 1_763_942_400
AFTER = 100.0
POLICY = Compaction(after_seconds=AFTER)
LATER = DATE + DAY + AFTER


def pending(name: str, hour: int = 0, state: State = State.CLOSED, written: float = DATE) -> Pending:
    where = partition_of(DATE + hour * HOUR)
    return Pending(Extent(f"{where}/{name}.jsonl", 10, 1, 0, 0, 0, state is not State.OPEN), 0, state, written)


def part(*names: str, hours: Sequence[int] = (0,), day: bool = False, generation: int = 1, **more: object) -> Part:
    begins = [DATE + hour * HOUR for hour in hours]
    inputs = [Input(f"{partition_of(begin)}/{name}.jsonl", 1, 0) for begin in begins for name in names]
    footer = Footer("store", generation, inputs, {b: HourOf(1, b, b) for b in begins}, "0", 0.0, **more)  # type: ignore[arg-type]
    folder = partition_of(begins[0])
    return Part(f"{folder.partition('/')[0] if day else folder}/{part_name(generation)}", footer)


def holding(*segments: Pending, hours: Sequence[Part] = (), day: Part | None = None) -> Holding:
    return Holding(DATE, view(day, {min(one.footer.hours): one for one in hours}), segments)


def jobs(one: Holding, now: float = LATER, policy: Compaction = POLICY, size: int = 1) -> list[Job]:
    return due([one], now, policy, lambda _: size)


def names(job: Job) -> list[str]:
    return [one.extent.path.rpartition("/")[2] for one in job.segments]


def test_an_hour_is_due_so_long_after_its_end() -> None:
    one = holding(pending("a"))
    assert jobs(one, DATE + HOUR + AFTER - 1) == []
    (job,) = jobs(one, DATE + HOUR + AFTER)
    assert (job.path, names(job)) == (f"{partition_of(DATE)}/part-1.parquet", ["a.jsonl"])


def test_late_events_are_gathered_and_become_the_next_generation_with_all_that_is_closed() -> None:
    base = part("a")
    now = DATE + 5 * HOUR
    fresh = pending("c", written=now - AFTER + 1)
    assert jobs(holding(pending("b", written=now - 2 * AFTER), fresh, hours=[base]), now) == []
    (job,) = jobs(holding(pending("b", written=now - 2 * AFTER), fresh, hours=[base]), now + 1)
    assert (job.path, names(job)) == (f"{partition_of(DATE)}/part-2.parquet", ["b.jsonl", "c.jsonl"])
    assert [source.part for source in job.sources] == [base]


def test_an_hour_with_an_open_segment_waits_but_not_for_ever() -> None:
    now = DATE + 10 * HOUR
    still_open = pending("b", state=State.OPEN)
    assert jobs(holding(pending("a", written=now - PATIENCE * AFTER + 1), still_open), now) == []
    (job,) = jobs(holding(pending("a", written=now - PATIENCE * AFTER), still_open), now)
    assert names(job) == ["a.jsonl"]


def test_what_is_doubtful_is_waited_for_however_long() -> None:
    """Else a part could include less than one that was made before it."""
    assert jobs(holding(pending("a", written=0), pending("b", state=State.DOUBTFUL, written=0))) == []
    day = part("a", day=True)
    assert jobs(holding(pending("b", 1, written=0), pending("c", 2, State.DOUBTFUL, 0), day=day)) == []


def test_one_hour_does_not_wait_for_another() -> None:
    (job,) = jobs(holding(pending("a"), pending("b", 1, State.OPEN)))
    assert job.hour == DATE


def test_a_day_is_merged_when_it_is_over_and_nothing_is_left_beside_its_hours() -> None:
    hours = [part("a"), part("b", hours=(1,))]
    assert jobs(holding(hours=hours), LATER - 1) == []
    assert jobs(holding(pending("c", state=State.OPEN), hours=hours)) == []
    (job,) = jobs(holding(hours=hours))
    assert (job.hour, job.generation, [source.part for source in job.sources]) == (None, 1, hours)


def test_large_days_stay_hours_and_so_do_all_where_that_is_set() -> None:
    hours = [part("a"), part("b", hours=(1,))]
    assert jobs(holding(hours=hours), size=MERGED_BYTES // 2) == []
    assert jobs(holding(hours=hours), policy=Compaction(after_seconds=AFTER, merge_days=False)) == []


def test_what_comes_for_a_merged_day_is_its_next_generation() -> None:
    day = part("a", hours=(0, 1), day=True)
    (job,) = jobs(holding(pending("b", 1), day=day))
    assert (job.path, names(job)) == (f"{partition_of(DATE).partition('/')[0]}/part-2.parquet", ["b.jsonl"])
    assert [(source.part, source.hours) for source in job.sources] == [(day, None)]


def test_an_hour_that_was_published_beside_its_day_goes_into_the_next_one() -> None:
    day, hour = part("a", hours=(0, 1), day=True), part("a", "b", generation=2)
    (job,) = jobs(holding(day=day, hours=[hour]))
    assert [(source.part, source.hours) for source in job.sources] == [(hour, None), (day, (DATE + HOUR,))]
    assert job.generation == 2


def test_what_comes_for_a_day_that_was_moved_joins_it_and_hours_that_were_moved_stay_hours() -> None:
    moved = Moved("file:///x", 1, "")
    day = part("a", day=True, moved=moved)
    (job,) = jobs(holding(pending("b"), day=day))
    assert ([source.part for source in job.sources], job.generation) == ([day], 2)
    assert jobs(holding(hours=[part("a", moved=moved)])) == []


def test_what_comes_for_a_day_that_was_dropped_is_its_next_generation() -> None:
    dropped = part("a", day=True, dropped=5)
    empty = dropped._replace(footer=Footer("store", 1, dropped.footer.inputs, {}, "0", 0.0, dropped=5))
    (job,) = jobs(holding(pending("b"), day=empty))
    assert (job.generation, job.sources, names(job)) == (2, (), ["b.jsonl"])
    assert jobs(holding(day=empty)) == []

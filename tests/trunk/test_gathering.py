"""Each hour from exactly one source, and every number what the events themselves give."""

import math
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
import redis
from msgspec.structs import replace

from tests.support.feeding import event
from tests.support.pipeline import Pipeline, sources_of, values_of
from vibezen.metrics import gathering, history
from vibezen.metrics.asking import answered
from vibezen.metrics.catalogue import Kind
from vibezen.metrics.clock import HOUR, wall
from vibezen.metrics.consumers.archiver import Archiver
from vibezen.metrics.errors import BadParameter, StoreError
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import FilesChanged
from vibezen.metrics.histogram import MAX_RELATIVE_ERROR
from vibezen.metrics.keys import Keys
from vibezen.metrics.series import overflow_key
from vibezen.metrics.settings import Aggregation, Streams, Width
from vibezen.metrics.steps import Plan
from vibezen.metrics.window_reader import Fetched, fetch_totals

pytestmark = pytest.mark.server

KEYS = Keys()
OLD = 1_700_157_600.0
"""2023-11-16T18:00:00Z: no window was ever kept that long."""


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


@pytest.fixture
def now() -> float:
    return math.floor(wall())


def test_hours_without_windows_are_answered_from_events_to_the_last_digit(pipeline: Pipeline) -> None:
    values = [random.Random(1).lognormvariate(5, 1) for _ in range(2000)]
    pipeline.take_in([event(value, OLD + number) for number, value in enumerate(values)])
    answer = pipeline.history(since=OLD, until=OLD + HOUR, step="1h", agg="count,sum,min,max,p50,p95,p99.9,last,mean")
    assert (sources_of(answer), answer.exact) == (["events"], True)
    told = {line.agg: line.points[0][1] for line in answer.series}
    values_in_order = sorted(values)
    assert told["count"] == 2000
    assert told["sum"] == pytest.approx(math.fsum(values), rel=1e-12)
    assert (told["min"], told["max"], told["last"]) == (min(values), max(values), values[-1])
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99.9", 0.999)):
        assert told[name] == pytest.approx(quantile(values_in_order, share), rel=1e-12)


def quantile(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def test_recent_hours_are_answered_from_windows_and_agree_with_the_events(pipeline: Pipeline, now: float) -> None:
    values = [random.Random(2).lognormvariate(5, 1) for _ in range(3000)]
    pipeline.take_in([event(value, now - 300 + number / 10) for number, value in enumerate(values)])
    asked: dict[str, Any] = {"since": now - 600, "until": now + 60, "step": 60, "agg": "count,sum,p50,p95"}
    windows, events = pipeline.history(**asked), pipeline.history(**asked, exact="true")
    assert (sources_of(windows), windows.exact) == (["windows"], False)
    assert (sources_of(events), events.exact) == (["events"], True)
    assert values_of(windows, "count") == values_of(events, "count")
    for name, error in (("sum", 1e-9), ("p50", MAX_RELATIVE_ERROR), ("p95", MAX_RELATIVE_ERROR)):
        for one, other in zip(values_of(windows, name)[()], values_of(events, name)[()], strict=True):
            assert one == (None if other is None else pytest.approx(other, rel=error))


def test_counts_and_sums_from_windows_are_exact(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(5, now - 5), event(7, now - 4)])
    answer = pipeline.history(since=now - 60, agg="count,sum,mean,max")
    assert (sources_of(answer), answer.exact) == (["windows"], True)


def test_range_over_both_is_cut_at_an_hour_and_neither_doubles_nor_lacks_anything(
    pipeline: Pipeline, now: float
) -> None:
    hours = range(0, 40)
    pipeline.take_in([event(1, now - hour * HOUR - offset) for hour in hours for offset in (1, 600, 1700)])
    answer = pipeline.history(since=now - 41 * HOUR, until=now, step="1h", agg="count,p50")
    assert sources_of(answer) == ["events", "windows"]
    before, after = answer.sources
    assert before.to == after.since
    assert after.since % HOUR == 0
    assert sum(filter(None, values_of(answer, "count")[()])) == 120
    assert not answer.exact


def test_step_over_both_sources_has_percentiles_of_all_its_samples(pipeline: Pipeline, now: float) -> None:
    values = list(range(1, 1001))
    random.Random(3).shuffle(values)
    pipeline.take_in([event(value, now - 40 * HOUR + number * 144) for number, value in enumerate(values)])
    answer = pipeline.history(since=now - 41 * HOUR, until=now + 10, step="90d", agg="count,p50,p95,max")
    assert sources_of(answer) == ["events", "windows", "events"] or sources_of(answer) == ["events", "windows"]
    told = {line.agg: [value for _, value in line.points if value is not None] for line in answer.series}
    assert sum(told["count"]) == 1000
    if len(told["count"]) == 1:
        assert told["p50"][0] == pytest.approx(500.5, rel=MAX_RELATIVE_ERROR)
        assert told["p95"][0] == pytest.approx(950.05, rel=MAX_RELATIVE_ERROR)
        assert told["max"] == [1000]


def test_late_events_for_hours_whose_windows_are_gone_are_not_missed(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 30 * HOUR)])
    pipeline.take_in([event(2, now - 30 * HOUR + 1)])
    assert sum_of(pipeline.history(since=now - 31 * HOUR, until=now - 29 * HOUR, step="1h", agg="sum")) == 3


def sum_of(answer: Any) -> float:
    return math.fsum(value for values in values_of(answer).values() for value in values if value is not None)


def test_windows_are_not_relied_on_while_the_aggregator_is_behind(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 3)])
    assert sources_of(pipeline.history(since=now - 60, agg="sum")) == ["windows"]
    # Entries of a time well after the aggregator's last one.
    pipeline.client.xadd(KEYS.events(0), {"metric": "response_time", "value": "2"}, id=f"{int((now + 30) * 1000)}-0")
    pipeline.archive()
    answer = pipeline.history(since=now - 60, until=now + 60, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 3)
    pipeline.aggregate()
    answer = pipeline.history(since=now - 60, until=now + 60, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["windows"], 3)


def test_windows_that_began_later_do_not_answer_for_the_time_before(pipeline: Pipeline, now: float) -> None:
    """A server that lost its data: files know more than its windows."""
    pipeline.take_in([event(1, now - 100)])
    pipeline.client.flushall()
    pipeline.take_in([event(2, now - 50)], "p2")
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 3)
    assert float(pipeline.client.get(KEYS.floor(0)) or 0) >= now


def test_flushed_server_is_not_trusted_before_the_archiver_has_seen_it(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 100)])
    pipeline.client.flushall()
    pipeline.feed([event(2, now - 50)], "p2")
    pipeline.aggregate()
    assert pipeline.client.get(KEYS.floor(0)) == b"0"
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 1)


def test_group_made_anew_raises_the_floor(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 100)])
    pipeline.client.delete(KEYS.events(0))
    pipeline.take_in([event(2, now - 50)], "p2")
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 3)


Copy = dict[bytes, tuple[Any, int]]


def copy_of(client: redis.Redis) -> Copy:
    return {key: (client.dump(key), max(client.pttl(key), 0)) for key in client.scan_iter()}


def restore(client: redis.Redis, copy: Copy) -> None:
    """As a server comes back that was restored from a copy, or failed over to a replica that lags."""
    client.flushall()
    for key, (value, ttl) in copy.items():
        client.restore(key, ttl, value)


@pytest.mark.parametrize("commits", [1, 2])
@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden by new entries"])
def test_server_restored_from_an_older_copy_is_not_trusted_for_the_time_before(
    pipeline: Pipeline, now: float, commits: int, hidden: bool
) -> None:
    pipeline.take_in([event(1, now - 100)])
    copy = copy_of(pipeline.client)
    for number in range(commits):
        pipeline.take_in([event(10 * (number + 1), now - 90)])
    restore(pipeline.client, copy)
    if hidden:
        pipeline.feed([event(1000, now - 80)], "p2")
    pipeline.archive()
    pipeline.aggregate()
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 1 + 10 * commits * (commits + 1) / 2 + 1000 * hidden)


def test_crash_between_log_and_script_leaves_windows_trusted(
    pipeline: Pipeline, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.take_in([event(1, now - 100)])
    pipeline.feed([event(2, now - 90)])
    confirm, calls = Archiver._confirm, []

    def crash(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:  # the first one is that of the take-over
            raise KeyboardInterrupt
        confirm(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Archiver, "_confirm", crash)
        with pytest.raises(KeyboardInterrupt):
            pipeline.archive()
    pipeline.archive()
    pipeline.aggregate()
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["windows"], 3)


def test_windows_lost_while_they_are_read_do_not_answer(
    pipeline: Pipeline, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.take_in([event(1, now - 100)])

    async def lose(*arguments: Any) -> AsyncIterator[list[Fetched]]:
        pipeline.client.flushall()
        async for batch in fetch_totals(*arguments):
            yield batch

    monkeypatch.setattr(gathering, "fetch_totals", lose)
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 1)


def test_windows_of_another_store_do_not_answer(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 100)])
    pipeline.client.set(KEYS.store, "another")
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 1)


@pytest.mark.parametrize("spoilt", ["series", "blob", "floor", "shaped", "position", "shards"])
def test_foreign_data_on_the_server_is_no_error(pipeline: Pipeline, now: float, spoilt: str) -> None:
    pipeline.take_in([event(1, now - 100, "concurrency", producer="p")])
    for name in list(window_keys(pipeline)):
        if spoilt == "series":
            pipeline.client.hset(name, b'\xff,"metric":"concurrency"}', b"x")
        elif spoilt == "blob":
            (series,) = pipeline.client.hkeys(name)
            pipeline.client.hset(name, series, b"\x01\xc1")
    if spoilt in ("shaped", "position"):
        pipeline.client.hset(KEYS.books(0), f"aggregate.{spoilt}", "x")
    elif spoilt in ("floor", "shards"):
        pipeline.client.set({"floor": KEYS.floor(0), "shards": KEYS.shards}[spoilt], "x")
    assert sum_of(pipeline.history("concurrency", since=now - 600, agg="last", exact="false", step=600)) == 1


@pytest.mark.usefixtures("windows_are_cheaper")
def test_a_gauges_newest_values_beyond_the_bound_are_told_by_events(pipeline: Pipeline, now: float) -> None:
    pipeline.settings = replace(pipeline.settings, aggregation=Aggregation(max_series=3))
    pipeline.take_in([event(1, now - 60, "concurrency", producer=f"p{n}") for n in range(10)])
    answer = pipeline.history("concurrency", since=now - 3600, step="2h", agg="last")
    assert sum_of(answer) == 10


def test_nobody_waits_for_a_server_that_is_known_to_be_away(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 100)])
    pipeline.away = True
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 1)


def test_segment_that_is_gone_is_named(pipeline: Pipeline) -> None:
    pipeline.take_in([event(1, OLD)])
    (segment,) = pipeline.layout.segments()
    segment.unlink()
    with pytest.raises(StoreError, match=segment.name):
        pipeline.history(since=OLD, until=OLD + 60)


def test_folder_that_is_gone_is_an_error_not_an_empty_answer(pipeline: Pipeline) -> None:
    pipeline.take_in([event(1, OLD)])
    shutil.rmtree(pipeline.layout.root)
    with pytest.raises(StoreError, match="not a store"):
        pipeline.history(since=OLD, until=OLD + 60)


@pytest.mark.parametrize(
    "changed",
    [
        Aggregation(labels=("provider", "team")),
        Aggregation(widths=(Width(seconds=10, keep_seconds=7200), Width(seconds=20, keep_seconds=7200))),
    ],
    ids=["labels", "widths"],
)
def test_windows_made_under_other_settings_do_not_answer(pipeline: Pipeline, now: float, changed: Aggregation) -> None:
    pipeline.take_in([event(1, now - 100, team="a"), event(2, now - 50, team="b")])
    pipeline.settings = replace(pipeline.settings, aggregation=changed)
    pipeline.take_in([event(3, now - 40, team="a")])
    answer = pipeline.history(since=now - 600, until=now + 20, step=20, agg="sum", group_by="provider")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 6)


def test_windows_made_under_other_settings_than_ours_do_not_answer(pipeline: Pipeline, now: float) -> None:
    """An API that was started with another file than the aggregator."""
    pipeline.take_in([event(1, now - 100, team="a"), event(2, now - 50, team="b")])
    pipeline.settings = replace(pipeline.settings, aggregation=Aggregation(labels=("team",)))
    answer = pipeline.history(since=now - 600, agg="sum", group_by="team")
    assert sources_of(answer) == ["events"]
    assert {labels: sum(filter(None, found)) for labels, found in values_of(answer).items()} == {
        (("team", "a"),): 1,
        (("team", "b"),): 2,
    }


def test_shards_that_never_had_anything_do_not_keep_windows_from_answering(
    client: redis.Redis, redis_url: str, tmp_path: Path, now: float
) -> None:
    pipeline = Pipeline(client, redis_url, tmp_path / "store", streams=Streams(shards=4))
    pipeline.take_in([event(1, now - 100)])
    answer = pipeline.history(since=now - 600, agg="sum")
    assert (sources_of(answer), sum_of(answer)) == (["windows"], 1)


def test_any_metadata_key_can_be_asked_for_and_only_events_know_it(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(value, now - 100, session=f"s{value % 3}") for value in range(9)])
    answer = pipeline.history(since=now - 600, agg="sum", where="session=s1")
    assert (sources_of(answer), sum_of(answer)) == (["events"], 1 + 4 + 7)
    assert sum_of(pipeline.history(since=now - 600, agg="sum", where=["session!=s1", "session!=s2"])) == 0 + 3 + 6


@pytest.fixture
def windows_are_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "CHEAP_LINES", -1)


def test_few_events_are_read_rather_than_many_series(
    pipeline: Pipeline, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.take_in([event(n, now - 60, provider=f"p{n}") for n in range(10)])
    asked: dict[str, Any] = {"since": now - 600, "agg": "count,p95"}
    questions: tuple[dict[str, Any], ...] = ({"group_by": "provider"}, {"where": "provider=p1"})
    for apart in questions:
        assert (sources_of(few := pipeline.history(**asked, **apart)), few.exact) == (["events"], True)
    assert sources_of(pipeline.history(**asked)) == ["windows"]
    monkeypatch.setattr(gathering, "CHEAP_LINES", 9)
    # The range may begin in an hour that has no events at all.
    assert "windows" in sources_of(pipeline.history(**asked, group_by="provider"))


def test_files_that_are_behind_are_not_preferred(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 60, provider="a")])
    later = f"{int((now + 30) * 1000)}-0"
    pipeline.client.xadd(KEYS.events(0), {"metric": "response_time", "value": "2", "provider": "a"}, id=later)
    pipeline.aggregate()
    answer = pipeline.history(since=now - 600, until=now + 60, agg="sum", group_by="provider")
    assert (sources_of(answer), sum_of(answer)) == (["windows"], 3)


@pytest.mark.usefixtures("windows_are_cheaper")
def test_overflow_sends_only_its_hours_to_the_events(pipeline: Pipeline, now: float) -> None:
    pipeline.settings = replace(pipeline.settings, aggregation=Aggregation(max_series=3))
    pipeline.take_in([event(1, now - 5 * HOUR, model=f"m{i}") for i in range(10)] + [event(1, now - 1, model="m1")])
    assert any(overflow_key("response_time").encode() in pipeline.client.hkeys(name) for name in window_keys(pipeline))
    answer = pipeline.history(since=now - 6 * HOUR, step="1m", agg="count", group_by="model")
    assert set(sources_of(answer)) == {"windows", "events"}
    assert {labels: sum(filter(None, values)) for labels, values in values_of(answer).items()} == {
        (("model", f"m{i}"),): 1 + (i == 1) for i in range(10)
    }


def window_keys(pipeline: Pipeline) -> Iterator[bytes]:
    yield from pipeline.client.scan_iter(KEYS.window(0, 60, 0)[:-1] + "*")


@pytest.mark.usefixtures("windows_are_cheaper")
def test_gauges_agree_whatever_the_source(pipeline: Pipeline, now: float) -> None:
    for producer, values in (("a", [3, 4]), ("b", [10, 8])):
        gauges = [event(v, now - 100 + i, metric="concurrency", producer=producer) for i, v in enumerate(values)]
        pipeline.take_in(gauges, producer)
    asked: dict[str, Any] = {"since": now - 3600, "step": "1h", "agg": "last,max,count"}
    windows, events = pipeline.history("concurrency", **asked), pipeline.history("concurrency", **asked, exact="true")
    assert (sources_of(windows), sources_of(events)) == (["windows"], ["events"])
    for answer in (windows, events):
        told = {line.agg: [value for _, value in line.points if value is not None] for line in answer.series}
        assert sum(told["last"]) == 12
        assert max(told["max"]) == 10
        assert sum(told["count"]) == 4


def test_weighted_samples_count_as_many(pipeline: Pipeline) -> None:
    pipeline.take_in([Event("response_time", 10.0, OLD, 0.5, 1, {}), Event("response_time", 40.0, OLD + 1, 1.0, 6, {})])
    answer = pipeline.history(since=OLD, until=OLD + 60, step=60, agg="count,sum,p50,min,mean")
    told = {line.agg: line.points[0][1] for line in answer.series}
    assert (told["count"], told["sum"], told["min"]) == (8, 260, 10)
    assert told["p50"] == pytest.approx(40, rel=MAX_RELATIVE_ERROR)
    assert not answer.exact


def test_without_a_server_events_answer_alone(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - 100)])
    answer = pipeline.history(since=now - 600, agg="sum", server=False)
    assert (sources_of(answer), sum_of(answer)) == (["events"], 1)


def test_server_that_is_away_is_no_error(pipeline: Pipeline, now: float, free_tcp_port: int) -> None:
    pipeline.take_in([event(1, now - 100)])
    pipeline.url = f"redis://127.0.0.1:{free_tcp_port}"
    assert sum_of(pipeline.history(since=now - 600, agg="sum")) == 1


def test_any_step_is_answered(pipeline: Pipeline, now: float) -> None:
    pipeline.take_in([event(1, now - number) for number in range(1, 101)])
    for step in (1, 7, 13, 61, 3601):
        answer = pipeline.history(since=now - 200, until=now, step=step, agg="count")
        assert sum_of(answer) == 100, step


def test_range_that_never_held_anything_is_empty(pipeline: Pipeline) -> None:
    answer = pipeline.history(since=OLD, until=OLD + 60)
    assert (answer.series, answer.as_of, sources_of(answer)) == ([], None, ["events"])
    wide = pipeline.history(since="2000-01-01", until="9999-01-01", agg="count")
    assert sources_of(wide)[0] == "events"


def test_files_that_change_meanwhile_are_read_anew(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.take_in([event(1, OLD)])
    original, calls = pipeline.reader.steps, []

    def steps(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) < 3:
            raise FilesChanged("gone")
        return original(*args, **kwargs)

    monkeypatch.setattr(pipeline.reader, "steps", steps)
    assert sum_of(pipeline.history(since=OLD, until=OLD + 60, agg="sum")) == 1
    assert len(calls) == 3


def test_too_many_groups_are_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "MAX_CELLS", 20)
    pipeline.take_in([event(1, OLD, model=f"m{i}") for i in range(30)])
    with pytest.raises(BadParameter, match="too many series"):
        pipeline.history(since=OLD, until=OLD + 60, group_by="model")


@pytest.mark.parametrize("seed", range(8))
def test_random_questions_agree_with_a_brute_force_reading(
    pipeline: Pipeline, now: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(gathering, "CHEAP_LINES", rng.choice([-1, 30, gathering.CHEAP_LINES]))
    events = [random_event(rng, now) for _ in range(1500)]
    for part in range(3):
        pipeline.take_in(events[part::3], f"p{part}")
    for _ in range(12):
        since = now - rng.choice([600, HOUR, 7 * HOUR, 28 * HOUR, 60 * HOUR])
        until = rng.choice([now, since + 300, now + 60])
        label = rng.choice([None, "provider", "model", "session"])
        where = rng.choice([None, "provider=a", "model!=m1", "session=s2"])
        asked: dict[str, Any] = {"since": since, "until": until, "agg": "count,sum,min,max,p50"}
        asked |= {"group_by": label} if label else {}
        asked |= {"where": where} if where else {}
        asked |= (
            {"step": rng.choice([60, 600, 5400, 7])} if until - since <= 9000 else {"step": rng.choice(["1h", "1d"])}
        )
        asked |= rng.choice([{}, {"tz": "+05:30"}, {"tz": "Asia/Kathmandu"}, {"tz": "America/New_York"}])
        answer = pipeline.history(**asked)
        compare(answer, [one for one in events if answer.since <= (one.ts or 0) < answer.to], label, where)


@pytest.mark.parametrize("grain", [10, 60, 1800, 7])
def test_steps_of_any_length_are_made_of_windows_where_these_fit(pipeline: Pipeline, now: float, grain: int) -> None:
    """As where a clock is changed."""
    rng = random.Random(grain)
    first = int(now - 1800) // HOUR * HOUR - 2 * HOUR * (grain > 10)
    events = [event(value, round(rng.uniform(first, now), 6)) for value in range(1, 1001)]
    pipeline.take_in(events)
    edges = sorted({first + rng.randrange(1, int(now + 60 - first)) // grain * grain for _ in range(9)} | {first})
    asked = gathering.Asked(edges[0], edges[-1], 3600, "response_time", ("count", "p50"), edges=tuple(edges))
    gathered = pipeline.gather(asked)
    assert {source.source for source in gathered.sources} == {"events" if grain == 7 else "windows"}
    for start, stop in pairwise(edges):
        inside = sorted(one.value for one in events if start <= (one.ts or 0) < stop)
        cell = gathered.cells.get(("response_time", (), start))
        if cell is None:
            assert inside == []
            continue
        assert cell.total.window().count == len(inside)
        (p50,) = history.aggregates_of(cell, ("p50",), 1, Kind.DISTRIBUTION)
        assert p50 == pytest.approx(quantile(inside, 0.5), rel=MAX_RELATIVE_ERROR * 1.01)


def test_questions_that_are_given_up_half_way_leave_nothing_behind(pipeline: Pipeline, now: float) -> None:
    """Whatever was being waited for: a reply of the server, a query."""
    pipeline.take_in([event(value, now - value, model=f"m{value % 5}") for value in range(1, 101)])
    plan = Plan(60, int(now) // 60 * 60 - 7200, int(now) // 60 * 60 + 60)

    async def run(gatherer: gathering.Gatherer) -> None:
        for attempt in range(40):
            exact, group_by = attempt % 4 == 0, ("model",) if attempt % 2 else ()
            asked = gathering.Asked(plan.start, plan.stop, 60, "response_time", ("sum",), group_by, (), exact)
            with anyio.move_on_after(attempt / 2000):
                await answered(partial(gatherer.gather, asked), 60)
            gathered = await answered(partial(gatherer.gather, asked), 60)
            assert sum(cell.total.window().sum for cell in gathered.cells.values()) == 5050

    pipeline.ask(run)


def random_event(rng: random.Random, now: float) -> Event:
    ts = now - rng.choice([rng.uniform(0, 600), rng.uniform(0, 7200), rng.uniform(0, 50 * HOUR)])
    metadata: dict[str, Any] = {"session": f"s{rng.randrange(4)}"}
    if rng.random() < 0.8:
        metadata["provider"] = rng.choice(["a", "b", 7, True, None])
    if rng.random() < 0.8:
        metadata["model"] = f"m{rng.randrange(3)}"
    return Event("response_time", rng.choice([0.0, -3.5, rng.lognormvariate(3, 2)]), round(ts, 6), metadata=metadata)


def compare(answer: Any, events: list[Event], label: str | None, where: str | None) -> None:
    def text(value: Any) -> str | None:
        return (
            None if value is None else {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
        )

    if where:
        key, _, value = where.partition("=")
        negated, key = key.endswith("!"), key.removesuffix("!")
        events = [one for one in events if (text(one.metadata.get(key)) == value) is not negated]
    groups: dict[Any, list[Event]] = {}
    for one in events:
        found = text(one.metadata.get(label)) if label else None
        groups.setdefault((((label, found),) if found is not None else ()), []).append(one)
    told = {tuple(line.labels.items()) for line in answer.series}
    assert told == set(groups)
    for line in answer.series:
        members = groups[tuple(line.labels.items())]
        for (start, value), (stop, _) in pairwise([*line.points, (answer.to, None)]):
            inside = sorted(one.value for one in members if start <= (one.ts or 0) < stop)
            assert_told(line.agg, value, inside, answer.exact)


def assert_told(agg: str, value: float | None, inside: list[float], exact: bool) -> None:
    if not inside:
        assert value is None
        return
    truths: dict[str, Callable[[list[float]], float]] = {
        **{"count": len, "sum": math.fsum, "min": min, "max": max},
        "p50": lambda values: quantile(values, 0.5),
    }
    expected = truths[agg](inside)
    if agg == "p50" and not exact:
        # Interpolation between values of both signs is as exact as each of them, not as their difference.
        spread = max(map(abs, inside)) * MAX_RELATIVE_ERROR
        assert value == pytest.approx(expected, rel=MAX_RELATIVE_ERROR * 1.01, abs=spread if inside[0] <= 0 else 1e-12)
    else:
        assert value == pytest.approx(expected, rel=1e-9, abs=1e-9)

"""Windows made anew from files: the same as those that were lost, whatever happens meanwhile."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.feeding import Feed, event, total, values_on_disk, windows
from tests.support.pipeline import Pipeline, sources_of, values_of
from tests.support.processes import StartRole
from tests.support.stored import compact_day, compact_hour, sweep
from tests.support.waiting import WaitUntil
from vibezen.metrics import scripts
from vibezen.metrics.balance import NEWEST, books_of
from vibezen.metrics.clock import DAY, wall
from vibezen.metrics.consumers import rebuild as rebuilding
from vibezen.metrics.consumers.lease import take
from vibezen.metrics.consumers.rebuild import Rebuilt, rebuild
from vibezen.metrics.errors import Fenced, StoreError
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.keys import AGGREGATE, Keys
from vibezen.metrics.producers.append import Batch, append
from vibezen.metrics.settings import Aggregation
from vibezen.metrics.verify import examine
from vibezen.metrics.window import Window, from_blob

KEYS = Keys()
All = dict[tuple[str, int, int], dict[str, Window]]


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    return Pipeline(client, redis_url, tmp_path / "store")


@pytest.fixture
def anew(pipeline: Pipeline) -> Callable[[], Rebuilt]:
    return lambda: rebuild(pipeline.client, KEYS, pipeline.layout, pipeline.settings, 0)


Anew = Callable[[], Rebuilt]


def send(pipeline: Pipeline, events: list[Event], producer: str = "p1") -> None:
    """Append as a producer does, so that the books count it."""
    known: Any = pipeline.client.hget(KEYS.producers(0), producer)
    seq = int(known.split()[0]) + 1 if known else 1
    append(pipeline.client, KEYS, 0, producer, seq, [Batch(len(events), encode_lines(events))])


def mixed(now: float) -> list[Event]:
    """Plain, late, weighted and gauge events, in windows of several hours, and some that no window takes any more."""
    plain = [event(number * 0.1, now - number * 37 % 5000, provider=f"p{number % 4}") for number in range(500)]
    late = [event(number, now - 7 * 3600 - number, model="m") for number in range(50)]
    weighted = [Event("cost", 0.5, now - 30, sample_rate=0.3), Event("cost", 1.5, now - 7000, count=9)]
    gauges = [event(number, now - number, "concurrency", producer=f"g{number % 2}") for number in range(20)]
    ancient = [event(1, now - 40 * 3600), event(2, now - 40 * 86_400)]
    return [*plain, *late, *weighted, *gauges, *ancient]


def stored(client: redis.Redis) -> All:
    """Every window and every total."""
    found: All = {}
    for kind in ("w", "t"):
        for name in client.scan_iter(f"vibezen:{{0}}:{kind}:*"):
            blobs: Any = client.hgetall(name)
            _, _, width, start = name.decode().removeprefix("vibezen:").split(":")
            found[kind, int(width), int(start)] = {key.decode(): from_blob(blob) for key, blob in blobs.items()}
    return found


def same(one: All, other: All) -> bool:
    return one.keys() == other.keys() and all(
        one[place].keys() == other[place].keys()
        and all(alike(window, other[place][key]) for key, window in one[place].items())
        for place in one
    )


def alike(one: Window, other: Window) -> bool:
    """Equal, but for the rounding of sums and of sampled weights."""
    close = math.isclose(one.sum, other.sum, rel_tol=1e-9) and math.isclose(one.count, other.count, rel_tol=1e-12)
    exact = [(w.min, w.max, w.last, w.last_ts, w.positive.keys(), w.negative.keys()) for w in (one, other)]
    return close and exact[0] == exact[1]


def balanced(client: redis.Redis) -> bool:
    hashed: Any = client.hgetall(KEYS.books(0))
    newest: Any = client.xrevrange(KEYS.events(0), count=NEWEST)
    books = books_of(hashed, newest)
    return books.balances and books.archived_less_aggregated == 0


def differences(pipeline: Pipeline) -> list[str]:
    return [one.seen for one in examine(pipeline.settings, lambda _: None) if one.status == "fail"]


def test_windows_made_anew_are_those_that_were_lost(pipeline: Pipeline, anew: Anew, client: redis.Redis) -> None:
    for _ in range(2):
        send(pipeline, mixed(wall()))
        pipeline.archive()
        pipeline.aggregate()
    before = stored(client)
    books: Any = client.hgetall(KEYS.books(0))
    assert {width for _, width, _ in before} == {10, 60}
    client.delete(*client.scan_iter("vibezen:{0}:w:*"))
    found = anew()
    assert (found.events, found.complete) == (2 * 572, True)
    assert same(stored(client), before)
    assert client.get(KEYS.floor(0)) == b"0"
    again: Any = client.hgetall(KEYS.books(0))
    for name in ("entries", "events", "rejected", "too_old", "account", "position"):
        key = f"aggregate.{name}".encode()
        assert again[key] == books[key], name
    assert differences(pipeline) == []


@pytest.mark.parametrize("kept", ["segments kept", "segments gone", "day"])
def test_windows_made_anew_of_parts_are_those_that_were_lost(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, kept: str
) -> None:
    now = wall() // 60 * 60
    for _ in range(2):
        send(pipeline, mixed(now))
        pipeline.archive()
        pipeline.aggregate()
    before = stored(client)
    hours = pipeline.reader.snapshot().hours()
    for hour in hours:
        compact_hour(pipeline.layout, hour)
    send(pipeline, mixed(now))
    pipeline.archive()
    pipeline.aggregate()
    added = stored(client)
    for date in {hour // DAY * DAY for hour in hours} if kept == "day" else ():
        compact_day(pipeline.layout, date)
    if kept != "segments kept":
        sweep(pipeline.layout)
    assert len(list(pipeline.layout.segments())) < 3 * len(hours) or kept == "segments kept"
    assert differences(pipeline) == []
    assert not same(added, before)
    found = anew()
    assert (found.events, found.complete) == (3 * 572, True)
    assert same(stored(client), added)
    assert differences(pipeline) == []


@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_windows_are_left_as_they_are_where_a_part_is_damaged(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, how: str
) -> None:
    send(pipeline, mixed(wall()))
    pipeline.archive()
    pipeline.aggregate()
    pipeline.archive()
    path = compact_hour(pipeline.layout, max(hour for hour in pipeline.reader.snapshot().hours()))
    sweep(pipeline.layout)
    before, fence, data = stored(client), client.get(KEYS.fence(0, AGGREGATE)), path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-9] if how == "cut" else data[:4] + bytes(60) + data[64:])
    with pytest.raises(StoreError, match=r"part-1\.parquet|is damaged or gone"):
        anew()
    assert (stored(client), client.get(KEYS.fence(0, AGGREGATE))) == (before, fence)


def test_windows_that_held_too_much_hold_what_the_files_have(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    send(pipeline, mixed(wall()))
    pipeline.archive()
    pipeline.aggregate()
    before = stored(client)
    place = next(iter(client.scan_iter("vibezen:{0}:w:60:*")))
    client.rename(place, KEYS.window(0, 60, int(wall()) // 60 * 60 - 3 * 3600))
    assert differences(pipeline) != []
    anew()
    assert same(stored(client), before)


def test_after_flushall_history_from_windows_is_that_from_files(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    now = wall()
    send(pipeline, mixed(now))
    pipeline.archive()
    pipeline.aggregate()
    client.flushall()
    pipeline.archive()
    pipeline.aggregate()
    since, until = repr(now - 6 * 3600), repr(now + 60)
    asked: dict[str, Any] = {"since": since, "until": until, "step": "300", "agg": "count,sum,min,max"}
    assert "windows" not in sources_of(pipeline.history(**asked))
    assert anew().complete
    told, files = pipeline.history(**asked), pipeline.history(server=False, **asked)
    assert (sources_of(told), sources_of(files)) == (["windows"], ["events"])
    for agg in ("count", "min", "max"):
        assert values_of(told, agg) == values_of(files, agg)
    sums = zip(values_of(told, "sum")[()], values_of(files, "sum")[()], strict=True)
    assert all(one == other or math.isclose(one, other, rel_tol=1e-9) for one, other in sums)
    send(pipeline, [event(7, now)], "p2")
    pipeline.archive()
    pipeline.aggregate()
    assert differences(pipeline) == []
    assert balanced(client)


def test_what_was_aggregated_before_it_was_archived_counts_once(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    now = wall()
    send(pipeline, [event(1, now)])
    pipeline.archive()
    send(pipeline, [event(2, now), event(3, now)])
    pipeline.aggregate()
    assert total(client).sum == 6
    anew()
    assert total(client).sum == 1
    pipeline.aggregate()
    assert (total(client).count, total(client).sum) == (3, 6)
    pipeline.archive()
    assert differences(pipeline) == []
    assert balanced(client)


def test_what_was_archived_before_it_was_aggregated_counts_once(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    now = wall()
    send(pipeline, [event(1, now)])
    pipeline.archive()
    pipeline.aggregate()
    send(pipeline, [event(2, now)])
    pipeline.archive()
    anew()
    assert total(client).sum == 3
    pipeline.aggregate()
    assert total(client).sum == 3
    assert balanced(client)


def test_what_a_producer_sent_twice_counts_once_afterwards(pipeline: Pipeline, anew: Anew, client: redis.Redis) -> None:
    """As one does whose server had lost what it acknowledged: the archiver knows it, and its record does not move."""
    feed = Feed(client)
    feed.append([event(1, wall())])
    pipeline.archive()
    pipeline.aggregate()
    feed.append([event(1, wall())], seq=1)
    pipeline.archive()
    pipeline.aggregate()
    assert values_on_disk(pipeline.layout.root) == {1.0: 1}
    anew()
    pipeline.aggregate()
    assert total(client).count == 1
    assert differences(pipeline) == []


def test_after_an_older_copy_took_over_windows_hold_what_the_files_have(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    now = wall()
    send(pipeline, mixed(now))
    pipeline.archive()
    pipeline.aggregate()
    copy: dict[bytes, Any] = {name: client.dump(name) for name in client.scan_iter()}
    send(pipeline, [event(1, now), event(2, now)], "p2")
    pipeline.archive()
    pipeline.aggregate()
    client.flushall()
    for name, value in copy.items():
        client.restore(name, 0, value)
    send(pipeline, [event(3, now)], "p3")
    pipeline.archive()
    pipeline.aggregate()
    assert anew().complete
    send(pipeline, [event(4, now)], "p3")
    pipeline.aggregate()
    pipeline.archive()
    assert differences(pipeline) == []
    assert balanced(client)
    assert {1.0, 2.0, 3.0, 4.0} <= set(values_on_disk(pipeline.layout.root))


class _Cut(Exception):
    """The process ends here."""


def cuts(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Rebuildings that are cut off before and after each of their scripts, one after another until one is not."""
    number = 0
    while True:
        for is_after in (False, True):
            calls = 0
            run = scripts.run

            def cut(*args: Any, number: int = number, is_after: bool = is_after, run: Any = run) -> Any:
                nonlocal calls
                calls += 1
                if calls > number and not is_after:
                    raise _Cut
                answer = run(*args)
                if calls > number:
                    raise _Cut
                return answer

            with monkeypatch.context() as patch:
                patch.setattr(scripts, "run", cut)
                yield patch
            if calls <= number:
                return
        number += 1


def test_cut_off_at_any_step_windows_are_incomplete_or_right_and_it_can_be_done_again(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(pipeline, mixed(wall()))
    pipeline.archive()
    pipeline.aggregate()
    before = stored(client)
    monkeypatch.setattr("vibezen.metrics.consumers.aggregator.COMMIT_SAMPLES", 200)
    monkeypatch.setattr("vibezen.metrics.committed.BLOCK_BYTES", 20_000)
    tried, finished = 0, False
    for patch in cuts(monkeypatch):
        tried += 1
        try:
            anew()
            finished = True
        except _Cut:
            patch.undo()
            floor: Any = client.get(KEYS.floor(0))
            assert same(stored(client), before) or float(floor) > wall() - 3600
            client.delete(KEYS.lease(0, AGGREGATE))
            pipeline.aggregate()
            held = stored(client)
            assert all(held[place][key].count <= before[place][key].count for place in held for key in held[place])
    assert finished
    assert tried > 12
    anew()
    assert same(stored(client), before)
    assert differences(pipeline) == []


def test_a_rebuilding_that_was_replaced_changes_nothing_more(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(pipeline, mixed(wall()))
    pipeline.archive()
    pipeline.aggregate()
    before = stored(client)
    kept = rebuilding._kept

    def meanwhile(*args: Any) -> Iterator[Any]:
        for block in kept(*args):
            monkeypatch.setattr(rebuilding, "_kept", kept)
            assert anew().complete
            yield block

    monkeypatch.setattr(rebuilding, "_kept", meanwhile)
    with pytest.raises(Fenced):
        anew()
    assert same(stored(client), before)
    assert client.get(KEYS.floor(0)) == b"0"


@pytest.mark.parametrize("step", ["rebuild_begin", "aggregate_commit", "rebuild_end"])
def test_who_lost_the_shard_before_a_step_does_not_take_it(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    send(pipeline, mixed(wall()))
    pipeline.archive()
    pipeline.aggregate()
    script, run = scripts.load("vibezen.metrics.consumers", step), scripts.run
    then: list[Any] = []

    def replaced(*args: Any) -> Any:
        if args[1] is script and not then:
            then.append(None)
            assert take(client, KEYS, 0, AGGREGATE, "other", force=True)
            then[0] = (stored(client), client.get(KEYS.floor(0)))
        return run(*args)

    monkeypatch.setattr(scripts, "run", replaced)
    with pytest.raises(Fenced):
        anew()
    assert then == [(stored(client), client.get(KEYS.floor(0)))]
    assert client.get(KEYS.lease(0, AGGREGATE)) == b"other"


def test_the_live_feed_is_told_nothing_of_half_made_windows(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    send(pipeline, mixed(wall()))
    pipeline.archive()
    pipeline.aggregate()
    frames = client.xlen(KEYS.frames)
    assert frames > 0
    anew()
    assert client.xlen(KEYS.frames) == frames


def test_of_events_of_one_time_the_last_archived_is_the_newest(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    now = wall() // 60 * 60
    for value in range(12):  # so that there is an epoch of two digits
        send(pipeline, [event(value, now)])
        pipeline.archive()
    anew()
    ((_, _, series),) = windows(client, 60)
    assert [window.last for window in series.values()] == [11.0]


def test_a_loss_that_was_noted_meanwhile_is_not_forgotten(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(pipeline, mixed(wall()))
    pipeline.archive()
    kept = rebuilding._kept

    def meanwhile(*args: Any) -> Iterator[Any]:
        client.set(KEYS.floor(0), "1763985600")
        yield from kept(*args)

    monkeypatch.setattr(rebuilding, "_kept", meanwhile)
    assert not anew().complete
    assert client.get(KEYS.floor(0)) == b"1763985600"


@pytest.mark.parametrize("how", ["changed", "cut", "gone"])
def test_windows_are_left_as_they_are_where_files_are_damaged(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, how: str
) -> None:
    """They may be all that is left of it."""
    send(pipeline, mixed(wall()))
    pipeline.archive()
    pipeline.aggregate()
    before, fence = stored(client), client.get(KEYS.fence(0, AGGREGATE))
    path = list(pipeline.layout.segments())[-1]
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if how == "cut" else data.replace(b'"value":0.2', b'"value":0.3'))
    with pytest.raises(StoreError, match=f"{path.name} is damaged or gone"):
        anew()
    assert (stored(client), client.get(KEYS.fence(0, AGGREGATE))) == (before, fence)
    path.write_bytes(data)
    assert anew().complete


@pytest.mark.parametrize("emptied", [True, False], ids=["emptied", "older ids"])
def test_a_server_that_the_archiver_has_not_come_to_is_left_alone(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, monkeypatch: pytest.MonkeyPatch, emptied: bool
) -> None:
    """Its entries may carry ids that the files have passed, and would never be aggregated."""
    monkeypatch.setattr(rebuilding, "PAUSE", 0.001)
    send(pipeline, [event(1, wall())])
    pipeline.archive()
    pipeline.aggregate()
    if emptied:
        client.flushall()
    else:
        client.delete(KEYS.events(0))
        for group in ("archive", "aggregate"):
            client.xgroup_create(KEYS.events(0), group, "0", mkstream=True)
        client.xadd(KEYS.events(0), {"metric": "cost", "value": 1}, id="1000-0")
    with pytest.raises(StoreError, match="consume archive"):
        anew()
    assert client.get(KEYS.lease(0, AGGREGATE)) is None
    pipeline.archive()
    assert anew().complete


def test_the_lease_of_a_living_owner_is_taken_and_given_back(
    pipeline: Pipeline, anew: Anew, client: redis.Redis
) -> None:
    send(pipeline, [event(1, wall())])
    pipeline.archive()
    taken = take(client, KEYS, 0, AGGREGATE, "alive")
    assert taken is not None
    assert take(client, KEYS, 0, AGGREGATE, "other") is None
    anew()
    assert client.get(KEYS.fence(0, AGGREGATE)) != taken.fence.encode()
    assert client.get(KEYS.lease(0, AGGREGATE)) is None


def test_a_shard_without_events_is_complete(pipeline: Pipeline, anew: Anew, client: redis.Redis) -> None:
    pipeline.archive()
    assert anew() == Rebuilt(0, "0-0", complete=True)
    send(pipeline, [event(1, wall())])
    pipeline.aggregate()
    assert total(client).count == 1


def test_folded_series_are_counted_anew(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    pipeline = Pipeline(client, redis_url, tmp_path / "store", aggregation=Aggregation(max_series=3))
    send(pipeline, [event(number, wall(), model=f"m{number}") for number in range(8)])
    pipeline.archive()
    pipeline.aggregate()
    rebuild(client, KEYS, pipeline.layout, pipeline.settings, 0)
    assert client.hget(KEYS.books(0), "aggregate.overflow") == b"5"
    assert differences(pipeline) == []


def test_windows_of_other_settings_are_made_anew_in_the_present_ones(
    client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    now = wall()
    before = Pipeline(client, redis_url, tmp_path / "store")
    send(before, [event(1, now, team="a"), event(2, now, team="b")])
    before.archive()
    before.aggregate()
    after = Pipeline(client, redis_url, tmp_path / "store", aggregation=Aggregation(labels=("team",)))
    assert rebuild(client, KEYS, after.layout, after.settings, 0).complete
    assert sum(len(blobs) for _, _, blobs in windows(client)) == 2
    after.aggregate()
    told = after.history(since=now - 600, until=now + 60, step=60, group_by="", agg="sum")
    assert sources_of(told) == ["windows"]


def test_under_load_everything_counts_once(
    pipeline: Pipeline, anew: Anew, client: redis.Redis, start_role: StartRole, wait_until: WaitUntil
) -> None:
    where = ("--redis-url", pipeline.url, "--storage-dir", str(pipeline.layout.root))
    roles = [start_role("consume", group, *where) for group in ("archive", "aggregate")]
    for number in range(60):
        send(pipeline, [event(number, wall() - number % 90) for _ in range(50)])
        if number in (20, 40):
            wait_until(lambda: client.hget(KEYS.books(0), "archive.owner"))
            assert anew().complete
    wait_until(lambda: balanced(client) and total(client).count == 3000, 60)
    assert client.get(KEYS.floor(0)) == b"0"
    assert [role.stop() for role in roles] == [0, 0]
    assert differences(pipeline) == []

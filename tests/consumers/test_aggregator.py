import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.support.feeding import Feed, event, lag, total, windows
from vibezen.metrics.batch import id_order
from vibezen.metrics.consumers.aggregator import Aggregator
from vibezen.metrics.consumers.shard import Sink
from vibezen.metrics.errors import Fenced, StreamMoved
from vibezen.metrics.event import Event
from vibezen.metrics.keys import Keys
from vibezen.metrics.live import FIELD, decode_frame
from vibezen.metrics.series import overflow_key, parse_series, series_key
from vibezen.metrics.settings import Aggregation, Width
from vibezen.metrics.window import Window, from_blob, merged

KEYS = Keys()
Drain = Callable[[Sink], None]
NewAggregator = Callable[..., Aggregator]


@pytest.fixture
def now(client: redis.Redis) -> float:
    """The server's time, at the middle of a 10 s window, so that a test stays inside one."""
    seconds: Any = client.time()
    return float(seconds[0] // 10 * 10 + 5)


def series_of(client: redis.Redis, width: int = 10) -> dict[str, Window]:
    """Series → window, where each series stands in one window only."""
    return {key: window for _, _, blobs in windows(client, width) for key, window in blobs.items()}


def books(client: redis.Redis) -> dict[str, str]:
    stored: Any = client.hgetall(KEYS.books(0))
    return {name.decode().removeprefix("aggregate."): value.decode() for name, value in stored.items()}


def test_windows_hold_count_sum_and_extremes_of_each_series(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    Feed(client).append(
        [
            event(10, now, provider="openai", session="a"),
            event(30, now + 1, provider="openai", session="b"),
            event(5, now, provider="anthropic"),
            event(7, now),
        ]
    )
    drain(new_aggregator())
    found = series_of(client)
    openai = found[series_key("response_time", {"provider": "openai"})]
    assert (openai.count, openai.sum, openai.min, openai.max, openai.last) == (2, 40.0, 10.0, 30.0, 30.0)
    assert found[series_key("response_time", {"provider": "anthropic"})].sum == 5.0
    assert found[series_key("response_time", {})].sum == 7.0
    assert len(found) == 3


@pytest.mark.parametrize("width", [10, 60])
def test_every_width_holds_all_samples(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float, width: int
) -> None:
    values = [random.Random(7).lognormvariate(5, 2) for _ in range(900)]
    feed = Feed(client)
    for start in range(0, 900, 300):
        feed.append([event(v, now - i % 240) for i, v in enumerate(values[start : start + 300])])
    drain(new_aggregator())
    whole = total(client, width)
    assert whole.count == 900
    assert math.isclose(whole.sum, math.fsum(values), rel_tol=1e-12)
    assert sum(whole.positive.values()) == 900
    for _, start, blobs in windows(client, width):
        assert all(start % width == 0 and start <= w.last_ts < start + width for w in blobs.values())


def test_commits_one_after_another_add_up(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    aggregator = new_aggregator()
    for value in range(10):
        feed.append([event(value, now)])
        drain(aggregator)
    assert (total(client).count, total(client).sum) == (10, 45.0)
    assert lag(client, "aggregate") == 0


def test_the_lag_is_known_from_the_first_commit_on(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    feed.append([event(1, now)])
    feed.append([event(2, now)])
    client.xgroup_create(KEYS.events(0), "aggregate", id="0")
    aggregator = new_aggregator()
    drain(aggregator)
    for _ in range(3):
        feed.append([event(3, now)])
    assert lag(client, "aggregate") == 3


def test_a_successor_merges_into_what_is_stored(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    for value in range(5):
        feed.append([event(value, now, provider="openai"), event(value, now)])
        drain(new_aggregator())
    assert (total(client).count, total(client).sum) == (10, 20.0)
    assert books(client)["events"] == "10"


def test_a_replaced_owner_changes_no_window(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    sleeper = new_aggregator()
    feed.append([event(1, now)])
    entries: Any = client.xrange(KEYS.events(0))
    for entry_id, fields in entries:
        sleeper.take(entry_id, fields)
    drain(new_aggregator())
    with pytest.raises(Fenced):
        sleeper.commit()
    assert total(client).count == 1


def test_an_owner_whose_successor_has_committed_nothing_yet_changes_no_window(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    """The group still stands where the sleeper left it: the fence alone tells."""
    sleeper = new_aggregator()
    Feed(client).append([event(1, now)])
    entries: Any = client.xrange(KEYS.events(0))
    for entry_id, fields in entries:
        sleeper.take(entry_id, fields)
    successor = new_aggregator()
    with pytest.raises(Fenced):
        sleeper.commit()
    assert list(windows(client)) == []
    drain(successor)
    assert total(client).count == 1


def test_a_lost_group_does_not_count_again(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    feed.append([event(1, now)])
    drain(new_aggregator())
    client.xgroup_destroy(KEYS.events(0), "aggregate")
    feed.append([event(2, now)])
    drain(new_aggregator())
    assert (total(client).count, total(client).sum) == (2, 3.0)


def test_a_deleted_stream_goes_on_with_higher_ids(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    feed.append([event(1, now)], entry_id="9999999999999-0")
    drain(new_aggregator())
    client.delete(KEYS.events(0))
    aggregator = new_aggregator()
    added = feed.append([event(2)])
    assert id_order(added) > (9999999999999, 0)
    drain(aggregator)
    assert books(client)["events"] == "1"


def test_bad_lines_are_counted_and_leave_their_neighbours(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    Feed(client).append([event(1, now), event(2, 5.0), event(3, now)])
    client.xadd(KEYS.events(0), {"hello": "world"})
    drain(new_aggregator())
    assert total(client).sum == 4.0
    assert (books(client)["events"], books(client)["rejected"]) == ("2", "2")


def test_sampled_and_counted_events_weigh_what_they_stand_for(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    Feed(client).append(
        [Event("cost", 2.0, now, sample_rate=0.25), Event("cost", 3.0, now, count=5), Event("cost", 1.0, now)]
    )
    drain(new_aggregator())
    for width in (10, 60):
        window = total(client, width)
        assert (window.count, window.sum, window.min, window.max) == (10, 24.0, 1.0, 3.0)


def test_an_event_too_old_for_fine_windows_still_counts_in_coarse_ones(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    Feed(client).append([event(1, now - 3 * 3600), event(2, now - 30 * 3600), event(4, now)])
    drain(new_aggregator())
    assert total(client, 10).sum == 4.0
    assert total(client, 60).sum == 5.0
    assert (books(client)["events"], books(client)["too_old"]) == ("2", "1")


def test_what_is_too_old_depends_on_the_entry_not_on_the_reader(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain
) -> None:
    """An entry read a day late gives the same counts as one read at once."""
    then = 1_763_985_605.0
    Feed(client).append([event(1, then), event(2, then - 27 * 3600)], entry_id=f"{int(then * 1000)}-0")
    drain(new_aggregator())
    assert (books(client)["events"], books(client)["too_old"]) == ("1", "1")


def test_series_beyond_the_bound_fold_into_one(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    policy = Aggregation(max_series=5)
    feed = Feed(client)
    for _ in range(2):
        feed.append([event(1, now, model=f"m{i}") for i in range(20)])
        drain(new_aggregator(policy))
    found = series_of(client)
    assert len(found) == 6
    assert found[overflow_key("response_time")].count == 30
    assert total(client).count == 40
    assert books(client)["overflow"] == "30"


def test_totals_hold_all_series_of_a_metric_whoever_owns_the_shard(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    policy = Aggregation(max_series=3)
    for _ in range(2):
        feed.append([event(v, now, model=f"m{v}") for v in range(1, 6)] + [event(9, now, "concurrency")])
        drain(new_aggregator(policy))
    for width in (10, 60):
        ((_, start, series),) = windows(client, width)
        stored: Any = client.hgetall(KEYS.totals(0, width, start))
        assert set(stored) == {b"response_time", b"concurrency"}
        whole = from_blob(stored[b"response_time"])
        assert whole == merged(w for key, w in series.items() if parse_series(key).metric == "response_time")
        assert (whole.count, whole.sum) == (10, 30.0)
        assert client.expiretime(KEYS.totals(0, width, start)) == client.expiretime(KEYS.window(0, width, start))


def test_a_gauge_keeps_its_producers_apart(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    for producer, values in (("a", [3, 4]), ("b", [10, 8])):
        Feed(client, producer).append([event(v, now + i, metric="concurrency") for i, v in enumerate(values)])
    drain(new_aggregator())
    lasts = {parse_series(key).labels["producer"]: window.last for key, window in series_of(client).items()}
    assert lasts == {"a": 4.0, "b": 8.0}


def test_windows_expire_at_their_end_plus_what_they_are_kept(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    Feed(client).append([event(1, now)])
    drain(new_aggregator())
    for width, kept in ((10, 7200), (60, 93_600)):
        ((_, start, _),) = windows(client, width)
        assert client.expiretime(KEYS.window(0, width, start)) == start + width + kept


def test_frames_hold_absolute_values_and_the_ages_of_live_events(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    feed = Feed(client)
    aggregator = new_aggregator()
    feed.append([event(1, now - 3), event(2, now), event(4, now - 600), event(4, now - 3000)])
    drain(aggregator)
    feed.append([event(8, now)])
    drain(aggregator)
    entries: Any = client.xrange(KEYS.frames)
    first, second = (decode_frame(fields[FIELD.encode()]) for _, fields in entries)
    assert (first.oldest, first.newest) == (now - 3, now)
    assert min(change.start for change in first.changes) == int(now - 600) // 10 * 10
    (change,) = second.changes
    assert (change.start, change.window.count, change.window.sum) == (int(now) // 10 * 10, 3, 11.0)


def test_forgotten_windows_are_read_back_before_they_are_merged_into(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vibezen.metrics.consumers.windows.HELD_SERIES", 0)
    feed = Feed(client)
    aggregator = new_aggregator()
    for _ in range(3):
        feed.append([event(1, now - 60), event(1, now)])
        drain(aggregator)
    assert total(client).count == 6


@pytest.mark.parametrize("age", [0, 3 * 3600], ids=["live", "late"])
def test_many_touched_series_are_committed_without_waiting(
    client: redis.Redis, new_aggregator: NewAggregator, now: float, age: int
) -> None:
    aggregator = new_aggregator(Aggregation(commit_series=10, commit_interval_seconds=3600))
    Feed(client).append([event(1, now - age, model=f"m{number}") for number in range(10)])
    entries: Any = client.xrange(KEYS.events(0))
    assert aggregator.wait_ms() is None
    for entry_id, fields in entries:
        aggregator.take(entry_id, fields)
    assert aggregator.wait_ms() == 0


def test_widths_are_configuration(client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float) -> None:
    widths = (
        Width(seconds=1, keep_seconds=60),
        Width(seconds=5, keep_seconds=600),
        Width(seconds=60, keep_seconds=600),
    )
    Feed(client).append([event(1, now), event(2, now + 1)])
    drain(new_aggregator(Aggregation(widths=widths)))
    assert [total(client, width).count for width in (1, 5, 60)] == [2, 2, 2]
    assert len(list(windows(client, 1))) == 2


def test_an_owner_whose_group_was_made_anew_has_to_attach_again(
    client: redis.Redis, new_aggregator: NewAggregator, drain: Drain, now: float
) -> None:
    """A stream deleted while its owner slept: what stood in between, the owner never saw."""
    feed = Feed(client)
    feed.append([event(1, now)])
    aggregator = new_aggregator()
    drain(aggregator)
    assert client.get(KEYS.floor(0)) == b"0"
    client.delete(KEYS.events(0))
    for group in ("archive", "aggregate"):
        client.xgroup_create(KEYS.events(0), group, "0", mkstream=True)
    feed.append([event(2, now)])
    with pytest.raises(StreamMoved):
        drain(aggregator)
    drain(new_aggregator())
    assert total(client).sum == 3
    assert float(client.get(KEYS.floor(0)) or 0) > 0

from tests.support.serving import NOW, OPEN, samples
from vibezen.metrics.api.recent import KEPT, RecentWindows
from vibezen.metrics.catalogue import Catalogue
from vibezen.metrics.series import series_key
from vibezen.metrics.window import to_blob

A = series_key("response_time", {"model": "a"})
B = series_key("response_time", {"model": "b"})
COST = series_key("cost", {})


def recent() -> RecentWindows:
    return RecentWindows(10, Catalogue())


def test_frame_replaces_what_was_known_of_its_series() -> None:
    held = recent()
    assert held.put(0, OPEN, A, samples(1, at=NOW)) == (OPEN, "response_time")
    assert held.put(0, OPEN, A, samples(1, 2, at=NOW)) == (OPEN, "response_time")
    assert held.total(OPEN, "response_time").count == 2


def test_frame_that_says_nothing_new_changes_nothing() -> None:
    held = recent()
    held.put(0, OPEN, A, samples(1, at=NOW))
    total = held.total(OPEN, "response_time")
    assert held.put(0, OPEN, A, samples(1, at=NOW)) is None
    assert held.total(OPEN, "response_time") is total


def test_late_word_of_a_replaced_owner_changes_nothing() -> None:
    held = recent()
    held.put(0, OPEN, A, samples(1, 2, 3, at=NOW))
    assert held.put(0, OPEN, A, samples(1, 2, at=NOW)) is None
    assert held.total(OPEN, "response_time").count == 3


def test_total_is_over_series_and_shards() -> None:
    held = recent()
    for shard in (0, 1):
        for series in (A, B):
            held.put(shard, OPEN, series, samples(1, at=NOW))
    held.put(0, OPEN, COST, samples(5, at=NOW))
    assert held.total(OPEN, "response_time").count == 4


def test_what_is_stored_replaces_the_whole_window_of_its_shard() -> None:
    held = recent()
    held.put(0, OPEN, A, samples(1, 2, 3, at=NOW))
    held.put(0, OPEN, COST, samples(1, at=NOW))
    held.put(1, OPEN, A, samples(9, at=NOW))
    stored = {A.encode(): to_blob(samples(1, 2, at=NOW)), B.encode(): to_blob(samples(4, at=NOW))}
    assert held.replace(0, OPEN, stored) == {(OPEN, "response_time"), (OPEN, "cost")}
    assert held.total(OPEN, "response_time").count == 4
    assert held.metrics() == ["response_time"]
    assert held.replace(0, OPEN, stored) == set()


def test_windows_beyond_the_kept_ones_are_forgotten() -> None:
    held = recent()
    oldest = held.oldest_kept(NOW)
    for start in (oldest - 10, oldest, OPEN):
        held.put(0, start, A, samples(1, at=start))
        assert held.total(start, "response_time").count == 1
    held.prune(NOW)
    assert held.starts() == [oldest, OPEN]
    assert held.total(oldest - 10, "response_time").count == 0
    assert OPEN - oldest == KEPT - 10

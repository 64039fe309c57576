from collections.abc import Sequence

import msgspec
import pytest

from tests.support.serving import NOW, OPEN, samples
from vibezen.metrics.api.realtime import Realtime, RealtimeView
from vibezen.metrics.api.recent import RecentWindows
from vibezen.metrics.catalogue import Catalogue
from vibezen.metrics.metric_numbers import MetricNumbers
from vibezen.metrics.series import series_key

ELAPSED = 55.0
"""Seconds from the start of the first of the six newest windows to NOW."""


class Told:
    """Recent windows with samples put in as `(seconds before OPEN, values)`."""

    def __init__(self) -> None:
        self.recent = RecentWindows(10, Catalogue())
        self.view = RealtimeView(self.recent, version="1.2.3", demo=True)

    def __call__(self, metric: str, ago: int, values: Sequence[float], shard: int = 0, **labels: str) -> None:
        start = OPEN - ago
        self.recent.put(shard, start, series_key(metric, labels), samples(*values, at=start + 1.0))

    def all(self, now: float = NOW) -> Realtime:
        return self.view.at(now)

    def now(self, metric: str) -> MetricNumbers:
        return self.all().metrics[metric]


@pytest.fixture
def told() -> Told:
    return Told()


def test_answer_says_when_what_and_for_how_long(told: Told) -> None:
    told("cost", 20, [1])
    told("tokens", 0, [1])
    answer = told.all()
    assert (answer.at, answer.as_of, answer.window) == (NOW, OPEN + 1.0, 60)
    assert (answer.version, answer.demo) == ("1.2.3", True)
    assert list(answer.metrics) == ["cost", "tokens"]


def test_nothing_recorded_is_an_empty_answer(told: Told) -> None:
    answer = told.all()
    assert (answer.as_of, answer.metrics) == (None, {})


def test_distribution_is_told_by_its_median(told: Told) -> None:
    told("response_time", 0, [100, 200, 300], model="a")
    told("response_time", 50, [200], model="b", shard=1)
    told("response_time", 60, [100])
    now = told.now("response_time")
    assert (now.count, now.min, now.max, now.sum, now.mean) == (4, 100, 300, 800, 200)
    assert now.value == now.p50 == pytest.approx(200, rel=0.011)
    assert now.previous == pytest.approx(100, rel=0.011)
    assert now.change == pytest.approx(1.0, rel=0.02)
    assert (now.family, now.unit, now.kind, now.better) == ("system", "ms", "distribution", "lower")


def test_counter_is_told_by_its_increase_per_second_of_the_part_that_has_passed(told: Told) -> None:
    told("tokens", 0, [50, 60])
    told("tokens", 120 - 10, [30])
    now = told.now("tokens")
    assert now.value == 110 / ELAPSED
    assert now.rate == 110 / ELAPSED
    assert now.previous == 30 / 60
    assert now.change == pytest.approx((110 / ELAPSED) / 0.5 - 1)


def test_ratio_is_told_by_its_mean(told: Told) -> None:
    told("error_rate", 0, [0, 0, 0, 1])
    told("error_rate", 70, [0, 1])
    now = told.now("error_rate")
    assert (now.value, now.previous, now.change) == (0.25, 0.5, -0.5)


def test_gauge_is_the_sum_of_what_each_producer_said_last(told: Told) -> None:
    told("concurrency", 40, [9], producer="a")
    told("concurrency", 10, [3], producer="a")
    told("concurrency", 50, [4], producer="b", shard=1)
    told("concurrency", 60, [5], producer="gone")
    now = told.now("concurrency")
    assert now.value == now.last == 7
    assert now.previous == 5
    assert now.max == 9


def test_windows_before_the_two_minutes_do_not_count(told: Told) -> None:
    told("tokens", 120, [1000])
    told("tokens", 0, [1])
    now = told.now("tokens")
    assert (now.count, now.previous) == (1, 0)


def test_window_ahead_of_the_clock_waits_for_its_time(told: Told) -> None:
    told("tokens", -10, [5])
    assert told.now("tokens").count == 0
    assert told.all(NOW + 10).metrics["tokens"].count == 1


def test_quiet_metric_counts_nothing_and_guesses_nothing(told: Told) -> None:
    told("response_time", 200, [100])
    now = told.now("response_time")
    assert (now.count, now.rate, now.sum) == (0, 0, 0)
    assert (now.value, now.mean, now.min, now.max, now.last, now.p50, now.p95) == (None,) * 7
    assert (now.previous, now.change) == (None, None)


def test_change_from_nothing_is_no_number(told: Told) -> None:
    told("error_rate", 0, [1])
    told("error_rate", 60, [0])
    now = told.now("error_rate")
    assert (now.previous, now.change) == (0, None)


def test_unknown_metric_is_a_distribution(told: Told) -> None:
    told("http.server.duration", 0, [1])
    now = told.now("http.server.duration")
    assert (now.kind, now.better) == ("distribution", None)


def test_what_was_computed_before_does_not_stay_when_windows_change_or_time_goes_on(told: Told) -> None:
    told("tokens", 0, [1])
    told("tokens", 30, [10])
    told("tokens", 60, [100])
    told("concurrency", 60, [5], producer="a")
    assert (told.now("tokens").sum, told.now("tokens").previous) == (11, 100 / 60)
    told("tokens", 30, [10, 20], shard=1)
    told("tokens", 70, [200])
    assert (told.now("tokens").sum, told.now("tokens").previous) == (41, 300 / 60)
    later = told.all(NOW + 30).metrics
    assert (later["tokens"].sum, later["tokens"].previous) == (1, (10 + 30 + 100 + 200) / 60)
    assert later["concurrency"].previous == 5
    fresh = RealtimeView(told.recent, version="1.2.3", demo=True)
    assert fresh.at(NOW + 30) == told.all(NOW + 30)


def test_sum_beyond_a_double_is_no_number_in_json(told: Told) -> None:
    told("tokens", 0, [1.7e308, 1.7e308])
    told("concurrency", 0, [1.7e308], producer="a")
    told("concurrency", 0, [1.7e308], producer="b")
    metrics = msgspec.json.decode(msgspec.json.encode(told.all()))["metrics"]
    assert (metrics["tokens"]["sum"], metrics["tokens"]["count"]) == (None, 2)
    assert metrics["concurrency"]["value"] is None

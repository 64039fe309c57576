"""Simulated traffic: believable, repeatable, at the rate asked for, with incidents that show."""

import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Iterable
from statistics import mean, median

import pytest

from tests.producers.conftest import Arrived
from tests.support.waiting import WaitUntil
from vibezen.metrics import ConfigError, MetricType
from vibezen.metrics.catalogue import BUILT_IN, Kind
from vibezen.metrics.event import Event, check_event
from vibezen.metrics.producers.simulator import events, run
from vibezen.metrics.producers.simulator_world import MODELS, Incident, parse_incident, rhythm
from vibezen.metrics.settings import Redis, Settings

MONDAY = 1_763_942_400.0
"""2025-11-24T00:00:00Z"""
HOUR = 3600.0


def by_metric(traffic: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in traffic:
        found[event.metric].append(event)
    return found


def values(traffic: Iterable[Event], **labels: str) -> list[float]:
    return [event.value for event in traffic if labels.items() <= event.metadata.items()]


def tenth(rate: float = 200, seed: int = 1, incidents: Iterable[Incident] = ()) -> dict[str, list[Event]]:
    """Six minutes."""
    return by_metric(events(seed, MONDAY, MONDAY + HOUR / 10, rate, incidents, day_rhythm=False))


def test_the_same_seed_gives_the_same_events_and_another_seed_others() -> None:
    first, again, other = (list(events(seed, MONDAY, MONDAY + 60, 50)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_every_event_keeps_the_contract_and_time_goes_forward() -> None:
    traffic = list(events(2, MONDAY, MONDAY + 600, 50))
    for event in traffic:
        check_event(event, MONDAY + 600)
        assert event.ts is not None
        assert MONDAY <= event.ts < MONDAY + 600
    times = [event.ts or 0.0 for event in traffic]
    assert times == sorted(times)


def test_every_known_metric_occurs_with_values_of_its_kind() -> None:
    found = tenth()
    assert set(found) == set(BUILT_IN) - {MetricType.EVENTS_DROPPED}, "all but the collector's own"
    for metric in found:
        spec = BUILT_IN[metric]
        numbers = values(found[metric])
        assert min(numbers) >= 0
        if spec.kind is Kind.RATIO:
            assert set(numbers) <= {0, 1}


def test_all_providers_and_models_take_part_and_label_their_calls() -> None:
    calls = tenth()[MetricType.API_CALLS]
    assert {(e.metadata["provider"], e.metadata["model"]) for e in calls} == {(m.provider, m.name) for m in MODELS}
    assert all({"phase", "operation", "agent", "project", "status", "session"} <= set(e.metadata) for e in calls)
    kinds = {event.metadata["type"] for event in tenth()[MetricType.TOKENS]}
    assert kinds == {"input", "output", "cache_read", "cache_write", "reasoning"}


@pytest.mark.parametrize("rate", [1, 20, 1000, 20_000])
def test_the_rate_is_kept(rate: float) -> None:
    seconds = max(10.0, 3000 / rate)
    count = sum(1 for _ in events(3, MONDAY, MONDAY + seconds, rate, day_rhythm=False))
    assert count == pytest.approx(rate * seconds, rel=0.1)


def test_the_day_has_a_rhythm_whose_mean_is_the_rate() -> None:
    hours = [rhythm(MONDAY + hour * HOUR) for hour in range(24)]
    assert mean(hours) == pytest.approx(1.0, rel=0.01)
    assert max(hours) > 2.5 * min(hours)
    assert rhythm(MONDAY + 5 * 24 * HOUR) < rhythm(MONDAY)
    night, noon = (sum(1 for _ in events(4, MONDAY + hour * HOUR, MONDAY + (hour + 1) * HOUR, 5)) for hour in (3, 14))
    assert noon > 2 * night


def test_latency_slows_one_provider_and_lets_calls_queue() -> None:
    calm, slow = tenth(), tenth(incidents=[Incident("latency")])
    took = {
        name: [median(values(found[MetricType.RESPONSE_TIME], provider=name)) for found in (calm, slow)]
        for name in ("anthropic", "openai")
    }
    assert took["anthropic"][1] > 3 * took["anthropic"][0]
    assert took["openai"][1] < 1.5 * took["openai"][0]
    assert mean(values(slow[MetricType.QUEUE_DEPTH])) > 5 * mean(values(calm[MetricType.QUEUE_DEPTH]))


def test_errors_cache_and_cost_each_show_in_their_metric() -> None:
    calm = tenth()
    for kind, metric, factor in (
        ("errors", MetricType.ERROR_RATE, 5.0),
        ("cache", MetricType.CACHE_HIT_RATE, 1 / 5),
        ("cost", MetricType.COST, 3.0),
    ):
        share = mean(values(tenth(incidents=[Incident(kind)])[metric])) / mean(values(calm[metric]))
        assert share > factor if factor > 1 else share < factor


def test_an_incident_holds_for_its_time_only() -> None:
    found = tenth(incidents=[Incident("errors", 120, 120)])[MetricType.ERROR_RATE]
    thirds = [
        mean(event.value for event in found if start <= (event.ts or 0) - MONDAY < start + 120)
        for start in (0, 120, 240)
    ]
    assert thirds[1] > 4 * max(thirds[0], thirds[2])


def test_incidents_are_named_with_start_and_duration() -> None:
    assert parse_incident("latency") == Incident("latency", 0.0, math.inf)
    assert parse_incident("cost@60") == Incident("cost", 60.0, math.inf)
    assert parse_incident("cache@60+120") == Incident("cache", 60.0, 120.0)
    for bad in ("fire", "cost@x", "cost@-1", "cost@1+0", "cost@nan", ""):
        with pytest.raises(ConfigError, match="expected one of latency, errors, cache, cost"):
            parse_incident(bad)


def settings_for(url: str) -> Settings:
    return Settings(redis=Redis(url=url), flush_interval_seconds=0.05)


def test_run_sends_in_real_time_until_its_duration_is_over(redis_url: str, arrived: Arrived) -> None:
    recorded = run(settings_for(redis_url), 500, 1, 0.5, [], threading.Event())
    found = arrived.events()
    assert len(found) == recorded
    assert recorded == pytest.approx(250, rel=0.5)
    times = [event.ts or 0.0 for event in found]
    assert max(times) - min(times) < 0.6


def test_the_past_comes_first_under_its_own_time(redis_url: str, arrived: Arrived) -> None:
    recorded = run(settings_for(redis_url), 50, 1, 0.5, [], threading.Event(), history=600)
    times = [event.ts or 0.0 for event in arrived.events()]
    assert len(times) == recorded
    assert 599 < max(times) - min(times) < 602
    assert recorded == pytest.approx(600 * 50, rel=0.2)


def test_run_ends_when_asked_to(redis_url: str, arrived: Arrived, wait_until: WaitUntil) -> None:
    stop = threading.Event()
    recorded: list[int] = []
    thread = threading.Thread(target=lambda: recorded.append(run(settings_for(redis_url), None, None, None, [], stop)))
    thread.start()
    wait_until(lambda: arrived.events())
    stop.set()
    thread.join(10)
    assert recorded == [len(arrived.events())]


def test_a_rate_beyond_the_machine_loses_nothing_and_stays_in_the_present(redis_url: str, arrived: Arrived) -> None:
    recorded = run(settings_for(redis_url), 50_000_000, 1, 1.5, [], threading.Event())
    entries = arrived.entries()
    assert sum(entry.n for entry in entries) == recorded > 10_000


def test_an_unknown_incident_is_a_setting_that_is_wrong() -> None:
    with pytest.raises(ConfigError, match="incident 'fire'"):
        run(Settings(), None, None, None, ["fire"], threading.Event())


def test_an_endless_simulation_can_be_taken_piece_by_piece() -> None:
    assert len(list(itertools.islice(events(1, MONDAY), 1000))) == 1000

"""The sender while all is well: when it sends, in what order, and when its thread ends."""

import gc
import itertools
import threading
from typing import Any

import pytest
import redis

from tests.producers.conftest import Arrived, MakeCollector
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.producers.append import append

NEVER = 3600.0


def record(collector: MetricsCollector, values: range) -> None:
    for value in values:
        collector.record_nowait("m", value)


def sender_threads() -> int:
    return sum(thread.name == "vibezen-metrics-sender" for thread in threading.enumerate())


def test_enough_events_are_sent_without_waiting_for_the_interval(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived, wait_until: WaitUntil
) -> None:
    collector = make_collector(redis_url, buffer_size=10, flush_interval_seconds=NEVER)
    record(collector, range(9))
    assert collector.stats().buffered == 9
    record(collector, range(9, 10))
    wait_until(lambda: len(arrived.values()) == 10)


def test_a_few_events_are_sent_when_the_interval_has_passed(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived, wait_until: WaitUntil
) -> None:
    collector = make_collector(redis_url, buffer_size=1000, flush_interval_seconds=0.1)
    record(collector, range(3))
    wait_until(lambda: arrived.values() == [0, 1, 2])


def test_the_order_of_one_thread_is_kept_and_numbers_have_no_gap(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived
) -> None:
    collector = make_collector(redis_url)
    record(collector, range(12_345))
    assert collector.flush_sync() == 0
    assert arrived.values() == list(range(12_345))
    entries = arrived.entries()
    assert {entry.producer for entry in entries} == {collector.producer}
    starts = list(itertools.accumulate((entry.n for entry in entries), initial=1))
    assert [entry.seq for entry in entries] == starts[:-1]


def test_after_close_the_thread_has_ended(collector: MetricsCollector, wait_until: WaitUntil) -> None:
    before = sender_threads()
    collector.record_nowait("m", 1)
    assert sender_threads() == before + 1
    collector.close_sync()
    wait_until(lambda: sender_threads() == before)


def test_a_collector_let_go_of_still_delivers_and_its_thread_ends(
    redis_url: str, arrived: Arrived, wait_until: WaitUntil
) -> None:
    collector = MetricsCollector(redis_url=redis_url)
    before = sender_threads()
    collector.record_nowait("m", 5)
    del collector
    gc.collect()
    wait_until(lambda: arrived.values() == [5] and sender_threads() == before)


def test_where_no_thread_can_be_started_recording_goes_on(
    collector: MetricsCollector, arrived: Arrived, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        collector.record_nowait("m", 1)
    collector.record_nowait("m", 2)
    assert collector.flush_sync() == 0
    assert arrived.values() == [1, 2]


def test_a_mistake_of_ours_costs_one_call_and_is_told(
    collector: MetricsCollector, arrived: Arrived, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("vibezen.metrics.producers.call_maker.pack", broken)
        record(collector, range(5))
        assert collector.flush_sync() == 5, "what is given up is not safe"
    record(collector, range(5, 8))
    assert collector.flush_sync() == 0
    assert arrived.values("m") == [5, 6, 7]
    assert collector.stats().dropped == {"internal": 5}
    assert "ZeroDivisionError" in caplog.text


def test_numbers_of_a_dropped_call_are_not_given_again(
    collector: MetricsCollector, arrived: Arrived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events may be in the stream: others under the same numbers would be taken for them."""

    def append_and_break(*arguments: Any, **options: Any) -> None:
        append(*arguments, **options)
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("vibezen.metrics.producers.uplink.append", append_and_break)
        record(collector, range(5))
        assert collector.flush_sync() == 5, "what is given up is not safe"
    record(collector, range(5, 8))
    assert collector.flush_sync() == 0
    assert arrived.values("m") == list(range(8))


def test_a_user_who_may_only_append_is_enough(
    make_collector: MakeCollector, redis_url: str, client: redis.Redis, arrived: Arrived
) -> None:
    may = "eval evalsha xadd xgroup|create hget hmget hset get set time memory|usage"
    client.acl_setuser(
        "app",
        enabled=True,
        reset=True,
        passwords=["+pw"],
        commands=[f"+{one}" for one in may.split()],
        keys=["vibezen:*"],
    )
    try:
        collector = make_collector(redis_url.replace("//", "//app:pw@"))
        collector.record_nowait("m", 1)
        assert collector.flush_sync() == 0
    finally:
        client.acl_deluser("app")
    assert arrived.values() == [1]

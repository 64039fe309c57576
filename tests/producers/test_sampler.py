"""Gauges read at intervals, from anything that has a depth, for as long as the collector lives."""

import asyncio
import gc
import queue
import subprocess
import sys
import threading
from collections import deque
from typing import Any

import msgspec
import pytest

from tests.producers.conftest import Arrived, MakeCollector, Recorder
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector
from vibezen.metrics.event import Event
from vibezen.metrics.producers.sampler import Sampler


def sampler_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vibezen-metrics-sampler"]


@pytest.fixture(autouse=True)
def _no_thread_is_left(wait_until: WaitUntil) -> Any:
    yield
    gc.collect()
    wait_until(lambda: not sampler_threads())


def python(program: str, *arguments: str) -> int:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments], timeout=60, check=False
    ).returncode


def filled(kind: Any) -> Any:
    made = kind()
    for number in range(3):
        made.put_nowait(number)
    return made


@pytest.mark.parametrize(
    "waiting",
    [filled(queue.Queue), filled(queue.SimpleQueue), filled(asyncio.Queue), deque("abc"), [1, 2, 3], lambda: 3],
    ids=["queue", "simple", "asyncio", "deque", "list", "function"],
)
def test_whatever_has_a_depth_is_sampled(recorder: Recorder, waiting: Any, wait_until: WaitUntil) -> None:
    with recorder.sample_queue("jobs", waiting, interval=0.02):
        wait_until(lambda: len(recorder.of("queue_depth")) >= 3)
    assert recorder.of("queue_depth")[0] == (3.0, {"operation": "jobs"})


def test_depths_arrive_in_the_stream(collector: MetricsCollector, arrived: Arrived, wait_until: WaitUntil) -> None:
    jobs: queue.Queue[int] = filled(queue.Queue)
    collector.sample_queue("jobs", jobs, interval=0.02)
    wait_until(lambda: collector.stats().recorded >= 1)
    jobs.get_nowait()
    recorded = collector.stats().recorded
    wait_until(lambda: collector.stats().recorded >= recorded + 2)
    collector.flush_sync()
    found = [event for event in arrived.events() if event.metric == "queue_depth"]
    assert {event.value for event in found} == {2, 3}
    assert found[0].metadata["operation"] == "jobs"


def test_many_queues_share_one_thread_each_at_its_own_interval(recorder: Recorder, wait_until: WaitUntil) -> None:
    with recorder.sample_queue("fast", [1], interval=0.01), recorder.sample_queue("slow", [1, 2], interval=3600):
        wait_until(lambda: len(recorder.of("queue_depth")) >= 6)
        assert len(sampler_threads()) == 1
        assert sorted(set(recorder.values("queue_depth"))) == [1, 2]
        assert recorder.values("queue_depth").count(2) == 1


def test_a_stopped_sampling_reads_no_more(recorder: Recorder, wait_until: WaitUntil) -> None:
    asked: list[int] = []

    def depth() -> int:
        asked.append(1)
        return 1

    sampling = recorder.sample_queue("jobs", depth, interval=0.01)
    wait_until(lambda: len(asked) > 1)
    sampling.stop()
    wait_until(lambda: not sampler_threads())
    seen = len(asked)
    with recorder.sample_queue("other", [1], interval=0.01):
        wait_until(lambda: len(recorder.of("queue_depth")) > seen + 2)
    assert len(asked) == seen


def test_closing_the_collector_ends_all_sampling(make_collector: MakeCollector, wait_until: WaitUntil) -> None:
    collector = make_collector("redis://127.0.0.1:1")
    collector.sample_queue("jobs", [1], interval=0.01)
    wait_until(sampler_threads)
    collector.close_sync(0.0)
    wait_until(lambda: not sampler_threads())
    collector.sample_queue("late", [1], interval=0.01)
    assert sampler_threads() == []


def test_a_queue_that_fails_is_told_once_counted_and_tried_again(
    recorder: Recorder, wait_until: WaitUntil, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Any] = [NotImplementedError("as on macOS"), "text", None, 4, ValueError("again"), 5]

    def depth() -> Any:
        answer = answers.pop(0) if answers else 6
        if isinstance(answer, Exception):
            raise answer
        return answer

    with recorder.sample_queue("jobs", depth, interval=0.01) as sampling:
        wait_until(lambda: 6 in recorder.values("queue_depth"))
    assert recorder.values("queue_depth")[:3] == [4, 5, 6]
    assert sampling.errors == 4
    assert [record.getMessage() for record in caplog.records] == ["queue 'jobs' cannot be sampled; trying on silently"]


def test_what_has_no_depth_is_refused_at_once(recorder: Recorder) -> None:
    async def later() -> int:
        return 1

    for wrong in (object(), 5, later):
        with pytest.raises(TypeError, match="expected a queue"):
            recorder.sample_queue("jobs", wrong)  # type: ignore[arg-type]
    assert sampler_threads() == []


def test_nothing_is_sampled_when_collecting_is_switched_off(make_collector: MakeCollector) -> None:
    collector = make_collector("redis://127.0.0.1:1", enabled=False)
    collector.sample_queue("jobs", [1], interval=0.01)
    assert sampler_threads() == []


def test_a_forked_child_leaves_its_parents_queue_alone_and_samples_its_own(redis_url: str, arrived: Arrived) -> None:
    program = """
import os, sys, time
from vibezen.metrics import MetricsCollector
collector = MetricsCollector(redis_url=sys.argv[1])
collector.sample_queue("parents", [1, 2], interval=0.01)
deadline = time.monotonic() + 20
while not collector.stats().recorded and time.monotonic() < deadline:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    collector.sample_queue("childs", [1], interval=0.01)
    while collector.stats().recorded < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    collector.close_sync()
    os._exit(0)
seen = collector.stats().recorded
_, status = os.waitpid(child, 0)
while collector.stats().recorded < seen + 2 and time.monotonic() < deadline:
    time.sleep(0.001)
collector.close_sync()
sys.exit(status)
"""
    assert python(program, redis_url) == 0
    by_producer: dict[str, set[Any]] = {}
    for entry in arrived.entries():
        for event in msgspec.json.Decoder(Event).decode_lines(entry.payload):
            by_producer.setdefault(str(entry.producer), set()).add(event.metadata["operation"])
    assert sorted(map(sorted, by_producer.values())) == [["childs"], ["parents"]]


def test_a_process_with_a_sampler_ends(redis_url: str) -> None:
    program = """
import sys
from vibezen.metrics import MetricsCollector
collector = MetricsCollector(redis_url=sys.argv[1])
collector.sample_queue("jobs", [1], interval=3600)
collector.record_nowait("m", 1)
"""
    assert python(program, redis_url) == 0


def test_closing_never_waits_for_a_reading_that_hangs(wait_until: WaitUntil) -> None:
    asked, release = threading.Event(), threading.Event()

    def hanging() -> list[Any]:
        asked.set()
        release.wait()
        return []

    sampler = Sampler(lambda samples: None)
    sampler.add("hanging", hanging, 0.01)
    assert asked.wait(20)
    sampler.close()
    assert sampler_threads()
    release.set()

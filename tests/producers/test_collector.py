"""The collector's face: what is recorded arrives as it was, and what must not be recorded does not."""

import asyncio
import math
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.producers.conftest import Arrived, MakeCollector
from vibezen.metrics import ConfigError, InvalidEvent, MetricsCollector, MetricType
from vibezen.metrics.event import Event

ANYIO_BACKENDS = ("asyncio", "trio")


@pytest.fixture(params=ANYIO_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_event_arrives_as_it_was_recorded(collector: MetricsCollector, arrived: Arrived) -> None:
    collector.record_nowait(MetricType.RESPONSE_TIME, 150.5, {"phase": "implementation"}, ts=1_763_930_000.25)
    assert collector.flush_sync() == 0
    assert arrived.events() == [
        Event("response_time", 150.5, 1_763_930_000.25, 1.0, 1, {"phase": "implementation"}),
    ]


def test_an_event_without_a_time_gets_the_collectors(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived
) -> None:
    before = time.time()
    collector = make_collector(redis_url)
    collector.record_nowait("my.metric", 1)
    collector.flush_sync()
    (event,) = arrived.events()
    assert event.ts is not None
    assert before <= event.ts <= time.time()


def test_the_clock_can_be_replaced(redis_url: str, arrived: Arrived) -> None:
    with MetricsCollector(redis_url=redis_url, clock=lambda: 1_000_000_000.5) as collector:
        collector.record_nowait("my.metric", 1)
    assert arrived.events()[0].ts == 1_000_000_000.5


@pytest.mark.anyio
async def test_every_awaitable_records(collector: MetricsCollector, arrived: Arrived) -> None:
    await collector.record("my.metric", 1)
    await collector.record_system_metric(MetricType.RESPONSE_TIME, value=150.5, metadata={"provider": "openai"})
    await collector.record_quality_metric(MetricType.CONFIDENCE_SCORE, 0.9)
    await collector.record_performance_metric(MetricType.TOKENS, 10, {"type": "input"})
    assert await collector.flush() == 0
    assert [event.metric for event in arrived.events()] == ["my.metric", "response_time", "confidence_score", "tokens"]
    assert await collector.close() == 0


@pytest.mark.anyio
async def test_leaving_async_with_sends_everything(redis_url: str, arrived: Arrived) -> None:
    async with MetricsCollector(redis_url=redis_url) as collector:
        await collector.record("my.metric", 7)
    assert arrived.values() == [7]


@pytest.mark.anyio
async def test_flush_does_not_hold_up_the_event_loop(make_collector: MakeCollector) -> None:
    import anyio

    collector = make_collector("redis://127.0.0.1:1")
    collector.record_nowait("my.metric", 1)
    left: list[int] = []

    async def flush() -> None:
        left.append(await collector.flush(0.3))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(flush)
        await anyio.lowlevel.checkpoint()
        assert left == []
    assert left == [1]


def test_the_caller_may_change_its_metadata_afterwards(collector: MetricsCollector, arrived: Arrived) -> None:
    metadata = {"provider": "openai"}
    collector.record_nowait("my.metric", 1, metadata)
    metadata["provider"] = "another"
    collector.flush_sync()
    assert arrived.events()[0].metadata == {"provider": "openai"}


def test_booleans_count_as_zero_and_one(collector: MetricsCollector, arrived: Arrived) -> None:
    collector.record_nowait(MetricType.ERROR_RATE, True)
    collector.record_nowait(MetricType.ERROR_RATE, False)
    collector.record_nowait("my.metric", 2**70)
    collector.flush_sync()
    assert arrived.values() == [1, 0, float(2**70)]


BAD_CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("metric", ("Upper", 1)),
    ("metric", ("newline\n", 1)),
    ("metric", ("", 1)),
    ("metric", (None, 1)),
    ("metric", (["a"], 1)),
    ("value", ("m", "1")),
    ("value", ("m", None)),
    ("value", ("m", Decimal(1))),
    ("value", ("m", math.nan)),
    ("value", ("m", math.inf)),
    ("value", ("m", 10**400)),
    ("metadata", ("m", 1, {f"k{n}": 1 for n in range(33)})),
    ("metadata", ("m", 1, 5)),
]


@pytest.mark.parametrize(("field", "call"), BAD_CALLS, ids=[f"{f}-{n}" for n, (f, _) in enumerate(BAD_CALLS)])
def test_a_mistake_in_the_call_is_told_at_the_call(collector: MetricsCollector, field: str, call: Any) -> None:
    with pytest.raises(InvalidEvent, match=f"^{field}: ") as caught:
        collector.record_nowait(*call)
    assert isinstance(caught.value, ValueError)
    assert collector.stats().recorded == 0


def test_what_only_the_sender_sees_is_refused_counted_and_told_once(
    collector: MetricsCollector, arrived: Arrived, caplog: pytest.LogCaptureFixture
) -> None:
    nested: Any = {"key": {"nested": 1}}
    for _ in range(3):
        collector.record_nowait("my.metric", 1, nested)
    collector.record_nowait("my.metric", 2)
    assert collector.flush_sync() == 0
    assert arrived.values() == [2]
    assert collector.stats().refused == {"metadata": 3}
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "metadata.key" in caplog.text


def test_switched_off_families_are_not_recorded(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived
) -> None:
    from vibezen.metrics.settings import Collection

    off = Collection(system_metrics=True, learning_metrics=False, practice_metrics=False)
    collector = make_collector(redis_url, collection=off)

    async def record() -> None:
        await collector.record(MetricType.RESPONSE_TIME, 1)
        await collector.record(MetricType.CONFIDENCE_SCORE, 1)
        await collector.record(MetricType.COST, 1)
        await collector.record_quality_metric("my.own", 1)
        await collector.record_performance_metric("my.own", 1)
        await collector.record_system_metric("my.own", 1)
        await collector.record_quality_metric(MetricType.API_CALLS, 1)

    asyncio.run(record())
    collector.flush_sync()
    assert [event.metric for event in arrived.events()] == ["response_time", "my.own", "api_calls"]
    assert collector.stats().recorded == 3


def test_a_disabled_collector_does_nothing_at_all(redis_url: str, arrived: Arrived) -> None:
    from vibezen.metrics.settings import Settings

    async def use(collector: MetricsCollector) -> None:
        await collector.record("m", 1)
        async with collector.measure_duration("work"):
            pass
        assert await collector.flush() == 0

    with MetricsCollector(settings=Settings(enabled=False), redis_url=redis_url) as collector:
        collector.record_nowait("not a name at all", 1)
        asyncio.run(use(collector))
        assert collector.producer is None
        assert collector.stats().recorded == 0
    assert arrived.entries() == []


def test_sampled_events_carry_their_rate_and_the_rest_is_counted(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived
) -> None:
    collector = make_collector(redis_url, sampling={"response_time": 0.25})
    for _ in range(4000):
        collector.record_nowait(MetricType.RESPONSE_TIME, 1.0)
    collector.record_nowait("other", 1.0)
    collector.flush_sync()
    stats = collector.stats()
    sampled = [event for event in arrived.events() if event.metric == "response_time"]
    assert {event.sample_rate for event in sampled} == {0.25}
    assert 850 < len(sampled) < 1150
    assert stats.sampled_out == 4000 - len(sampled)
    assert stats.recorded == len(sampled) + 1


def test_a_rate_given_by_the_caller_is_carried_and_not_applied_again(
    make_collector: MakeCollector, redis_url: str, arrived: Arrived
) -> None:
    collector = make_collector(redis_url, sampling={"m": 0.001})
    for _ in range(20):
        collector.record_nowait("m", 1, sample_rate=0.1)
    collector.flush_sync()
    assert [event.sample_rate for event in arrived.events()] == [0.1] * 20
    for bad in (0, 1.5, -1, math.nan, True):
        with pytest.raises(InvalidEvent, match="sample_rate"):
            collector.record_nowait("m", 1, sample_rate=bad)


def test_after_close_recording_is_dropped_and_counted(collector: MetricsCollector, arrived: Arrived) -> None:
    collector.record_nowait("m", 1)
    assert collector.close_sync() == 0
    collector.record_nowait("m", 2)
    assert collector.close_sync() == 0
    assert arrived.values() == [1]
    assert collector.stats().dropped == {"closed": 1}


def test_a_collector_that_never_recorded_closes_at_once() -> None:
    with MetricsCollector(redis_url="redis://127.0.0.1:1") as collector:
        assert collector.flush_sync() == 0


def test_every_entry_carries_the_books(collector: MetricsCollector, arrived: Arrived) -> None:
    collector.record_nowait("m", 1)
    collector.flush_sync()
    collector.record_nowait("m", 2)
    collector.flush_sync()
    first, second = arrived.stats()
    assert (first["recorded"], first["appended"], first["in_flight"]) == (1, 0, 1)
    assert (second["recorded"], second["appended"], second["in_flight"]) == (2, 1, 1)


def test_an_impossible_address_is_an_error_at_once() -> None:
    with pytest.raises(ConfigError, match="redis\\.url"):
        MetricsCollector(redis_url="http://127.0.0.1")


def test_settings_are_found_upwards_from_the_working_directory(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "vibezen.yaml").write_text(f"vibezen:\n  metrics:\n    redis: {{url: '{redis_url}', prefix: other}}\n")
    with MetricsCollector() as collector:
        assert collector.settings.redis.prefix == "other"


def test_the_documented_snippet_runs_as_it_stands(
    redis_url: str, arrived: Arrived, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEZEN_METRICS__REDIS__URL", redis_url)

    async def snippet() -> MetricsCollector:
        from vibezen.metrics import MetricsCollector, MetricType

        collector = MetricsCollector()
        await collector.record_system_metric(
            MetricType.RESPONSE_TIME, value=150.5, metadata={"phase": "implementation", "provider": "openai"}
        )
        async with collector.measure_duration("code_generation") as ctx:
            ctx.metadata["lines_generated"] = 100
        return collector

    collector = asyncio.run(snippet())
    assert collector.close_sync() == 0
    assert [event.metric for event in arrived.events()] == ["response_time", "response_time", "error_rate"]

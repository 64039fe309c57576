"""Measuring blocks and functions: what is recorded of them, and that they notice nothing."""

import asyncio
from typing import Any

import pytest

from tests.producers.conftest import Arrived
from vibezen.metrics import MetricsCollector


def recorded(collector: MetricsCollector, arrived: Arrived) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    collector.flush_sync()
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for event in arrived.events():
        found.setdefault(event.metric, []).append((event.value, event.metadata))
    return found


def test_a_block_is_measured_in_milliseconds_and_counted_as_no_error(
    collector: MetricsCollector, arrived: Arrived
) -> None:
    async def work() -> None:
        async with collector.measure_duration("code_generation") as ctx:
            await asyncio.sleep(0.02)
            ctx.metadata["lines_generated"] = 100

    asyncio.run(work())
    found = recorded(collector, arrived)
    ((took, metadata),) = found["response_time"]
    assert 20 <= took < 20_000
    assert metadata == {"operation": "code_generation", "lines_generated": 100}
    assert found["error_rate"] == [(0, {"operation": "code_generation", "lines_generated": 100})]
    assert set(found) == {"response_time", "error_rate"}


def test_a_block_that_raises_counts_as_an_error_and_its_exception_passes(
    collector: MetricsCollector, arrived: Arrived
) -> None:
    with pytest.raises(KeyError), collector.measure("work", {"provider": "openai"}):
        raise KeyError("secret text that must not travel")
    found = recorded(collector, arrived)
    expected = {"operation": "work", "provider": "openai", "error": "KeyError"}
    assert found["error_rate"] == [(1, expected)]
    assert found["response_time"][0][1] == expected


def test_an_error_the_block_names_itself_is_one_without_raising(collector: MetricsCollector, arrived: Arrived) -> None:
    with collector.measure("work") as ctx:
        ctx.metadata["error"] = "rate_limited"
    with collector.measure("work") as ctx:
        ctx.metadata["error"] = False
    assert [value for value, _ in recorded(collector, arrived)["error_rate"]] == [1, 0]


def test_a_cancelled_block_counts_as_an_error(collector: MetricsCollector, arrived: Arrived) -> None:
    async def work() -> None:
        async with collector.measure_duration("work"):
            await asyncio.sleep(60)

    async def cancelled() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert [value for value, _ in recorded(collector, arrived)["error_rate"]] == [1]


def test_cache_hits_and_tokens_become_events_of_their_own(collector: MetricsCollector, arrived: Arrived) -> None:
    with collector.measure("chat", {"provider": "anthropic", "model": "m"}) as ctx:
        ctx.metadata.update(cache_hit=True, input_tokens=900, output_tokens=0, reasoning_tokens=30)
    with collector.measure("chat") as ctx:
        ctx.metadata.update(cache_hit=False, tokens=12)
    found = recorded(collector, arrived)
    labels = {"operation": "chat", "provider": "anthropic", "model": "m"}
    assert found["cache_hit_rate"] == [(1, labels), (0, {"operation": "chat"})]
    assert found["tokens"] == [
        (900, {**labels, "type": "input"}),
        (0, {**labels, "type": "output"}),
        (30, {**labels, "type": "reasoning"}),
        (12, {"operation": "chat"}),
    ]
    whole = {**labels, "cache_hit": True, "input_tokens": 900, "output_tokens": 0, "reasoning_tokens": 30}
    assert found["response_time"][0][1] == whole


def test_metadata_that_break_the_contract_never_raise_from_the_block(
    collector: MetricsCollector, arrived: Arrived
) -> None:
    with collector.measure("work") as ctx:
        ctx.metadata.update({f"k{n}": n for n in range(40)})
    bad: Any = "many"
    with collector.measure("work") as ctx:
        ctx.metadata["input_tokens"] = bad
    found = recorded(collector, arrived)
    stats = collector.stats()
    assert stats.refused == {"metadata": 2, "value": 1}
    assert stats.recorded == stats.appended + 3
    assert set(found) == {"response_time", "error_rate"}


def test_functions_are_timed_under_their_name_and_keep_theirs(collector: MetricsCollector, arrived: Arrived) -> None:
    @collector.timed("load")
    def load(number: int, *, twice: bool = False) -> int:
        """Documented."""
        return number * 2 if twice else number

    @collector.timed()
    async def fetch(text: str) -> str:
        await asyncio.sleep(0)
        return text

    assert load(4, twice=True) == 8
    assert load.__doc__ == "Documented."
    assert asyncio.iscoroutinefunction(fetch)
    assert asyncio.run(fetch("x")) == "x"
    operations = [metadata["operation"] for _, metadata in recorded(collector, arrived)["response_time"]]
    assert operations[0] == "load"
    assert operations[1].endswith("fetch")


def test_a_generator_is_refused_at_decoration(collector: MetricsCollector) -> None:
    with pytest.raises(TypeError, match="generator"):

        @collector.timed()
        def numbers() -> Any:
            yield 1


def test_measurements_nest(collector: MetricsCollector, arrived: Arrived) -> None:
    with collector.measure("outer"), collector.measure("inner"):
        pass
    operations = [metadata["operation"] for _, metadata in recorded(collector, arrived)["response_time"]]
    assert operations == ["inner", "outer"]

"""Blocks and functions that call a model: what is recorded of them, and that they notice nothing."""

import asyncio
import gc
import inspect
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.producers.conftest import Arrived, MakeCollector, Recorder
from vibezen.metrics import MetricsCollector

ANSWER = {
    "model": "gpt-5-2025-08-07",
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "prompt_tokens_details": {"cached_tokens": 400},
        "completion_tokens_details": {"reasoning_tokens": 200},
    },
}
COST = (600 * 1.25 + 400 * 0.125 + 500 * 10) / 1e6
CHUNKS = [
    {"model": "gpt-5", "choices": [{"delta": {"role": "assistant"}}]},
    {"model": "gpt-5", "choices": [{"delta": {"content": "Hi"}}]},
    {"model": "gpt-5", "choices": [], **ANSWER},
]


def test_one_call_is_recorded_with_everything_known_of_it(collector: MetricsCollector, arrived: Arrived) -> None:
    with collector.llm_call("openai", "gpt-5", operation="review", project="site") as call:
        assert call.response(ANSWER) is ANSWER
        call.metadata["attempt"] = 2
    collector.flush_sync()
    shared = {"provider": "openai", "model": "gpt-5", "operation": "review", "project": "site", "attempt": 2}
    found = {(event.metric, event.metadata.get("type")): event for event in arrived.events()}
    assert {key: event.value for key, event in found.items() if key[0] != "response_time"} == {
        ("error_rate", None): 0,
        ("api_calls", None): 1,
        ("tokens", "input"): 600,
        ("tokens", "cache_read"): 400,
        ("tokens", "output"): 300,
        ("tokens", "reasoning"): 200,
        ("cost", None): pytest.approx(COST),
        ("cache_hit_rate", None): 1,
    }
    assert 0 <= found["response_time", None].value < 1000
    assert found["cost", None].metadata == found["error_rate", None].metadata == shared
    assert found["api_calls", None].metadata == {**shared, "status": "ok"}
    assert collector.stats().refused == {}


def test_a_call_that_raises_is_an_error_and_its_exception_passes(recorder: Recorder) -> None:
    with pytest.raises(TimeoutError), recorder.llm_call("openai", "gpt-5"):
        raise TimeoutError("secret text that must not travel")
    labels = {"provider": "openai", "model": "gpt-5", "error": "TimeoutError"}
    assert recorder.of("error_rate") == [(1, labels)]
    assert recorder.of("api_calls") == [(1, {**labels, "status": "error"})]
    assert recorder.of("response_time")[0][1] == labels
    assert {name for name, _, _ in recorder.samples} == {"error_rate", "api_calls", "response_time"}


def test_a_response_that_says_it_failed_is_an_error(recorder: Recorder) -> None:
    with recorder.llm_call("openai") as call:
        call.response({"model": "gpt-5", "status": "failed", "error": {"code": "server_error"}})
    labels = {"provider": "openai", "model": "gpt-5", "error": "server_error"}
    assert recorder.of("error_rate") == [(1, labels)]


def test_a_call_that_is_cancelled_is_an_error(recorder: Recorder) -> None:
    @recorder.llm("openai")
    async def ask() -> Any:
        await asyncio.sleep(60)

    async def cancelled() -> None:
        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert recorder.of("error_rate")[0][1]["error"] == "CancelledError"


def test_without_cached_tokens_it_is_no_cache_hit(recorder: Recorder) -> None:
    with recorder.llm_call("anthropic", "claude-sonnet-4-5") as call:
        call.response({"usage": {"input_tokens": 10, "cache_creation_input_tokens": 90, "output_tokens": 5}})
    assert recorder.values("cache_hit_rate") == [0]
    assert recorder.tokens() == {"input": 10, "cache_write": 90, "output": 5}


def test_calls_without_usage_are_counted_and_told_at_first_and_at_the_end(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    for answer in (ANSWER, {"model": "m"}, "text", None):
        with recorder.llm_call("openai", "gpt-5") as call:
            call.response(answer)
    with pytest.raises(KeyError), recorder.llm_call("openai", "gpt-5"):
        raise KeyError
    assert len(recorder.of("response_time")) == 5
    assert recorder.values("error_rate") == [0, 0, 0, 0, 1]
    assert len(recorder.of("cost")) == 1
    recorder.end_measuring()
    recorder.end_measuring()
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("a call of openai gpt-5 answered without usage")
    assert told[1:] == ["3 of 4 model calls answered without usage"]


def test_an_unknown_model_has_tokens_and_no_cost(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with recorder.llm_call("openai", "own-model") as call:
            call.response({"usage": ANSWER["usage"]})
    assert recorder.of("cost") == []
    assert len(recorder.of("tokens")) == 8
    assert [record.getMessage() for record in caplog.records] == [
        "no cost is recorded for openai 'own-model': no price is known"
    ]


def test_functions_of_every_kind_keep_their_kind(recorder: Recorder) -> None:
    @recorder.llm("openai")
    def plain(model: str = "x") -> Any:
        """Documented."""
        return ANSWER

    @recorder.llm("openai", operation="later")
    async def later(**options: Any) -> Any:
        await asyncio.sleep(0)
        return ANSWER

    @recorder.llm("openai", "gpt-5")
    def hidden() -> Any:
        return later.__wrapped__()  # type: ignore[attr-defined]

    async def main() -> None:
        assert await later(model="gpt-5") is ANSWER
        assert await hidden() is ANSWER

    assert plain() is ANSWER
    assert plain.__doc__ == "Documented."
    assert inspect.iscoroutinefunction(later)
    asyncio.run(main())
    operations = [metadata["operation"].rpartition(".")[2] for _, metadata in recorder.of("cost")]
    assert operations == ["plain", "later", "hidden"]
    assert [metadata["model"] for _, metadata in recorder.of("cost")] == ["gpt-5-2025-08-07", "gpt-5", "gpt-5"]


def stream(*chunks: Any) -> Iterator[Any]:
    yield from chunks or CHUNKS


async def async_stream(*chunks: Any) -> AsyncIterator[Any]:
    for chunk in chunks or CHUNKS:
        yield chunk


def test_streams_are_recorded_when_they_end(recorder: Recorder) -> None:
    @recorder.llm("openai")
    def sync() -> Any:
        return stream()

    @recorder.llm("openai")
    async def later() -> Any:
        return async_stream()

    async def main() -> list[Any]:
        return [chunk async for chunk in await later()]

    going = sync()
    assert next(going) is CHUNKS[0]
    assert recorder.samples == []
    assert list(going) == CHUNKS[1:]
    assert asyncio.run(main()) == CHUNKS
    assert recorder.values("cost") == [pytest.approx(COST)] * 2
    first, took = recorder.values("time_to_first_token"), recorder.values("response_time")
    assert all(0 < one <= whole for one, whole in zip(first, took, strict=True))
    assert recorder.tokens() == {"input": 1200, "cache_read": 800, "output": 600, "reasoning": 400}


def test_generators_are_streams(recorder: Recorder) -> None:
    sync, later = recorder.llm("openai")(stream), recorder.llm("openai")(async_stream)

    async def main() -> list[Any]:
        return [chunk async for chunk in later()]

    assert list(sync()) == CHUNKS
    assert asyncio.run(main()) == CHUNKS
    assert len(recorder.of("cost")) == 2


def test_a_stream_in_a_block_ends_with_the_block(recorder: Recorder) -> None:
    with recorder.llm_call("openai", "gpt-5") as call:
        assert list(call.response(stream())) == CHUNKS
        assert recorder.samples == []
    assert recorder.values("cost") == [pytest.approx(COST)]
    assert len(recorder.of("time_to_first_token")) == 1


def test_cumulative_usage_in_every_chunk_is_not_added(recorder: Recorder) -> None:
    chunks = [{"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": n}} for n in (1, 20, 50)]
    with recorder.llm_call("openai", "gpt-5") as call:
        list(call.response(stream(*chunks)))
        call.response({"usage": {"prompt_tokens": 100, "completion_tokens": 50}})
    assert recorder.tokens() == {"input": 100, "output": 50}


def test_a_stream_that_breaks_is_an_error(recorder: Recorder) -> None:
    def breaking() -> Iterator[Any]:
        yield CHUNKS[1]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        list(recorder.llm("openai")(breaking)())
    assert recorder.of("error_rate")[0][0] == 1
    assert recorder.of("error_rate")[0][1]["error"] == "ConnectionError"
    assert len(recorder.of("time_to_first_token")) == 1


@pytest.mark.parametrize("how", ["close", "let go"])
def test_who_stops_reading_a_stream_has_not_seen_it_fail(recorder: Recorder, how: str) -> None:
    going = recorder.llm("openai")(stream)()
    next(going)
    if how == "close":
        going.close()  # type: ignore[attr-defined]
    else:
        del going
        gc.collect()
    assert recorder.values("error_rate") == [0]
    assert recorder.of("tokens") == []


def test_a_block_in_a_generator_nobody_reads_to_its_end_has_not_failed(recorder: Recorder) -> None:
    def parts() -> Iterator[Any]:
        with recorder.llm_call("openai") as call:
            yield from call.response(stream())

    going: Any = parts()
    next(going)
    going.close()
    assert recorder.values("error_rate") == [0]


def test_a_stream_keeps_all_it_has(recorder: Recorder) -> None:
    class Stream:
        def __init__(self) -> None:
            self.parts = stream()
            self.response = "headers"
            self.closed = False

        def __iter__(self) -> Iterator[Any]:
            return self.parts

        def __next__(self) -> Any:
            return next(self.parts)

        def __enter__(self) -> "Stream":
            return self

        def __exit__(self, *raised: object) -> None:
            self.close()

        def close(self) -> None:
            self.closed = True

    made = Stream()
    with recorder.llm("openai")(lambda: made)() as going:
        assert isinstance(going, Stream)
        assert going.response == "headers"
        assert list(going) == CHUNKS
        with pytest.raises(AttributeError):
            _ = going.nothing  # type: ignore[attr-defined]
    assert made.closed
    assert len(recorder.of("cost")) == 1


def test_measuring_that_fails_is_told_once_and_reaches_nobody(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(samples: Any) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(recorder._calls, "_record", broken)
    for _ in range(3):
        with recorder.llm_call("openai") as call:
            assert call.response(ANSWER) is ANSWER
    assert len(caplog.records) == 1


def test_nothing_is_measured_when_collecting_is_switched_off(make_collector: MakeCollector) -> None:
    collector = make_collector("redis://127.0.0.1:1", enabled=False)

    def ask() -> Any:
        return ANSWER

    assert collector.llm("openai")(ask) is ask
    with collector.llm_call("openai") as call:
        assert call.response(ANSWER) is ANSWER
    assert collector.stats().recorded == 0


def test_measuring_calls_imports_no_client_and_no_price_list_before_it_is_wanted() -> None:
    program = (
        "import sys; from vibezen.metrics import MetricsCollector, MetricsMiddleware;"
        "print(*({'openai', 'anthropic', 'genai_prices', 'pydantic', 'httpx', 'httpx2', 'starlette', 'asyncio'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

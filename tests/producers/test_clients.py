"""The real `openai` and `anthropic` clients, answered from memory: whole answers, streams, errors."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.producers.conftest import Recorder

pytestmark = pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")  # models grow old, their shapes stay

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-5-2025-08-07",
    "service_tier": "default",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 0},
    },
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "gpt-5-2025-08-07",
    "status": "completed",
    "error": None,
    "output": [],
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "usage": {
        "input_tokens": 1000,
        "output_tokens": 500,
        "total_tokens": 1500,
        "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 200},
    },
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5",
    "content": [{"type": "text", "text": "Hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 500,
        "cache_read_input_tokens": 400,
        "cache_creation_input_tokens": 100,
        "output_tokens": 500,
        "output_tokens_details": {"thinking_tokens": 200},
        "service_tier": "standard",
    },
}
OPENAI_TOKENS = {"input": 600, "cache_read": 400, "output": 300, "reasoning": 200}
OPENAI_COST = (600 * 1.25 + 400 * 0.125 + 500 * 10) / 1e6
ANTHROPIC_TOKENS = {"input": 500, "cache_read": 400, "cache_write": 100, "output": 300, "reasoning": 200}
ANTHROPIC_COST = (500 * 5 + 400 * 0.5 + 100 * 6.25 + 500 * 25) / 1e6


def chunk(delta: dict[str, Any] | None, usage: Any = None) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    return {**CHAT, "object": "chat.completion.chunk", "choices": choices, "usage": usage}


CHAT_STREAM = [
    (None, chunk({"role": "assistant", "content": ""})),
    (None, chunk({"content": "H"})),
    (None, chunk({"content": "i"})),
    (None, chunk(None, CHAT["usage"])),
]
RESPONSE_STREAM = [
    ("response.created", {"response": {**RESPONSE, "status": "in_progress", "usage": None}}),
    (
        "response.output_text.delta",
        {"delta": "Hi", "item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []},
    ),
    ("response.completed", {"response": RESPONSE}),
]
MESSAGE_STREAM = [
    (
        "message_start",
        {
            "message": {
                **MESSAGE,
                "content": [],
                "stop_reason": None,
                "usage": {**MESSAGE["usage"], "output_tokens": 1, "output_tokens_details": None},  # type: ignore[dict-item]
            }
        },
    ),
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
    ("content_block_stop", {"index": 0}),
    (
        "message_delta",
        {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 320, "input_tokens": 500}},
    ),
    (
        "message_delta",
        {
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 500, "output_tokens_details": {"thinking_tokens": 200}},
        },
    ),
    ("message_stop", {}),
]


def events(stream: Sequence[tuple[str | None, Any]], *, done: bool) -> str:
    lines = []
    for number, (kind, data) in enumerate(stream):
        if kind:
            lines.append(f"event: {kind}")
            data = {"type": kind, "sequence_number": number, **data}
        lines.append(f"data: {json.dumps(data)}\n")
    return "\n".join([*lines, *(["data: [DONE]\n"] if done else []), ""])


STREAMS = {
    "/v1/chat/completions": (CHAT, events(CHAT_STREAM, done=True)),
    "/v1/responses": (RESPONSE, events(RESPONSE_STREAM, done=False)),
    "/v1/messages": (MESSAGE, events(MESSAGE_STREAM, done=False)),
}


def answer(request: httpx2.Request) -> httpx2.Response:
    asked = json.loads(request.content)
    if asked["model"] == "overloaded":
        return httpx2.Response(529, json={"type": "error", "error": {"type": "overloaded_error", "message": "m"}})
    whole, stream = STREAMS[request.url.path]
    if asked.get("stream"):
        return httpx2.Response(200, text=stream, headers={"content-type": "text/event-stream"})
    return httpx2.Response(200, json=whole)


def sync_client(kind: Any) -> Any:
    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return kind(api_key="none", http_client=http, max_retries=0)


def async_client(kind: Any) -> Any:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    return kind(api_key="none", http_client=http, max_retries=0)


def chat(client: Any, **options: Any) -> Any:
    return client.chat.completions.create(model="gpt-5", messages=[], **options)


def respond(client: Any, **options: Any) -> Any:
    return client.responses.create(model="gpt-5", input="Hi", **options)


def message(client: Any, **options: Any) -> Any:
    return client.messages.create(model="claude-opus-5", messages=[], max_tokens=9, **options)


Ask = Callable[..., Any]
ASKED = [
    pytest.param("openai", openai.OpenAI, openai.AsyncOpenAI, chat, id="chat"),
    pytest.param("openai", openai.OpenAI, openai.AsyncOpenAI, respond, id="responses"),
    pytest.param("anthropic", anthropic.Anthropic, anthropic.AsyncAnthropic, message, id="messages"),
]
every_client = pytest.mark.parametrize(("provider", "sync_kind", "async_kind", "ask"), ASKED)


def is_whole(recorder: Recorder, provider: str, calls: int, *, streams: int = 0) -> None:
    """Exactly `calls` calls with the known numbers, `streams` of them with a first token."""
    tokens, cost = (OPENAI_TOKENS, OPENAI_COST) if provider == "openai" else (ANTHROPIC_TOKENS, ANTHROPIC_COST)
    assert recorder.tokens() == {kind: n * calls for kind, n in tokens.items()}
    assert recorder.values("cost") == [pytest.approx(cost, rel=1e-12)] * calls
    assert recorder.values("error_rate") == [0] * calls
    assert recorder.values("cache_hit_rate") == [1] * calls
    assert len(recorder.of("response_time")) == len(recorder.of("api_calls")) == calls
    assert len(recorder.of("time_to_first_token")) == streams
    models = {metadata["model"] for _, _, metadata in recorder.samples}
    assert models == {"gpt-5" if provider == "openai" else "claude-opus-5"}


@every_client
def test_whole_answers_in_a_block(recorder: Recorder, provider: str, sync_kind: Any, async_kind: Any, ask: Ask) -> None:
    model = "gpt-5" if provider == "openai" else "claude-opus-5"
    with recorder.llm_call(provider, model) as call:
        assert call.response(ask(sync_client(sync_kind))).usage

    async def main() -> None:
        async with recorder.llm_call(provider, model) as call:
            assert call.response(await ask(async_client(async_kind))).usage

    asyncio.run(main())
    is_whole(recorder, provider, 2)


@every_client
def test_watched_clients_are_measured_and_answer_as_before(
    recorder: Recorder, provider: str, sync_kind: Any, async_kind: Any, ask: Ask
) -> None:
    client = sync_client(sync_kind)
    assert recorder.watch(recorder.watch(client)) is client
    assert ask(client) == ask(sync_client(sync_kind))
    with ask(client, stream=True) as stream:
        assert isinstance(stream, openai.Stream | anthropic.Stream)
        passed = list(stream)
    assert [type(part) for part in passed] == [type(part) for part in ask(sync_client(sync_kind), stream=True)]
    is_whole(recorder, provider, 2, streams=1)


@every_client
def test_watched_async_clients_too(
    recorder: Recorder, provider: str, sync_kind: Any, async_kind: Any, ask: Ask
) -> None:
    async def main() -> None:
        client = recorder.watch(async_client(async_kind))
        assert (await ask(client)).usage
        assert len([part async for part in await ask(client, stream=True)]) > 2
        async with await ask(client, stream=True) as stream:
            assert len([part async for part in stream]) > 2

    asyncio.run(main())
    is_whole(recorder, provider, 3, streams=2)


@every_client
def test_errors_pass_and_are_counted(
    recorder: Recorder, provider: str, sync_kind: Any, async_kind: Any, ask: Ask
) -> None:
    client = recorder.watch(sync_client(sync_kind))
    create = {chat: "chat", respond: "responses", message: "messages"}[ask]
    owner = client.chat.completions if create == "chat" else getattr(client, create)
    given: dict[str, Any] = {"input": "Hi"} if create == "responses" else {"messages": []}
    with pytest.raises(openai.InternalServerError if provider == "openai" else anthropic.APIStatusError) as raised:
        owner.create(model="overloaded", **given, **({"max_tokens": 9} if create == "messages" else {}))
    (failed,) = recorder.of("error_rate")
    assert failed[0] == 1
    assert failed[1]["error"] == type(raised.value).__name__
    assert failed[1]["model"] == "overloaded"
    assert recorder.of("tokens") == []


def test_the_stream_helper_of_messages(recorder: Recorder) -> None:
    client = sync_client(anthropic.Anthropic)
    asked: Any = {"model": "claude-opus-5", "messages": [], "max_tokens": 9}
    with recorder.llm_call("anthropic", "claude-opus-5") as call, client.messages.stream(**asked) as stream:
        assert "".join(call.response(stream.text_stream)) == "Hi"
        call.response(stream.get_final_message())
    with recorder.llm_call("anthropic", "claude-opus-5") as call, client.messages.stream(**asked) as stream:
        assert [event.type for event in call.response(stream)][-1] == "message_stop"

    async def main() -> None:
        client = async_client(anthropic.AsyncAnthropic)
        stream: Any
        async with (
            recorder.llm_call("anthropic", "claude-opus-5") as call,
            client.messages.stream(**asked) as stream,
        ):
            assert [text async for text in call.response(stream.text_stream)] == ["Hi"]
            call.response(await stream.get_final_message())

    asyncio.run(main())
    is_whole(recorder, "anthropic", 3, streams=3)


def test_plain_json_is_read_as_well(recorder: Recorder) -> None:
    for provider, model, whole in (("openai", "gpt-5", CHAT), ("openai", "gpt-5", RESPONSE)):
        with recorder.llm_call(provider, model) as call:
            call.response(whole)
    is_whole(recorder, "openai", 2)


def test_streams_without_usage_have_their_times(recorder: Recorder) -> None:
    with recorder.llm_call("openai", "gpt-5") as call:
        list(call.response(openai.types.chat.ChatCompletionChunk.model_validate(part) for _, part in CHAT_STREAM[:3]))
    assert recorder.of("tokens") == []
    assert len(recorder.of("time_to_first_token")) == len(recorder.of("response_time")) == 1


def test_what_is_no_client_is_told_and_left_alone(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    thing = object()
    assert recorder.watch(thing) is thing
    assert "object has no method known to call a model" in caplog.text

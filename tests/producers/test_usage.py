"""Tokens by disjoint type, from every shape that clients answer, and from shapes nobody foresaw."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.producers.conftest import Recorder
from vibezen.metrics.producers.usage import brings_output, read

CHAT = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 100},
    "completion_tokens_details": {"reasoning_tokens": 200},
}
RESPONSES = {
    "input_tokens": 1000,
    "output_tokens": 500,
    "total_tokens": 1500,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 100},
    "output_tokens_details": {"reasoning_tokens": 200},
}
MESSAGES = {
    "input_tokens": 500,
    "cache_read_input_tokens": 400,
    "cache_creation_input_tokens": 100,
    "output_tokens": 500,
    "output_tokens_details": {"thinking_tokens": 200},
    "cache_creation": {"ephemeral_5m_input_tokens": 70, "ephemeral_1h_input_tokens": 30},
}
SAME = {"input": 500, "cache_read": 400, "cache_write": 100, "output": 300, "reasoning": 200}
"""The same call, told in three ways."""


def as_object(tree: Any) -> Any:
    return SimpleNamespace(**{k: as_object(v) for k, v in tree.items()}) if isinstance(tree, dict) else tree


@pytest.mark.parametrize("usage", [CHAT, RESPONSES, MESSAGES], ids=["chat", "responses", "messages"])
@pytest.mark.parametrize("form", [dict, as_object], ids=["keys", "attributes"])
def test_every_shape_gives_the_same_disjoint_types(usage: dict[str, Any], form: Any) -> None:
    found = read(form({"model": "m", "usage": form(usage) if form is dict else usage}))
    assert found.usage is not None
    assert found.usage.by_type() == SAME
    assert sum(found.usage.by_type().values()) == 1500
    assert found.model == "m"


def test_what_is_kept_for_an_hour_is_known() -> None:
    found = read({"usage": MESSAGES}).usage
    assert found is not None
    assert found.cache_write_hour == 30


@pytest.mark.parametrize(
    ("usage", "types"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, {"input": 10, "output": 5}),
        ({"prompt_tokens": 10, "prompt_tokens_details": None}, {"input": 10}),
        ({"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": None}, {"input": 10, "output": 5}),
        ({"output_tokens": 5}, {"output": 5}),
        ({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 30}}, {"cache_read": 30}),
        ({"prompt_tokens": 0, "completion_tokens": 0}, {}),
    ],
)
def test_what_is_missing_is_nothing_and_never_less_than_nothing(usage: Any, types: dict[str, int]) -> None:
    found = read({"usage": usage}).usage
    assert found is not None
    assert found.by_type() == types


@pytest.mark.parametrize(
    "usage", [None, {}, [], "many", {"prompt_tokens": -1}, {"input_tokens": True}, {"output_tokens": float("nan")}]
)
def test_what_is_no_usage_is_none(usage: Any) -> None:
    assert read({"usage": usage}).usage is None


def test_the_event_that_ends_a_responses_stream_carries_the_response() -> None:
    found = read({"type": "response.completed", "response": {"model": "gpt-5", "usage": RESPONSES}})
    assert found.model == "gpt-5"
    assert found.usage is not None
    assert found.usage.by_type() == SAME


def test_reports_that_grow_are_not_added() -> None:
    """A Messages stream: input at its start, output so far in every delta."""
    start = read({"type": "message_start", "message": {"model": "m", "usage": {**MESSAGES, "output_tokens": 1}}}).usage
    delta = read({"type": "message_delta", "usage": {"output_tokens": 320, "input_tokens": None}}).usage
    last = read({"type": "message_delta", "usage": {"output_tokens": 500}}).usage
    assert start is not None
    assert delta is not None
    assert last is not None
    assert start.largest(delta).largest(last).by_type() == SAME
    assert last.largest(start).largest(delta).by_type() == SAME


@pytest.mark.parametrize(
    ("chunk", "brings"),
    [
        ("", False),
        ("Hello", True),
        ({"choices": [{"delta": {"role": "assistant", "content": ""}}]}, False),
        ({"choices": [{"delta": {"content": "Hi"}}]}, True),
        ({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{"}}]}}]}, True),
        ({"choices": [], "usage": CHAT}, False),
        ({"type": "response.created", "response": {}}, False),
        ({"type": "response.output_text.delta", "delta": "Hi"}, True),
        ({"type": "message_start", "message": {}}, False),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}, True),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, False),
        (None, False),
    ],
)
def test_the_first_part_with_output_is_recognized(chunk: Any, brings: bool) -> None:
    assert brings_output(chunk) is brings


def test_failures_that_are_answered_are_named() -> None:
    failed = {"status": "failed", "error": {"code": "server_error", "message": "secret"}}
    assert read(failed).error == "server_error"
    assert read({"type": "response.failed", "response": failed}).error == "server_error"
    assert read({"type": "error", "error": {"type": "overloaded_error"}}).error == "overloaded_error"
    assert read({"type": "error", "code": "rate_limit_exceeded", "message": "text"}).error == "rate_limit_exceeded"
    assert read({"status": "completed", "error": None}).error is None


class Hostile:
    """Raises whatever is asked of it."""

    def __init__(self, error: Exception) -> None:
        self.__dict__["error"] = error

    def __getattr__(self, name: str) -> Any:
        raise self.__dict__["error"]


class Liar:
    """Cannot even be asked for its class."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("no")


NAMES = st.sampled_from(
    re.findall(
        r"\w+",
        "usage model response message type status error choices delta prompt_tokens completion_tokens input_tokens "
        "output_tokens prompt_tokens_details input_tokens_details output_tokens_details cached_tokens service_tier "
        "cache_read_input_tokens cache_creation speed code",
    )
)
PLAIN = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(10**400)),
    st.builds(Liar),
    st.builds(Hostile, st.sampled_from([RuntimeError("no"), KeyError("no"), RecursionError(), AttributeError()])),
)
ODD = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(NAMES, inner, max_size=6),
        st.dictionaries(NAMES, inner, max_size=6).map(lambda tree: SimpleNamespace(**tree)),
    ),
    max_leaves=12,
)


@given(answer=ODD)
def test_no_answer_breaks_the_application(answer: Any) -> None:
    recorder = Recorder()
    with recorder.llm_call("openai", "gpt-5") as call:
        assert call.response(answer) is answer

    @recorder.llm("anthropic")
    def ask() -> Any:
        return answer

    assert ask() is answer

    @recorder.llm("anthropic")
    def parts() -> Any:
        yield answer

    assert [one is answer for one in parts()] == [True]
    assert len(recorder.of("response_time")) == 3
    for kind, value, metadata in recorder.samples:
        assert isinstance(value, int | float), kind
        assert value >= 0, kind
        assert metadata["provider"] in ("openai", "anthropic")

"""What a model's answer says about tokens, whatever client made it.

Nothing is imported from any client: answers are read by the names of their parts, as attributes or as keys. Shapes
known: OpenAI Chat Completions, OpenAI Responses, Anthropic Messages, whole, as parts of a stream, and as plain JSON.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

_MOST: Final = 10**12
"""No call has used more tokens than this; what says so is not a number of tokens."""

_LONGEST: Final = 200
"""Characters of a name; what is longer is none, and would have its events refused."""


class Usage(NamedTuple):
    """Tokens of one call. `output` holds `reasoning`, since it may become known later; the others are disjoint.

    `cache_write_hour`: the part of `cache_write` that is kept for an hour, which some charge more for.
    """

    input: int = 0
    cache_read: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_hour: int = 0

    def by_type(self) -> dict[str, int]:
        """Tokens by disjoint type, the label of `tokens`; those there were none of are left out."""
        types = {
            "input": self.input,
            "cache_read": self.cache_read,
            "cache_write": self.cache_write,
            "output": self.output - min(self.reasoning, self.output),
            "reasoning": min(self.reasoning, self.output),
        }
        return {name: tokens for name, tokens in types.items() if tokens}

    def largest(self, other: "Usage") -> "Usage":
        """Of two reports about one call: streams repeat numbers that only grow, and adding them would count twice."""
        return Usage(*map(max, self, other))


class Answer(NamedTuple):
    """What could be read from one answer, or one part of a stream."""

    usage: Usage | None = None
    model: str | None = None
    tier: str | None = None
    speed: str | None = None
    error: str | None = None


def read(answer: object) -> Answer:
    """Reads what it knows and leaves out the rest; raises only what the object itself raises when it is read."""
    inner = part(answer, "response")  # the last event of a Responses stream carries the whole response …
    if inner is None:
        inner = part(answer, "message")  # … the first one of a Messages stream the message as far as it is
    whole = answer if inner is None or part(answer, "usage") is not None else inner
    reported = part(whole, "usage")
    return Answer(
        usage=_usage(reported),
        model=_text(whole, "model"),
        tier=_text(whole, "service_tier") or _text(reported, "service_tier"),
        speed=_text(reported, "speed"),
        error=_failure(answer, whole),
    )


def brings_output(chunk: object) -> bool:
    """Whether a part of a stream holds something of the answer: text, thinking, a tool's arguments."""
    if isinstance(chunk, str):
        return bool(chunk)
    choices = part(chunk, "choices")
    if isinstance(choices, list | tuple):  # Chat Completions
        deltas = [part(choice, "delta") for choice in choices]
        return any(part(delta, name) for delta in deltas for name in _CHAT_OUTPUT)
    kind = part(chunk, "type")
    # Responses: response.output_text.delta; Messages: content_block_delta.
    return (
        isinstance(kind, str) and kind.endswith("delta") and part(chunk, "delta") is not None and kind not in _NO_OUTPUT
    )


_CHAT_OUTPUT: Final = ("content", "tool_calls", "function_call", "refusal", "reasoning_content", "reasoning", "audio")
_NO_OUTPUT: Final = ("message_delta",)
"""Ends a message: says why it stopped and what it used."""


def part(whole: object, name: str) -> Any:
    """An attribute or a key; None where there is none."""
    return whole.get(name) if isinstance(whole, Mapping) else getattr(whole, name, None)


def _usage(reported: object) -> Usage | None:
    if reported is None:
        return None
    if _tokens(reported, "prompt_tokens") is not None:
        return _inclusive(reported, "prompt_tokens", "completion_tokens")
    if part(reported, "input_tokens_details") is not None:
        return _inclusive(reported, "input_tokens", "output_tokens")
    if _tokens(reported, "output_tokens") is None and _tokens(reported, "input_tokens") is None:
        return None
    return _exclusive(reported)


def _inclusive(reported: object, input_name: str, output_name: str) -> Usage:
    """OpenAI: input holds what was read from the cache and written to it, output holds reasoning."""
    details = part(reported, f"{input_name}_details")
    cache_read, cache_write = _tokens(details, "cached_tokens") or 0, _tokens(details, "cache_write_tokens") or 0
    return Usage(
        input=max(0, (_tokens(reported, input_name) or 0) - cache_read - cache_write),
        cache_read=cache_read,
        cache_write=cache_write,
        output=_tokens(reported, output_name) or 0,
        reasoning=_tokens(part(reported, f"{output_name}_details"), "reasoning_tokens") or 0,
    )


def _exclusive(reported: object) -> Usage:
    """Anthropic: input holds neither; output holds thinking."""
    details = part(reported, "output_tokens_details")
    return Usage(
        input=_tokens(reported, "input_tokens") or 0,
        cache_read=_tokens(reported, "cache_read_input_tokens") or 0,
        cache_write=_tokens(reported, "cache_creation_input_tokens") or 0,
        output=_tokens(reported, "output_tokens") or 0,
        reasoning=_tokens(details, "thinking_tokens") or _tokens(details, "reasoning_tokens") or 0,
        cache_write_hour=_tokens(part(reported, "cache_creation"), "ephemeral_1h_input_tokens") or 0,
    )


def _tokens(whole: object, name: str) -> int | None:
    value = part(whole, name)
    return value if type(value) is int and 0 <= value <= _MOST else None


def _text(whole: object, name: str) -> str | None:
    value = part(whole, name)
    return str(value)[:_LONGEST] if isinstance(value, str) and value else None


def _failure(answer: object, whole: object) -> str | None:
    """The name of an error that was answered instead of raised: a failed response, an error inside a stream."""
    if part(whole, "status") != "failed" and part(answer, "type") not in ("error", "response.failed"):
        return None
    error = part(whole, "error")
    return _text(error, "code") or _text(error, "type") or _text(answer, "code") or "failed"

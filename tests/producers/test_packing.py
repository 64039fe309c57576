"""What the sender checks and encodes: good events in order, each bad one refused alone, limits kept."""

import enum
import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import MAX_BATCH_BYTES, MAX_LINE_BYTES, MIN_SAMPLE_RATE, Event
from vibezen.metrics.producers.append import Batch
from vibezen.metrics.producers.packing import BATCH_EVENTS, pack
from vibezen.metrics.verdict import judge

NOW = 1_763_930_000.0


class Provider(enum.StrEnum):
    OPENAI = "openai"


class Marked(str):
    def __str__(self) -> str:
        return "something else"


class Kelvin(float):
    pass


def event(value: float = 1.0, *, ts: Any = NOW, **metadata: Any) -> Event:
    return Event("response_time", value, ts, 1.0, 1, metadata)


def packed(*events: Event) -> tuple[list[Batch], list[str]]:
    refused: list[InvalidEvent] = []
    batches = pack(events, NOW, refused.append)
    return batches, [bad.field for bad in refused]


def values(batches: list[Batch]) -> list[float]:
    decoder = msgspec.json.Decoder(Event)
    return [event.value for batch in batches for event in decoder.decode_lines(batch.payload)]


BAD_EVENTS = [
    (event(2, key=[1]), "metadata.key"),
    (event(2, key={"a": 1}), "metadata.key"),
    (event(2, key=Decimal(1)), "metadata.key"),
    (event(2, key=b"bytes"), "metadata.key"),
    (event(2, key=math.nan), "metadata.key"),
    (event(2, key=math.inf), "metadata.key"),
    (event(2, key="x" * 1025), "metadata.key"),
    (event(2, key="\ud800"), "metadata"),
    (event(2, **{"Not a name": 1}), "metadata"),
    (event(2, **{"newline\n": 1}), "metadata"),
    (event(2, **{f"k{n}": "x" * 600 for n in range(32)}), "event"),
    (event(2, ts="2026-11-23"), "ts"),
    (event(2, ts=math.nan), "ts"),
    (event(2, ts=True), "ts"),
    (event(2, ts=NOW * 1000), "ts"),
    (event(2, ts=0.0), "ts"),
]


@pytest.mark.parametrize(("bad", "field"), BAD_EVENTS, ids=[f"{field}-{n}" for n, (_, field) in enumerate(BAD_EVENTS)])
def test_a_bad_event_is_refused_alone(bad: Event, field: str) -> None:
    batches, refused = packed(event(1), bad, event(3))
    assert refused == [field]
    assert values(batches) == [1, 3]
    assert sum(batch.n for batch in batches) == 2


def test_a_batch_of_bad_events_only_is_no_batch() -> None:
    assert packed(event(ts=0.0), event(ts=0.0)) == ([], ["ts", "ts"])


def test_subclasses_of_plain_types_travel_as_what_they_are() -> None:
    batches, refused = packed(
        event(provider=Provider.OPENAI, name=Marked("plain"), heat=Kelvin(1.5), flag=True, none=None),
        event(**{Provider.OPENAI: 1}),
    )
    assert refused == []
    first, second = msgspec.json.Decoder(Event).decode_lines(batches[0].payload)
    assert first.metadata == {"provider": "openai", "name": "plain", "heat": 1.5, "flag": True, "none": None}
    assert second.metadata == {"openai": 1}


def test_null_beside_a_float_is_no_mistake() -> None:
    batches, refused = packed(event(share=0.5, reason=None))
    assert refused == []
    assert b'"reason":null' in batches[0].payload


def test_long_text_within_the_limit_passes() -> None:
    batches, refused = packed(event(a="x" * 1024, b="y" * 1024))
    assert refused == []
    assert judge(batches[0].payload, NOW).events[0].metadata == {"a": "x" * 1024, "b": "y" * 1024}


def test_many_events_become_batches_of_the_aimed_size_in_order() -> None:
    batches, _ = packed(*(event(n) for n in range(1, 1202)))
    assert [batch.n for batch in batches] == [BATCH_EVENTS, BATCH_EVENTS, 201]
    assert values(batches) == list(range(1, 1202))


def test_no_batch_is_larger_than_the_contract_allows() -> None:
    large = {f"k{n}": "x" * 500 for n in range(31)}
    batches, refused = packed(*(event(n, **large) for n in range(1, 201)))
    assert refused == []
    assert len(batches) > 1
    assert all(len(batch.payload) <= MAX_BATCH_BYTES for batch in batches)
    assert values(batches) == list(range(1, 201))
    assert all(len(line) <= MAX_LINE_BYTES for batch in batches for line in batch.payload.split(b"\n"))


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(["x" * 1024, "x" * 1025, "\ud800"]),
    st.lists(st.integers(), max_size=2),
    st.binary(max_size=3),
    st.decimals(),
)
some_events = st.builds(
    Event,
    metric=st.sampled_from(["response_time", "my.metric"]),
    value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53),
    ts=st.floats(NOW - 1e6, NOW + 3600) | st.floats(),
    sample_rate=st.floats(MIN_SAMPLE_RATE, 1),
    count=st.just(1),
    metadata=st.dictionaries(
        st.sampled_from(["a", "b_c", "d.e", "F", "1x"]) | st.text(max_size=3), anything, max_size=4
    ),
)


@given(st.lists(some_events, max_size=8))
def test_whatever_is_packed_is_accepted_by_the_readers(events: list[Event]) -> None:
    refused: list[InvalidEvent] = []
    batches = pack(events, NOW, refused.append)
    verdicts = [judge(batch.payload, NOW) for batch in batches]
    assert all(not verdict.rejected for verdict in verdicts)
    assert [len(verdict.events) for verdict in verdicts] == [batch.n for batch in batches]
    assert sum(batch.n for batch in batches) + len(refused) == len(events)

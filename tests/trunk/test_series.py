"""Series keys: one name for one series, whoever makes it, and never one name for two."""

import itertools
import json
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics import series as module
from vibezen.metrics.event import Event, MetadataValue
from vibezen.metrics.series import (
    DEFAULT_LABELS,
    OVERFLOW,
    PRODUCER,
    SeriesTable,
    label_text,
    overflow_key,
    parse_series,
    series_key,
)

LAW = settings(deadline=None, max_examples=150, database=None)
names = st.from_regex(r"[a-z][a-z0-9_.]{0,9}\Z")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = (
    texts
    | st.booleans()
    | st.none()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["1", "1.0", "true", "True", "null", "None", "", 1, 1.0, True, 0, False, -0.0])
)


def event(metric: str = "m", **metadata: MetadataValue) -> Event:
    return Event(metric, 1.0, 1_763_930_000.0, metadata=metadata)


def test_key_is_canonical_json() -> None:
    key = series_key("response_time", {"provider": "openai", "model": "gpt-5"})
    assert key == '{"labels":{"model":"gpt-5","provider":"openai"},"metric":"response_time"}'
    assert key == series_key("response_time", {"model": "gpt-5", "provider": "openai"})


@LAW
@given(names, st.dictionaries(names, texts, max_size=5), st.randoms(use_true_random=False))
def test_key_comes_back_as_metric_and_labels_in_whatever_order_they_were(
    metric: str, labels: dict[str, str], source: random.Random
) -> None:
    key = series_key(metric, labels)
    assert parse_series(key) == (metric, labels)
    assert parse_series(key.encode()) == (metric, labels)
    items = list(labels.items())
    source.shuffle(items)
    assert series_key(metric, dict(items)) == key
    assert json.loads(key) == {"metric": metric, "labels": labels}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("openai", "openai"),
        ("", ""),
        (None, None),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (1.0, "1.0"),
        (-0.5, "-0.5"),
        (2**70, "1180591620717411303424"),
        (1e22, "1e+22"),
    ],
)
def test_label_is_the_string_form_of_its_value(value: MetadataValue, text: str | None) -> None:
    assert label_text(value) == text


def test_values_that_python_takes_for_equal_are_different_labels_in_any_order() -> None:
    forms: list[MetadataValue] = [True, 1, 1.0, "1", "true", False, 0, 0.0, None, ""]
    wanted = {repr(form): SeriesTable().key(event(model=form), None) for form in forms}
    assert len(set(wanted.values())) == 8, "1 has the string form of '1', True that of 'true', all others their own"
    for order in itertools.islice(itertools.permutations(forms), 0, 3_000_000, 9973):
        table = SeriesTable()
        assert all(table.key(event(model=form), None) == wanted[repr(form)] for form in (*order, *order))


def test_absent_label_and_null_differ_from_an_empty_one() -> None:
    table = SeriesTable()
    absent, null, empty = (table.key(found, None) for found in (event(), event(model=None), event(model="")))
    assert absent == null == series_key("m", {})
    assert empty == series_key("m", {"model": ""})


def test_only_the_named_keys_are_labels() -> None:
    found = event(provider="openai", request_id="17", other="x")
    assert SeriesTable().key(found, "p") == series_key("m", {"provider": "openai"})
    assert SeriesTable(["other"]).key(found, "p") == series_key("m", {"other": "x"})
    assert SeriesTable([]).key(found, "p") == series_key("m", {})


def test_only_gauges_carry_their_producer() -> None:
    table = SeriesTable(gauges={"concurrency"})
    assert table.key(event("concurrency", model="a"), "p1") == series_key("concurrency", {"model": "a", PRODUCER: "p1"})
    assert table.key(event("concurrency", model="a"), "p2") == series_key("concurrency", {"model": "a", PRODUCER: "p2"})
    assert table.key(event("concurrency", model="a"), None) == series_key("concurrency", {"model": "a"})
    assert table.key(event("queue", model="a"), "p1") == series_key("queue", {"model": "a"})


@LAW
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["m", "gauge"]),
            st.dictionaries(st.sampled_from(["provider", "model", "other"]), values, max_size=3),
            st.sampled_from([None, "p1", "p2"]),
        ),
        max_size=12,
    )
)
def test_remembered_key_is_the_one_that_would_be_made(
    asked: list[tuple[str, dict[str, MetadataValue], str | None]],
) -> None:
    table = SeriesTable(gauges=["gauge"])
    for metric, metadata, producer in asked:
        key = table.key(Event(metric, 1.0, metadata=metadata), producer)
        labels = {name: label_text(value) for name, value in metadata.items() if name in DEFAULT_LABELS}
        if metric == "gauge" and producer is not None:
            labels[PRODUCER] = producer
        assert key == series_key(metric, {name: text for name, text in labels.items() if text is not None})
        # The short cut of the hot path finds that key or none.
        identity = (metric, *map(metadata.get, DEFAULT_LABELS))
        assert metric == "gauge" or table.known.get(identity, key) == key
        assert not any(known[0] == "gauge" for known in table.known)


def test_memory_for_series_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CACHE_BOUND", 10)
    table = SeriesTable()
    for number in range(35):
        assert table.key(event(model=str(number)), None) == series_key("m", {"model": str(number)})
        assert len(table.known) <= 10


def test_numbers_are_not_remembered() -> None:
    table = SeriesTable()
    for number in range(50):
        table.key(event(model=number), None)
    assert not table.known


def test_overflow_is_a_series_of_the_metric() -> None:
    assert parse_series(overflow_key("m")) == ("m", {OVERFLOW: "true"})


@pytest.mark.parametrize("text", ["", "m", "[]", '{"labels":{}}', '{"metric":1}', '{"metric":"m","labels":{"a":1}}'])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse_series(text)

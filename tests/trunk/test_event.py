"""The rules of an event, as Python doors apply them: each broken rule names its field and says what was wrong."""

import math
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics import event as rules
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import (
    MAX_AHEAD,
    MAX_COUNT,
    MAX_LINE_BYTES,
    MAX_METADATA_KEYS,
    MAX_TS,
    MAX_VALUE_CHARS,
    MIN_SAMPLE_RATE,
    MIN_TS,
    Event,
    check_count,
    check_event,
    check_line_size,
    check_metadata,
    check_metric,
    check_sample_rate,
    check_ts,
    check_value,
    encode_lines,
    is_name,
    known_names,
    lines_fit,
    shown,
)

NOW = 1_763_930_000.0
LAW = settings(deadline=None, max_examples=100, database=None)

ENDLESS = pytest.param(10**5000, id="endless")  # Python refuses to print it

NAMES = ["a", "response_time", "a.b_c.9", "x" * 100, "http.server.duration"]
NO_NAMES = ["", "A", "1a", "_a", ".a", "a b", "a-b", "a\n", "\na", "a\0", "a\0b", "x" * 101, "é", "aé", "a\u2028", "ａ"]


def refusal(check: Callable[[], None]) -> tuple[str, str]:
    """Field and reason of the one rule that is broken; the text is one line that fits a log."""
    with pytest.raises(InvalidEvent) as refused:
        check()
    error = refused.value
    assert str(error) == f"{error.field}: {error.reason}"
    assert str(error).isprintable()
    assert len(str(error)) < 300
    return error.field, error.reason


@pytest.mark.parametrize("name", NAMES)
def test_name_is_accepted_however_often_it_is_asked(name: str) -> None:
    assert [is_name(name), is_name(name)] == [True, True]
    check_metric(name)


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_is_refused_however_often_it_is_asked(name: str) -> None:
    assert [is_name(name), is_name(name)] == [False, False]
    field, reason = refusal(lambda: check_metric(name))
    assert field == "metric"
    assert "is not a metric name" in reason


@pytest.mark.parametrize("metric", [None, 1, b"a", ["a"], True])
def test_metric_of_another_type_is_refused(metric: object) -> None:
    assert refusal(lambda: check_metric(metric))[0] == "metric"


@LAW
@given(st.text(max_size=4) | st.from_regex(r"[a-z][a-z0-9_.]{0,3}\n?"))
def test_names_are_the_whole_of_their_pattern(name: str) -> None:
    first, rest = name[:1], set(name[1:])
    plain = set("abcdefghijklmnopqrstuvwxyz")
    assert is_name(name) == (first in plain and rest <= plain | set("0123456789_."))


def test_names_beyond_the_remembered_ones_are_judged_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_KNOWN_NAMES_BOUND", len(known_names()))
    assert is_name("never.seen.before")
    assert "never.seen.before" not in known_names()
    assert not is_name("Never.seen.before")


@pytest.mark.parametrize("value", [0, -0.0, 1, -1.5, True, False, 1.7e308, -1.7e308, 5e-324, 10**300])
def test_finite_number_is_a_value(value: float) -> None:
    check_value(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -(10**400), ENDLESS])
def test_number_beyond_a_double_is_no_value(value: float) -> None:
    field, reason = refusal(lambda: check_value(value))
    assert field == "value"
    assert "is not a finite number" in reason


@pytest.mark.parametrize("value", [None, "1", b"1", [1], {}, 1j])
def test_value_of_another_type_is_refused(value: object) -> None:
    assert "is not a number" in refusal(lambda: check_value(value))[1]


@pytest.mark.parametrize("ts", [MIN_TS, NOW, NOW + MAX_AHEAD, int(NOW)])
def test_time_within_its_bounds_is_accepted(ts: float) -> None:
    check_ts(ts, NOW)


@pytest.mark.parametrize(
    ("ts", "reason"),
    [
        (math.nan, "not a finite number"),
        (math.inf, "not a finite number"),
        (10**400, "not a finite number"),
        pytest.param(10**5000, "not a finite number", id="endless"),
        (True, "not a finite number"),
        ("1763930000", "not a finite number"),
        (None, "not a finite number"),
        (MIN_TS - 1, "before 2000-01-01"),
        (0, "before 2000-01-01"),
        (-1e300, "before 2000-01-01"),
        (NOW + MAX_AHEAD + 0.001, "more than 1 h ahead"),
        (NOW * 1000, "more than 1 h ahead"),
        (12345678901234567890123456, "more than 1 h ahead"),
        (10**300, "more than 1 h ahead"),
    ],
)
def test_time_outside_its_bounds_is_refused(ts: object, reason: str) -> None:
    field, text = refusal(lambda: check_ts(ts, NOW))
    assert field == "ts"
    assert reason in text


def test_time_beyond_the_calendar_is_refused_even_when_the_arrival_lies_there_too() -> None:
    check_ts(MAX_TS - 1, MAX_TS * 2)
    assert "year 9999" in refusal(lambda: check_ts(MAX_TS, MAX_TS * 2))[1]


@pytest.mark.parametrize("rate", [1, 1.0, 0.5, MIN_SAMPLE_RATE])
def test_sample_rate_within_its_bounds_is_accepted(rate: float) -> None:
    check_sample_rate(rate)


@pytest.mark.parametrize("rate", [0, -0.5, 1.01, 2, math.nan, math.inf, 5e-324, 10**400, True, "1", None])
def test_sample_rate_outside_its_bounds_is_refused(rate: object) -> None:
    assert refusal(lambda: check_sample_rate(rate))[0] == "sample_rate"


@pytest.mark.parametrize("count", [1, 7, MAX_COUNT])
def test_count_within_its_bounds_is_accepted(count: int) -> None:
    check_count(count)


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1, 10**26, ENDLESS, 1.0, 1.5, math.nan, True, "1", None])
def test_count_outside_its_bounds_is_refused(count: object) -> None:
    assert refusal(lambda: check_count(count))[0] == "count"


def test_metadata_of_every_allowed_kind_is_accepted() -> None:
    check_metadata(
        {"text": "x" * MAX_VALUE_CHARS, "empty": "", "n": 1, "big": 2**64, "f": 0.5, "yes": True, "no": None}
    )
    check_metadata({f"k{i}": i for i in range(MAX_METADATA_KEYS)})


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({f"k{i}": i for i in range(MAX_METADATA_KEYS + 1)}, "metadata"),
        ({"Key": 1}, "metadata"),
        ({"key\n": 1}, "metadata"),
        ({"": 1}, "metadata"),
        ({1: 1}, "metadata"),
        ({"x" * 5000: 1}, "metadata"),
        ({"key": "x" * (MAX_VALUE_CHARS + 1)}, "metadata.key"),
        ({"key": math.nan}, "metadata.key"),
        ({"key": -math.inf}, "metadata.key"),
        ({"key": [1]}, "metadata.key"),
        ({"key": {"inner": 1}}, "metadata.key"),
        ({"key": b"bytes"}, "metadata.key"),
    ],
)
def test_metadata_that_breaks_a_rule_is_refused_by_key(metadata: dict[str, str], field: str) -> None:
    assert refusal(lambda: check_metadata(metadata))[0] == field


def test_event_without_time_is_complete_but_for_the_door() -> None:
    check_event(Event("response_time", 1.0), NOW)


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (Event("Bad", 1.0, NOW), "metric"),
        (Event("good", math.nan, NOW), "value"),
        (Event("good", 1.0, 0.0), "ts"),
        (Event("good", 1.0, NOW, sample_rate=0.0), "sample_rate"),
        (Event("good", 1.0, NOW, count=0), "count"),
        (Event("good", 1.0, NOW, metadata={"Bad": 1}), "metadata"),
    ],
)
def test_event_is_checked_in_every_part(event: Event, field: str) -> None:
    assert refusal(lambda: check_event(event, NOW))[0] == field


def test_line_may_be_as_long_as_the_limit_and_no_longer() -> None:
    check_line_size(b"x" * MAX_LINE_BYTES)
    assert refusal(lambda: check_line_size(b"x" * (MAX_LINE_BYTES + 1)))[0] == "event"


@LAW
@given(st.lists(st.sampled_from([0, 1, 5000, MAX_LINE_BYTES - 1, MAX_LINE_BYTES, MAX_LINE_BYTES + 1]), max_size=9))
def test_lines_fit_exactly_when_each_of_them_does(lengths: list[int]) -> None:
    lines = [b"x" * length for length in lengths]
    fit = all(length <= MAX_LINE_BYTES for length in lengths)
    assert lines_fit(b"".join(line + b"\n" for line in lines)) == fit
    assert lines_fit(b"\n".join(lines)) == fit


@LAW
@given(
    st.lists(
        st.builds(
            Event,
            metric=st.sampled_from(NAMES),
            value=st.floats(allow_nan=False, allow_infinity=False),
            ts=st.floats(MIN_TS, NOW),
            sample_rate=st.floats(MIN_SAMPLE_RATE, 1),
            count=st.integers(1, MAX_COUNT),
            metadata=st.dictionaries(
                st.sampled_from(NAMES),
                st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
                | st.integers()
                | st.booleans()
                | st.none()
                | st.floats(allow_nan=False, allow_infinity=False),
                max_size=4,
            ),
        ),
        max_size=5,
    )
)
def test_events_come_back_from_their_lines_as_they_were(events: list[Event]) -> None:
    lines = encode_lines(events).split(b"\n")
    assert lines.pop() == b""
    assert [msgspec.json.decode(line, type=Event) for line in lines] == events


@pytest.mark.parametrize("value", ["x" * 10_000, "a\nb\0", ENDLESS, object(), "\ud800"])
def test_shown_value_is_one_short_line(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown(value)) <= 80

"""The two shapes of a stream entry: what is read from them, and what is refused by name of field."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.batch import (
    FORMAT_VERSION,
    MAX_SEQ,
    Entry,
    batch_fields,
    cut_lines,
    id_order,
    id_time,
    read_entry,
)
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import MAX_BATCH_EVENTS
from vibezen.metrics.verdict import judge

ID = "1763930000123-7"
NOW = 1_763_930_000.123
LAW = settings(deadline=None, max_examples=200, database=None)


def stored(fields: list[str | int | bytes]) -> dict[bytes, bytes]:
    """A field list as a server gives it back."""
    flat = [part if isinstance(part, bytes) else str(part).encode() for part in fields]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def batch(**changed: bytes | None) -> dict[bytes, bytes]:
    """A good batch but for these fields; None leaves a field out."""
    fields = stored(batch_fields("p-1", 5, 2, b"one\ntwo\n", b"{}"))
    fields |= {name.encode(): value for name, value in changed.items() if value is not None}
    return {name: value for name, value in fields.items() if changed.get(name.decode(), value) is not None}


def refusal(fields: dict[bytes, bytes]) -> tuple[str, str]:
    """Field and reason; the text is one line that fits a log."""
    with pytest.raises(InvalidEvent) as refused:
        read_entry(ID, fields)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300
    return refused.value.field, refused.value.reason


def test_batch_comes_back_as_it_was_appended() -> None:
    wanted = Entry(ID, NOW, "p-1", 5, 2, b"one\ntwo\n")
    assert read_entry(ID, batch()) == wanted
    assert read_entry(ID.encode(), batch()) == wanted
    assert read_entry(ID, batch(colour=b"red", stats=None)) == wanted


@LAW
@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.integers(1, MAX_SEQ),
    st.integers(1, MAX_BATCH_EVENTS),
    st.binary(max_size=50),
)
def test_any_batch_comes_back(producer: str, seq: int, n: int, events: bytes) -> None:
    fields = stored(batch_fields(producer, seq, n, events, b"{}"))
    assert read_entry(ID, fields) == Entry(ID, NOW, producer, seq, n, events)


NUMBERS = [None, b"", b"0", b"-1", b"+1", b" 1", b"1 ", b"1.0", b"1e0", b"1_0", b"0x1", b"one", b"\xd9\xa1", b"\xff"]


@pytest.mark.parametrize("field", ["v", "seq", "n"])
@pytest.mark.parametrize("value", [*NUMBERS, b"9" * 16, b"9" * 17, b"9" * 5000, b"9007199254740992"])
def test_number_of_a_batch_that_is_none_is_refused(field: str, value: bytes | None) -> None:
    assert refusal(batch(**{field: value}))[0] == field


def test_batch_of_more_events_than_allowed_is_refused() -> None:
    assert read_entry(ID, batch(n=b"1000")).n == MAX_BATCH_EVENTS
    assert refusal(batch(n=b"1001"))[0] == "n"


def test_batch_of_an_unknown_format_is_refused() -> None:
    assert refusal(batch(v=b"2")) == ("v", f"format version 2 is not known; this version reads {FORMAT_VERSION}")


@pytest.mark.parametrize("producer", [None, b"", b"p" * 201, b"\xff", b"p\xc3"])
def test_producer_that_is_no_short_text_is_refused(producer: bytes | None) -> None:
    """Damaged bytes are not replaced: two producers would become one, and the events of one would be taken for seen."""
    assert refusal(batch(producer=producer))[0] == "producer"


@pytest.mark.parametrize("fields", [{}, {b"v": b"1"}, {b"value": b"1"}, {b"Metric": b"m"}])
def test_entry_that_is_neither_shape_is_refused(fields: dict[bytes, bytes]) -> None:
    assert refusal(fields) == ("entry", "neither a batch (field `events`) nor a plain event (field `metric`)")


def plain(**fields: str | bytes) -> dict[bytes, bytes]:
    every = {"metric": "response_time", "value": "120"} | fields
    return {name.encode(): text if isinstance(text, bytes) else text.encode() for name, text in every.items()}


def test_plain_entry_is_one_event_and_its_other_fields_are_metadata() -> None:
    entry = read_entry(ID, plain(provider="openai", sample_rate="0.5", count="3", ts="1763929999.25", tokens="17"))
    assert entry._replace(payload=b"") == Entry(ID, NOW, None, 0, 1, b"")
    (event,) = judge(entry.payload, entry.arrived).events
    assert (event.metric, event.value, event.ts) == ("response_time", 120.0, 1763929999.25)
    assert (event.sample_rate, event.count) == (0.5, 3)
    assert event.metadata == {"provider": "openai", "tokens": "17"}


def test_plain_entry_without_time_has_that_of_its_id() -> None:
    entry = read_entry(ID, plain())
    assert [event.ts for event in judge(entry.payload, entry.arrived).events] == [NOW]


@pytest.mark.parametrize("text", ["0", "-1.5", "+2", "1.", ".5", "1e3", "1E-3", "-0", "007"])
def test_plain_number_is_read_as_it_is_written(text: str) -> None:
    entry = read_entry(ID, plain(value=text))
    assert [event.value for event in judge(entry.payload, entry.arrived).events] == [float(text)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "fast",
        "nan",
        "NaN",
        "inf",
        "-Infinity",
        "1e400",
        "9" * 400,
        "1_000",
        " 1",
        "1\n",
        "1,5",
        "0x1p3",
        "１",
        ".",
    ],
)
@pytest.mark.parametrize("field", ["value", "ts", "sample_rate"])
def test_plain_number_that_is_none_is_refused(field: str, text: str) -> None:
    assert refusal(plain(**{field: text}))[0] == field


@pytest.mark.parametrize("text", [text for text in NUMBERS if text is not None])
def test_plain_count_that_is_none_is_refused(text: bytes) -> None:
    assert refusal(plain(count=text))[0] == "count"


def test_plain_text_that_is_not_utf8_is_refused_and_not_replaced() -> None:
    assert refusal(plain(provider=b"caf\xe9")) == ("provider", "b'caf\\xe9' is not valid UTF-8")
    assert refusal(plain(metric=b"\xff"))[0] == "metric"
    assert refusal({**plain(), b"\xff\n": b"1"}) == ("entry", "b'\\xff\\n' is not valid UTF-8")
    assert refusal({**plain(), b"a\nb" * 100: b"\xff"})[0] == "entry"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"metric": "Bad name"}, "metric: "),
        ({"metric": ""}, "metric: "),
        ({"metric": "m\n"}, "metric: "),
        ({"Key": "1"}, "metadata: "),
        ({"": "1"}, "metadata: "),
        ({"a\nb": "1"}, "metadata: "),
        ({"key": "x" * 1025}, "metadata.key: "),
        ({f"k{i}": "" for i in range(33)}, "metadata: 33 keys"),
        ({"ts": "1"}, "ts: "),
        ({"ts": "1763930000123"}, "ts: "),
        ({"sample_rate": "2"}, "sample_rate: "),
        ({"count": "9007199254740991"}, "count: "),
    ],
)
def test_plain_entry_is_judged_by_the_rules_of_a_line(fields: dict[str, str], words: str) -> None:
    entry = read_entry(ID, plain(**fields))
    (rejected,) = judge(entry.payload, entry.arrived).rejected
    assert rejected.reason.startswith(words)


def test_plain_entry_without_value_is_refused_by_the_verdict() -> None:
    entry = read_entry(ID, {b"metric": b"m"})
    assert "value" in judge(entry.payload, entry.arrived).rejected[0].reason


@LAW
@given(
    st.dictionaries(st.sampled_from([b"metric", b"events", b"v", b"n"]) | st.binary(max_size=5), st.binary(max_size=9))
)
def test_no_fields_raise_anything_but_a_refusal(fields: dict[bytes, bytes]) -> None:
    with suppress(InvalidEvent):
        entry = read_entry(ID, fields)
        judge(entry.payload, entry.arrived)


def test_ids_are_ordered_by_their_numbers() -> None:
    ids = ["9-0", "9-2", "9-10", "10-0", "999999999999-5", "1763930000123-0", "18446744073709551615-0"]
    as_text = sorted(ids)
    assert as_text != ids
    assert sorted(as_text, key=id_order) == ids
    assert id_order("5") == id_order("5-0") == (5, 0)


@LAW
@given(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
def test_order_of_an_id_is_its_two_numbers(numbers: tuple[int, int]) -> None:
    assert id_order("{}-{}".format(*numbers)) == numbers


def test_time_of_an_id_is_its_milliseconds() -> None:
    assert id_time(ID) == NOW
    assert id_time("0-1") == 0.0


@LAW
@given(st.lists(st.binary(max_size=4).map(lambda raw: raw.replace(b"\n", b"")), max_size=6), st.integers(0, 8))
def test_cutting_takes_whole_lines_from_the_front(lines: list[bytes], number: int) -> None:
    payload = b"".join(line + b"\n" for line in lines)
    assert cut_lines(payload, number) == b"".join(line + b"\n" for line in lines[number:])
    assert cut_lines(cut_lines(payload, 1), number) == cut_lines(payload, number + 1)


@pytest.mark.parametrize(("number", "left"), [(0, b"a\nb"), (1, b"b"), (2, b""), (9, b"")])
def test_last_line_without_newline_is_cut_like_the_others(number: int, left: bytes) -> None:
    assert cut_lines(b"a\nb", number) == left

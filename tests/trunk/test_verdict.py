"""One judgement, whoever makes it and when: what is refused, in which words, and that nothing else is touched."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vibezen.metrics.errors import InvalidEvent, MalformedEvent, UntimelyEvent
from vibezen.metrics.event import (
    MAX_AHEAD,
    MAX_COUNT,
    MAX_LINE_BYTES,
    MAX_METADATA_KEYS,
    MAX_VALUE_CHARS,
    MIN_SAMPLE_RATE,
    MIN_TS,
    Event,
    check_event,
    encode_lines,
    is_name,
    known_names,
)
from vibezen.metrics.verdict import Verdict, judge, judge_values

NOW = 1_763_930_000.0
LAW = settings(deadline=None, max_examples=300, database=None)

GOOD = b'{"metric":"response_time","value":150.5,"ts":1763929999.5,"metadata":{"provider":"openai"}}'
BAD = b"not an event"


def line(**fields: str) -> bytes:
    """A line whose fields are what they say in JSON; a good event but for them."""
    return b"{%s}" % ",".join(
        f'"{name}":{text}' for name, text in {"metric": '"m"', "value": "1", "ts": "1763929999", **fields}.items()
    ).encode("utf-8", "surrogateescape")


def reason(raw: bytes, arrived: float = NOW) -> str:
    """Why this line is refused. Its good neighbours are kept as they came."""
    for name in ("m", "k", *(f"k{i}" for i in range(33))):
        is_name(name)  # an unknown name would hide what the fast path lets through
    verdict = judge(GOOD + b"\n" + raw + b"\n" + GOOD + b"\n", arrived)
    assert [event.value for event in verdict.events] == [150.5, 150.5]
    assert verdict.payload == (GOOD + b"\n") * 2
    (rejected,) = verdict.rejected
    assert (rejected.line, rejected.payload) == (1, raw)
    assert rejected.reason.isprintable()
    assert len(rejected.reason) < 300
    assert judge(raw + b"\n", arrived).rejected == [rejected._replace(line=0)]
    return rejected.reason


def accepted(raw: bytes, arrived: float = NOW) -> Event:
    """The event this line holds, taken as it came, alone and among others."""
    verdict = judge(raw + b"\n", arrived)
    assert not verdict.rejected
    assert verdict.payload == raw + b"\n"
    assert judge(GOOD + b"\n" + raw + b"\n" + BAD, arrived).payload == GOOD + b"\n" + raw + b"\n"
    (event,) = verdict.events
    return event


REFUSED = {
    "not a number": (line(value="NaN"), "value: nan is not a finite number"),
    "not a number, and no JSON either": (line(value="NaN,"), "event: not JSON"),
    "infinite": (line(value="Infinity"), "value: inf is not a finite number"),
    "minus infinite": (line(value="-Infinity"), "value: -inf is not a finite number"),
    "beyond a double": (line(value="1e400"), "value: "),
    "beyond a double, in digits": (line(value="9" * 400), "value: "),
    "beyond a double, in many digits": (line(value="9" * 5000), "value: "),
    "value true": (line(value="true"), "value: "),
    "value in quotes": (line(value='"1"'), "value: "),
    "value null": (line(value="null"), "value: "),
    "value a list": (line(value="[1]"), "value: "),
    "no value": (b'{"metric":"m","ts":1763929999}', "event: Object missing required field `value`"),
    "no metric": (b'{"value":1,"ts":1763929999}', "event: Object missing required field `metric`"),
    "ts of 26 digits": (line(ts="12345678901234567890123456"), "ts: "),
    "ts beyond a double": (line(ts="1e400"), "ts: "),
    "ts NaN": (line(ts="NaN"), "ts: nan is not a finite number"),
    "ts in quotes": (line(ts='"1763929999"'), "ts: "),
    "ts true": (line(ts="true"), "ts: "),
    "ts in ms": (line(ts="1763929999000"), "ts: 1763929999000.0 is more than 1 h ahead"),
    "ts before 2000": (line(ts="946684799.999"), "ts: 946684799.999 is before 2000-01-01"),
    "ts negative": (line(ts="-1"), "ts: -1.0 is before 2000-01-01"),
    "ts ahead": (line(ts="1763933600.001"), "ts: 1763933600.001 is more than 1 h ahead"),
    "ts at the end of days": (line(ts="1e300"), "ts: 1e+300 is more than 1 h ahead"),
    "sample_rate 0": (line(sample_rate="0"), "sample_rate: 0.0 is not in (0, 1]"),
    "sample_rate above 1": (line(sample_rate="1.001"), "sample_rate: 1.001 is not in (0, 1]"),
    "sample_rate with an infinite weight": (line(sample_rate="5e-324"), "sample_rate: 5e-324 is not in (0, 1]"),
    "sample_rate true": (line(sample_rate="true"), "sample_rate: "),
    "count 0": (line(count="0"), "count: 0 is not a whole number"),
    "count too high": (line(count=str(MAX_COUNT + 1)), "count: 4294967297 is not a whole number"),
    "count of 26 digits": (line(count="9" * 26), "count: "),
    "count a fraction": (line(count="1.5"), "count: "),
    "count true": (line(count="true"), "count: "),
    "unknown field": (line(colour='"red"'), "event: unknown field 'colour'"),
    "unknown field with a newline": (b'{"a\\nb":1}', "event: unknown field 'a\\nb'"),
    "unknown field of any length": (b'{"%s":1}' % (b"x" * 9000), "event: unknown field 'xxx"),
    "unknown field that looks like a place": (b'{"x - at `$.value`":1}', "event: unknown field 'x - at `$.value`'"),
    "metric with a newline": (line(metric='"m\\n"'), "metric: 'm\\n' is not a metric name"),
    "metric with NUL": (line(metric='"m\\u0000"'), "metric: 'm\\x00' is not a metric name"),
    "metric with capitals": (line(metric='"Metric"'), "metric: 'Metric' is not a metric name"),
    "metric too long": (line(metric=f'"{"m" * 101}"'), "metric: "),
    "metric empty": (line(metric='""'), "metric: '' is not a metric name"),
    "metric a number": (line(metric="1"), "metric: "),
    "invalid UTF-8": (line(metadata='{"k":"\udcff"}'), "event: not valid UTF-8"),
    "invalid UTF-8 in a key": (b'{"\xff":1}', "event: not valid UTF-8"),
    "lone surrogate": (line(metadata='{"k":"\\ud800"}'), "event: not JSON"),
    "lone low surrogate": (line(metadata='{"k":"\\udc00x"}'), "event: not JSON"),
    "control character": (line(metadata='{"k":"a\tb"}'), "event: not JSON"),
    "NUL byte": (line(metadata='{"k":"a\0b"}'), "event: not JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, "event: not JSON"),
    "nested 100,000 deep": (b"[" * 100_000, "event: 100000 bytes on one line"),
    "nested deep": (b"[" * 16_000, "event: "),
    "nested deep inside": (line(metadata='{"k":' + "[" * 10_000), "metadata"),
    "objects nested deep": (b'{"metadata":' * 1_300, "metadata"),
    "33 keys": (line(metadata=json.dumps({f"k{i}": i for i in range(33)})), "metadata: 33 keys; at most 32"),
    "key with capitals": (line(metadata='{"Key":1}'), "metadata: 'Key' is not a key"),
    "key with a newline": (line(metadata='{"key\\n":1}'), "metadata: 'key\\n' is not a key"),
    "key empty": (line(metadata='{"":1}'), "metadata: '' is not a key"),
    "long text": (line(metadata=json.dumps({"k": "x" * 1025})), "metadata.k: 1025 characters; at most 1024"),
    "long text in escapes": (line(metadata='{"k":"%s"}' % ("\\u00e9" * 1025)), "metadata.k: 1025 characters"),
    "nested metadata": (line(metadata='{"k":{"inner":1}}'), "metadata"),
    "list in metadata": (line(metadata='{"k":[1]}'), "metadata"),
    "metadata beyond a double": (line(metadata='{"k":1e400}'), "metadata"),
    "endless number in metadata": (line(metadata='{"k":%s}' % ("9" * 5000)), "metadata"),
    "metadata null": (line(metadata="null"), "metadata: "),
    "metadata a list": (line(metadata="[]"), "metadata: "),
    "long line": (GOOD + b" " * MAX_LINE_BYTES, "event: 16475 bytes on one line; at most 16384"),
    "long line, well formed": (line(metadata='{"k":1%s}' % (" " * MAX_LINE_BYTES)), "event: 16"),
    "empty line": (b"", "event: the line is empty"),
    "blank line": (b" \t\r", "event: the line is empty"),
    "another JSON value": (b"[]", "event: "),
    "a number": (b"1", "event: "),
    "null": (b"null", "event: "),
    "two on a line": (GOOD + GOOD, "event: not JSON"),
    "two on a line, parted": (GOOD + b" " + GOOD, "event: not JSON"),
    "two on a line, listed": (GOOD + b"," + GOOD, "event: not JSON"),
    "torn": (GOOD[:-20], "event: not JSON"),
    "torn with a bad time": (b'{"metric":"m","value":1,"ts":1,', "ts: "),
    "torn with a bad count": (b'{"count":0,"metadata":{"k":', "count: "),
    "damaged behind a bad time": (line(ts="1", metadata='{"k":"\udcff"}'), "ts: "),
    "deep behind a bad time": (b'{"ts":1,"metadata":{"k":' + b"[" * 10_000, "ts: "),
    "single quotes": (b"{'metric':'m','value':1}", "event: not JSON"),
    "trailing comma": (line()[:-1] + b",}", "event: not JSON"),
}


@pytest.mark.parametrize(("raw", "words"), REFUSED.values(), ids=REFUSED)
def test_bad_line_is_refused_with_field_and_reason_and_its_neighbours_are_kept(raw: bytes, words: str) -> None:
    assert reason(raw).startswith(words)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"value": "-0.0"},
        {"value": "1.7e308"},
        {"value": "5e-324"},
        {"value": "9" * 300},
        {"ts": str(MIN_TS)},
        {"ts": str(NOW + MAX_AHEAD)},
        {"sample_rate": "1"},
        {"sample_rate": str(MIN_SAMPLE_RATE)},
        {"count": str(MAX_COUNT)},
        {"metric": f'"{"m" * 100}"'},
        {"metadata": "{}"},
        {"metadata": json.dumps({f"k{i}": None for i in range(MAX_METADATA_KEYS)})},
        {"metadata": '{"s":"","t":true,"f":false,"n":null,"i":-1,"d":1.5}'},
        {"metadata": json.dumps({"i": 2**70})},
        {"metadata": '{"k":"%s"}' % ("x" * MAX_VALUE_CHARS)},
        {"metadata": '{"k":"%s"}' % ("\\ud83d\\ude00" * MAX_VALUE_CHARS)},
        {"metadata": json.dumps({"k": "é" * MAX_VALUE_CHARS}, ensure_ascii=False)},
        {"metadata": '{"k":"line\\nbreak and \\u0000"}'},
        {"metadata": '{"k":"} and }{ and { in a text"}'},
    ],
)
def test_line_within_the_bounds_is_accepted_as_it_came(fields: dict[str, str]) -> None:
    check_event(accepted(line(**fields)), NOW)


def longest(**fields: str) -> bytes:
    """A line of exactly the longest length, by no more than its metadata."""

    def filled(each: int, more: int) -> bytes:
        texts = {f"k{i}": "x" * (each + more * (i == 0)) for i in range(17)}
        return line(**fields, metadata=json.dumps(texts, separators=(",", ":")))

    return filled(*divmod(MAX_LINE_BYTES - len(filled(0, 0)), 17))


def test_line_of_the_longest_length_is_accepted() -> None:
    assert len(longest()) == MAX_LINE_BYTES
    accepted(longest())
    assert "bytes on one line" in reason(longest() + b" ")


def test_of_fields_named_twice_the_last_wins() -> None:
    event = accepted(b'{"value":1,"metric":"a","value":2,"metric":"m","ts":1763929999,"metadata":{"k":"x","k":"y"}}')
    assert (event.metric, event.value, event.metadata) == ("m", 2.0, {"k": "y"})


@pytest.mark.parametrize("raw", [b'{"metric":"m","value":1}', b'{"ts":null,"value":1,"metric":"m"}'])
def test_missing_time_is_the_arrival_and_is_kept_with_the_line(raw: bytes) -> None:
    verdict = judge(raw + b"\n", NOW)
    assert [event.ts for event in verdict.events] == [NOW]
    assert [json.loads(kept) for kept in verdict.lines] == [{"metric": "m", "value": 1.0, "ts": NOW}]
    assert judge(verdict.payload, NOW).events == verdict.events


@pytest.mark.parametrize("arrived", [0.001, MIN_TS - 1, 1e14, 1.8e16])
def test_arrival_that_no_event_may_have_gives_no_event_its_time(arrived: float) -> None:
    assert judge(b'{"metric":"m","value":1}', arrived).rejected[0].reason.startswith("ts: ")
    judge(line() + b"\n", NOW)  # makes the names known, so that the fast path is tried
    assert judge(line(ts=str(arrived)) + b"\n", arrived).rejected[0].reason.startswith("ts: ")


def test_line_that_only_its_time_makes_too_long_is_refused() -> None:
    raw = longest(ts="null")
    assert len(raw) == MAX_LINE_BYTES
    assert "bytes on one line" in reason(raw)


def test_whether_a_line_without_time_is_too_long_is_no_matter_of_the_clock() -> None:
    for spare in range(40):
        raw = longest(ts="null").replace(b"x", b"", spare)
        assert len({bool(judge(raw, arrived).rejected) for arrived in (NOW, NOW + 0.5, NOW + 0.1234567)}) == 1, spare


@pytest.mark.parametrize(
    ("raw", "arrived", "kind"),
    [
        (b"not an event", NOW, MalformedEvent),
        (b"", NOW, MalformedEvent),
        (b"\xff", NOW, MalformedEvent),
        (b'"\\ud800"', NOW, MalformedEvent),
        (line(value="NaN"), NOW, InvalidEvent),
        (line(value="1e400"), NOW, InvalidEvent),
        (b"7", NOW, InvalidEvent),
        (b"x" * (MAX_LINE_BYTES + 1), NOW, InvalidEvent),
        (line(ts=str(NOW + MAX_AHEAD + 1)), NOW, UntimelyEvent),
        (line(ts=str(NOW * 1000)), NOW, InvalidEvent),
        (b'{"metric":"m","value":1}', 1.0, UntimelyEvent),
    ],
)
def test_refusal_says_whether_it_is_text_rule_or_clock(raw: bytes, arrived: float, kind: type[InvalidEvent]) -> None:
    (rejected,) = judge(raw + b"\n", arrived).rejected
    assert rejected.kind is kind
    assert rejected.reason.startswith(f"{rejected.field}: ")


def test_values_over_several_lines_are_judged_as_lines() -> None:
    pretty = b'\n{\r\n  "metric": "m",\n  "value": 1,\n  "ts": 1763929999\n}\n'
    verdict = judge_values([GOOD, pretty, b"[\n]", GOOD], NOW)
    assert [rejected.line for rejected in verdict.rejected] == [2]
    assert [event.metric for event in verdict.events] == ["response_time", "m", "response_time"]
    assert judge(verdict.payload, NOW) == Verdict(verdict.events, verdict.payload, (), ())
    assert judge_values([GOOD, GOOD], NOW) == judge((GOOD + b"\n") * 2, NOW)


def test_newline_in_a_text_is_no_space() -> None:
    assert judge_values([line(metadata='{"k":"a\nb"}')], NOW).rejected[0].kind is MalformedEvent


def test_nothing_is_no_line() -> None:
    assert judge(b"", NOW) == Verdict([], b"", [], [])


def test_good_batch_is_accepted_as_the_bytes_that_came() -> None:
    payload = (GOOD + b"\n") * 3
    judge(payload, NOW)
    verdict = judge(payload, NOW)
    assert verdict.payload is payload
    assert (len(verdict.events), verdict.lines, verdict.rejected) == (3, (), ())


def test_last_line_needs_no_newline() -> None:
    verdict = judge(GOOD + b"\n" + GOOD, NOW)
    assert (len(verdict.events), verdict.payload) == (2, (GOOD + b"\n") * 2)


@pytest.mark.parametrize("around", [(b" ", b""), (b"", b" \t"), (b"\t", b"\r")])
def test_white_space_around_a_line_is_not_kept(around: tuple[bytes, bytes]) -> None:
    before, after = around
    assert judge(before + GOOD + after + b"\n", NOW).payload == GOOD + b"\n"


SPREAD = GOOD.replace(b',"metadata"', b',\n"metadata"')


@pytest.mark.parametrize(
    "payload",
    [
        GOOD + GOOD + b"\n\n",
        GOOD + b" " + GOOD + b"\n\n",
        GOOD + b"\t" + GOOD + b"\n" + b"\n",
        GOOD + b"\r" + GOOD + b"\n\n",
        b"\n" + GOOD + GOOD + b"\n",
        SPREAD + b"\n" + GOOD + GOOD + b"\n",
        GOOD + GOOD + b"\n" + SPREAD + b"\n",
        SPREAD + GOOD + b"\n",
        GOOD + SPREAD + b"\n",
        GOOD + b"\n" + SPREAD + GOOD + b"\n",
        GOOD + b"\n" + GOOD + b"\n" + SPREAD + SPREAD,
    ],
)
def test_objects_that_share_or_span_lines_never_pass_as_bytes(payload: bytes) -> None:
    """Where the decoder takes as many objects as there are newlines, but not one a line."""
    judge(GOOD + b"\n", NOW)
    assert check_laws(payload).rejected


LINES = [
    *(raw for raw, _ in REFUSED.values() if len(raw) < 20_000 and b"\n" not in raw),
    GOOD,
    SPREAD,
    line(),
    b" " + line(),
    line() + b" \t",
    line() + b"\r",
    line(metadata='{"k":"}\\n{"}'),
    b'{"metric":"m","value":1}',
    b'{"metric":"m","value":1e300,"metadata":{"i":1e15,"k":"\\u00e9"}}',
]
SEPARATORS = [b"\n", b"\n", b"\n", b"\n\n", b"", b" ", b"\t", b"\r\n", b"\n ", b"\x0b", b"\x0c"]


def check_laws(payload: bytes, arrived: float = NOW) -> Verdict:
    """What holds of the verdict on any bytes whatever."""
    verdict = judge(payload, arrived)
    whole = payload.split(b"\n")
    if not whole[-1]:
        whole.pop()

    # Each line is judged for itself, and nothing falls between.
    alone = [judge(raw + b"\n", arrived) for raw in whole]
    assert [len(one.events) + len(one.rejected) for one in alone] == [1] * len(whole)
    assert [event for one in alone for event in one.events] == list(verdict.events)
    assert b"".join(one.payload for one in alone) == verdict.payload
    rejected = [bad._replace(line=number) for number, one in enumerate(alone) for bad in one.rejected]
    assert rejected == list(verdict.rejected)
    assert all(bad.payload == whole[bad.line] and bad.reason.isprintable() for bad in rejected)

    # What is kept is one event a line, keeps every rule, and is judged the same when it is read again.
    lines = verdict.payload.split(b"\n")
    assert lines.pop() == b""
    assert list(verdict.lines) in ([], lines)
    assert [msgspec.json.decode(kept, type=Event) for kept in lines] == list(verdict.events)
    assert all(isinstance(json.loads(kept), dict) for kept in lines)
    for event in verdict.events:
        check_event(event, arrived)
        assert event.ts is not None
    again = judge(verdict.payload, arrived)
    assert (list(again.events), again.payload, list(again.rejected)) == (list(verdict.events), verdict.payload, [])

    # Behind a bad line every other goes the slow way, and comes to the same.
    slowly = judge(BAD + b"\n" + payload, arrived)
    assert (list(slowly.events), slowly.payload) == (list(verdict.events), verdict.payload)
    assert slowly.rejected[1:] == [bad._replace(line=bad.line + 1) for bad in verdict.rejected]
    return verdict


@LAW
@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(SEPARATORS)), max_size=6))
def test_batch_is_judged_as_each_of_its_lines_alone(parts: list[tuple[bytes, bytes]]) -> None:
    check_laws(b"".join(raw + separator for raw, separator in parts))


@LAW
@given(st.lists(st.sampled_from([GOOD, GOOD, SPREAD, line()]), min_size=2, max_size=4), st.data())
def test_newlines_in_any_place_do_not_make_lines_of_objects(objects: list[bytes], data: st.DataObject) -> None:
    seams = [data.draw(st.sampled_from([b"", b"\n", b"\n\n", b" \n", b"\n "])) for _ in objects]
    check_laws(b"".join(raw + seam for raw, seam in zip(objects, seams, strict=True)))


@LAW
@given(st.binary(max_size=200))
def test_no_bytes_raise(payload: bytes) -> None:
    check_laws(payload)


@LAW
@given(st.lists(st.sampled_from(LINES), min_size=1, max_size=3), st.data())
def test_no_damage_raises(lines: list[bytes], data: st.DataObject) -> None:
    payload = bytearray(b"\n".join(lines) + b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload)))
        cut = data.draw(st.integers(0, 4))
        payload[at : at + cut] = data.draw(st.binary(max_size=3) | st.sampled_from([b"\n", b'"', b"}", b"{", b"\\u"]))
    check_laws(bytes(payload))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([NOW, "m", 1, "x" * 1025, 10**30, 1e300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@LAW
@given(
    st.fixed_dictionaries(
        {"metric": st.sampled_from(["m", "M"]) | json_values, "value": st.floats() | json_values},
        optional={
            "ts": st.floats(NOW - 10, NOW + 4000) | json_values,
            "sample_rate": st.floats(0, 1) | json_values,
            "count": st.integers(0, 3) | json_values,
            "metadata": st.dictionaries(st.sampled_from(["a", "B"]), json_values, max_size=2) | json_values,
            "more": json_values,
        },
    ),
    st.sampled_from([NOW, 0.0, 1e14]),
)
def test_no_event_raises(fields: dict[str, object], arrived: float) -> None:
    check_laws(json.dumps(fields).encode(), arrived)


def test_verdict_does_not_depend_on_what_was_judged_before() -> None:
    payload = b"\n".join([GOOD, line(metric='"never_seen_here"', metadata='{"never_seen_key":1}'), GOOD, b""])
    known_names().clear()
    first = judge(payload, NOW)
    second = judge(payload, NOW)
    assert (list(first.events), first.payload) == (list(second.events), second.payload)
    known_names().clear()
    assert judge(payload, NOW) == first


def test_verdict_changes_nothing_that_a_second_one_would_see() -> None:
    payload = b'{"metric":"m","value":1}\n' + GOOD + b"\n"
    first = judge(payload, NOW)
    for event in first.events:
        event.metadata["provider"] = "changed"
    second = judge(payload, NOW)
    assert [event.metadata for event in second.events] == [{}, {"provider": "openai"}]


def test_large_batch_is_judged_like_a_small_one() -> None:
    events = [Event("m", float(i), NOW - i, metadata={"text": "x" * (i % 1100)}) for i in range(1000)]
    verdict = judge(encode_lines(events), NOW)
    assert list(verdict.events) == [event for event in events if len(str(event.metadata["text"])) <= MAX_VALUE_CHARS]
    assert [bad.line for bad in verdict.rejected] == [i for i in range(1000) if i % 1100 > MAX_VALUE_CHARS]

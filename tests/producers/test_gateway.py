"""The gateway over HTTP: what it takes, what it answers, and that an answer means Redis has it."""

import gzip
import json
from typing import Any

import pytest
import redis

from tests.producers.conftest import Arrived
from tests.support.gateways import PATH, Door, StartGateway, lines
from vibezen.metrics.event import MAX_BATCH_EVENTS, MAX_LINE_BYTES
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.producers.body import MAX_BODY
from vibezen.metrics.producers.gateway_app import LISTED

NOW = 1_795_449_600.25
GOOD = {"metric": "response_time", "value": 120, "ts": NOW, "metadata": {"provider": "openai"}}


def test_lines_are_in_the_stream_when_they_are_answered(door: Door, arrived: Arrived) -> None:
    assert door.answer(lines(1, 2, 3)) == (
        200,
        {"accepted": 3, "duplicates": 0, "refused": [], "refused_count": 0},
    )
    assert arrived.values() == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (json.dumps(GOOD), 1),
        (json.dumps(GOOD) + "\n", 1),
        (json.dumps(GOOD) + "\r\n" + json.dumps(GOOD) + "\r\n", 2),
        (json.dumps(GOOD, indent=2), 1),
        (json.dumps(GOOD, indent="\t").replace("\n", "\r\n"), 1),
        (json.dumps([GOOD]), 1),
        (json.dumps([GOOD, GOOD, GOOD]), 3),
        (json.dumps([GOOD, GOOD], indent=2), 2),
        ("\n  [" + json.dumps(GOOD) + ",\n" + json.dumps(GOOD, indent=1) + " ]\n\n", 2),
    ],
)
def test_lines_array_and_pretty_object_are_taken_alike(door: Door, arrived: Arrived, body: str, count: int) -> None:
    assert door.answer(body.encode())[1]["accepted"] == count
    taken = arrived.events()
    assert [(event.metric, event.value, event.ts, event.metadata) for event in taken] == [
        ("response_time", 120, NOW, {"provider": "openai"})
    ] * count
    assert sum(entry.n for entry in arrived.entries()) == count
    assert all(entry.payload.count(b"\n") == entry.n for entry in arrived.entries())


@pytest.mark.parametrize(
    "kind",
    [
        *("application/x-www-form-urlencoded", "text/plain", "text/plain;charset=UTF-8", "application/json"),
        *("application/x-ndjson", "application/jsonl", "application/octet-stream", "", "nonsense"),
    ],
)
def test_any_reasonable_content_type_is_taken(door: Door, kind: str) -> None:
    assert door.answer(lines(1), content_type=kind)[0] == 200


def test_form_with_files_is_not(door: Door, arrived: Arrived) -> None:
    answer = door.http.post(PATH, files={"file": b"{}"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (415, "Content-Type")
    assert arrived.entries() == []


def test_event_without_time_gets_the_gateways_clock(
    redis_url: str, start_gateway: StartGateway, arrived: Arrived
) -> None:
    door = start_gateway(redis_url, clock=lambda: NOW)
    assert door.answer(lines(1) + lines(2, ts=NOW - 5) + b'[]\n{"metric":"m","value":3,"ts":null}')[0] == 207
    assert [event.ts for event in arrived.events()] == [NOW, NOW - 5, NOW]


def test_bad_lines_are_named_and_their_neighbours_taken(door: Door, arrived: Arrived) -> None:
    body = lines(1) + b'{"metric":"M","value":1}\n' + lines(2) + b'{"metric":"m","value":"1"}\nnothing\n' + lines(3)
    status, told = door.answer(body)
    assert (status, told["accepted"], told["refused_count"]) == (207, 3, 3)
    assert [(bad["line"], bad["field"]) for bad in told["refused"]] == [(1, "metric"), (3, "value"), (4, "event")]
    assert told["refused"][0]["message"].startswith("'M' is not a metric name")
    assert "error" not in told
    assert arrived.values() == [1, 2, 3]


def test_refused_events_of_an_array_are_named_by_their_place(door: Door) -> None:
    status, told = door.answer(b'[1, {"metric":"m","value":1}, {"metric":"m","value":true}]')
    assert (status, [bad["line"] for bad in told["refused"]]) == (207, [0, 2])


def test_refusals_are_listed_up_to_a_bound_and_counted_beyond(door: Door) -> None:
    status, told = door.answer(b"x" * 10_000 + b"\n" + b"[" * 500 + b"\n" + b"{}\n" * 900)
    assert (status, told["accepted"], told["refused_count"]) == (422, 0, 902)
    assert len(told["refused"]) == LISTED
    assert told["error"]["code"] == "invalid"
    assert len(json.dumps(told)) < 10_000


def test_foreign_text_is_echoed_in_a_short_excerpt_only(door: Door) -> None:
    secret = "s" * 5000
    answer = door.post(json.dumps({"metric": secret, "value": 1, secret: 1}).encode())
    assert answer.status_code == 422
    assert "s" * 100 not in answer.text


def test_nothing_but_malformed_text_is_400_and_nothing_good_is_422(door: Door) -> None:
    for body in (b"nothing", b"nothing\n\xff", b"{", b'{"metric":"m"', b"[1, 2", b"\x00", b"\xef\xbb\xbf[]"):
        status, told = door.answer(body)
        assert (status, told["error"]["code"]) == (400, "malformed"), body
    for body in (b"{}", b"nothing\n{}", b"5", b'"text"', b"null", b"[5]", b"[[]]", b"{\n}"):
        status, told = door.answer(body)
        assert (status, told["error"]["code"]) == (422, "invalid"), body


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t ", b"[]", b" [ ] "])
def test_body_without_events_is_400(door: Door, body: bytes) -> None:
    status, told = door.answer(body)
    assert (status, told["error"]["code"]) == (400, "empty")


def padded(size: int) -> bytes:
    """Good lines of so many bytes together, the last without newline."""
    text = "x" * 1000
    line = f'{{"metric":"m","value":1,"ts":{NOW},"metadata":{{"k":"{text}"}}}}\n'.encode()
    body = line * (size // len(line))
    rest = size - len(body) - len(line.replace(b"x", b""))
    return body + line.replace(text.encode(), b"x" * rest)[:-1] + b" "


def test_largest_body_is_taken_and_one_byte_more_is_413(door: Door, arrived: Arrived) -> None:
    body = padded(MAX_BODY)
    assert len(body) == MAX_BODY
    for whole in (body, gzip.compress(body)):
        assert door.answer(whole, **({"content_encoding": "gzip"} if whole is not body else {}))[0] == 200
    assert all(entry.n == entry.payload.count(b"\n") for entry in arrived.entries())
    before = len(arrived.entries())
    for more in (body + b" ", gzip.compress(body + b" ")):
        status, told = door.answer(more, **({"content_encoding": "gzip"} if more != body + b" " else {}))
        assert (status, told["error"]["code"]) == (413, "too_large")
    assert len(arrived.entries()) == before


def test_largest_body_whose_events_all_get_a_time_is_taken_in_two_entries(door: Door, arrived: Arrived) -> None:
    line = b'{"metric":"m","value":1,"metadata":{"k":"%s"}}\n' % (b"x" * 1024)
    body = line * (MAX_BODY // len(line))
    assert door.answer(body)[1]["accepted"] == body.count(b"\n")
    assert sum(entry.n for entry in arrived.entries()) == body.count(b"\n")
    assert [len(entry.payload) <= MAX_BODY for entry in arrived.entries()] == [True, True]


def test_chunked_body_is_stopped_at_the_limit(door: Door, arrived: Arrived) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b" " * 65536

    assert door.http.post(PATH, content=endless()).status_code == 413
    assert door.answer(iter([lines(1), lines(2)]))[0] == 200
    assert arrived.values() == [1, 2]


def test_largest_number_of_events_is_taken_and_one_more_is_413(door: Door, arrived: Arrived) -> None:
    most = list(range(MAX_BATCH_EVENTS))
    for body in (lines(*most), b"[" + lines(*most).strip().replace(b"\n", b",") + b"]"):
        assert door.answer(body)[0] == 200
        more = body.replace(b"{", b'{"metric":"m","value":1}' + (b"," if body[:1] == b"[" else b"\n") + b"{", 1)
        assert door.answer(more)[0] == 413
    assert sum(entry.n for entry in arrived.entries()) == 2 * MAX_BATCH_EVENTS


def test_line_that_is_too_long_is_refused_alone(door: Door) -> None:
    long = b'{"metric":"m","value":1%s}' % (b" " * MAX_LINE_BYTES)
    status, told = door.answer(lines(1) + long + b"\n" + lines(2))
    assert (status, told["accepted"]) == (207, 2)
    assert "at most 16384 are allowed" in told["refused"][0]["message"]


def test_gzip_is_unpacked(door: Door, arrived: Arrived) -> None:
    for encoding in ("gzip", "x-gzip", "GZIP"):
        assert door.answer(gzip.compress(lines(1)), content_encoding=encoding)[0] == 200
    assert door.answer(lines(2), content_encoding="identity")[0] == 200
    assert arrived.values() == [1, 1, 1, 2]


@pytest.mark.parametrize("encoding", ["deflate", "br", "zstd", "gzip, gzip", "chunked"])
def test_other_encodings_are_415(door: Door, encoding: str) -> None:
    status, told = door.answer(lines(1), content_encoding=encoding)
    assert (status, told["error"]["field"]) == (415, "Content-Encoding")


@pytest.mark.parametrize(
    "body",
    [b"", lines(1), gzip.compress(lines(1))[:-4], gzip.compress(lines(1)) + b"more", gzip.compress(lines(1)) * 2],
    ids=["empty", "plain", "cut", "more", "two"],
)
def test_what_is_no_whole_gzip_stream_is_400(door: Door, arrived: Arrived, body: bytes) -> None:
    status, told = door.answer(body, content_encoding="gzip")
    assert (status, told["error"]["field"]) == (400, "Content-Encoding")
    assert arrived.entries() == []


def test_errors_and_probes_have_the_shapes_of_the_api(door: Door) -> None:
    assert door.http.get("/healthz").json() == {"status": "ok"}
    assert door.http.get("/readyz").json() == {"status": "ready"}
    for method, path, status, code in [
        ("GET", PATH, 405, "method_not_allowed"),
        ("PUT", PATH, 405, "method_not_allowed"),
        ("GET", "/", 404, "not_found"),
        ("POST", "/api/nothing", 404, "not_found"),
        ("POST", "/v1/metrics", 404, "not_found"),
    ]:
        answer = door.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), (method, path)


def test_path_tells_its_methods(door: Door) -> None:
    answer = door.http.options(PATH)
    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
    assert door.http.get(PATH).headers["allow"] == "OPTIONS, POST"


def test_first_event_makes_the_stream_with_its_groups(door: Door, client: redis.Redis) -> None:
    assert client.get(Keys().shards) == b"1"  # raised when it connected
    client.flushall()
    assert door.answer(lines(1))[0] == 200
    groups: Any = client.xinfo_groups(Keys().events(0))
    assert {group["name"].decode() for group in groups} == set(GROUPS)
    assert client.get(Keys().shards) == b"1"


def test_counters_of_the_gateway_travel_with_its_entries(door: Door, arrived: Arrived) -> None:
    door.answer(lines(1, 2))
    door.answer(b'{"metric":"M","value":1}\n{"metric":"m","value":1,"metadata":{"k":[]}}')
    door.answer(lines(3) + b"nothing")
    last = arrived.stats()[-1]
    assert last["refused"] == {"metric": 1, "metadata": 1, "event": 1}
    assert (last["recorded"], last["appended"], last["in_flight"]) == (6, 2, 1)
    producers = {entry.producer for entry in arrived.entries()}
    assert len(producers) == 1
    assert [(entry.seq, entry.n) for entry in arrived.entries()] == [(1, 2), (3, 1)]

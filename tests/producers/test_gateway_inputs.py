"""Bad input, row by row of the reliability table as far as it concerns taking events in; and at random."""

import gzip
import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.producers.conftest import Arrived
from tests.support.gateways import Door
from tests.support.processes import RoleProcess, StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics.event import MAX_AHEAD, MAX_METADATA_KEYS, MAX_VALUE_CHARS

GROWTH: Final = 60.0
"""MB that hostile bodies may make the gateway grow by, all together."""


def line(**fields: str) -> bytes:
    """A good event but for these fields, written as they are."""
    shown = {"metric": '"m"', "value": "1", **fields}
    return ("{" + ",".join(f'"{name}":{text}' for name, text in shown.items()) + "}").encode("utf-8", "surrogatepass")


def keys(count: int) -> str:
    return json.dumps({f"k{number}": 1 for number in range(count)})


ROWS: Final = {
    "NaN": (line(value="NaN"), 422, "value"),
    "Infinity": (line(value="Infinity"), 422, "value"),
    "minus Infinity": (line(value="-Infinity"), 422, "value"),
    "1e400": (line(value="1e400"), 422, "value"),
    "NaN in an array": (b"[" + line(value="NaN") + b"]", 422, "value"),
    "NaN in a pretty object": (b'{\n"metric": "m",\n"value": NaN\n}', 422, "value"),
    "NaN as metadata": (line(metadata='{"k":NaN}'), 422, "metadata.k"),
    "true as value": (line(value="true"), 422, "value"),
    "text as value": (line(value='"1"'), 422, "value"),
    "integer of 26 digits as ts": (line(ts="1" * 26), 422, "ts"),
    "ts NaN": (line(ts="NaN"), 422, "ts"),
    "ts infinite": (line(ts="1e400"), 422, "ts"),
    "ts before 2000": (line(ts="946684799"), 422, "ts"),
    "ts in milliseconds": (line(ts="1795449600000"), 422, "ts"),
    "unknown field": (line(unknown="1"), 422, "event"),
    "name with newline": (line(metric='"abc\\n"'), 422, "metric"),
    "name with NUL": (line(metric='"a\\u0000b"'), 422, "metric"),
    "name of 101 characters": (line(metric=f'"{"a" * 101}"'), 422, "metric"),
    "name with other characters": (line(metric='"Größe"'), 422, "metric"),
    "invalid UTF-8": (b'{"metric":"m\xff","value":1}', 400, "event"),
    "invalid UTF-8 in an array": (b'[{"metric":"m\xff","value":1}]', 400, "event"),
    "lone surrogate": (line(metric='"\\ud800"'), 400, "event"),
    "surrogate as bytes": (line(metric='"\ud800"'), 400, "event"),
    "33 metadata keys": (line(metadata=keys(MAX_METADATA_KEYS + 1)), 422, "metadata"),
    "value of 1,025 characters": (line(metadata=f'{{"k":"{"x" * (MAX_VALUE_CHARS + 1)}"}}'), 422, "metadata.k"),
}


@pytest.mark.parametrize(("body", "status", "field"), ROWS.values(), ids=ROWS)
def test_bad_input(door: Door, arrived: Arrived, body: bytes, status: int, field: str) -> None:
    found, told = door.answer(body)
    assert (found, told["refused"][0]["field"]) == (status, field), told
    assert arrived.entries() == []


def test_ts_more_than_an_hour_ahead_of_arrival(redis_url: str, door: Door) -> None:
    now = json.loads(subprocess.run(["date", "+%s"], capture_output=True, check=True).stdout)
    assert door.answer(line(ts=str(now + MAX_AHEAD - 60)))[0] == 200
    status, told = door.answer(line(ts=str(now + MAX_AHEAD + 60)))
    assert (status, told["refused"][0]["field"]) == (422, "ts")


def test_duplicate_json_keys_are_accepted_and_the_last_wins(door: Door, arrived: Arrived) -> None:
    assert door.answer(b'{"metric":"a","value":1,"value":2,"metric":"m"}')[0] == 200
    assert [(event.metric, event.value) for event in arrived.events()] == [("m", 2.0)]


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b"[" * 500_000 + b"]" * 500_000, b'{"metric":"m","value":' + b"[" * 900_000]
)
def test_100_000_nested_brackets(door: Door, body: bytes) -> None:
    assert door.answer(body)[0] in (400, 422)
    assert door.answer(b"[" * 100_000)[0] == 400


def test_batch_of_more_than_1000_events(door: Door, arrived: Arrived) -> None:
    status, told = door.answer(line() + (b"\n" + line()) * 1000)
    assert (status, told["error"]["message"]) == (413, "1001 events; at most 1000 are taken at a time")
    assert arrived.entries() == []


def test_bad_event_in_a_batch_is_told_with_its_index_and_the_good_ones_accepted(door: Door, arrived: Arrived) -> None:
    status, told = door.answer(b"\n".join([line(), line(value="true"), line()]))
    assert (status, told["accepted"], told["refused"][0]["line"]) == (207, 2, 1)
    assert len(arrived.events()) == 2


def test_more_series_than_the_bound_are_accepted(door: Door) -> None:
    body = b"\n".join(line(metadata=json.dumps({"model": str(number)})) for number in range(1000))
    assert door.answer(body)[1]["accepted"] == 1000


class Weighed:
    """A gateway of its own process."""

    def __init__(self, door: Door, process: RoleProcess) -> None:
        self.door, self._process = door, process

    def megabytes(self) -> float:
        """The most it ever held."""
        status = Path(f"/proc/{self._process.pid}/status")
        if not status.exists():
            pytest.skip("no /proc here")
        (peak,) = (words for words in map(str.split, status.read_text().splitlines()) if words[0] == "VmHWM:")
        return int(peak[1]) / 1024


@pytest.fixture
def weighed(redis_url: str, start_role: StartRole, wait_until: WaitUntil, unused_port: int) -> Iterator[Weighed]:
    process = start_role("gateway", "--redis-url", redis_url, "--port", str(unused_port))
    door = Door(f"http://127.0.0.1:{unused_port}")
    with door.http:
        wait_until(door.is_ready)
        for body in (line(), b"[" * 1000, b"[" + b"1," * 1000 + b"1]"):
            door.answer(body)  # what the first of its kind brings once and for all
        yield Weighed(door, process)


def test_gzip_bomb_is_stopped_at_the_limit(weighed: Weighed) -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024))
    before = weighed.megabytes()
    for _ in range(5):
        status, told = weighed.door.answer(bomb, content_encoding="gzip")
        assert (status, told["error"]["code"]) == (413, "too_large")
    assert weighed.megabytes() - before < 20


def test_array_of_half_a_million_values_is_refused_within_bounds(weighed: Weighed) -> None:
    before = weighed.megabytes()
    for _ in range(5):
        assert weighed.door.answer(b"[" + b"1," * 500_000 + b"1]")[0] == 413
    assert weighed.megabytes() - before < GROWTH


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
EVENTISH = st.fixed_dictionaries(
    {},
    optional={
        "metric": st.sampled_from(["m", "M", "", "a\n"]) | JSON,
        "value": st.floats() | JSON,
        "ts": st.floats() | st.just(1_795_449_600.0) | JSON,
        "sample_rate": st.floats() | JSON,
        "count": st.integers() | JSON,
        "metadata": st.dictionaries(st.text(max_size=8), JSON, max_size=4) | JSON,
    },
)
TEXT = (JSON | EVENTISH | st.lists(EVENTISH, max_size=4)).map(lambda value: json.dumps(value).encode())
BODY = (
    st.binary(max_size=200)
    | TEXT
    | st.lists(TEXT | st.binary(max_size=20), max_size=6).map(b"\n".join)
    | TEXT.flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end]))
    | st.sampled_from([b"[", b'{"a":', b"[{", b"\x00", b'"', b"1,", b"\n"]).flatmap(
        lambda part: st.integers(1, 1_200_000 // len(part)).map(lambda times: part * times)
    )
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-encoding": st.sampled_from(["gzip", "identity", "br", ""]),
        "content-type": st.sampled_from(["application/json", "multipart/form-data", "x"]),
        "idempotency-key": st.sampled_from(["p/1", "p/2", "p/", "/", "p/0", '"q/1"', "p/9007199254740991", "\xff/1"]),
    },
)


def test_1000_random_bodies_are_never_a_500_and_never_too_heavy(weighed: Weighed, arrived: Arrived) -> None:
    before = weighed.megabytes()

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(BODY, HEADERS, st.booleans())
    def send(body: bytes, headers: dict[str, str], packed: bool) -> None:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        content = gzip.compress(body, 1) if packed else body
        answer = weighed.door.http.post("/api/events", content=content, headers=encoded)
        assert answer.status_code in (200, 207, 400, 409, 413, 415, 422), answer.text
        assert answer.status_code < 300 or answer.json()["error"]["message"].isprintable(), answer.text

    send()
    assert weighed.door.answer(line())[0] == 200
    assert all(math.isfinite(value) for value in arrived.values())
    assert all(entry.n == entry.payload.count(b"\n") for entry in arrived.entries())
    assert weighed.megabytes() - before < GROWTH

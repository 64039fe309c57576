"""`GET /api/metrics/export`: a file that is whole, or a transfer that is seen to be broken."""

import csv
import io
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.feeding import event
from tests.support.serving import Served, dashboard_in_thread
from tests.support.stores import Store
from tests.support.waiting import WaitUntil
from vibezen.metrics import event_table, export
from vibezen.metrics.api.export import EXPORTS
from vibezen.metrics.clock import HOUR
from vibezen.metrics.event import encode_lines
from vibezen.metrics.event_sql import Sql

pytestmark = pytest.mark.server

START = 1_763_985_600.0
PATH = "/api/metrics/export"
LARGE = 60_000
"""Events of one hour: more than sockets and buffers between here and there hold."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def served(store: Store, redis_url: str, wait_until: WaitUntil) -> Iterator[Served]:
    with dashboard_in_thread(redis_url, store.layout.root) as served:
        wait_until(lambda: served.hub.trouble is None)
        yield served


def fill(store: Store, hours: int) -> None:
    for hour in range(hours):
        start = int(START) + hour * HOUR
        store.add_lines(start, encode_lines([event(1.0, start, note="x" * 100)]) * LARGE, LARGE)


def scratch(store: Store) -> list[Path]:
    return list(store.layout.exports.glob("*")) if store.layout.exports.exists() else []


def test_each_format_is_a_file_with_its_type_and_name(served: Served, store: Store) -> None:
    events = [event(float(n), START + n, provider="openai") for n in range(10)]
    store.add(events)
    types = {"csv": "text/csv", "jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}
    for name, kind in types.items():
        answer = served.http.get(PATH, params={"format": name})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"].startswith('attachment; filename="vibezen-metrics-')
        assert answer.headers["content-disposition"].endswith(f'.{name}"')
        if name == "csv":
            rows = list(csv.DictReader(io.StringIO(answer.text)))
            assert [(row["value"], row["provider"]) for row in rows] == [(f"{n}.0", "openai") for n in range(10)]
        elif name == "jsonl":
            assert answer.content == encode_lines(events)
        else:
            assert (answer.content[:4], answer.content[-4:]) == (b"PAR1", b"PAR1")


def test_only_what_is_asked_for(served: Served, store: Store) -> None:
    store.add([event(float(n), START + n, ("cost", "tokens")[n % 2], phase="ab"[n % 3 == 0]) for n in range(12)])
    asked = {"format": "jsonl", "metric": "cost", "from": str(START + 2), "to": str(START + 9), "where": "phase=a"}
    answer = served.http.get(PATH, params=asked)
    assert answer.content == encode_lines([event(float(n), START + n, "cost", phase="a") for n in (2, 4, 8)])


def test_head_tells_the_type_alone(served: Served, store: Store) -> None:
    fill(store, 1)
    answer = served.http.head(PATH)
    assert (answer.status_code, answer.content) == (200, b"")


def test_bad_parameter_is_400_and_named(served: Served) -> None:
    for parameters, field in (({"format": "xml"}, "format"), ({"from": "x"}, "from"), ({"nonsense": "1"}, "nonsense")):
        status, error = served.refused(PATH, **parameters)
        assert (status, error["code"], error["field"]) == (400, "bad_parameter", field)


def test_store_that_cannot_be_read_is_503(served: Served, store: Store) -> None:
    store.layout.store_file.unlink()
    for name in ("csv", "parquet"):
        status, error = served.refused(PATH, format=name)
        assert (status, error["code"]) == (503, "unavailable")
    assert scratch(store) == []


def test_error_after_the_first_byte_breaks_the_transfer(
    served: Served, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "STEP_EVENTS", 1)
    _, second = store.add([event(float(n), START + n * HOUR) for n in range(2)])
    second.unlink()
    with served.http.stream("GET", PATH, params={"format": "jsonl"}) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()


def test_query_of_a_client_that_has_gone_stops(
    served: Served, store: Store, monkeypatch: pytest.MonkeyPatch, wait_until: WaitUntil
) -> None:
    store.add([event(1, START)])
    endless = "SELECT count(*) FROM range(1000000000) AS a, range(1000000000) AS b WHERE a.range % 7 = b.range % 5"
    monkeypatch.setattr(event_table, "in_order", lambda *_: Sql(endless, {}))
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(lambda: scratch(store) != [])
    wait_until(lambda: scratch(store) == [])


def test_client_that_goes_in_the_middle_leaves_nothing(served: Served, store: Store, wait_until: WaitUntil) -> None:
    fill(store, 2)
    with served.http.stream("GET", PATH, params={"format": "jsonl"}) as answer:
        next(answer.iter_bytes())
        assert scratch(store) != []
    wait_until(lambda: scratch(store) == [])


def test_only_so_many_at_once(served: Served, store: Store, wait_until: WaitUntil) -> None:
    fill(store, 2)
    asked: Any = {"format": "jsonl"}
    streams = [served.http.stream("GET", PATH, params=asked) for _ in range(EXPORTS)]
    for stream in streams:
        assert stream.__enter__().status_code == 200
    refused = served.http.get(PATH)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert "exports are running" in refused.json()["error"]["message"]
    for stream in streams:
        stream.__exit__(None, None, None)
    wait_until(lambda: served.http.head(PATH).status_code == 200)


def test_server_that_ends_cuts_an_export_whose_client_does_not_read(
    store: Store, redis_url: str, wait_until: WaitUntil
) -> None:
    fill(store, 2)
    with dashboard_in_thread(redis_url, store.layout.root) as served:
        wait_until(lambda: served.hub.trouble is None)
        client = socket.create_connection(("127.0.0.1", served.port))
        client.sendall(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        wait_until(lambda: scratch(store) != [])
    with client:
        assert scratch(store) == []

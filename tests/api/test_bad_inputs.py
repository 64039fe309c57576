"""Bad input and threats, row by row as far as they concern asking; each test is named after its row.

Rows that stand elsewhere: everything about taking events in, tests/producers/test_gateway_inputs.py and
test_gateway.py; WebSocket frames, and positions that are gone or never were, test_live.py; Host, Origin and tokens,
test_access.py; names of files, test_site.py; cells of a spreadsheet, tests/trunk/test_spreadsheet.py; secrets in logs,
test_requests.py.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.serving import Served, dashboard_in_thread
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.api.app import MAX_BODY
from vibezen.metrics.reports import as_html

pytestmark = pytest.mark.server

RANGES: Final = {
    "from after to": ("history", {"metric": "cost", "from": "now-1h", "to": "now-2h"}, "from"),
    "from is to": ("summary", {"from": "1700000000", "to": "1700000000"}, "from"),
    "range over the limit of points": ("history", {"metric": "cost", "from": "2020-01-01", "step": "1s"}, "step"),
    "range beyond the calendar": ("summary", {"to": "99999-01-01"}, "to"),
    "range before 2000": ("summary", {"from": "1999-12-31"}, "from"),
    "limit 0": ("../events", {"limit": "0"}, "limit"),
    "limit below 0": ("../events", {"limit": "-1"}, "limit"),
    "huge limit": ("../events", {"limit": "9" * 30}, "limit"),
    "limit in other digits": ("../events", {"limit": "١٢"}, "limit"),
    "step 0": ("history", {"metric": "cost", "step": "0"}, "step"),
    "NaN as time": ("history", {"metric": "cost", "from": "nan"}, "from"),
    "infinite time": ("history", {"metric": "cost", "from": "1e400"}, "from"),
    "name with newline": ("history", {"metric": "cost\n"}, "metric"),
    "name with NUL": ("history", {"metric": "a\0b"}, "metric"),
    "unknown parameter": ("history", {"metric": "cost", "constructor": "1"}, "constructor"),
    "33 conditions": ("summary", {"where": ["a=b"] * 33}, "where"),
    "name that is a path": ("report", {"type": "../../../etc/passwd"}, "type"),
    "name that is a path, absolute": ("report", {"type": "/etc/passwd"}, "type"),
    "cursor of nobody": ("../events", {"cursor": "' OR 1=1 --"}, "cursor"),
}


@pytest.mark.parametrize(("route", "parameters", "field"), RANGES.values(), ids=RANGES)
def test_parameter_that_is_wrong_is_named(
    served: Served, route: str, parameters: dict[str, str | list[str]], field: str
) -> None:
    answer = served.http.get(f"/api/metrics/{route}", params=parameters)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")
    assert answer.json()["error"]["field"] == field
    assert answer.json()["error"]["message"].isprintable()


@pytest.mark.parametrize(
    "path",
    ["%2e%2e", "..%2f..%2fetc%2fpasswd", "%00", "..%5c..%5cSTORE", "date=2023-11-16", "STORE", "%2fetc%2fpasswd"],
)
def test_path_traversal(served: Served, path: str) -> None:
    for folder in ("/api/", "/api/events/", "/", "/docs/"):
        answer = served.http.get(f"{served.url}{folder}{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), folder


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1024):
        yield b"x" * 1024


def test_body_over_the_limit_chunked_too(served: Served) -> None:
    for path in ("/login", "/api/metrics/realtime", "/api/nowhere"):
        assert served.http.post(path, content=b"x" * (MAX_BODY + 1)).status_code == 413, path
    answer = served.http.post("/login", content=b"x" * (MAX_BODY + 1))
    assert (answer.json()["error"]["code"], answer.headers["x-content-type-options"]) == ("too_large", "nosniff")


def test_body_of_a_question_is_let_pass(served: Served) -> None:
    answer = served.http.request("GET", "/api/metrics/history?metric=cost", content=chunks(4 * MAX_BODY))
    assert answer.status_code == 200


def test_deflate_is_not_spoken_over_websocket(served: Served) -> None:
    with connect(f"ws://127.0.0.1:{served.port}/ws", compression="deflate", open_timeout=DEADLINE) as socket:
        assert socket.protocol.extensions == []


EVIL: Final = '"><img src=x onerror=alert(1)>'


@pytest.fixture
def evil(client: redis.Redis, redis_url: str, tmp_path: Path, wait_until: WaitUntil) -> Iterator[Served]:
    """An API whose events are labelled with markup."""
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(1.0, 1_700_157_600.0 + n, "cost", provider=EVIL, model=EVIL) for n in range(3)])
    with dashboard_in_thread(redis_url, tmp_path / "store") as served:
        wait_until(lambda: served.hub.trouble is None)
        yield served


def test_xss_by_metric_name_or_tag(evil: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_html, "parts", lambda: ("draw()", "p { color: red }"))
    asked = {"type": "cost_analysis", "period": "2023-11-16..2023-11-17", "format": "html"}
    report = evil.http.get("/api/metrics/report", params=asked)
    assert report.status_code == 200
    assert "onerror=alert(1)" in report.text, "it is shown …"
    assert "<img" not in report.text, "… as text"
    told = evil.http.get("/api/metrics/history", params={"metric": EVIL})
    assert (told.status_code, told.headers["content-type"]) == (400, "application/json")
    for path in ("/api/catalogue?from=2023-11-16&to=2023-11-17", "/api/events?from=2023-11-16&to=2023-11-17"):
        answer = evil.http.get(path)
        assert EVIL.replace('"', '\\"') in answer.text
        assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == (
            "application/json",
            "nosniff",
        )


def test_csv_formula(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    starts = ("=", "+", "-", "@", "\t", "\r")
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    pipeline.take_in([event(1.0, 1_700_157_600.0 + n, provider=f"{start}1+1") for n, start in enumerate(starts)])
    with dashboard_in_thread(redis_url, tmp_path / "store") as served:
        text = served.http.get("/api/metrics/export", params={"format": "csv"}).text
    assert all(f'"\'{start}1+1"' in text for start in starts)


HOSTILE = st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))


def test_1000_random_bodies_to_the_login_are_never_a_500(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIBEZEN_METRICS__DASHBOARD__HOST", "0.0.0.0")
    statuses = set()
    with dashboard_in_thread(redis_url, tmp_path) as served, httpx.Client(base_url=served.url) as http:

        @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(HOSTILE | st.integers(0, 2 * MAX_BODY).map(random.Random(7).randbytes))
        def send(body: bytes) -> None:
            answer = http.post("/login", content=body)
            statuses.add(answer.status_code)
            assert answer.json()["error"]["message"].isprintable()

        send()
    assert statuses <= {400, 401, 413, 429}
    assert {401, 413} <= statuses

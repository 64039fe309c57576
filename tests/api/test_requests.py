"""What every request meets: methods, limits, its name, and the line that tells of it."""

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from websockets.sync.client import connect

from tests.support.processes import RoleProcess, StartRole
from tests.support.serving import Served
from tests.support.waiting import DEADLINE, WaitUntil
from vibezen.metrics.api.dashboard import MetricsDashboard
from vibezen.metrics.serving import request_id
from vibezen.metrics.serving.access_log import AccessLog
from vibezen.metrics.serving.counting import Counting, Requests
from vibezen.metrics.serving.limits import MAX_ADDRESS, MAX_HEADERS, MAX_PARAMETERS

pytestmark = pytest.mark.server


def test_path_names_its_methods_and_refuses_others(served: Served) -> None:
    for path in ("/api/metrics/realtime", "/api/stream", "/healthz", "/docs"):
        answer = served.http.options(path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, OPTIONS", b""), path
        for method in ("POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"):
            answer = served.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS"), (method, path)
            assert answer.json()["error"]["code"] == "method_not_allowed"


def test_unknown_path_is_404_by_any_method(served: Served) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        answer = served.http.request(method, "/api/nowhere")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), method
    assert served.http.post("/index.html").headers["allow"] == "GET, HEAD"


def test_head_is_get_without_its_body(served: Served) -> None:
    for path in ("/api/metrics/realtime", "/api/openapi.json", "/docs", "/healthz"):
        got = served.http.get(path, headers={"accept-encoding": "identity"})
        head = served.http.head(path, headers={"accept-encoding": "identity"})
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]


def test_head_of_a_stream_ends(served: Served) -> None:
    answer = served.http.head("/api/stream")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert served.hub.subscribers == 0


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("x=" + "a" * MAX_ADDRESS, {}, 414, "address_too_long"),
        ("&".join(["where=a=b"] * (MAX_PARAMETERS + 1)), {}, 400, "too_many_parameters"),
        ("", {"x-large": "a" * MAX_HEADERS}, 431, "headers_too_large"),
        ("", {f"x-{number}": "a" * 900 for number in range(40)}, 431, "headers_too_large"),
    ],
)
def test_request_that_is_too_large_is_refused_in_the_shape_of_every_error(
    served: Served, query: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = served.http.get(f"/api/metrics/realtime?{query}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert "content-security-policy" in answer.headers


def test_headers_beyond_what_the_parser_takes_end_the_connection_and_nothing_else(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.settimeout(DEADLINE)
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"a" * 200_000 + b"\r\n\r\n")
        assert client.recv(100).split(b" ")[1] in (b"400", b"431")
    assert served.http.get("/healthz").status_code == 200


def test_request_is_named_by_the_client_or_by_us(served: Served) -> None:
    own = [served.http.get(path).headers["x-request-id"] for path in ("/healthz", "/", "/api/nowhere")]
    assert len(set(own)) == 3
    assert served.http.get("/healthz", headers={"x-request-id": "job-7.a_b"}).headers["x-request-id"] == "job-7.a_b"
    for harmful in ("a b", "<b>", "x" * 65, "", 'a"b'):
        assert served.http.get("/healthz", headers={"x-request-id": harmful}).headers["x-request-id"] != harmful


@pytest.mark.parametrize("text", ["a\n", "a\r\nx: y", "ä", None])
def test_name_that_would_break_a_line_of_the_log_is_replaced(text: str | None) -> None:
    assert request_id.choose(text) != text


def test_mistake_of_ours_is_500_with_the_name_under_which_the_log_tells_it(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wait_until: WaitUntil
) -> None:
    def fail(self: MetricsDashboard) -> Any:
        raise ZeroDivisionError("a secret of the code")

    monkeypatch.setattr(MetricsDashboard, "realtime", fail)
    answer = served.http.get("/api/metrics/realtime", headers={"x-request-id": "night-1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "night-1" in answer.json()["error"]["message"]
    assert "secret" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    wait_until(lambda: "(request night-1)" in caplog.text)
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def logged(start_role: StartRole, redis_url: str, tmp_path: Any, wait_until: WaitUntil) -> Any:
    """An API of its own process that logs requests and wants a token: its port, the token, and the process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    where = ("--redis-url", redis_url, "--storage-dir", str(tmp_path / "store"), "--host", "0.0.0.0")
    role = start_role("api", *where, "--port", str(port), VIBEZEN_METRICS__LOG__ACCESS="true")
    wait_until(lambda: "Dashboard:" in role.said)
    return port, next((tmp_path / "store").rglob("*token*")).read_text().strip(), role


def lines(role: RoleProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in role.said.splitlines() if line.startswith("{")]


def test_access_log_tells_each_request_and_no_secret(logged: Any, wait_until: WaitUntil) -> None:
    port, token, role = logged
    bearer = {"authorization": f"Bearer {token}", "user-agent": "probe/1 " + "x" * 500}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as http:
        http.get("/api/metrics/history?metric=cost&where=a=b", headers={**bearer, "x-request-id": "mine"})
        http.get(f"/api/metrics/history?metric=cost&token={token}")
        http.get(f"/api/events?ticket={token}&x={token}", headers=bearer)
        http.get(f"/login%23token={token}")
        http.get("/api/pipeline", headers={"cookie": f"vibezen_token_{port}={token}"})
        http.post("/login", content=token)
        http.post("/login", content="wrong-" + token)
    with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=bearer, user_agent_header=None) as feed:
        feed.recv(timeout=DEADLINE)
    wait_until(lambda: any(line["method"] == "WS" for line in lines(role)))
    told = lines(role)
    first = next(line for line in told if line["request"] == "mine")
    assert (first["method"], first["path"], first["status"]) == (
        "GET",
        "/api/metrics/history?metric=cost&where=a=b",
        200,
    )
    assert (first["client"], first["bytes"] > 0, first["ms"] > 0) == ("127.0.0.1", True, True)
    assert len(first["agent"]) == 100
    assert any(line["status"] == 401 for line in told)
    assert next(line["status"] for line in told if line["method"] == "WS") == 101
    said = role.said.replace(f"login#token={token}", "")  # the link, printed for who started it
    assert token not in said
    assert role.stop(DEADLINE) == 0


def test_without_the_setting_nothing_is_logged(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    served.http.get("/healthz")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "address", ["/vzm_secret", "/docs?vzm_secret", "/docs?vzm_secret=1", "/docs?Token=vzm_secret", "/x;token=secret"]
)
def test_access_log_knows_a_token_wherever_it_was_pasted(address: str) -> None:
    path, _, query = address.partition("?")
    assert "secret" not in AccessLog([]).path({"path": path, "query_string": query.encode()})


def test_requests_are_counted_by_path_below_a_root_path_too() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["root_path"], scope["path"] = "/ui", "/ui/docs"  # as the guard does
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None: ...

    async def one() -> None:
        await Counting(app, requests, ["/docs"])({"type": "http", "path": "/docs"}, receive, send)

    requests = Requests()
    asyncio.run(one())
    assert requests == {("/docs", 200): 1}

"""Who may send: the same rules as the API's, asked before a body is read; and web pages that are listed."""

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.producers.conftest import Arrived
from tests.support.gateways import PATH, Door, StartGateway, lines
from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics.serving.access import access_for
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.settings import Auth, Gateway, Required, Settings

TOKEN = "s3cret-token"
APP = "http://localhost:3000"
EVIL = "https://evil.example"


@pytest.fixture
def open_to_app(redis_url: str, start_gateway: StartGateway) -> Door:
    return start_gateway(redis_url, gateway=Gateway(origins=(APP, "https://app.example")))


@pytest.fixture
def locked(redis_url: str, start_gateway: StartGateway) -> Door:
    """A gateway that wants a token, though it listens on loopback."""
    auth = Auth(token=TOKEN, required=Required.ALWAYS)
    return start_gateway(redis_url, gateway=Gateway(origins=(APP,)), auth=auth)


def refused_unread(door: Door, *headers: str, length: int = 100_000) -> str:
    """The answer to a request whose body never comes."""
    host, _, port = door.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = [f"POST {PATH} HTTP/1.1", f"Content-Length: {length}", *headers]
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        return connection.recv(65536).decode()


def test_foreign_host_origin_and_missing_token_are_refused_before_the_body(door: Door, locked: Door) -> None:
    assert refused_unread(door, "Host: evil.example").startswith("HTTP/1.1 400 ")
    assert refused_unread(door, "Host: localhost", f"Origin: {EVIL}").startswith("HTTP/1.1 403 ")
    assert refused_unread(door, "Host: localhost", "Origin: null").startswith("HTTP/1.1 403 ")
    assert refused_unread(locked, "Host: 127.0.0.1").startswith("HTTP/1.1 401 ")
    assert refused_unread(locked, "Host: 127.0.0.1", "Authorization: Bearer wrong").startswith("HTTP/1.1 401 ")
    assert refused_unread(door, "Host: localhost", "Content-Encoding: br").startswith("HTTP/1.1 415 ")
    assert refused_unread(door, "Host: localhost", "Idempotency-Key: p").startswith("HTTP/1.1 400 ")
    assert refused_unread(door, "Host: localhost", length=2**20 + 1).startswith("HTTP/1.1 413 ")


def test_no_web_page_may_send_unless_it_is_listed(door: Door, arrived: Arrived) -> None:
    for origin in (EVIL, APP, "null", "http://localhost.evil.example", "http://["):
        answer = door.post(lines(1), origin=origin)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
        assert "access-control-allow-origin" not in answer.headers
    assert arrived.entries() == []
    assert door.answer(lines(1), origin=door.url)[0] == 200


def test_listed_page_may_send_and_read_the_answer(open_to_app: Door, arrived: Arrived) -> None:
    for body, status in ((lines(1), 200), (b"nothing", 400)):
        answer = open_to_app.post(body, origin=APP)
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == APP
        assert "Origin" in answer.headers["vary"].split(", ")
        assert "access-control-allow-credentials" not in answer.headers
    for origin in (EVIL, "http://localhost:3001", "https://localhost:3000", "HTTP://LOCALHOST:3000", APP + "/"):
        answer = open_to_app.post(lines(2), origin=origin)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"].split(", ")
    assert arrived.values() == [1]


def preflight(door: Door, origin: str, **more: str) -> Any:
    headers = {"origin": origin, "access-control-request-method": "POST", **more}
    return door.http.options(PATH, headers=headers)


def test_browser_is_told_what_a_listed_page_may_send(open_to_app: Door) -> None:
    answer = preflight(open_to_app, APP)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-methods"] == "POST"
    allowed = set(answer.headers["access-control-allow-headers"].split(", "))
    assert allowed == {"authorization", "content-type", "content-encoding", "idempotency-key"}
    assert "access-control-allow-private-network" not in answer.headers
    network = {"access-control-request-private-network": "true"}
    assert preflight(open_to_app, APP, **network).headers["access-control-allow-private-network"] == "true"


def test_browser_is_told_nothing_for_other_pages(open_to_app: Door, door: Door) -> None:
    for asked, origin in ((open_to_app, EVIL), (open_to_app, "null")):
        answer = preflight(asked, origin)
        assert answer.status_code == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = preflight(door, APP)  # none is listed: the path tells its methods, and no page that it may use them
    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert preflight(open_to_app, APP, host="evil.example").status_code == 400


def test_token_is_asked_from_everybody_but_a_preflight(locked: Door, arrived: Arrived) -> None:
    assert preflight(locked, APP).status_code == 204
    unknown = locked.post(lines(1), origin=APP)
    assert (unknown.status_code, unknown.headers["access-control-allow-origin"]) == (401, APP)
    assert locked.answer(lines(1), authorization=f"Bearer {TOKEN}")[0] == 200
    assert locked.answer(lines(2), authorization=f"Bearer {TOKEN}", origin=APP)[0] == 200
    assert locked.answer(lines(3), authorization=f"Bearer {TOKEN}", origin=EVIL)[0] == 403
    assert locked.http.get("/readyz").status_code == 200
    assert locked.http.get("/").status_code == 401  # there is no page to log in on
    assert arrived.values() == [1, 2]


def test_security_headers_are_on_every_answer(door: Door) -> None:
    for answer in (
        door.post(lines(1)),
        door.post(b""),
        door.http.get("/nothing"),
        door.post(lines(1), host="evil.example"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store" or answer.status_code == 404


def test_origins_change_nothing_for_who_has_none(tmp_path: Path) -> None:
    plain = access_for("127.0.0.1", "127.0.0.1", tmp_path, Settings(), section=Gateway())
    listed = access_for("127.0.0.1", "127.0.0.1", tmp_path, Settings(), section=Gateway(origins=(APP,)))
    for access in (plain, listed):
        access.check_origin(None, "localhost:4318")
        access.check_origin("http://localhost:4318", "localhost:4318")
        with pytest.raises(ApiError):
            access.check_origin(EVIL, "localhost:4318")
    listed.check_origin(APP, "localhost:4318")
    with pytest.raises(ApiError):
        plain.check_origin(APP, "localhost:4318")


def test_beyond_this_machine_the_token_of_the_store_is_asked(
    redis_url: str, tmp_path: Path, start_role: StartRole, wait_until: WaitUntil, unused_port: int
) -> None:
    store = tmp_path / "not" / "there" / "yet"
    process = start_role(
        "gateway",
        "--redis-url",
        redis_url,
        "--storage-dir",
        str(store),
        "--host",
        "0.0.0.0",
        "--port",
        str(unused_port),
    )
    door = Door(f"http://127.0.0.1:{unused_port}")
    with door.http:
        wait_until(door.is_ready)
        token = (store / "token").read_text().strip()
        assert door.answer(lines(1))[0] == 401
        assert door.answer(lines(1), authorization=f"Bearer {token}")[0] == 200
        wait_until(
            lambda: f"Gateway: http://localhost:{unused_port}/api/events, token in {store}/token" in process.said
        )
        assert token not in process.said
    assert process.stop() == 0

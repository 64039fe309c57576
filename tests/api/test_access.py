import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.serving import Served, StartDashboard
from vibezen.metrics.api import web
from vibezen.metrics.errors import StoreError
from vibezen.metrics.serving.access import Access, access_for, page_url, token_of
from vibezen.metrics.serving.errors import ApiError

TOKEN = "s3cret-token"


def test_loopback_is_open_and_knows_only_its_own_names(tmp_path: Path) -> None:
    access = access_for("127.0.0.1", "127.0.0.1", 8080, tmp_path)
    assert access.token is None
    for host in ("localhost:8080", "127.0.0.1:8080", "LOCALHOST", "[::1]:8080"):
        access.check_host(host)
    for foreign in ("evil.example", "evil.example:8080", "192.168.1.5:8080", "localhost.evil.example", "", None):
        with pytest.raises(ApiError) as caught:
            access.check_host(foreign)
        assert caught.value.status == 400


def test_on_all_addresses_a_token_is_needed_and_any_address_is_a_name(tmp_path: Path) -> None:
    access = access_for("0.0.0.0", "0.0.0.0", 8080, tmp_path)
    assert access.token == token_of(tmp_path)
    assert access.cookie == "vibezen_token_8080"
    for host in ("localhost:8080", "192.168.1.5:8080", "[fe80::1]:8080"):
        access.check_host(host)
    with pytest.raises(ApiError):
        access.check_host("evil.example:8080")


def test_on_one_address_that_address_and_its_name_are_known(tmp_path: Path) -> None:
    access = access_for("metrics.internal", "10.1.2.3", 8080, tmp_path)
    assert access.token
    for host in ("metrics.internal:8080", "10.1.2.3:8080", "localhost"):
        access.check_host(host)
    with pytest.raises(ApiError):
        access.check_host("10.1.2.4:8080")


def test_token_is_made_once_long_and_for_its_owner_alone(tmp_path: Path) -> None:
    token = token_of(tmp_path)
    assert token_of(tmp_path) == token
    assert len(token) >= 40
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600


def test_token_in_foreign_letters_is_wrong_and_no_failure() -> None:
    access = Access(frozenset(), False, TOKEN, "c")
    assert not access.is_token(TOKEN + "\xe9")
    assert not access.is_token("")
    assert access.is_token(TOKEN)


def test_token_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(StoreError, match="holds no token"):
        token_of(tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        token_of(tmp_path / "missing")


def test_page_has_an_address_that_a_browser_here_can_open() -> None:
    assert page_url("0.0.0.0", 8080) == "http://localhost:8080"
    assert page_url("fe80::1", 80, "t") == "http://[fe80::1]:80/login#token=t"


@pytest.fixture
def locked(redis_url: str, start_dashboard: StartDashboard, monkeypatch: pytest.MonkeyPatch) -> Served:
    """An API that wants a token, though it listens on loopback."""

    def rules(host: str, bound: str, port: int, storage: Path) -> Access:
        return Access(frozenset({"127.0.0.1"}), False, TOKEN, f"vibezen_token_{port}")

    monkeypatch.setattr(web, "access_for", rules)
    return start_dashboard(redis_url)


Refuse = Callable[[Served, dict[str, str]], int]


def asked(served: Served, headers: dict[str, str]) -> int:
    return served.http.get("/api/metrics/realtime", headers=headers).status_code


def streamed(served: Served, headers: dict[str, str]) -> int:
    with served.http.stream("GET", "/api/stream", headers=headers) as answer:
        return answer.status_code


def connected(served: Served, headers: dict[str, str]) -> int:
    try:
        with served.socket(additional_headers=headers):
            return 200
    except InvalidStatus as refusal:
        return refusal.response.status_code


DOORS = pytest.mark.parametrize("door", [asked, streamed, connected])


@DOORS
def test_foreign_host_is_refused(served: Served, door: Refuse) -> None:
    if door is not connected:  # its client always sends its own Host
        assert door(served, {"host": "evil.example"}) == 400


def test_refusal_is_in_the_shape_of_every_error_and_carries_the_security_headers(served: Served) -> None:
    answer = served.http.get("/api/metrics/realtime", headers={"host": "evil.example"})
    assert answer.json()["error"]["code"] == "unknown_host"
    for response in (answer, served.http.get("/"), served.http.get("/api/metrics/realtime")):
        assert response.headers["content-security-policy"].startswith("default-src 'self'")
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in response.headers


def test_web_page_of_another_origin_gets_no_socket(served: Served) -> None:
    assert connected(served, {"origin": "https://evil.example"}) == 403
    assert connected(served, {"origin": f"http://127.0.0.1.evil.example:{served.port}"}) == 403
    assert connected(served, {"origin": f"http://127.0.0.1:{served.port + 1}"}) == 403
    assert connected(served, {"origin": "null"}) == 403
    assert connected(served, {"origin": served.url}) == 200
    assert connected(served, {}) == 200


@DOORS
def test_without_a_valid_token_nothing_is_answered(locked: Served, door: Refuse) -> None:
    cookie = f"vibezen_token_{locked.port}"
    assert door(locked, {}) == 401
    assert door(locked, {"authorization": "Bearer wrong"}) == 401
    assert door(locked, {"authorization": f"Basic {TOKEN}"}) == 401
    assert door(locked, {"cookie": f"{cookie}=wrong"}) == 401
    assert door(locked, {"cookie": f"vibezen_token_1={TOKEN}"}) == 401
    assert door(locked, {"authorization": f"Bearer {TOKEN}"}) == 200
    assert door(locked, {"cookie": f"{cookie}={TOKEN}", "origin": locked.url}) == 200


def test_socket_by_cookie_must_say_where_it_comes_from(locked: Served) -> None:
    assert connected(locked, {"cookie": f"vibezen_token_{locked.port}={TOKEN}"}) == 403


def test_probes_need_no_token(locked: Served) -> None:
    assert locked.get("/healthz") == {"status": "ok"}
    assert locked.get("/readyz") == {"status": "ready"}


def test_page_without_a_token_leads_to_the_login(locked: Served) -> None:
    answer = locked.http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "login")
    page = locked.http.get("/login")
    assert page.headers["content-type"].startswith("text/html")
    assert "<script src=" in page.text
    assert "hash" in locked.http.get("/login.js").text


def test_login_makes_the_token_a_cookie_that_opens_everything(locked: Served) -> None:
    assert locked.http.post("/login", content="wrong").status_code == 401
    answer = locked.http.post("/login", content=TOKEN, headers={"origin": locked.url})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"vibezen_token_{locked.port}={TOKEN};")
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert attribute in cookie
    assert locked.http.get("/api/metrics/realtime").status_code == 200


def test_login_from_another_web_page_is_refused(locked: Served) -> None:
    answer = locked.http.post("/login", content=TOKEN, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


def test_oversized_body_is_refused(locked: Served) -> None:
    answer = locked.http.post("/login", content=b"x" * 100_000)
    assert answer.status_code == 413


def test_open_server_has_no_login(served: Served) -> None:
    assert served.http.get("/login").status_code == 404

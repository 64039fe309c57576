from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.support.serving import Served, StartDashboard
from vibezen.metrics.serving.access import Access, access_for, cookie_name, page_url
from vibezen.metrics.serving.errors import ApiError
from vibezen.metrics.serving.tokens import first_token
from vibezen.metrics.settings import Auth, Dashboard, Required, Settings

TOKEN = "s3cret-token"


def access_of(host: str, bound: str, storage: Path, **settings: Any) -> Access:
    return access_for(host, bound, storage, Settings(**settings))


def test_loopback_is_open_and_knows_only_its_own_names(tmp_path: Path) -> None:
    access = access_of("127.0.0.1", "127.0.0.1", tmp_path)
    assert access.token is None
    for host in ("localhost:8080", "127.0.0.1:8080", "LOCALHOST", "[::1]:8080"):
        access.check_host(host)
    for foreign in ("evil.example", "evil.example:8080", "192.168.1.5:8080", "localhost.evil.example", "", None):
        with pytest.raises(ApiError) as caught:
            access.check_host(foreign)
        assert caught.value.status == 400


def test_further_names_come_from_the_settings(tmp_path: Path) -> None:
    access = access_of("127.0.0.1", "127.0.0.1", tmp_path, auth=Auth(hosts=("metrics.example.org",)))
    access.check_host("Metrics.Example.org:443")
    with pytest.raises(ApiError):
        access.check_host("example.org")


def test_on_all_addresses_a_token_is_needed_and_any_address_is_a_name(tmp_path: Path) -> None:
    access = access_of("0.0.0.0", "0.0.0.0", tmp_path)
    assert access.token == first_token(tmp_path)
    for host in ("localhost:8080", "192.168.1.5:8080", "[fe80::1]:8080"):
        access.check_host(host)
    with pytest.raises(ApiError):
        access.check_host("evil.example:8080")


def test_on_one_address_that_address_and_its_name_are_known(tmp_path: Path) -> None:
    access = access_of("metrics.internal", "10.1.2.3", tmp_path)
    assert access.token
    for host in ("metrics.internal:8080", "10.1.2.3:8080", "localhost"):
        access.check_host(host)
    with pytest.raises(ApiError):
        access.check_host("10.1.2.4:8080")


def test_on_loopback_a_token_is_needed_behind_a_proxy_and_when_always(tmp_path: Path) -> None:
    for settings in (
        {"dashboard": Dashboard(trusted_proxies=("127.0.0.1",))},
        {"auth": Auth(required=Required.ALWAYS)},
    ):
        assert access_of("127.0.0.1", "127.0.0.1", tmp_path, **settings).token


def test_page_has_an_address_that_a_browser_here_can_open() -> None:
    assert page_url("0.0.0.0", 8080) == "http://localhost:8080"
    assert page_url("fe80::1", 80, "t") == "http://[fe80::1]:80/login#token=t"
    assert page_url("metrics.internal", 443, secure=True) == "https://metrics.internal:443"


def test_cookie_carries_the_port_that_the_client_named() -> None:
    assert cookie_name("localhost:8080", secure=False) == "vibezen_session_8080"
    assert cookie_name("[::1]:8081", secure=False) == "vibezen_session_8081"
    assert cookie_name("metrics.example.org", secure=True) == "vibezen_session_443"
    assert cookie_name("::1]:x", secure=False) == "vibezen_session_80"


@pytest.fixture
def locked(redis_url: str, start_dashboard: StartDashboard) -> Served:
    """An API that wants a token, though it listens on loopback."""
    return start_dashboard(redis_url, auth=Auth(token=TOKEN, required=Required.ALWAYS))


def logged_in(served: Served, token: str = TOKEN) -> str:
    """The session that a login leaves, as a Cookie header."""
    answer = served.http.post("/login", content=token, headers={"origin": served.url})
    assert answer.status_code == 204
    served.http.cookies.clear()
    return answer.headers["set-cookie"].partition(";")[0]


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
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        assert response.headers["cross-origin-opener-policy"] == "same-origin"
        assert "camera=()" in response.headers["permissions-policy"]
        assert "strict-transport-security" not in response.headers
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
    session, name = logged_in(locked), f"vibezen_session_{locked.port}"
    assert door(locked, {}) == 401
    assert door(locked, {"authorization": "Bearer wrong"}) == 401
    assert door(locked, {"authorization": f"Basic {TOKEN}"}) == 401
    assert door(locked, {"cookie": f"{name}=wrong"}) == 401
    assert door(locked, {"cookie": f"{name}={TOKEN}"}) == 401  # a session is no token, nor the other way round
    assert door(locked, {"cookie": session.replace(name, "vibezen_session_1")}) == 401
    assert door(locked, {"cookie": session[:-2]}) == 401
    assert door(locked, {"authorization": f"Bearer {session.partition('=')[2]}"}) == 401
    assert door(locked, {"authorization": f"Bearer {TOKEN}"}) == 200
    assert door(locked, {"cookie": session, "origin": locked.url}) == 200


def test_socket_by_cookie_must_say_where_it_comes_from(locked: Served) -> None:
    assert connected(locked, {"cookie": logged_in(locked)}) == 403


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
    style = locked.http.get(page.text.partition('rel="stylesheet" href="')[2].partition('"')[0])
    assert (style.status_code, style.headers["content-type"]) == (200, "text/css; charset=utf-8")


def test_login_leaves_a_session_that_opens_everything_until_logout(locked: Served) -> None:
    assert locked.http.post("/login", content="wrong").status_code == 401
    answer = locked.http.post("/login", content=TOKEN, headers={"origin": locked.url})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"vibezen_session_{locked.port}=")
    assert TOKEN not in cookie
    for attribute in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert attribute in cookie
    assert locked.http.get("/api/metrics/realtime").status_code == 200
    assert locked.http.post("/logout", headers={"origin": "https://evil.example"}).status_code == 403
    assert locked.http.post("/logout").status_code == 204
    assert locked.http.get("/api/metrics/realtime").status_code == 401


def test_login_from_another_web_page_is_refused(locked: Served) -> None:
    answer = locked.http.post("/login", content=TOKEN, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


def test_oversized_body_is_refused(locked: Served) -> None:
    answer = locked.http.post("/login", content=b"x" * 100_000)
    assert answer.status_code == 413


def test_open_server_has_no_login(served: Served) -> None:
    assert served.http.get("/login").status_code == 404


def test_token_shown_rightly_before_goes_on_while_its_address_has_to_wait(locked: Served) -> None:
    session = logged_in(locked)  # which shows the token, too
    for _ in range(10):
        assert asked(locked, {"authorization": "Bearer wrong"}) == 401
    refused = locked.http.get("/api/metrics/realtime", headers={"authorization": "Bearer wrong"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert locked.http.post("/login", content="wrong").status_code == 429
    assert asked(locked, {"authorization": f"Bearer {TOKEN}"}) == 200
    assert asked(locked, {"cookie": session}) == 200
    assert asked(locked, {}) == 401  # nothing was guessed


def test_listed_page_of_elsewhere_may_ask_and_read(redis_url: str, start_dashboard: StartDashboard) -> None:
    app = "https://app.example"
    served = start_dashboard(redis_url, auth=Auth(token=TOKEN, required=Required.ALWAYS, origins=(app,)))
    preflight = {"origin": app, "access-control-request-method": "GET"}
    answer = served.http.options("/api/metrics/realtime", headers=preflight)
    assert answer.status_code == 204
    assert "authorization" in answer.headers["access-control-allow-headers"]
    shown = {"authorization": f"Bearer {TOKEN}", "origin": app}
    assert served.http.get("/api/metrics/realtime", headers=shown).headers["access-control-allow-origin"] == app
    assert connected(served, shown) == 200
    other = served.http.get("/api/metrics/realtime", headers={**shown, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers


def test_session_is_found_among_the_cookies_of_other_programs(locked: Served) -> None:
    session = logged_in(locked)
    name = session.partition("=")[0]
    for cookies in (f'prefs={{"a": 1}}; {session}', f"a b=1;{session}", f"{session}; {name}=planted"):
        assert asked(locked, {"cookie": cookies}) == 200, cookies
    assert locked.http.get("/docs", headers=[("cookie", "a=b"), ("cookie", session)]).status_code == 200


@pytest.mark.parametrize(
    "host", ["localhost:1@evil.example", "localhost@evil.example", "[::1].evil.example", "localhost:x"]
)
def test_host_is_a_name_with_a_port_and_nothing_else(host: str) -> None:
    with pytest.raises(ApiError):
        Access(frozenset({"localhost", "::1"})).check_host(host)

"""Behind a proxy with a path prefix: page, login, streams and sockets, and whose word is believed."""

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.forwarder import forwarding
from tests.support.serving import Served, StartDashboard
from tests.support.waiting import DEADLINE
from vibezen.metrics.settings import Auth, Dashboard, Live

TOKEN = "s3cret-token-of-tests"
PREFIX = "/metrics-ui"
PUBLIC = {"proto": "https", "host": "metrics.example.org"}
ORIGIN = "https://metrics.example.org"


@pytest.fixture
def behind(redis_url: str, start_dashboard: StartDashboard) -> Served:
    dashboard = Dashboard(root_path=PREFIX, trusted_proxies=("127.0.0.1",))
    auth = Auth(token=TOKEN, hosts=("metrics.example.org",))
    return start_dashboard(redis_url, dashboard=dashboard, auth=auth, live=Live(max_clients_per_address=2))


@pytest.mark.parametrize("strips", [True, False])
def test_page_login_stream_and_socket_work_under_the_prefix(behind: Served, strips: bool) -> None:
    with (
        forwarding(behind.port, PREFIX, strips=strips, **PUBLIC, **{"for": "203.0.113.9"}) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as client,
    ):
        if not strips:  # which leaves nothing of it otherwise
            assert client.get(PREFIX).headers["location"] == "metrics-ui/"
        led = client.get(PREFIX + "/")
        assert (led.status_code, led.headers["location"]) == (303, "login")
        assert client.get(f"{PREFIX}/login.js").status_code == 200
        assert client.post(f"{PREFIX}/login", content=TOKEN, headers={"origin": "http://127.0.0.1"}).status_code == 403

        answer = client.post(f"{PREFIX}/login", content=TOKEN, headers={"origin": ORIGIN})
        assert answer.status_code == 204
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("vibezen_session_443=")
        assert f"Path={PREFIX};" in cookie
        assert "Secure" in cookie
        session = {"cookie": cookie.partition(";")[0], "origin": ORIGIN}

        page = client.get(PREFIX + "/", headers=session)
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert page.headers["strict-transport-security"].startswith("max-age=")
        assert client.get(f"{PREFIX}/api/metrics/realtime", headers=session).status_code == 200
        assert client.get(f"{PREFIX}/api/nothing", headers=session).status_code == 404
        with client.stream("GET", f"{PREFIX}/api/stream", headers=session) as stream:
            assert stream.status_code == 200
        with connect(f"ws://127.0.0.1:{port}{PREFIX}/ws", additional_headers=session) as socket:
            assert "snapshot" in str(socket.recv(timeout=DEADLINE))


def test_client_of_a_proxy_is_counted_and_made_to_wait_for_itself_alone(behind: Served) -> None:
    wrong, right = {"authorization": "Bearer wrong"}, {"authorization": f"Bearer {TOKEN}"}
    path = "/api/metrics/realtime"
    for _ in range(10):
        assert behind.http.get(path, headers={**wrong, "x-forwarded-for": "6.6.6.6, 203.0.113.9"}).status_code == 401
    waiting = behind.http.get(path, headers={**right, "x-forwarded-for": "7.7.7.7, 203.0.113.9, 127.0.0.1"})
    assert (waiting.status_code, waiting.json()["error"]["code"]) == (429, "too_many_attempts")
    assert 0 < int(waiting.headers["retry-after"]) <= 60
    assert behind.http.get(path, headers={**right, "x-forwarded-for": "6.6.6.6"}).status_code == 200


def test_nobody_but_a_trusted_proxy_is_believed(redis_url: str, start_dashboard: StartDashboard) -> None:
    served = start_dashboard(redis_url, dashboard=Dashboard(trusted_proxies=("10.0.0.0/8",)), auth=Auth(token=TOKEN))
    answer = served.http.post(
        "/login", content=TOKEN, headers={"x-forwarded-proto": "https", "x-forwarded-host": "evil.example"}
    )
    assert answer.status_code == 204
    assert "Secure" not in answer.headers["set-cookie"]
    assert answer.headers["set-cookie"].startswith(f"vibezen_session_{served.port}=")


def test_host_that_a_proxy_passes_on_must_be_known(behind: Served) -> None:
    answer = behind.http.get("/healthz", headers={"x-forwarded-host": "evil.example"})
    assert answer.status_code == 400


def test_websocket_count_exhaustion(behind: Served) -> None:
    """One more than an address may hold is refused before it is accepted; others come in, and a place is free again."""
    url, token = f"ws://127.0.0.1:{behind.port}/ws", ("authorization", f"Bearer {TOKEN}")
    mine = [token, ("x-forwarded-for", "203.0.113.9")]
    with connect(url, additional_headers=mine) as first:
        with connect(url, additional_headers=mine):
            with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=mine):
                pass
            assert refused.value.response.status_code == 503
            assert b"live.max_clients_per_address" in (refused.value.response.body or b"")
            with behind.http.stream("GET", "/api/stream", headers=dict(mine)) as streamed:
                assert (streamed.status_code, streamed.headers["retry-after"]) == (503, "2")
            with connect(url, additional_headers=[token, ("x-forwarded-for", "203.0.113.10")]) as other:
                assert other.recv(timeout=DEADLINE)
        assert first.recv(timeout=DEADLINE)

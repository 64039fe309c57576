"""Without a token, from beyond this machine: nothing answers but the probes and the login, in both applications."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from vibezen.metrics.api.app import build, operations
from vibezen.metrics.api.dashboard import MetricsDashboard
from vibezen.metrics.clock import wall
from vibezen.metrics.config import load
from vibezen.metrics.producers.appender import Appender
from vibezen.metrics.producers.body import Room
from vibezen.metrics.producers.gateway_app import build as build_gateway
from vibezen.metrics.serving.access import Access, access_for
from vibezen.metrics.serving.operation import Scope
from vibezen.metrics.serving.tokens import create
from vibezen.metrics.settings import Settings
from vibezen.metrics.storage import MetricsStorage

OPEN = {"/healthz", "/readyz", "/login", "/login.css", "/login.js", "/logout"}
HERE = {"host": "10.1.2.3:8080"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(redis_url="redis://127.0.0.1:1", storage_dir=tmp_path, environ={})


@pytest.fixture
def access(settings: Settings) -> Access:
    """Of a server that listens on all addresses."""
    return access_for("0.0.0.0", "0.0.0.0", settings.storage_dir, settings)


@pytest.fixture
def dashboard(settings: Settings) -> MetricsDashboard:
    return MetricsDashboard(MetricsStorage(settings.storage_dir), settings=settings)


@pytest.fixture
def gateway(settings: Settings, access: Access) -> Starlette:
    async def made() -> Appender:
        return Appender(settings)

    return build_gateway(asyncio.run(made()), access, wall, Room())


def client(app: Starlette) -> TestClient:
    """Of somebody elsewhere; what our own code raises becomes the answer it would be."""
    return TestClient(app, base_url="http://10.1.2.3:8080", client=("203.0.113.9", 1), raise_server_exceptions=False)


def paths(app: Starlette) -> Iterator[str]:
    for route in app.routes:
        if isinstance(route, Mount):
            yield from ("/", "/index.html", "/assets/some.js", "/favicon.svg")
        elif isinstance(route, Route):
            yield route.path.replace("{rest:path}", "nothing").replace("{", "").replace("}", "")


def test_every_route_but_health_and_login_refuses(
    dashboard: MetricsDashboard, gateway: Starlette, access: Access
) -> None:
    app = build(dashboard, access)
    seen = set()
    for asked in (app, gateway):
        for path in {*paths(asked), "/api/events", "/v1/metrics", "/docs", "/metrics", "/ws"} - OPEN:
            for method in METHODS:
                answer = client(asked).request(method, path, follow_redirects=False)
                led = asked is app and path == "/" and answer.status_code == 303 and method in METHODS
                assert led or answer.status_code == 401, (method, path, answer.status_code)
                seen.add(path)
    assert {re.sub("[{}]", "", operation.path) for operation in operations(dashboard)} - OPEN <= seen


def test_every_socket_refuses_before_it_is_accepted(dashboard: MetricsDashboard, access: Access) -> None:
    app = build(dashboard, access)
    sockets = [route.path for route in app.routes if isinstance(route, WebSocketRoute)]
    assert sockets
    for path in sockets:
        with pytest.raises(WebSocketDenialResponse) as refused, client(app).websocket_connect(path, headers=HERE):
            pass
        assert refused.value.status_code == 401


def test_probes_and_login_are_open(dashboard: MetricsDashboard, gateway: Starlette, access: Access) -> None:
    for path in ("/healthz", "/login", "/login.css", "/login.js"):
        assert client(build(dashboard, access)).get(path).status_code == 200
    assert client(gateway).get("/healthz").status_code == 200


def test_scope_of_a_token_is_asked_by_each_operation(
    dashboard: MetricsDashboard, gateway: Starlette, access: Access, settings: Settings
) -> None:
    app = build(dashboard, access)
    told: Any
    shown = {scope: create(settings.storage_dir, scope.value, [scope])[0] for scope in Scope}
    for operation in operations(dashboard):
        if operation.scope is None:
            continue
        for scope, token in shown.items():
            if scope in (operation.scope, Scope.ADMIN):
                continue
            answer = client(app).request(operation.method, operation.path, headers={"authorization": f"Bearer {token}"})
            told = answer.json()["error"]
            assert (answer.status_code, told["code"]) == (403, "forbidden"), operation.path
            assert f"scope {operation.scope}" in told["message"]
    reading = {"authorization": f"Bearer {shown[Scope.READ]}"}
    told = client(gateway).post("/api/events", headers=reading)
    assert (told.status_code, "scope write" in told.text) == (403, True)
    assert (
        client(gateway).post("/api/nothing", headers={"authorization": f"Bearer {shown[Scope.WRITE]}"}).status_code
        == 404
    )
    writing = {**HERE, "authorization": f"Bearer {shown[Scope.WRITE]}"}
    with pytest.raises(WebSocketDenialResponse) as refused, client(app).websocket_connect("/ws", headers=writing):
        pass
    assert refused.value.status_code == 403

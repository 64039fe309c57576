"""The middleware around real applications: what is recorded of a request, and that nobody notices."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from tests.producers.conftest import Arrived, Recorder
from vibezen.metrics import MetricsCollector, MetricsMiddleware

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:starlette.testclient")


async def item(request: Request) -> Response:
    return PlainTextResponse("item", status_code=int(request.query_params.get("status", "200")))


async def slow_stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        await asyncio.sleep(0.03)
        yield "last"

    return StreamingResponse(parts())


async def broken_stream(request: Request) -> Response:
    async def parts() -> AsyncIterator[str]:
        yield "first"
        raise ConnectionError("secret text that must not travel")

    return StreamingResponse(parts())


async def failing(request: Request) -> Response:
    raise KeyError("secret text that must not travel")


async def refusing(request: Request) -> Response:
    raise HTTPException(403)


async def afterwards(request: Request) -> Response:
    def fail() -> None:
        raise RuntimeError("after the response")

    return PlainTextResponse("done", background=BackgroundTask(fail))


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


def application(recorder: Any, tmp_path: Any, **options: Any) -> Starlette:
    inner = Starlette(routes=[Route("/items/{id:int}", item)])
    routes = [
        *(Route("/items/{id}", item), Route("/slow", slow_stream), Route("/broken", broken_stream)),
        *(Route("/failing", failing), Route("/refusing", refusing), Route("/afterwards", afterwards)),
        *(WebSocketRoute("/ws", echo), Mount("/static", StaticFiles(directory=tmp_path))),
        Mount("/tenants/{tenant}", inner),
    ]
    return Starlette(routes=routes, middleware=[Middleware(MetricsMiddleware, collector=recorder, **options)])


@pytest.fixture
def web(recorder: Recorder, tmp_path: Any) -> Iterator[TestClient]:
    with TestClient(application(recorder, tmp_path), raise_server_exceptions=False) as client:
        yield client


def only(recorder: Recorder) -> tuple[float, float, dict[str, Any]]:
    """Time, error and metadata of the one request there was."""
    ((took, metadata),) = recorder.of("response_time")
    assert recorder.of("error_rate") == [(recorder.values("error_rate")[0], metadata)]
    return took, recorder.values("error_rate")[0], metadata


def test_a_request_is_recorded_under_its_route_with_status_and_method(web: TestClient, recorder: Recorder) -> None:
    assert web.get("/items/17?q=x").text == "item"
    took, error, metadata = only(recorder)
    assert 0 < took < 5000
    assert error == 0
    assert metadata == {"operation": "/items/{id}", "method": "GET", "status": "200"}


@pytest.mark.parametrize(
    ("path", "operation", "status"),
    [
        ("/tenants/acme/items/4", "/tenants/{tenant}/items/{id:int}", "200"),
        ("/tenants/acme/none", "/tenants/{tenant}", "404"),
        ("/wp-login.php", "(no route)", "404"),
        ("/static/none.css", "/static", "404"),
        ("/refusing", "/refusing", "403"),
    ],
)
def test_paths_never_become_operations(
    web: TestClient, recorder: Recorder, path: str, operation: str, status: str
) -> None:
    web.get(path)
    _, error, metadata = only(recorder)
    assert (metadata["operation"], metadata["status"], error) == (operation, status, 0)


def test_a_stream_ends_with_its_last_part(web: TestClient, recorder: Recorder) -> None:
    assert web.get("/slow").text == "firstlast"
    assert only(recorder)[0] >= 30


@pytest.mark.parametrize(("path", "status", "error"), [("failing", "500", "KeyError"), ("broken", "200", None)])
def test_an_exception_is_an_error_and_passes(
    recorder: Recorder, tmp_path: Any, path: str, status: str, error: str | None
) -> None:
    with TestClient(application(recorder, tmp_path)) as web, pytest.raises((KeyError, ConnectionError, ExceptionGroup)):
        web.get(f"/{path}")
    _, failed, metadata = only(recorder)
    assert failed == 1
    assert (metadata["operation"], metadata["status"]) == (f"/{path}", status)
    assert error is None or metadata["error"] == error
    assert "secret" not in str(recorder.samples)


def test_server_errors_are_errors_and_others_are_when_one_says_so(recorder: Recorder, tmp_path: Any) -> None:
    strict = application(recorder, tmp_path, failed=lambda status: status >= 400, metadata={"project": "site"})
    with TestClient(application(recorder, tmp_path)) as web, TestClient(strict) as strict_web:
        for client in (web, strict_web):
            client.get("/items/1?status=404")
            client.get("/items/1?status=503")
    assert recorder.values("error_rate") == [0, 1, 1, 1]
    assert recorder.of("error_rate")[-1][1]["project"] == "site"


def test_what_happens_after_the_response_is_not_the_response(recorder: Recorder, tmp_path: Any) -> None:
    with TestClient(application(recorder, tmp_path)) as web, pytest.raises(RuntimeError):
        web.get("/afterwards")
    _, error, metadata = only(recorder)
    assert (error, metadata["status"]) == (0, "200")


def test_websocket_and_lifespan_pass_through(web: TestClient, recorder: Recorder) -> None:
    with web.websocket_connect("/ws") as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
    assert recorder.samples == []


def test_operations_can_be_named(recorder: Recorder, tmp_path: Any) -> None:
    named = application(recorder, tmp_path, name=lambda scope: "the one" if scope["path"] == "/slow" else None)
    with TestClient(named) as web:
        web.get("/slow")
        web.get("/items/1")
    assert [metadata["operation"] for _, metadata in recorder.of("response_time")] == ["the one", "(no route)"]


def test_measuring_that_fails_never_reaches_the_application(
    recorder: Recorder, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(scope: Any) -> str:
        raise RuntimeError("a mistake in naming")

    with TestClient(application(recorder, tmp_path, name=broken)) as web:
        for _ in range(3):
            assert web.get("/items/1").text == "item"
    assert recorder.of("response_time") == recorder.of("error_rate") == []
    assert len([record for record in caplog.records if record.name.startswith("vibezen")]) == 1


def test_fastapi_routes_have_their_whole_template(recorder: Recorder) -> None:
    app, router = FastAPI(), APIRouter(prefix="/items")
    app.add_middleware(MetricsMiddleware, collector=recorder)

    @router.get("/{number}")
    async def one(number: int) -> int:
        return number

    app.include_router(router, prefix="/api/{tenant}")
    with TestClient(app) as web:
        assert web.get("/api/acme/items/7").json() == 7
        assert web.get("/api/acme/items/seven").status_code == 422
        web.get("/none")
    operations = [(metadata["operation"], metadata["status"]) for _, metadata in recorder.of("response_time")]
    assert operations == [
        ("/api/{tenant}/items/{number}", "200"),
        ("/api/{tenant}/items/{number}", "422"),
        ("(no route)", "404"),
    ]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An application that leaves nothing in its scope."""
    if scope["path"] == "/gone":  # as applications do whose client has left
        return
    if scope["path"] == "/waiting":
        await asyncio.sleep(60)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


def test_any_asgi_application_is_measured_without_raw_paths(recorder: Recorder) -> None:
    async def main() -> None:
        transport = httpx.ASGITransport(MetricsMiddleware(bare, recorder))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as web:
            assert (await web.get("/some/path")).text == "x"

    asyncio.run(main())
    assert only(recorder)[2] == {"operation": "(no route)", "method": "GET", "status": "200"}


def request(path: str) -> dict[str, Any]:
    return {"type": "http", "path": path, "method": "GET"}


async def nowhere(message: Any) -> None:
    """Where nobody listens."""


async def nothing() -> Any:
    return {"type": "http.disconnect"}


def test_no_answer_at_all_has_no_status(recorder: Recorder) -> None:
    asyncio.run(MetricsMiddleware(bare, recorder)(request("/gone"), nothing, nowhere))
    _, error, metadata = only(recorder)
    assert (error, metadata["status"]) == (0, "(none)")


def test_a_cancelled_request_is_an_error(recorder: Recorder) -> None:
    async def main() -> None:
        measured = MetricsMiddleware(bare, recorder)
        task = asyncio.create_task(measured(request("/waiting"), nothing, nowhere))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    _, error, metadata = only(recorder)
    assert (error, metadata["error"]) == (1, "CancelledError")


def test_requests_arrive_in_the_stream(collector: MetricsCollector, arrived: Arrived, tmp_path: Any) -> None:
    with TestClient(application(collector, tmp_path)) as web:
        web.get("/items/1")
    collector.flush_sync()
    assert {"response_time", "error_rate"} <= {event.metric for event in arrived.events()}
    assert collector.stats().refused == {}

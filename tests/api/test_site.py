from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.support.serving import Served, StartDashboard
from vibezen.metrics.api import site
from vibezen.metrics.settings import Settings

pytestmark = pytest.mark.server


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built page."""
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text("<!doctype html><title>page</title>")
    (dist / "favicon.svg").write_text("<svg/>")
    (dist / "assets" / "index-D4aLN7BO.js").write_text("1")
    (tmp_path / "secret").write_text("no")
    monkeypatch.setattr(site.Site.__init__, "__defaults__", (dist,))
    return dist


def test_page_and_its_files_are_served(page: Path, served: Served) -> None:
    index = served.http.get("/")
    assert (index.status_code, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert index.headers["cache-control"] == "no-cache"
    script = served.http.get("/assets/index-D4aLN7BO.js")
    assert "javascript" in script.headers["content-type"]
    assert "immutable" in script.headers["cache-control"]
    assert served.http.get("/favicon.svg").status_code == 200


@pytest.mark.parametrize(
    "path", ["/../secret", "/%2e%2e/secret", "/assets/..%2f..%2fsecret", "/..%5csecret", "//secret", "/%00", "/nothing"]
)
def test_nothing_beside_the_page_is_served(page: Path, served: Served, path: str) -> None:
    answer = served.http.get(served.url + path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_page_that_is_not_built_says_how_to_build_it(page: Path, served: Served) -> None:
    (page / "index.html").unlink()
    answer = served.http.get("/")
    assert answer.status_code == 503
    assert "build_backend/page.py" in answer.text
    assert served.http.get("/api/metrics/realtime").status_code == 200


def test_switching_the_page_off_leaves_the_api(page: Path, redis_url: str, start_dashboard: StartDashboard) -> None:
    served = start_dashboard(redis_url, dashboard=replace(Settings().dashboard, enabled=False))
    answer = served.http.get("/")
    assert answer.status_code == 404
    assert "dashboard.enabled" in answer.text
    assert served.http.get("/favicon.svg").status_code == 404
    assert served.http.get("/api/metrics/realtime").status_code == 200


def test_unknown_route_and_method_are_json_errors(served: Served) -> None:
    assert served.refused("/api/nothing")[1]["code"] == "not_found"
    assert served.http.post("/api/metrics/realtime").json()["error"]["code"] == "method_not_allowed"


def test_socket_elsewhere_is_refused(served: Served) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{served.port}/elsewhere")
    assert caught.value.response.status_code in (403, 404)

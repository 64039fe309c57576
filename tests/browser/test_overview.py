"""The page in a browser, over real processes: what it shows is what the API says, and it moves."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.support.processes import RoleProcess, StartRole
from tests.support.waiting import WaitUntil
from vibezen.metrics import MetricsCollector, MetricType, config

pytestmark = pytest.mark.browser

WIDE: Final = (1440, 1000)
PHONE: Final = (390, 844)

SHOWN: Final = """
() => ({
  at: Number(document.querySelector(".tiles")?.dataset.at),
  figures: [...document.querySelectorAll(".tiles [data-metric]")].map(
    (figure) => [figure.dataset.metric, figure.dataset.field, figure.dataset.value]),
})
"""


class Site:
    """Everything behind the page, as processes, and what a browser has seen of it."""

    def __init__(self, url: str, collector: MetricsCollector, api: RoleProcess) -> None:
        self.url, self.collector, self.api = url, collector, api

    def realtime(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/api/metrics/realtime").json()
        return answer

    def record(self, calls: int, slow: float = 100.0) -> None:
        """`calls` requests: a tenth of them fail, half of them hit the cache."""
        for number in range(calls):
            where = {"provider": "openai", "model": "gpt"}
            self.collector.record_nowait(MetricType.API_CALLS, 1, where)
            self.collector.record_nowait(MetricType.RESPONSE_TIME, slow + number, where)
            self.collector.record_nowait(MetricType.ERROR_RATE, float(number % 10 == 0), where)
            self.collector.record_nowait(MetricType.CACHE_HIT_RATE, float(number % 2), where)
            self.collector.record_nowait(MetricType.TOKENS, 100, {**where, "type": "input"})
            self.collector.record_nowait(MetricType.COST, 0.01, where)
        assert self.collector.flush_sync(20) == 0


@pytest.fixture
def site(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_role: StartRole, wait_until: WaitUntil
) -> Iterator[Site]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("VIBEZEN_METRICS__REDIS__URL", redis_url)
    monkeypatch.setenv("VIBEZEN_METRICS__STORAGE_DIR", str(tmp_path / "store"))
    for group in ("archive", "aggregate"):
        start_role("consume", group)
    api = start_role("api", "--port", str(port))
    url = f"http://localhost:{port}"
    wait_until(lambda: api.running() and _ready(url))
    with MetricsCollector(settings=config.load()) as collector:
        yield Site(url, collector, api)


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


class Visit:
    """One open page: the newest realtime it was sent, by its time, and what the console said."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sent: dict[float, dict[str, Any]] = {}
        self.complaints: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("websocket", lambda ws: ws.on("framereceived", lambda payload: self._received(payload)))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _received(self, payload: str | bytes) -> None:
        message = json.loads(payload)
        if "realtime" in message:
            self.sent[message["realtime"]["at"]] = message["realtime"]["metrics"]

    def figures(self) -> tuple[dict[tuple[str, str], float], dict[str, Any] | None]:
        """What the tiles show, and the realtime numbers they were made from."""
        shown = self.page.evaluate(SHOWN)
        values = {(metric, field): float(value) for metric, field, value in shown["figures"] if value}
        return values, self.sent.get(shown["at"])


@pytest.fixture
def visit(chromium: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Visit]:
    width, height = getattr(request, "param", WIDE)
    page = chromium.new_page(viewport={"width": width, "height": height})
    visit = Visit(page)
    page.goto(site.url)
    yield visit
    page.close()


def settled(visit: Visit, samples: int) -> dict[tuple[str, str], float]:
    """Wait until the tiles are made from `samples` calls, and see that they show exactly the numbers sent."""
    found: dict[tuple[str, str], float] = {}

    def matches() -> bool:
        visit.page.wait_for_timeout(50)  # lets the browser's events reach us
        shown, sent = visit.figures()
        if sent is None or sent.get("api_calls", {}).get("count") != samples:
            return False
        found.update(shown)
        for (metric, field), value in shown.items():
            assert value == sent[metric][field], (metric, field)
        return True

    for _ in range(400):
        if matches():
            return found
    pytest.fail(f"the tiles never showed {samples} calls")


@pytest.mark.parametrize("visit", [WIDE, PHONE], indirect=True, ids=["1440", "390"])
def test_tiles_show_the_apis_numbers_and_move_without_a_reload(site: Site, visit: Visit) -> None:
    site.record(40)
    first = settled(visit, 40)
    truth = site.realtime()["metrics"]
    for metric, field in (("response_time", "p50"), ("response_time", "p95"), ("error_rate", "value")):
        assert first[metric, field] == truth[metric][field]
    assert first["error_rate", "value"] == pytest.approx(0.1)
    assert first["cache_hit_rate", "value"] == pytest.approx(0.5)
    assert first["response_time", "p50"] == pytest.approx(119.5, rel=0.011)
    loaded = visit.page.evaluate("performance.timeOrigin")
    site.record(40, slow=1000.0)
    second = settled(visit, 80)
    assert second["response_time", "p95"] > 1000
    assert second["response_time", "p95"] == site.realtime()["metrics"]["response_time"]["p95"]
    assert visit.page.evaluate("performance.timeOrigin") == loaded
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.complaints == []


def test_the_badge_tells_the_measured_delay(site: Site, visit: Visit) -> None:
    site.record(5)
    settled(visit, 5)
    visit.page.wait_for_selector('.badge[data-state="live"]:not([data-delay=""])')
    delay = float(visit.page.get_attribute(".badge", "data-delay") or "nan")
    assert 0 < delay < 20


def test_an_empty_store_says_how_to_send_a_first_event(site: Site, visit: Visit) -> None:
    visit.page.wait_for_selector("text=MetricsCollector")
    assert visit.complaints == []


def test_the_page_follows_again_after_the_api_was_killed(
    site: Site, visit: Visit, start_role: StartRole, wait_until: WaitUntil
) -> None:
    site.record(3)
    settled(visit, 3)
    site.api.kill()
    visit.page.wait_for_selector('.badge[data-state="reconnecting"]')
    start_role("api", "--port", site.url.rpartition(":")[2])
    wait_until(lambda: _ready(site.url))
    site.record(4, slow=5000.0)
    visit.page.wait_for_selector('.badge[data-state="live"]', timeout=40_000)
    # It may be back by server-sent events first, whose messages a test cannot overhear; and the minute moves on.
    shown: dict[tuple[str, str], float] = {}
    now: dict[str, Any] = {}
    for _ in range(400):
        visit.page.wait_for_timeout(50)
        shown, _ = visit.figures()
        now = site.realtime()["metrics"].get("response_time", {})
        if shown.get(("response_time", "p95")) == now.get("p95") and (now.get("max") or 0) > 5000:
            return
    pytest.fail(f"the page shows {shown}, the API {now}")


def test_range_and_theme_are_kept_in_address_and_choice(site: Site, visit: Visit) -> None:
    visit.page.click("text=15m")
    visit.page.wait_for_url("**from=now-15m**")
    visit.page.reload()
    assert "from=now-15m" in visit.page.url
    assert visit.complaints == []

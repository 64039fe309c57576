"""An HTML report, opened from a disk: it draws its charts, tells values, asks nobody for anything, and prints."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from playwright.sync_api import Browser, Page

from tests.support.feeding import event
from tests.support.pipeline import Pipeline
from tests.support.servers import Server
from vibezen.metrics import MetricsReporter, MetricsStorage
from vibezen.metrics.producers.simulator import events as simulated

pytestmark = [pytest.mark.browser, pytest.mark.server]

NOW: Final = 1_700_157_000.0
HOSTILE: Final = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
INKED: Final = """
() => [...document.querySelectorAll("[data-chart] canvas")].map((canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let inked = 0;
  for (let i = 3; i < pixels.length; i += 4) inked += pixels[i] > 128;
  return inked;
})
"""


@pytest.fixture(scope="module")
def html(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report over two simulated days and one event with a hostile provider."""
    folder = tmp_path_factory.mktemp("report")
    with ThreadPoolExecutor(1) as elsewhere:  # in this thread Playwright's event loop may be running
        text = elsewhere.submit(_made, server, folder / "store").result()
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def _made(server: Server, folder: Path) -> str:
    with server.client() as client:
        client.flushall()
        pipeline = Pipeline(client, server.url, folder)
        past = simulated(3, NOW - 2 * 86_400, NOW, 0.02)
        pipeline.feed([*past, event(3.0, NOW - 60, "api_calls", provider=HOSTILE)])
        pipeline.archive()
    reporter = MetricsReporter(MetricsStorage(folder), settings=pipeline.settings, clock=lambda: NOW)
    ask = partial(reporter.render_report, period="48h", tz="Asia/Kolkata")
    return anyio.run(ask, "system_performance", "html")


class Visit:
    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]")


@pytest.fixture
def visit(chromium: Browser, html: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    page = chromium.new_page(**getattr(request, "param", {"viewport": {"width": 1280, "height": 900}}))
    yield Visit(page, html)
    page.close()


def test_report_draws_its_charts_and_asks_nobody(visit: Visit, html: Path) -> None:
    inked = visit.page.evaluate(INKED)
    assert len(inked) == 5
    assert min(inked) > 200
    assert visit.asked == [html.as_uri()]
    assert visit.complaints == []
    assert visit.page.evaluate("window.pwned") is None
    assert HOSTILE in visit.page.inner_text("main")


def test_pointing_names_the_values_there_in_every_chart(visit: Visit) -> None:
    chart = visit.page.locator("[data-chart] .u-over").first
    chart.scroll_into_view_if_needed()
    chart.hover(position={"x": 200, "y": 100})
    visit.page.wait_for_function("() => document.querySelectorAll('.panel-at:not(:empty)').length >= 4")
    index = visit.page.evaluate(
        """() => {
          const data = JSON.parse(document.getElementById("data").textContent).charts["section-2"];
          return data.labels.indexOf(document.querySelector(".panel-at").textContent);
        }"""
    )
    row = visit.page.locator("[data-chart]").first.locator("details tbody tr").nth(index)
    told: Any = row.locator("td").all_text_contents()
    shown = visit.page.locator("[data-chart]").first.locator(".legend b").all_text_contents()
    assert shown == told
    assert visit.complaints == []


def test_every_chart_has_a_name_a_summary_and_a_table(visit: Visit) -> None:
    for figure in visit.page.locator("[data-chart]").all():
        name = figure.locator(".chart").get_attribute("aria-label") or ""
        assert (figure.locator("figcaption").text_content() or "") in name
        details = figure.locator("details")
        assert not details.locator("table").is_visible()
        details.locator("summary").click()
        assert details.locator("table").is_visible()


@pytest.mark.parametrize("visit", [{"viewport": {"width": 390, "height": 844}}], indirect=True, ids=["phone"])
def test_phone_needs_no_sideways_scrolling(visit: Visit) -> None:
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert min(visit.page.evaluate(INKED)) > 100


@pytest.mark.parametrize(
    "visit", [{"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"}], indirect=True, ids=["dark"]
)
def test_dark_report_is_printed_light(visit: Visit) -> None:
    def ground() -> str:
        found: str = visit.page.evaluate("getComputedStyle(document.querySelector('.part-lines')).backgroundColor")
        return found

    dark = ground()
    visit.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert ground() == "rgb(255, 255, 255)" != dark
    assert min(visit.page.evaluate(INKED)) > 200
    visit.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert ground() == dark
    assert visit.page.pdf().startswith(b"%PDF")

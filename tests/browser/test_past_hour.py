"""The page over an hour of long ago: what it draws is what history answers, and it needs no live event for it."""

import csv
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser

from tests.support.processes import StartRole
from tests.support.waiting import WaitUntil

pytestmark = pytest.mark.browser

TRACE: Final = Path(__file__).resolve().parents[3] / "shared/data/azure-llm-2023/AzureLLMInferenceTrace_code.csv"
HOUR: Final = {"from": "2023-11-16T18:00:00Z", "to": "2023-11-16T19:00:00Z"}
DRAWN: Final = """
() => {
  const canvas = document.querySelector('[data-panel="tokens"] canvas');
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.some((channel) => channel !== 0);
}
"""


@pytest.fixture
def url(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start_role: StartRole, wait_until: WaitUntil
) -> str:
    if not TRACE.exists():
        reason = f"no recorded data beside the checkout ({TRACE.name})"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("VIBEZEN_METRICS__REDIS__URL", redis_url)
    monkeypatch.setenv("VIBEZEN_METRICS__STORAGE_DIR", str(tmp_path / "store"))
    for group in ("archive", "aggregate"):
        start_role("consume", group)
    start_role("api", "--port", str(port))
    process = start_role("import", str(TRACE), "--event", "api_calls=1", "--event", "tokens={ContextTokens}")
    assert process.wait(60) == 0, process.said
    url = f"http://localhost:{port}"
    wait_until(lambda: _calls(url) == _rows_of_the_hour())
    return url


def _rows_of_the_hour() -> int:
    with TRACE.open(newline="") as file:
        return sum(row["TIMESTAMP"].startswith("2023-11-16 18:") for row in csv.DictReader(file))


def _history(url: str, metric: str, **parameters: str) -> dict[str, Any]:
    answer = httpx.get(f"{url}/api/metrics/history", params={"metric": metric, "agg": "sum", **HOUR, **parameters})
    found: dict[str, Any] = answer.json()
    return found


def _calls(url: str) -> float | None:
    try:
        series = _history(url, "api_calls", step="1h")["series"]
    except httpx.TransportError:
        return None
    return series[0]["points"][0][1] if series else None


def test_page_shows_an_hour_of_imported_history(url: str, chromium: Browser) -> None:
    page = chromium.new_page(viewport={"width": 1440, "height": 1000})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{url}/?from={HOUR['from']}&to={HOUR['to']}")
    for panel, metric in (("tokens", "tokens"), ("throughput", "api_calls")):
        answer = _history(url, metric)
        last = [value for _, value in answer["series"][0]["points"] if value is not None][-1]
        page.wait_for_selector(f'[data-panel="{panel}"] .legend b:not([data-value=""])')
        shown = float(page.get_attribute(f'[data-panel="{panel}"] .legend b', "data-value") or "nan")
        assert shown == pytest.approx(last / answer["step"])
        assert page.query_selector(f'[data-panel="{panel}"] .panel-message') is None
    page.wait_for_function(DRAWN)
    assert page.inner_text('[data-panel="response-time"] .panel-message') == "No data in this range"
    page.wait_for_function("step => document.querySelector('.foot').innerText.includes(step)", arg="one point = 10 s")
    assert complaints == []
    page.close()

"""The mission's snippets as they stand, against a real server; only port, folder and address come from outside."""

import os
import socket
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.feeding import lines_on_disk
from tests.support.processes import StartRole

COLLECTOR: Final = """
from vibezen.metrics import MetricsCollector, MetricType

# Initialize collector
collector = MetricsCollector()

# Record a metric
await collector.record_system_metric(
    MetricType.RESPONSE_TIME,
    value=150.5,
    metadata={"phase": "implementation", "provider": "openai"}
)

# Measure duration
async with collector.measure_duration("code_generation") as ctx:
    # Your code here
    ctx.metadata["lines_generated"] = 100
"""

DASHBOARD: Final = """
from vibezen.metrics import MetricsDashboard, WebDashboard

# Start dashboard
dashboard = MetricsDashboard(storage)
web_dashboard = WebDashboard(dashboard)
await web_dashboard.start()
"""

REPORTER: Final = """
from vibezen.metrics import MetricsReporter, MetricsStorage

# Generate reports
storage = MetricsStorage("./metrics_data")
reporter = MetricsReporter(storage)
report = await reporter.generate_report("system_performance")
report = await reporter.generate_weekly_summary()
csv_data = await reporter.export_metrics(format="csv")
"""

WRAPPED: Final = """
import asyncio
async def snippet():
{before}
{snippet}
{after}
asyncio.run(snippet())
"""


def program(snippet: str, before: str = "", after: str = "") -> str:
    """A snippet that uses `await` as a program: its lines inside one coroutine."""
    parts = {"before": before, "snippet": snippet, "after": after}
    indented = {
        name: "\n".join("    " + line if line else "" for line in text.strip("\n").split("\n"))
        for name, text in parts.items()
    }
    return WRAPPED.format(**indented)


@pytest.fixture
def port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def surroundings(redis_url: str, tmp_path: Path, port: int) -> dict[str, str]:
    return {
        "VIBEZEN_METRICS__REDIS__URL": redis_url,
        "VIBEZEN_METRICS__STORAGE_DIR": str(tmp_path / "store"),
        "VIBEZEN_METRICS__DASHBOARD__PORT": str(port),
    }


def run(text: str, surroundings: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env={**os.environ, **surroundings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_collector_snippet_records_what_it_says(
    surroundings: dict[str, str], tmp_path: Path, start_role: StartRole
) -> None:
    run(program(COLLECTOR), surroundings)
    archive = start_role("consume", "archive", "--once", **surroundings)
    assert archive.wait() == 0, archive.said
    lines = lines_on_disk(tmp_path / "store")
    assert Counter(line["metric"] for line in lines) == {"response_time": 2, "error_rate": 1}
    first = next(line for line in lines if line["value"] == 150.5)
    assert first["metadata"] == {"phase": "implementation", "provider": "openai"}
    measured = next(line for line in lines if line["metric"] == "response_time" and line is not first)
    assert measured["metadata"] == {"operation": "code_generation", "lines_generated": 100}


def test_the_reporter_snippet_tells_what_was_recorded(
    surroundings: dict[str, str], tmp_path: Path, start_role: StartRole
) -> None:
    surroundings["VIBEZEN_METRICS__STORAGE_DIR"] = str(tmp_path / "metrics_data")
    run(program(COLLECTOR), surroundings)
    assert start_role("consume", "archive", "--once", **surroundings).wait() == 0
    told = run(
        program(REPORTER, after="print(report['type'], report['empty'], csv_data.count('response_time'))"), surroundings
    )
    assert told.split() == ["weekly_summary", "False", "2"]


def test_the_dashboard_snippet_serves_the_page_and_the_numbers(surroundings: dict[str, str], port: int) -> None:
    before = 'from vibezen.metrics import MetricsStorage\nstorage = MetricsStorage("./metrics_data")'
    after = f"""
import httpx
async with httpx.AsyncClient(base_url="http://localhost:{port}") as web:
    page = await web.get("/")
    numbers = await web.get("/api/metrics/realtime")
    print(page.status_code, "text/html" in page.headers["content-type"], numbers.status_code)
await web_dashboard.stop()
"""
    assert run(program(DASHBOARD, before, after), surroundings).split()[-3:] == ["200", "True", "200"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://localhost:{port}/healthz")

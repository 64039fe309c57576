"""The public face: exactly these names, loaded when first used."""

import subprocess
import sys

import pytest

import vibezen.metrics

NAMES = {
    "ConfigError",
    "InvalidEvent",
    "MetricType",
    "MetricsCollector",
    "MetricsDashboard",
    "MetricsError",
    "MetricsMiddleware",
    "MetricsReporter",
    "MetricsStorage",
    "WebDashboard",
}


def test_the_face_has_exactly_these_names() -> None:
    assert set(vibezen.metrics.__all__) == NAMES
    assert set(dir(vibezen.metrics)) >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_leads_to_what_it_says(name: str) -> None:
    assert getattr(vibezen.metrics, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="MetricsReporterr"):
        _ = vibezen.metrics.MetricsReporterr  # type: ignore[attr-defined]


def test_importing_the_collector_loads_no_heavy_library() -> None:
    program = (
        "import sys; from vibezen.metrics import MetricsCollector;"
        "print(*({'redis', 'starlette', 'uvicorn', 'duckdb', 'anyio', 'asyncio', 'typer', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

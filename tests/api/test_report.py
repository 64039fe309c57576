"""Reports over HTTP."""

import csv
import io

import httpx
import pytest

from tests.support.serving import NOW, OPEN, Served, Windows, samples
from vibezen.metrics import gathering
from vibezen.metrics.reports import as_html, building

pytestmark = pytest.mark.server


@pytest.fixture(autouse=True)
def _stored(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "CHEAP_LINES", -1)  # there are no files here
    monkeypatch.setattr(as_html, "parts", lambda: ("draw()", "p { color: red }"))
    windows.store(OPEN - 90, "cost", samples(0.25, 0.5, at=OPEN - 55), width=60, provider="openai")


def ask(served: Served, **parameters: str) -> httpx.Response:
    return httpx.get(f"{served.url}/api/metrics/report", params={"type": "cost_analysis", "period": "2h", **parameters})


def test_report_as_data(served: Served) -> None:
    answer = ask(served)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    made = answer.json()
    assert (made["type"], made["made_at"], made["period"]["zone"]) == ("cost_analysis", NOW, "UTC")
    assert made["sections"][0]["figures"][0]["value"] == 0.75
    assert {source["source"] for source in made["sources"]} == {"windows"}


def test_other_formats_come_as_files(served: Served) -> None:
    for name, media_type, way in (
        ("markdown", "text/markdown; charset=utf-8", 'inline; filename="cost-analysis-2025-11-24.md"'),
        ("html", "text/html; charset=utf-8", 'inline; filename="cost-analysis-2025-11-24.html"'),
        ("csv", "text/csv; charset=utf-8", 'attachment; filename="cost-analysis-2025-11-24.csv"'),
    ):
        answer = ask(served, format=name)
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
        assert answer.headers["content-disposition"] == way
    rows = list(csv.DictReader(io.StringIO(ask(served, format="csv").text)))
    assert rows[0] | {"section": "At a glance", "number": "Cost", "value": "0.75"} == rows[0]


def test_html_runs_its_own_script_and_no_other(served: Served) -> None:
    answer = ask(served, format="html")
    (policy,) = answer.headers.get_list("content-security-policy")
    assert policy == f"{as_html.policy_of(answer.text)}; frame-ancestors 'none'"
    assert "'self'" not in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"type": ""}, "type"),
        ({"type": "../../etc/passwd"}, "type"),
        ({"period": "soon"}, "period"),
        ({"tz": "Mars"}, "tz"),
        ({"format": "pdf"}, "format"),
        ({"exact": "maybe"}, "exact"),
        ({"definition": "/etc/passwd"}, "definition"),
    ],
)
def test_mistakes_name_the_parameter(served: Served, parameters: dict[str, str], field: str) -> None:
    answer = ask(served, **parameters)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


def test_report_about_what_cannot_change_is_not_made_twice(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    past = {"period": "2025-11-01..2025-11-08"}
    first = ask(served, **past)
    assert first.json()["empty"] is True
    monkeypatch.setattr(building, "Numbers", None)  # nothing can be read any more
    assert ask(served, **past).json() == first.json()
    again = httpx.get(first.request.url, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")

"""The formats: each tells every number, and no text in any of them is more than text."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from vibezen.metrics.gathering import Source
from vibezen.metrics.reports import as_html, rendering, words
from vibezen.metrics.reports.as_html import PageNotBuilt, digest, parts
from vibezen.metrics.reports.as_markdown import plain
from vibezen.metrics.reports.comparison import Verdict
from vibezen.metrics.reports.definition import Show
from vibezen.metrics.reports.report import (
    Changes,
    Chart,
    DayRow,
    Days,
    Figure,
    Line,
    Report,
    Row,
    Section,
    Span,
    Table,
)

HOSTILE: Final = (
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(1)>',
    "=HYPERLINK(1)",
    "=1+1",
    "\t=1+1",
    "@SUM(1)",
    "| a | b |",
    "[x](javascript:alert(1))",
    "`code` **bold** _em_ # h",
    "{{ 7*7 }}{% raw %}",
    "two\nlines\r\n# heading",
    "\u202egnp.exe",
    "http://evil.example www.evil.example a@b.example",
)
LIMIT: Final = 400_000
"""Bytes of an HTML report without its data."""


def figure(name: str = "Cost", value: float | None = 1.5, verdict: Verdict = Verdict.WORSE) -> Figure:
    return Figure(name, "USD", value, 40, 1.0, 0.5, 0.5, "lower", verdict, share=0.25)


def report(*sections: Section, text: str = "") -> Report:
    period = Span("7d", "UTC", 1_700_000_040, 1_700_604_840, 1_699_395_240, 1_700_000_040, False)
    return Report(
        type="mine",
        title=text or "Mine",
        text=text,
        period=period,
        made_at=1_700_604_800.0,
        exact=True,
        sources=[Source(1.0, 2.0, "events")],
        as_of=1_700_604_700.0,
        empty=False,
        notes=[text] if text else [],
        sections=list(sections),
    )


def whole(text: str = "some text") -> Report:
    """A section of every kind, with `text` wherever foreign text can stand."""
    chart = Chart("USD", True, [100, 200], [200, 300], [text, "b"], [Line(text, [1.0, None])], text, [text])
    days = Days([text, "b"], [100, 200], [True, False], [DayRow(figure(text), [1.0, None])])
    table = Table(["provider", "model"], [text], [Row([text, None], [figure(text)])], [figure(text)], 3)
    changes = Changes([text], [text], [text], [text], [text])
    return report(
        Section("section-1", text, text, Show.TEXT),
        Section("section-2", text, text, Show.FIGURES, figures=[figure(text), figure(text, None, Verdict.BETTER)]),
        Section("section-3", text, text, Show.COLUMNS, chart=chart),
        Section("section-4", text, text, Show.DAYS, days=days),
        Section("section-5", text, text, Show.TABLE, table=table),
        Section("section-6", text, text, Show.BARS, table=table),
        Section("section-7", text, text, Show.CHANGES, changes=changes),
        text=text,
    )


class Elements(HTMLParser):
    """What a browser would make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(html: str) -> Elements:
    found = Elements()
    found.feed(html)
    found.close()
    return found


@pytest.fixture(autouse=True)
def _page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts' code does not matter here, and may not be built."""
    monkeypatch.setattr(as_html, "parts", lambda: ("draw()", "p { color: red }"))


def test_json_is_the_report_itself() -> None:
    made = whole()
    assert msgspec.json.decode(rendering.as_json(made), type=Report) == made
    assert json.loads(rendering.as_json(made)) == made.as_dict()


def test_markdown_tells_every_kind_of_section() -> None:
    text = rendering.FORMATS["markdown"].render(whole())
    for line in (
        "| some text | $1.50 | $1.00 | +50% | worse |",
        "| some text | – | $1.00 | +50% | better |",
        r"| some text | $1.00 | – | $1.50 | $1.00 | +50% | worse |",
        "| some text | (none) | $1.50 (25%, +50% worse) |",
        "| **all** |  | $1.50 (25%, +50% worse) |",
        "3 more are not shown.",
        "- some text",
        "Of 5 numbers 1 got better and 1 worse; 1 changed in a way that is neither; 1 is unchanged; "
        "of 1 there is too little data to tell.",
    ):
        assert line in text.splitlines(), line
    assert "From events, exact, newest event Tue Nov 21 2023, 22:11" in text


def test_csv_is_one_table_with_a_row_per_number() -> None:
    rows = list(csv.DictReader(io.StringIO(rendering.FORMATS["csv"].render(whole()))))
    assert all(row["section"] == "some text" and None not in row for row in rows)
    assert [row["value"] for row in rows if row["time"]] == ["1.0", "", "1.0", ""]
    assert {"group": "some text / (none)", "number": "some text", "value": "1.5", "verdict": "worse"}.items() <= next(
        row for row in rows if row["group"]
    ).items()


def test_html_carries_its_own_policy_and_asks_for_nothing() -> None:
    html = rendering.FORMATS["html"].render(whole())
    policy = as_html.policy_of(html)
    assert f"script-src '{digest('draw()')}'" in policy
    assert policy.startswith("default-src 'none'; ")
    found = parsed(html)
    assert not {name for name, _ in found.attributes} & {"src", "href", "style", "onclick", "action"}
    assert not set(found.tags) & {"img", "link", "iframe", "object", "form"}
    assert "$1.50" in "".join(found.texts)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text_in_html(text: str) -> None:
    usual, hostile = (parsed(rendering.FORMATS["html"].render(whole(one))) for one in ("some text", text))
    assert hostile.tags == usual.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in usual.attributes]
    assert not any("49" in one and "{{" in text for one in hostile.texts)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text_in_markdown(text: str) -> None:
    usual, hostile = (rendering.FORMATS["markdown"].render(whole(one)) for one in ("some text", text))
    assert len(hostile.splitlines()) == len(usual.splitlines())
    for one, other in zip(hostile.splitlines(), usual.splitlines(), strict=True):
        assert len(re.findall(r"(?<!\\)\|", one)) == len(re.findall(r"(?<!\\)\|", other))
    escaped = plain(text)
    assert not re.search(r"(?<!\\)[<>`*\[\]|#{}]", escaped)
    assert "://" not in escaped
    assert "\u202e" not in hostile


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_no_formula_in_csv(text: str) -> None:
    rows = list(csv.reader(io.StringIO(rendering.FORMATS["csv"].render(whole(text)), newline="")))
    assert {len(row) for row in rows} == {12}
    for row in rows:
        for cell in (*row[:2], row[3]):
            assert not cell.startswith(("=", "+", "-", "@"))


def test_negative_numbers_stay_numbers_in_csv() -> None:
    one = msgspec.structs.replace(figure(), change=-0.5, relative=-0.5)
    text = rendering.FORMATS["csv"].render(report(Section("s", "S", "", Show.FIGURES, figures=[one])))
    assert text.splitlines()[1] == "S,,,Cost,USD,1.5,1.0,-0.5,-0.5,worse,40,0.25"


def test_data_of_charts_cannot_end_its_element() -> None:
    html = rendering.FORMATS["html"].render(whole("</script><!--\u2028"))
    (data,) = re.findall(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data)["charts"]["section-3"]["labels"][0] == "</script><!--\u2028"
    assert "<" not in data


def test_html_without_data_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_html, "parts", parts)
    try:
        html = rendering.FORMATS["html"].render(report())
    except PageNotBuilt:
        pytest.skip("the page is not built")
    assert len(html.encode()) < LIMIT


def test_page_that_is_not_built_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(as_html, "PARTS", "nowhere")
    with pytest.raises(PageNotBuilt, match=r"build_backend/page\.py"):
        parts.__wrapped__()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "ms", "–"),
        (0.0, "ms", "0 ms"),
        (152.4, "ms", "152 ms"),
        (1520.0, "ms", "1.52 s"),
        (90_000.0, "ms", "1.5 min"),
        (7_200_000.0, "ms", "2 h"),
        (0.0423, "share", "4.2%"),
        (0.00423, "share", "0.42%"),
        (1.0, "share", "100%"),
        (1234.5, "USD", "$1,234.50"),
        (0.0204, "USD", "$0.020"),
        (-3.5, "USD", "-$3.50"),
        (15_234.0, "tokens", "15.2K"),
        (52_400_000.0, "tokens", "52.4M"),
        (999_600.0, "1", "1M"),
        (1520.0, "1", "1,520"),
        (0.8156, "0-1", "0.816"),
        (12.0, "widgets", "12 widgets"),
        (3.0, "/s", "3/s"),
        (float("inf"), "1", "–"),
    ],
)
def test_numbers_as_people_read_them(value: Any, unit: str, text: str) -> None:
    assert words.shown(value, unit) == text


@pytest.mark.parametrize(
    ("relative", "text"), [(0.5, "+50%"), (-0.031, "−3.1%"), (0.0, "±0%"), (12.0, "×13"), (-0.0951, "−9.5%")]
)
def test_changes_as_people_read_them(relative: float, text: str) -> None:
    assert words.change(msgspec.structs.replace(figure(), relative=relative)) == text

"""A report as one HTML file: opens from a disk without a network, draws its own charts, prints."""

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from vibezen.metrics.errors import MetricsError, MissingExtra
from vibezen.metrics.reports import words
from vibezen.metrics.reports.report import Report, Section

if TYPE_CHECKING:
    from jinja2 import Template

PARTS: Final = "api/page/dist/report"
"""Where the page's build leaves the script and the style of reports, in the package `vibezen.metrics`."""
TEMPLATE: Final = "report.html.j2"


class PageNotBuilt(MetricsError):
    """The charts' code is missing: a checkout in which the page was never built."""

    exit_code = 2


def as_html(report: Report) -> str:
    """Raises PageNotBuilt, MissingExtra."""
    script, style = parts()
    data = _inert(
        {
            "zone": report.period.zone,
            "charts": {section.id: _chart(section) for section in report.sections if section.chart is not None},
        }
    )
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{digest(script)}'",
            f"style-src '{digest(style)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return _template().render(
        report=report, words=words, data=data, script=script, style=style, policy=policy, inks=INKS
    )


INKS: Final = ("blue", "amber", "jade", "coral", "violet", "plum")


def policy_of(html: str) -> str:
    """The content security policy that a report carries."""
    return html.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0].replace("&#39;", "'")


def digest(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def parts() -> tuple[str, str]:
    """Script and style of reports, as the page's build made them. Raises PageNotBuilt."""
    folder = files("vibezen.metrics").joinpath(PARTS)
    try:
        script, style = (folder.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    except OSError:
        how = "`python build_backend/page.py` in a checkout builds it"
        raise PageNotBuilt(f"the page is not built, and HTML reports need its charts: {how}") from None
    return script.strip().replace("</script", "<\\/script").replace("<!--", "<\\!--"), style.strip()


def _chart(section: Section) -> dict[str, Any]:
    assert section.chart is not None
    chart = section.chart
    return {
        "unit": chart.unit,
        "stacked": chart.stacked,
        "starts": chart.starts,
        "stops": chart.stops,
        "labels": chart.labels,
        "lines": [line.values for line in chart.lines],
    }


def _inert(data: dict[str, Any]) -> str:
    """JSON in which no text can end the element it stands in, or begin another."""
    text = msgspec.json.encode(data).decode()
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


@cache
def _template() -> "Template":
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError:
        raise MissingExtra("server", "an HTML report") from None
    folder = Path(__file__).resolve().parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)

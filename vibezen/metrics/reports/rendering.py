"""The formats of a report."""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.errors import BadParameter
from vibezen.metrics.reports.as_csv import as_csv
from vibezen.metrics.reports.as_html import as_html
from vibezen.metrics.reports.as_markdown import as_markdown
from vibezen.metrics.reports.report import Report


def as_json(report: Report) -> str:
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


class Format(NamedTuple):
    """`ending` of a file's name, without the dot."""

    name: str
    ending: str
    media_type: str
    render: Callable[[Report], str]


FORMATS: Final = {
    found.name: found
    for found in (
        Format("json", "json", "application/json", as_json),
        Format("markdown", "md", "text/markdown; charset=utf-8", as_markdown),
        Format("html", "html", "text/html; charset=utf-8", as_html),
        Format("csv", "csv", "text/csv; charset=utf-8", as_csv),
    )
}
_ENDINGS: Final = {**{found.ending: found for found in FORMATS.values()}, "markdown": FORMATS["markdown"]}
_ENDINGS["htm"] = FORMATS["html"]


def format_of(name: str) -> Format:
    """Raises BadParameter."""
    if name not in FORMATS:
        raise BadParameter("format", f"unknown: {name[:50]!r}; expected {', '.join(FORMATS)}")
    return FORMATS[name]


def format_for(ending: str) -> Format | None:
    """The format of files that end so, `.md` or `md`; None where no format does."""
    return _ENDINGS.get(ending.lstrip(".").lower())


def file_name(report: Report, ending: str) -> str:
    """What a file with this report is called: letters, digits and dashes."""
    from vibezen.metrics.reports.words import day_number

    first = day_number(report.period.since, report.period.zone)
    return f"{report.type.replace('_', '-')}-{first}.{ending}"

"""`GET /api/metrics/report`"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.api import parameters
from vibezen.metrics.api.answering import asked_in, respond, while_connected
from vibezen.metrics.reports.as_html import policy_of
from vibezen.metrics.reports.rendering import FORMATS, file_name, format_of
from vibezen.metrics.reports.report import Report
from vibezen.metrics.serving.operation import Answer, Operation
from vibezen.metrics.settled import KeptAnswers

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard


def report_operation(dashboard: MetricsDashboard, kept: KeptAnswers) -> Operation:
    async def report(request: Request) -> Response:
        given = asked_in(request)
        chosen = format_of((given.get("format") or ["json"])[0] or "json")
        inquiry = await dashboard.inquire_report(given)
        if chosen.name == "json":
            return await respond(request, inquiry, kept)
        made = await while_connected(request, inquiry.answer)
        text = await to_thread.run_sync(chosen.render, made)
        # Shown in the browser rather than saved, but for a table, which no browser shows.
        way = "attachment" if chosen.name == "csv" else "inline"
        headers = {
            "cache-control": "no-store",
            "content-disposition": f'{way}; filename="{file_name(made, chosen.ending)}"',
        }
        if chosen.name == "html":
            headers["content-security-policy"] = f"{policy_of(text)}; frame-ancestors 'none'"
        return Response(text, headers=headers, media_type=chosen.media_type)

    return Operation(
        "/api/metrics/report",
        report,
        "A report about a period",
        {
            200: Answer("The report", Report, tuple(kind.media_type.partition(";")[0] for kind in FORMATS.values())),
            304: Answer("What `If-None-Match` names is still the answer", media=()),
        },
        parameters=parameters.REPORT,
    )

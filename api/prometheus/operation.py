"""`GET /metrics` of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.api.prometheus.metrics import metric_families
from vibezen.metrics.api.prometheus.pipeline import pipeline_families
from vibezen.metrics.connection import UNREACHABLE
from vibezen.metrics.exposition.family import Family, Sample, gauge, info
from vibezen.metrics.serving.errors import Away
from vibezen.metrics.serving.exposing import exposed, metrics_operation, process_label, request_family
from vibezen.metrics.serving.operation import Operation

if TYPE_CHECKING:
    from vibezen.metrics.api.dashboard import MetricsDashboard

_DESCRIPTION: Final = (
    "The pipeline's health and every metric of the newest minute, in the format that Accept asks for: Prometheus' text "
    "0.0.4, OpenMetrics 1.0, or protobuf, which alone has native histograms."
)


def prometheus_operation(dashboard: MetricsDashboard) -> Operation:
    catalogue = dashboard.settings.catalogue()

    async def metrics(request: Request) -> Response:
        try:
            now, pipeline = dashboard.realtime(), await dashboard.pipeline()
        except (Away, *UNREACHABLE):  # a scrape that failed would tell nothing, this one tells that Redis is away
            return exposed(request, _of_process(dashboard, ready=False))
        families = [*_of_process(dashboard, ready=True), *pipeline_families(pipeline)]
        taken = frozenset(family.name for family in families)
        metrics = metric_families(now, dashboard.windows(now.at), taken, catalogue)
        return exposed(request, [*families, *metrics.families], metrics.histograms)

    return metrics_operation(metrics, _DESCRIPTION)


def _of_process(dashboard: MetricsDashboard, *, ready: bool) -> list[Family]:
    process = process_label()
    return [
        info("build", "This process of the API.", {**process, "version": dashboard.version}),
        gauge("redis_up", "1 while this process reads from Redis.", Sample(int(ready), process)),
        gauge("live_clients", "Clients of this process' live feed.", Sample(dashboard.hub.subscribers, process)),
        request_family(dashboard.requests),
    ]

"""`GET /metrics` of any door: what the process itself tells, and the answer in the format that is asked for."""

import os
import socket
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from vibezen.metrics.exposition.family import Family, Histogram, Sample, counter
from vibezen.metrics.exposition.format import Format, best
from vibezen.metrics.exposition.protobuf import protobuf
from vibezen.metrics.exposition.text import openmetrics_text, prometheus_text
from vibezen.metrics.serving.counting import Requests
from vibezen.metrics.serving.operation import HEALTH, Answer, Handler, Operation

PATH: Final = "/metrics"
MEDIA: Final = tuple(each.value.partition(";")[0] for each in Format)


def metrics_operation(handler: Handler, description: str) -> Operation:
    summary = "What Prometheus reads"
    return Operation(PATH, handler, summary, {200: Answer(summary, None, MEDIA)}, description=description, group=HEALTH)


def exposed(request: Request, families: Sequence[Family], histograms: Sequence[Histogram] = ()) -> Response:
    """Histograms are told where the format has them."""
    chosen = best(request.headers.get("accept", ""))
    if chosen is Format.PROTOBUF:
        body = protobuf(families, histograms)
    else:
        body = openmetrics_text(families) if chosen is Format.OPENMETRICS else prometheus_text(families)
    headers = {"content-type": chosen.value, "cache-control": "no-store", "vary": "Accept"}
    return Response(body, headers=headers)


def process_label() -> dict[str, str]:
    """Names this process in what only it knows: several may answer behind one address, and must not be taken for one
    counter that jumps."""
    return {"process": f"{socket.gethostname()}-{os.getpid()}"}


def request_family(requests: Requests) -> Family:
    return counter(
        "http_requests",
        "Requests answered by this process, by path and status; 101 is a WebSocket.",
        *(
            Sample(count, {**process_label(), "path": path, "status": str(status)})
            for (path, status), count in sorted(requests.items())
        ),
    )

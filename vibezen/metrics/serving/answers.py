"""Answers as JSON."""

from typing import Any

import msgspec
from starlette.responses import Response

from vibezen.metrics.serving.errors import RETRY_AFTER


class Health(msgspec.Struct, omit_defaults=True):
    status: str
    reasons: list[str] = []


def answer(content: Any, status: int = 200) -> Response:
    """`content` as JSON, never to be kept by a cache."""
    headers = {"cache-control": "no-store"}
    if status == 503:
        headers["retry-after"] = str(RETRY_AFTER)
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")

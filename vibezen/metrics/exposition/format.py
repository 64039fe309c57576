"""Which format a scraper gets: the one it likes best of those we have."""

from enum import Enum
from typing import Final


class Format(Enum):
    """Values are their media types, as the answer's Content-Type."""

    PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    TEXT = "text/plain; version=0.0.4; charset=utf-8"


_ASKED: Final = {
    Format.PROTOBUF: {"proto": "io.prometheus.client.metricfamily", "encoding": "delimited"},
    Format.OPENMETRICS: {"version": "1.0.0"},
    Format.TEXT: {"version": "0.0.4"},
}
"""What a media range may not say otherwise; what it leaves out is ours to choose."""


def best(accept: str) -> Format:
    """By an Accept header (RFC 9110, 12.5.1). Of equals the richer one; the plain text where nothing fits, as
    Prometheus' own libraries answer."""
    weights: dict[Format, float] = {}
    for part in accept.split(","):
        name, *told = (piece.strip().lower() for piece in part.split(";"))
        parameters = dict(_pair(piece) for piece in told)
        for format_, wanted in _ASKED.items():
            named = name == format_.value.partition(";")[0]
            if named and all(parameters.get(key, value) == value for key, value in wanted.items()):
                weights[format_] = max(weights.get(format_, 0.0), _weight(parameters.get("q", "1")))
    liked = {format_: weight for format_, weight in weights.items() if weight > 0}
    return max(_ASKED, key=lambda format_: liked.get(format_, 0.0)) if liked else Format.TEXT


def _pair(piece: str) -> tuple[str, str]:
    name, _, value = piece.partition("=")
    return name.strip(), value.strip().strip('"')


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0

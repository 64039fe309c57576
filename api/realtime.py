"""`GET /api/metrics/realtime`: every metric now. Frames and snapshots carry the very same answer.

"Now" is the newest six windows, the open one included; "previous" the six before.
"""

import math
from typing import Final

import msgspec

from vibezen.metrics.api.recent import RecentWindows
from vibezen.metrics.catalogue import Better, Kind, MetricSpec
from vibezen.metrics.clock import floor_to
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import Number, Total, aggregates

WINDOWS: Final = 6


class MetricNow(msgspec.Struct):
    """`value`: median of a distribution, increase per second of a counter, mean of a ratio, total of a gauge.

    `change` is value / previous - 1. `rate` is samples per second.
    """

    family: str
    unit: str
    kind: str
    better: str | None
    value: Number
    previous: Number
    change: Number
    count: Number
    rate: Number
    sum: Number
    mean: Number
    min: Number
    max: Number
    last: Number
    p50: Number
    p95: Number
    p99: Number


class Realtime(msgspec.Struct):
    """`at`: this computer's time. `as_of`: the newest event's. `window`: seconds that "now" stands for."""

    at: float
    as_of: float | None
    window: int
    demo: bool
    version: str
    metrics: dict[str, MetricNow]


_SHOWN: Final = ("count", "rate", "sum", "mean", "min", "max", "last", "p50", "p95", "p99")


def realtime(recent: RecentWindows, now: float, *, version: str, demo: bool) -> Realtime:
    """All metrics that have any window in memory, at the time `now` (Unix seconds)."""
    width = recent.width
    newest = floor_to(now, width)
    current = range(newest - (WINDOWS - 1) * width, newest + width, width)
    before = range(current.start - WINDOWS * width, current.start, width)
    # Only the part of the open window that has passed, or rates would dip every ten seconds.
    elapsed = now - current.start
    metrics: dict[str, MetricNow] = {}
    as_of = -math.inf
    for metric in recent.metrics():
        spec = recent.catalogue[metric]
        window = _over(recent, current, metric)
        previous = _headline(_over(recent, before, metric), spec.kind, WINDOWS * width)
        metrics[metric] = _now(spec, window, elapsed, previous)
        as_of = max(as_of, window.last_ts)
    return Realtime(
        at=now,
        as_of=as_of if as_of > -math.inf else None,
        window=WINDOWS * width,
        demo=demo,
        version=version,
        metrics=metrics,
    )


def _over(recent: RecentWindows, starts: range, metric: str) -> Window:
    kind = recent.catalogue[metric].kind
    result = Total(kind)
    for start in starts:
        if kind is Kind.GAUGE:
            for series, window in recent.parts(start, metric):
                result.add(series, window)
        else:
            result.add(metric, recent.total(start, metric))
    return result.window()


def _headline(window: Window, kind: Kind, seconds: float) -> Number:
    match kind:
        case Kind.COUNTER:
            return window.sum / seconds if seconds > 0 else None
        case Kind.RATIO:
            return window.mean
        case Kind.GAUGE:
            return aggregates(window, ["last"], seconds)[0]
        case Kind.DISTRIBUTION:
            return aggregates(window, ["p50"], seconds)[0]


def _now(spec: MetricSpec, window: Window, elapsed: float, previous: Number) -> MetricNow:
    value = _headline(window, spec.kind, elapsed)
    shown = dict(zip(_SHOWN, aggregates(window, _SHOWN, elapsed), strict=True))
    if not window.count:  # that nothing came is known; what it would have been is not
        shown |= {"count": 0, "rate": 0.0, "sum": 0.0}
    return MetricNow(
        family=spec.family,
        unit=spec.unit,
        kind=spec.kind,
        better=None if spec.better is Better.NEITHER else spec.better,
        value=value,
        previous=previous,
        change=value / previous - 1 if value is not None and previous else None,
        **shown,
    )

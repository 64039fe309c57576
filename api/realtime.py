"""`GET /api/metrics/realtime`: every metric now. Frames and snapshots carry the very same answer.

"Now" is the newest six windows, the open one included; "previous" the six before.
"""

import math
from operator import is_
from typing import Final

import msgspec

from vibezen.metrics.api.recent import Held
from vibezen.metrics.catalogue import Kind, MetricSpec
from vibezen.metrics.clock import floor_to
from vibezen.metrics.metric_numbers import SHOWN, MetricNumbers, told
from vibezen.metrics.window import Window, merged
from vibezen.metrics.window_reader import Number, Total, aggregates

WINDOWS: Final = 6


class Realtime(msgspec.Struct):
    """Of each metric `value` is the median of a distribution, increase per second of a counter, mean of a ratio, total
    of a gauge.

    `at`: this computer's time. `as_of`: the newest event's. `window`: seconds that "now" stands for."""

    at: float
    as_of: float | None
    window: int
    demo: bool
    version: str
    metrics: dict[str, MetricNumbers]


class RealtimeView:
    """Computes the answer from recent windows; what has not changed since the last time is not merged again."""

    def __init__(self, recent: Held, *, version: str, demo: bool) -> None:
        self._recent, self._version, self._demo = recent, version, demo
        self._merged: dict[tuple[str, bool], tuple[list[Window], Window]] = {}
        self._previous: dict[str, tuple[Window, Number]] = {}

    def at(self, now: float) -> Realtime:
        """All metrics that have any window in memory, at the time `now` (Unix seconds)."""
        width, current = self._recent.width, self._current(now)
        # Only the part of the open window that has passed, or rates would dip every ten seconds.
        elapsed = now - current.start
        metrics: dict[str, MetricNumbers] = {}
        as_of = -math.inf
        for metric in self._recent.metrics():
            spec = self._recent.catalogue[metric]
            window = self._now(metric, spec.kind, current)
            metrics[metric] = _told(spec, window, elapsed, self._before(metric, spec.kind, current))
            as_of = max(as_of, window.last_ts)
        return Realtime(
            at=now,
            as_of=as_of if as_of > -math.inf else None,
            window=WINDOWS * width,
            demo=self._demo,
            version=self._version,
            metrics=metrics,
        )

    def windows(self, now: float) -> dict[str, Window]:
        """What the answer at `now` is told of, by metric; do not change it."""
        current = self._current(now)
        return {
            metric: self._now(metric, self._recent.catalogue[metric].kind, current) for metric in self._recent.metrics()
        }

    def _current(self, now: float) -> range:
        """Starts of the windows that are "now"."""
        width = self._recent.width
        newest = floor_to(now, width)
        return range(newest - (WINDOWS - 1) * width, newest + width, width)

    def _now(self, metric: str, kind: Kind, current: range) -> Window:
        if kind is Kind.GAUGE:
            return self._over(metric, kind, current, is_now=True)
        # Of six windows only the open one changes with every frame.
        closed = self._over(metric, kind, current[:-1], is_now=True)
        return merged([closed, self._recent.total(current[-1], metric)])

    def _before(self, metric: str, kind: Kind, current: range) -> Number:
        span = WINDOWS * self._recent.width
        window = self._over(metric, kind, range(current.start - span, current.start, current.step), is_now=False)
        known = self._previous.get(metric)
        if known is None or known[0] is not window:
            known = self._previous[metric] = (window, _headline(window, kind, span))
        return known[1]

    def _over(self, metric: str, kind: Kind, starts: range, *, is_now: bool) -> Window:
        """Some windows as one; the same object as long as none of them has changed."""
        totals = [self._recent.total(start, metric) for start in starts]
        known = self._merged.get((metric, is_now))
        if known is None or not all(map(is_, known[0], totals)):
            result = Total(kind)
            for start in starts:
                for series, window in self._recent.parts(start, metric) if kind is Kind.GAUGE else ():
                    result.add(series, window)
            window = result.window() if kind is Kind.GAUGE else merged(totals)
            known = self._merged[metric, is_now] = (totals, window)
        return known[1]


def _headline(window: Window, kind: Kind, seconds: float) -> Number:
    match kind:
        case Kind.COUNTER:
            return window.sum / seconds if seconds > 0 else None
        case Kind.RATIO:
            return window.mean
        case Kind.GAUGE:
            return window.last if window.count else None
        case Kind.DISTRIBUTION:
            return window.distribution().quantile(0.5)


def _told(spec: MetricSpec, window: Window, elapsed: float, previous: Number) -> MetricNumbers:
    shown = dict(zip(SHOWN, aggregates(window, SHOWN, elapsed, spec.kind), strict=True))
    if not window.count:  # that nothing came is known; what it would have been is not
        shown |= {"count": 0, "rate": 0.0, "sum": 0.0}
    return told(spec, _headline(window, spec.kind, elapsed), previous, shown)

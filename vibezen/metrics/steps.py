"""The steps of an answer over time: how long one is, and where the first begins."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from vibezen.metrics.clock import floor_to
from vibezen.metrics.config import Width

MAX_POINTS: Final = 1500
"""Points in one series of an answer."""
AUTO_POINTS: Final = 400
"""Points a step chosen by us gives at most: about what a chart can show."""
AUTO_STEPS: Final = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400)
"""Steps in seconds that are tried beside the widths themselves."""


class Plan(msgspec.Struct, frozen=True):
    """Steps [start, stop) of `step` seconds, whole multiples of it since 1970."""

    step: int
    start: int
    stop: int

    def steps(self) -> range:
        return range(self.start, self.stop, self.step)


def plan(widths: Sequence[Width], since: float, until: float, now: float, step: int | None = None) -> Plan:
    """How to answer for [since, until), both in Unix seconds: floored to the step, the last step as far as it is due.

    Without a step, the finest that gives at most AUTO_POINTS; one whose windows are kept since then is preferred, as
    reading events costs more. ValueError when a step gives more than MAX_POINTS.
    """
    if step is not None:
        chosen = _planned(step, since, until)
        if len(chosen.steps()) > MAX_POINTS:
            least = math.ceil((until - since) / MAX_POINTS)
            raise ValueError(
                f"{step} s gives {len(chosen.steps())} points, at most {MAX_POINTS} are served: take {least} s or more"
            )
        return chosen
    fitting = [
        tried
        for tried in (_planned(one, since, until) for one in _candidates(widths, until - since))
        if len(tried.steps()) <= AUTO_POINTS
    ]
    return next((tried for tried in fitting if _is_kept(widths, tried, now)), fitting[0])


def _candidates(widths: Sequence[Width], span: float) -> Iterator[int]:
    """Steps in ascending order; the last one gives few enough points whatever the range."""
    finest = widths[0].seconds
    nice = {width.seconds for width in widths} | {step for step in AUTO_STEPS if step % finest == 0}
    longest = max(nice)
    nice.add(math.ceil(span / (AUTO_POINTS - 1) / longest) * longest)
    yield from sorted(nice)


def _is_kept(widths: Sequence[Width], tried: Plan, now: float) -> bool:
    """Whether windows of a width that the step is made of are kept since its start."""
    return any(tried.step % width.seconds == 0 and tried.start >= now - width.keep_seconds for width in widths)


def _planned(step: int, since: float, until: float) -> Plan:
    start = floor_to(since, step)
    return Plan(step, start, start + math.ceil((until - start) / step) * step)

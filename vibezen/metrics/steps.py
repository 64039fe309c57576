"""The steps of an answer over time: how long one is, and where each begins.

A step is a whole number of seconds. Of whole days it is one of the calendar: it begins at midnight, weeks on Monday. A
shorter one begins where the clock shows a multiple of it. In UTC, and wherever the clock is not changed meanwhile, all
are equally long.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.clock import DAY
from vibezen.metrics.event import MIN_TS
from vibezen.metrics.settings import Width
from vibezen.metrics.zone import UTC_ZONE, Zone

MAX_POINTS: Final = 1500
"""Points in one series of an answer."""
AUTO_POINTS: Final = 400
"""Points a step chosen by us gives at most: about what a chart can show."""
AUTO_STEPS: Final = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400)
"""Steps in seconds that are tried beside the widths themselves."""
WEEK: Final = 7 * DAY
_MONDAY: Final = 4 * DAY
"""The first one, in seconds since 1970."""


class Run(NamedTuple):
    """Steps of equal length: each of `step` seconds, the first from `start`, the last to `stop`."""

    start: int
    stop: int
    step: int


class Plan(msgspec.Struct, frozen=True):
    """Steps that follow each other from `start` to `stop`, in Unix seconds.

    `step`: how long each is; where the clock is changed meanwhile, how long they are otherwise, and `edges` tell where
    each begins and, at last, where the last one ends. Without a change there are none.
    """

    step: int
    start: int
    stop: int
    edges: tuple[int, ...] = ()

    def steps(self) -> Sequence[int]:
        """Where each begins."""
        return self.edges[:-1] if self.edges else range(self.start, self.stop, self.step)

    def spans(self) -> Iterator[tuple[int, int]]:
        """Where each begins and ends."""
        return pairwise((*self.steps(), self.stop))

    def step_of(self, ts: float) -> int:
        """Where the one begins that `ts`, in [start, stop), belongs to."""
        if self.edges:
            return self.edges[bisect_right(self.edges, ts) - 1]
        return self.start + int((ts - self.start) // self.step) * self.step

    def grain(self) -> int:
        """The longest windows that every step is made of, in seconds."""
        return math.gcd(*self.edges) if self.edges else math.gcd(self.start, self.step)

    def runs(self) -> list[Run]:
        """All steps, in as few runs as they make."""
        runs: list[Run] = []
        for start, stop in self.spans() if self.edges else ():
            if runs and runs[-1].step == stop - start:
                runs[-1] = runs[-1]._replace(stop=stop)
            else:
                runs.append(Run(start, stop, stop - start))
        return runs or [Run(self.start, self.stop, self.step)]


def plan(
    widths: Sequence[Width], since: float, until: float, now: float, step: int | None = None, zone: Zone = UTC_ZONE
) -> Plan:
    """How to answer for [since, until), both in Unix seconds: floored to the step, the last step as far as it is due.

    Without a step, the finest that gives at most AUTO_POINTS; one whose windows are kept since then is preferred, as
    reading events costs more. ValueError when a step gives more than MAX_POINTS.
    """
    if step is not None:
        chosen = _planned(step, since, until, zone, MAX_POINTS)
        if chosen is None:
            least = math.ceil((until - since) / (MAX_POINTS - 1))
            raise ValueError(
                f"{step} s gives some {math.ceil((until - since) / step)} points, at most {MAX_POINTS} are served: "
                f"take {least} s or more"
            )
        return chosen
    fitting = [
        tried
        for one in _candidates(widths, until - since)
        if (tried := _planned(one, since, until, zone, AUTO_POINTS)) is not None
    ]
    return next((tried for tried in fitting if _is_kept(widths, tried, now)), fitting[0])


def extended(found: Plan, seconds: float, zone: Zone) -> Plan:
    """The same steps, and all before them that end within `seconds` before the first. `zone`: the one they are of."""
    since = max(found.start - seconds, min(found.start, float(MIN_TS)))
    longer = _planned(found.step, since, found.stop, zone, math.inf)
    assert longer is not None
    return longer


def preceding(found: Plan, zone: Zone) -> Plan:
    """As many steps, which end where the first begins; fewer where time begins."""
    longer = extended(found, found.stop - found.start, zone)
    starts = [start for start in longer.steps() if start < found.start][-len(found.steps()) :]
    return _of_edges(found.step, (*starts, found.start))


def _candidates(widths: Sequence[Width], span: float) -> Iterator[int]:
    """Steps in ascending order; the last one gives few enough points whatever the range."""
    finest = widths[0].seconds
    nice = {width.seconds for width in widths} | {step for step in AUTO_STEPS if step % finest == 0}
    longest = max(nice)
    nice.add(math.ceil(span / (AUTO_POINTS - 2) / longest) * longest)
    yield from sorted(nice)


def _is_kept(widths: Sequence[Width], tried: Plan, now: float) -> bool:
    """Whether windows of a width that the steps are made of are kept since their start."""
    grain = tried.grain()
    return any(grain % width.seconds == 0 and tried.start >= now - width.keep_seconds for width in widths)


def _planned(step: int, since: float, until: float, zone: Zone, most: float) -> Plan | None:
    """None when there would be more than `most` steps."""
    if zone.is_fixed:
        phase = (_MONDAY if step % WEEK == 0 else 0) - zone.offset(since)
        start = int((since - phase) // step) * step + phase
        found = Plan(step, start, start + math.ceil((until - start) / step) * step)
    elif (until - since) / step > most:
        return None
    else:
        found = _of_edges(
            step, tuple(_days(step, since, until, zone) if step % DAY == 0 else _clock(step, since, until, zone))
        )
    return found if len(found.steps()) <= most else None


def _of_edges(step: int, edges: tuple[int, ...]) -> Plan:
    is_even = all(stop - start == step for start, stop in pairwise(edges))
    return Plan(step, edges[0], edges[-1], () if is_even else edges)


def _days(step: int, since: float, until: float, zone: Zone) -> Iterator[int]:
    """Every so many days at midnight, from the last one up to `since` to the first one from `until` on."""
    anchor = _MONDAY if step % WEEK == 0 else 0
    reading = int((zone.reading(since) - anchor) // step) * step + anchor
    edge = zone.first(reading)
    yield edge
    while edge < until:
        reading += step
        if (following := zone.first(reading)) > edge:  # or the calendar has left these days out
            edge = following
            yield edge


def _clock(step: int, since: float, until: float, zone: Zone) -> Iterator[int]:
    """The same with every moment at which the clock shows a multiple of the step."""
    edge = zone.last_multiple(math.floor(since), step)
    yield edge
    while edge < until:
        edge = zone.next_multiple(edge, step)
        yield edge

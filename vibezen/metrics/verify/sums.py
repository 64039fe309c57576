"""Events on disk added up by window and series, apart from the aggregator: count, sum, minimum, maximum.

Memory holds one hour of one shard.
"""

import math
from collections.abc import Iterable
from typing import Final

from vibezen.metrics.event import Event
from vibezen.metrics.series import SeriesKey, SeriesTable
from vibezen.metrics.shard_events import Block
from vibezen.metrics.window import Window, sum_of

Sums = dict[int, dict[SeriesKey, Window]]
"""Start of a window → series → what its events give; without histogram and newest value."""

RELATIVE: Final = 1e-9
"""How far a sum may be from what its events give, as a share of it."""


def add_up(blocks: Iterable[Block], series: SeriesTable, width: int) -> Sums:
    """All events of these blocks, in windows of `width` seconds."""
    sums: Sums = {}
    for block in blocks:
        _add(sums, block.events, series, width)
    return sums


def _add(sums: Sums, events: Iterable[Event], series: SeriesTable, width: int) -> None:
    plain: dict[tuple[int, SeriesKey], list[float]] = {}
    for event in events:
        if event.ts is None:
            continue
        start, key = int(event.ts // width) * width, series.key(event, None)
        if event.count == 1 and event.sample_rate == 1.0:
            plain.setdefault((start, key), []).append(event.value)
        else:
            weight = event.count if event.sample_rate == 1.0 else event.count / event.sample_rate
            _merge(sums, start, key, Window(weight, event.value * weight, 0.0, event.value, event.value))
    for (start, key), values in plain.items():
        _merge(sums, start, key, Window(len(values), sum_of(values), 0.0, min(values), max(values)))


def _merge(sums: Sums, start: int, key: SeriesKey, part: Window) -> None:
    of_start = sums.setdefault(start, {})
    present = of_start.get(key)
    if present is None:
        of_start[key] = part
    else:
        present.merge(part)


def coarser(sums: Sums, width: int) -> Sums:
    """The same events in windows of `width` seconds, a multiple of what they stand in."""
    found: Sums = {}
    for start, parts in sums.items():
        for key, part in parts.items():
            _merge(found, start // width * width, key, part.copy())
    return found


def difference(stored: Window | None, events: Window | None) -> str:
    """In what a stored window is not what its events give, with both numbers; empty where they agree."""
    if stored is None and events is not None:
        return f"no window, the events on disk give count {events.count} and sum {events.sum!r}"
    if events is None and stored is not None:
        return f"count {stored.count} and sum {stored.sum!r}, no event is on disk"
    if stored is None or events is None:
        return ""
    agree = {
        "count": _counts_agree(stored.count, events.count),
        "sum": _sums_agree(stored, events),
        "min": stored.min == events.min,
        "max": stored.max == events.max,
    }
    return "; ".join(
        f"{name} {getattr(stored, name)!r}, the events on disk give {getattr(events, name)!r}"
        for name, agrees in agree.items()
        if not agrees
    )


def _counts_agree(one: float, other: float) -> bool:
    """Exact, but for the weights of sampled events."""
    return one == other or (not float(one).is_integer() and math.isclose(one, other, rel_tol=RELATIVE))


def _sums_agree(stored: Window, events: Window) -> bool:
    one, other = stored.sum, events.sum
    if math.isnan(one) or math.isnan(other) or math.isinf(one) or math.isinf(other):
        return repr(one) == repr(other)
    # Where a sum cancels to nearly nothing, it is as exact as what was added up allows.
    added = events.count * max(abs(events.min), abs(events.max))
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=1e-14 * added)

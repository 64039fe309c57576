"""Stored windows of closed days: which of them stand for what readers take, and what they add up to."""

import math
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics import rollup_sql
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event_reader import EventReader, Labels, StepRow
from vibezen.metrics.event_sql import Wanted
from vibezen.metrics.histogram import Buckets, between
from vibezen.metrics.layout import Layout
from vibezen.metrics.part_files import footer_text
from vibezen.metrics.parts import Part, date_of
from vibezen.metrics.rollup_sql import Rows
from vibezen.metrics.rollups import FORMAT, WIDTH, RollupFooter, decode_footer, rollup_path
from vibezen.metrics.series import PRODUCER
from vibezen.metrics.snapshot import Snapshot, runs_of
from vibezen.metrics.steps import Plan
from vibezen.metrics.window import Window

_REMEMBERED: Final = 1000
"""Files whose footers are kept in memory."""

Key = tuple[int, str, Labels]


class Rollup(NamedTuple):
    """A rollup that stands for a day part."""

    place: str
    footer: RollupFooter

    def tells(self, metric: str, keys: Iterable[str] | None) -> bool:
        """Whether it knows all of a metric: as a whole (`keys`: None), or its series with these labels."""
        footer = self.footer
        if metric in footer.metrics:
            known = {*footer.labels, PRODUCER} if metric in footer.gauges else {*footer.labels}
            return known.issuperset(keys or ())
        if metric in footer.totals:
            return keys is None
        return metric not in footer.others  # then the part has no event of it


class RollupFiles:
    """Finds the rollups of one store, from any thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._lock = threading.Lock()
        self._footers: dict[tuple[str, int, int, int], RollupFooter | None] = {}

    def of(self, snapshot: Snapshot, hours: Iterable[int]) -> dict[int, Rollup]:
        """Hour → the rollup that stands for all of its events, where there is one."""
        by_part: dict[str, Rollup | None] = {}
        found: dict[int, Rollup] = {}
        for hour in hours:
            part = snapshot.closed_part(hour)
            if part is None:
                continue
            if part.path not in by_part:
                by_part[part.path] = self.of_part(part)
            if (rollup := by_part[part.path]) is not None:
                found[hour] = rollup
        return found

    def of_part(self, part: Part) -> Rollup | None:
        """The rollup that stands for a part: of an hour's, and of one without rows, there is none."""
        if part.path.count("/") > 1 or not part.footer.hours:
            return None
        place = str(rollup_path(self._layout, date_of(min(part.footer.hours)), part.footer.rows_of))
        told = self._footer(place)
        return Rollup(place, told) if told is not None and told.stands_for(part) else None

    def _footer(self, place: str) -> RollupFooter | None:
        """None for what is no rollup, or none that this version knows: events answer then."""
        try:
            seen = os.stat(place)
        except FileNotFoundError:
            return None
        key = (place, seen.st_ino, seen.st_size, seen.st_mtime_ns)
        with self._lock:
            if key not in self._footers:
                while len(self._footers) >= _REMEMBERED:
                    self._footers.pop(next(iter(self._footers)))
                self._footers[key] = _read(place)
            return self._footers[key]


def _read(place: str) -> RollupFooter | None:
    try:
        footer = decode_footer(footer_text(Path(place)))
    except (StoreError, FileNotFoundError, msgspec.MsgspecError):
        return None
    return footer if footer.format <= FORMAT else None


def steps(
    reader: EventReader,
    rolled: Mapping[int, Rollup],
    wanted: Wanted,
    plan: Plan | None,
    keys: Sequence[str],
    limit: int,
    *,
    by_series: bool,
    shares: Sequence[float] = (),
    histograms: bool = False,
) -> list[StepRow]:
    """What the windows of these hours add up to, by step and by the values of `keys`; at most `limit` rows.

    `by_series`: from the rows of series; else from those of metrics as a whole, without keys and conditions. With
    `shares`, rows have these quantiles, as their histograms tell them; with `histograms`, windows have those
    themselves. Raises FilesChanged, StoreError.
    """
    places = sorted({rollup.place for rollup in rolled.values()})
    spans = tuple(
        (max(since, int(wanted.since)), min(until, int(wanted.until))) for since, until in runs_of(sorted(rolled))
    )
    rows = Rows(places, spans, by_series)
    count = len(keys)
    found: dict[Key, StepRow] = {}
    for start, metric, *rest in reader.run(rollup_sql.steps(rows, wanted, plan, keys, limit)):
        labels = tuple(rest[:count])
        lines, weight, total, low, high, last, last_ts, zero = rest[count:]
        window = Window(_whole(weight), total, 0.0, low, high, last, last_ts, _whole(zero))
        found[start, metric, labels] = StepRow(start, metric, labels, window, lines, None)
    if len(found) == limit:
        return list(found.values())
    whole = plan is not None and not by_series and plan.step == WIDTH and not plan.edges
    if shares:
        signs = any(row.window.min <= 0 for row in found.values())
        sql = rollup_sql.quantiles(rows, wanted, plan, keys, shares, signs=signs, whole=whole)
        for start, metric, *rest in reader.run(sql):
            key = (start, metric, tuple(rest[:count]))
            found[key] = found[key]._replace(quantiles=_quantiles(found[key].window, shares, *rest[count:]))
    if histograms:
        for start, metric, *rest in reader.run(rollup_sql.buckets(rows, wanted, plan, keys, whole=whole)):
            window = found[start, metric, tuple(rest[:count])].window
            above, weights, below, weights_below = rest[count:]
            window.positive, window.negative = _buckets(above, weights), _buckets(below, weights_below)
    return list(found.values())


def _quantiles(window: Window, shares: Sequence[float], samples: float, *places: int) -> list[float]:
    """As `Distribution.quantile` tells them."""
    values = [min(max(rollup_sql.value_at(place), window.min), window.max) for place in places]
    positions = [share * max(samples - 1, 0) for share in shares]
    return [
        between(low, high, position - math.floor(position))
        for position, low, high in zip(positions, values[::2], values[1::2], strict=True)
    ]


def _buckets(numbers: Sequence[int] | None, weights: Sequence[float] | None) -> Buckets:
    return dict(zip(numbers, weights, strict=True)) if numbers and weights else {}


def _whole(weight: float) -> int | float:
    """A number of samples as it was counted: whole, unless some were sampled."""
    return int(weight) if weight.is_integer() else weight

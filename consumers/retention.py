"""Retention: which dates go, and how one goes, whole.

A date goes by age or by size, never with a segment that is still written to, never today's. Where external storage is
set, what lies here and nowhere else stays, however old it is; what lies outside is kept there.

A date is dropped by a stub that includes all it had (see stubs.py). Events that come for it later are in none of those
segments: they are read again, and are the next generation of the date.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from vibezen.metrics.clock import DAY
from vibezen.metrics.consumers.holdings import Holding, State
from vibezen.metrics.consumers.standing import Standing, day, parts_of, standing, standings
from vibezen.metrics.consumers.stubs import EMPTY, Check, publish_stub
from vibezen.metrics.layout import Layout, date_folder
from vibezen.metrics.parts import Footer, Input
from vibezen.metrics.settings import Settings

log = logging.getLogger(__name__)


class Limits(NamedTuple):
    """What a store may keep. `external`: whether closed days go to external storage."""

    days: int
    bytes: int | None = None
    external: bool = False


class Goes(StrEnum):
    EVENTS = "events"
    ROLLUPS = "rollups"


class Drop(NamedTuple):
    """A date that goes, or its rollups alone. `reason`: for people."""

    date: int
    events: int
    bytes: int
    reason: str
    goes: Goes = Goes.EVENTS

    def __str__(self) -> str:
        what = f"{self.events} events" if self.goes is Goes.EVENTS else "rollups"
        return f"{day(self.date)}: {what}, {self.bytes} bytes: {self.reason}"


def limits_of(settings: Settings) -> Limits:
    return Limits(settings.retention_days, settings.retention_bytes, settings.external.url is not None)


def due(standings: Sequence[Standing], limits: Limits, now: float) -> list[Drop]:
    """What goes now, oldest first."""
    by_age = [drop for one in standings if (drop := _by_age(one, limits, now)) is not None]
    by_size = _by_size(standings, limits, now, {drop.date for drop in by_age})
    return sorted([*by_age, *by_size], key=lambda drop: drop.date)


def _by_age(one: Standing, limits: Limits, now: float) -> Drop | None:
    if not _may_go(one, limits, now) or now <= one.since + limits.days * DAY:
        return None
    return Drop(one.date, one.here, one.all_bytes, f"older than {limits.days} days")


def _by_size(standings: Sequence[Standing], limits: Limits, now: float, gone: set[int]) -> Iterable[Drop]:
    """Oldest dates first, as many as it takes."""
    if limits.bytes is None:
        return
    left = sum(one.all_bytes for one in standings if one.date not in gone)
    for one in standings:
        if left <= limits.bytes:
            return
        if one.date in gone:
            continue
        reason = f"{left} bytes of events on disk are more than {limits.bytes}"
        if _may_go(one, limits, now):
            left -= one.all_bytes
            yield Drop(one.date, one.here, one.all_bytes, reason)
        elif one.outside and not one.here and one.rollup_bytes:
            left -= one.rollup_bytes
            yield Drop(one.date, 0, one.rollup_bytes, reason, Goes.ROLLUPS)


def _may_go(one: Standing, limits: Limits, now: float) -> bool:
    return bool(one.events) and not (one.outside or one.unsettled or limits.external) and now > one.end


def carry_out(layout: Layout, held: Holding, drop: Drop, check: Check) -> bool:
    """Drop what was decided on of what is held; False when somebody else was faster. Raises StoreFull, Fenced."""
    done = _drop_rollups(layout, drop.date, check) if drop.goes is Goes.ROLLUPS else _drop_date(layout, held, check)
    if done:
        log.warning("dropped %s", drop)
    return done


def _drop_rollups(layout: Layout, date: int, check: Check) -> bool:
    """Remove a date's rollups; questions about it are answered by its events."""
    check()
    for path in (layout.rollups / date_folder(date)).glob("part-*.parquet"):
        path.unlink(missing_ok=True)
    return True


def _drop_date(layout: Layout, held: Holding, check: Check) -> bool:
    one = standing(layout, held)
    base = held.view.day.footer.generation if held.view.day else None
    inputs = inputs_of(held)
    footer = Footer(
        store=layout.read().id,
        generation=(base or 0) + 1,
        inputs=[inputs[path] for path in sorted(inputs)],
        hours={},
        content=EMPTY,
        arrived=one.arrived,
        base=base,
        dropped=one.dropped + one.here,
    )
    return publish_stub(layout, date_folder(held.date), footer, check)


def inputs_of(held: Holding) -> Mapping[str, Input]:
    """Everything a date has: what its parts include, and what is closed beside them, each once."""
    found = {one.path: one for part in parts_of(held.view) for one in part.footer.inputs}
    closed = (one.extent for one in held.pending if one.state is State.CLOSED)
    return found | {extent.path: Input(extent.path, extent.events, extent.crc) for extent in closed}


def retain(layout: Layout, holdings: Sequence[Holding], limits: Limits, now: float, check: Check) -> list[Drop]:
    """Drop what is due; answers what was dropped. Raises StoreError, Fenced, StoreFull."""
    by_date = {held.date: held for held in holdings}
    drops = due(standings(layout, holdings), limits, now)
    return [drop for drop in drops if carry_out(layout, by_date[drop.date], drop, check)]

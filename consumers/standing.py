"""How a store stands, date by date: how much it has, how old that is, and what may be done with it.

The ground on which it is decided what stays, what goes to external storage, and what goes.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from vibezen.metrics.clock import DAY, HOUR, iso
from vibezen.metrics.consumers.holdings import Holding, State
from vibezen.metrics.layout import Layout, date_folder
from vibezen.metrics.parts import Part, View, generation_of


class Standing(NamedTuple):
    """One UTC date. Files that only wait for their deletion are not counted.

    `events`: those that can be read; `outside`: those of them that lie in external storage; `bytes`: of what lies
    here, without rollups; `arrived`: Unix seconds of the last arrival; `unsettled`: a segment is still written to, or
    may change hands; `waiting`: closed segments are in no part yet; `dropped`: events that are gone for good; `parts`:
    those that lie here and have rows.
    """

    date: int
    events: int
    outside: int
    bytes: int
    rollup_bytes: int
    arrived: float
    unsettled: bool
    waiting: bool
    dropped: int
    parts: tuple[Part, ...]

    @property
    def end(self) -> int:
        return self.date + DAY

    @property
    def here(self) -> int:
        """Events that lie here and nowhere else."""
        return self.events - self.outside

    @property
    def since(self) -> float:
        """From when on its age counts: history imported today is not old."""
        return max(self.end, self.arrived)

    @property
    def all_bytes(self) -> int:
        return self.bytes + self.rollup_bytes


def day(date: int) -> str:
    return iso(date)[:10]


def hours_of_date(date: int) -> range:
    return range(date, date + DAY, HOUR)


def standings(layout: Layout, holdings: Iterable[Holding]) -> list[Standing]:
    """Of every date that has or had any event, in the order of `holdings`."""
    return list(_standings(layout, holdings))


def _standings(layout: Layout, holdings: Iterable[Holding]) -> Iterator[Standing]:
    for held in holdings:
        with suppress(FileNotFoundError):  # a part that was just replaced: at the next look it is in order
            yield standing(layout, held)


def standing(layout: Layout, held: Holding) -> Standing:
    """Of one date. Raises FileNotFoundError when what is held is out of date."""
    rows = list(_rows(held.view))
    parts = {part.path: part for part, _ in rows if part.footer.moved is None}
    outside = sum(events for part, events in rows if part.footer.moved is not None)
    pending = sum(one.extent.events for one in held.pending)
    states = {one.state for one in held.pending}
    return Standing(
        held.date,
        events=sum(events for _, events in rows) + pending,
        outside=outside,
        bytes=sum(one.extent.end for one in held.pending)
        + sum((layout.events / path).stat().st_size for path in parts),
        rollup_bytes=_rollup_bytes(layout, held.date),
        arrived=max(
            [*(one.written for one in held.pending), *(part.footer.arrived for part in parts_of(held.view))],
            default=0.0,
        ),
        unsettled=bool(states - {State.CLOSED}),
        waiting=State.CLOSED in states,
        dropped=held.view.day.footer.dropped if held.view.day else 0,
        parts=tuple(parts.values()),
    )


def parts_of(view: View) -> list[Part]:
    """The parts of a view, each once; the day's also when it has no rows."""
    parts = {part.path: part for part in view.by_hour.values()}
    if view.day is not None:
        parts[view.day.path] = view.day
    return list(parts.values())


def _rows(view: View) -> Iterator[tuple[Part, int]]:
    """Of each hour the part it is read from, and its events."""
    for hour, part in view.by_hour.items():
        yield part, part.footer.hours[hour].events


def _rollup_bytes(layout: Layout, date: int) -> int:
    """Of the newest generation."""
    found = [
        (generation, path.stat().st_size)
        for path in (layout.rollups / date_folder(date)).glob("part-*.parquet")
        if (generation := generation_of(path.name)) is not None
    ]
    return max(found)[1] if found else 0

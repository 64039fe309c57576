"""Moving closed dates to external storage, and fetching one back for what came late for it.

A part is uploaded under a name that tells its content, and read back; then a stub takes its place, which says where the
rows are, and the sweep deletes the file. Cut off anywhere, the next attempt begins again and uses what is there; until
the stub is published the part is read here.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from vibezen.metrics.clock import DAY
from vibezen.metrics.consumers.compacting import MERGED_BYTES, Job, Source
from vibezen.metrics.consumers.standing import Standing, day
from vibezen.metrics.consumers.stubs import Check, publish_stub
from vibezen.metrics.external import External
from vibezen.metrics.layout import Layout
from vibezen.metrics.parts import Part
from vibezen.metrics.places import at_hand, place_of
from vibezen.metrics.settings import Settings

log = logging.getLogger(__name__)


class Move(NamedTuple):
    """A date whose `parts` go to external storage."""

    date: int
    parts: tuple[Part, ...]
    events: int
    bytes: int
    reason: str

    def __str__(self) -> str:
        return f"{day(self.date)}: {self.events} events, {self.bytes} bytes: {self.reason}"


def due(standings: Sequence[Standing], after_days: int, now: float, *, merge_days: bool) -> list[Move]:
    """What is to be moved now, oldest first: dates that are over for so long and of which nothing waits to be
    compacted. With `merge_days`, one that will be merged waits for that."""
    return [
        Move(one.date, one.parts, one.here, one.bytes, f"older than {after_days} days")
        for one in standings
        if now > one.end + after_days * DAY and _is_ready(one, merge_days=merge_days)
    ]


def _is_ready(one: Standing, *, merge_days: bool) -> bool:
    if one.unsettled or one.waiting or not one.parts:
        return False
    if len(one.parts) == 1 and is_day(one.parts[0]):
        return True
    return one.outside > 0 or one.bytes >= MERGED_BYTES or not merge_days


def due_by(settings: Settings, standings: Sequence[Standing], now: float) -> list[Move]:
    if settings.external.url is None:
        return []
    return due(standings, settings.external.after_days, now, merge_days=settings.compaction.merge_days)


def move(layout: Layout, external: External, what: Move, check: Check) -> bool:
    """Whether all of it lies outside now. Raises ExternalAway, StoreFull, Fenced."""
    moved = [move_part(layout, external, part, check) for part in what.parts]
    if all(moved):
        log.info("moved %s to %s", what, external.url)
    return all(moved)


def move_part(layout: Layout, external: External, part: Part, check: Check) -> bool:
    """False when the part is not the newest any more."""
    folder, base = part.path.rpartition("/")[0], part.footer
    try:
        moved = external.upload(layout.events / part.path, folder, base.generation)
    except FileNotFoundError:
        return False
    stub = msgspec.structs.replace(base, generation=base.generation + 1, base=base.generation, moved=moved)
    return publish_stub(layout, folder, stub, check)


@contextmanager
def fetched(layout: Layout, job: Job) -> Iterator[Job]:
    """The same job, with the rows of what was moved at hand. Raises ExternalAway, StoreFull."""
    places = [(str(_place(layout, source.part)), source.part.footer.moved) for source in job.sources]
    with at_hand(places):
        sources = (
            Source(Part(place, source.part.footer), source.hours) if moved else source
            for (place, moved), source in zip(places, job.sources, strict=True)
        )
        yield job._replace(sources=tuple(sources))


def _place(layout: Layout, part: Part) -> object:
    moved = part.footer.moved
    return layout.events / part.path if moved is None else place_of(layout.root, moved)


def is_day(part: Part) -> bool:
    return part.path.count("/") == 1

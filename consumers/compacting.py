"""What is due: which hours and days become a part now. Pure: looks at nothing but what it is given."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.consumers.holdings import Holding, Pending, State
from vibezen.metrics.layout import date_folder, partition_of
from vibezen.metrics.parts import Part, part_name
from vibezen.metrics.settings import Compaction

PATIENCE: Final = 6
"""Times `after_seconds` that what is closed waits for segments that stay open, or go on coming."""
MERGED_BYTES: Final = 256 * 1024 * 1024
"""Days whose hours are larger than this together stay hours: one such hour is a file worth having."""

SizeOf = Callable[[Part], int]
"""Bytes of a part's file."""


class Source(NamedTuple):
    """A part whose rows go into the next one: those of `hours` alone, all of them for None."""

    part: Part
    hours: tuple[int, ...] | None


class Job(NamedTuple):
    """One part to be made: of an hour, or of a day (`hour`: None). It includes what `base` does, the generation before,
    whatever `sources` do, and `segments`."""

    date: int
    hour: int | None
    base: Part | None
    sources: tuple[Source, ...]
    segments: tuple[Pending, ...]

    @property
    def generation(self) -> int:
        return self.base.footer.generation + 1 if self.base else 1

    @property
    def folder(self) -> str:
        """Below the events folder."""
        return date_folder(self.date) if self.hour is None else partition_of(self.hour)

    @property
    def path(self) -> str:
        return f"{self.folder}/{part_name(self.generation)}"

    @property
    def lines(self) -> int:
        return sum(one.extent.events for one in self.segments)

    @property
    def bytes(self) -> int:
        """Of the segments it takes."""
        return sum(one.extent.end for one in self.segments)


def due(holdings: Iterable[Holding], now: float, policy: Compaction, size_of: SizeOf) -> list[Job]:
    """What is to be made now, oldest first."""
    return [job for holding in holdings for job in _of_date(holding, now, policy, size_of)]


def waiting(holdings: Iterable[Holding]) -> list[Pending]:
    """Closed segments that no part includes yet."""
    return [one for holding in holdings for one in holding.pending if one.state is not State.OPEN]


def _of_date(holding: Holding, now: float, policy: Compaction, size_of: SizeOf) -> list[Job]:
    day = holding.view.day
    if day is not None:
        return _next_day(holding, now, policy)
    hours = sorted({one.hour for one in holding.pending})
    jobs = [job for hour in hours for job in _of_hour(holding, hour, now, policy)]
    if not holding.pending and policy.merge_days and now >= holding.date + DAY + policy.after_seconds:
        return _first_day(holding, size_of)
    return jobs


def _of_hour(holding: Holding, hour: int, now: float, policy: Compaction) -> list[Job]:
    pending = holding.of(hour)
    if not is_ripe(pending, hour + HOUR, now, policy.after_seconds):
        return []
    base = holding.view.by_hour.get(hour)
    sources = (Source(base, None),) if base else ()
    return [Job(holding.date, hour, base, sources, _closed(pending))]


def _next_day(holding: Holding, now: float, policy: Compaction) -> list[Job]:
    """Of what came after the day was merged; a part of one hour that was published beside it goes in, too."""
    beside = any(part is not holding.view.day for part in holding.view.by_hour.values())
    pending = holding.pending
    if any(one.state is State.DOUBTFUL for one in pending):
        return []
    if not beside and not is_ripe(pending, holding.date + DAY, now, policy.after_seconds):
        return []
    return [Job(holding.date, None, holding.view.day, _sources(holding), _closed(pending))]


def _first_day(holding: Holding, size_of: SizeOf) -> list[Job]:
    sources = _sources(holding)
    if any(source.part.footer.moved for source in sources):
        return []  # it was too large to be merged
    if not sources or sum(size_of(source.part) for source in sources) >= MERGED_BYTES:
        return []
    return [Job(holding.date, None, None, sources, ())]


def _sources(holding: Holding) -> tuple[Source, ...]:
    """What readers take of the date, part by part."""
    by_path: dict[str, list[int]] = {}
    parts = {part.path: part for part in holding.view.by_hour.values()}
    for hour, part in holding.view.by_hour.items():
        by_path.setdefault(part.path, []).append(hour)
    return tuple(
        Source(parts[path], None if set(hours) == set(parts[path].footer.hours) else tuple(sorted(hours)))
        for path, hours in sorted(by_path.items())
    )


def is_ripe(pending: Sequence[Pending], end: float, now: float, after: float) -> bool:
    """Whether to take what is closed of an hour, or a day, that ends at `end`.

    What is open is waited for, since another file would follow soon; so is the end of a trickle. Not for ever: an hour
    that something writes to day and night is compacted all the same. What is doubtful is always waited for.
    """
    closed = [one for one in pending if one.state is not State.OPEN]
    if not closed or now < end + after or any(one.state is State.DOUBTFUL for one in closed):
        return False
    if min(one.written for one in closed) <= now - PATIENCE * after:
        return True
    return len(closed) == len(pending) and max(one.written for one in closed) <= now - after


def _closed(pending: Iterable[Pending]) -> tuple[Pending, ...]:
    """All that is closed, never a choice of it: of two parts of an hour one then includes all that the other does."""
    return tuple(one for one in pending if one.state is State.CLOSED)

"""The compactor: closed hours and days become parts, and what parts include is deleted after a while.

Why nothing is lost or doubled, whoever crashes or sleeps at whatever step:

* A part includes all segments of its hour, or its day's hours, that were final at one look, and all that the generation
  before it does. Looks are ordered (see holdings.py), so of two parts of an hour one includes all that the other does.
* A part gets its name by a link, after it was verified and is durable; the name of a generation that exists is not
  given again. Who comes too late changes nothing. Where the generation is gone already, since a newer one replaced it,
  a sleeper can give that name once more; the newer one, or the day that includes more, is taken all the same.
* Readers look for parts first and then at the logs: a segment is in the part they take, or is read beside it.
* Deleted is only what the parts that readers take include, after a grace. What one look finds included, every later
  look does. A reader whose file is gone looks again.

The lease saves work, and nothing rests on it.
"""

import logging
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from vibezen.metrics.clock import Clock, wall
from vibezen.metrics.consumers.compacting import Job, due, waiting
from vibezen.metrics.consumers.engine import Damaged, Engine
from vibezen.metrics.consumers.holdings import Holding, Holdings
from vibezen.metrics.consumers.keeping import AWAY_SECONDS, Keeper
from vibezen.metrics.consumers.moving import fetched
from vibezen.metrics.consumers.part_writer import Made, PartWriter
from vibezen.metrics.consumers.rollup_writer import RollupWriter
from vibezen.metrics.consumers.sweeping import Sweeper
from vibezen.metrics.errors import ExternalAway, StoreFull
from vibezen.metrics.layout import Layout
from vibezen.metrics.parts import Part
from vibezen.metrics.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE: Final = 50
"""Parts made after one look; then it looks again, since things change."""
STUB_SECONDS: Final = 60.0
"""After which an unpublished stub has nobody who makes it."""
DAMAGE_SECONDS: Final = 3600.0
"""Until what was found damaged is tried again."""


class Compactor:
    """One store, compacted by the holder of the lease. `check` raises Fenced when it is held no more."""

    def __init__(
        self,
        layout: Layout,
        settings: Settings,
        holdings: Holdings,
        epoch: int,
        check: Callable[[], None],
        now: Clock = wall,
    ) -> None:
        self._layout, self._settings, self._holdings = layout, settings, holdings
        self._check, self._now = check, now
        folder = layout.compacting / str(epoch)
        store, gauges = layout.read().id, settings.catalogue().gauges()
        self.engine = Engine(folder)
        self.writer = PartWriter(layout, store, self.engine, settings.compaction.level)
        self.rollups = RollupWriter(layout, store, self.engine, settings.aggregation.labels, gauges)
        self._sweeper = Sweeper(layout, settings.compaction.grace_seconds, check)
        self.keeper = Keeper(layout, settings, check, now)
        self._folder, self._epoch = folder, epoch
        self._not_before: dict[str, float] = {}
        self._told: set[str] = set()
        self.trouble: dict[str, str] = {}
        """Why a part is not made, by its folder."""

    def clear(self) -> None:
        """Remove what compactors before this one left in the making."""
        for path in made_by(self._layout):
            if int(path.name) < self._epoch:
                shutil.rmtree(path, ignore_errors=True)
        for path in self._layout.events.glob("date=*/.part-*.tmp"):
            # A stub whose maker was killed right then. A minute is more than another one takes to publish it.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < self._now() - STUB_SECONDS:
                    path.unlink()

    def close(self) -> None:
        self.engine.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def look(self) -> tuple[list[Holding], list[Job]]:
        """What there is, and what of it is due."""
        holdings = self._holdings.look()
        jobs = due(holdings, self._now(), self._settings.compaction, self._size_of)
        return holdings, [job for job in jobs if self._not_before.get(job.folder, 0.0) <= self._now()]

    def round(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Sweep, and make what is due; whether more is due at once. Raises Fenced, StoreFull, StoreError."""
        holdings, jobs = self.look()
        self._sweeper.sweep(holdings, self._holdings.logs, self._now())  # first: all that follows needs space
        dropped = self.keeper.drop(holdings)  # first: what goes is not compacted before
        jobs = [job for job in jobs if job.date not in dropped]
        published = self._do_all(jobs[:AT_ONCE], stopping)
        if self._settings.compaction.rollups and not stopping():
            self._roll_up(holdings, stopping)
        changed = dropped.union(job.date for job in jobs)
        self.keeper.move([one for one in holdings if one.date not in changed], stopping)
        return published

    def _do_all(self, jobs: Iterable[Job], stopping: Callable[[], bool]) -> bool:
        """Whether any was published. One for which there is no space does not hold up smaller ones."""
        published, full = False, None
        for job in jobs:
            if stopping():
                return False
            try:
                published = self._do(job) or published
            except StoreFull as error:
                full = error
            finally:
                self.engine.clear()
        if full is not None:
            raise full
        return published

    def _roll_up(self, holdings: Iterable[Holding], stopping: Callable[[], bool]) -> None:
        """Make the rollups of day parts that have none."""
        for day in [one.view.day for one in holdings if one.view.day is not None]:
            waits = self._not_before.get(f"rollup {day.path}", 0.0) > self._now()
            if waits or stopping() or not self.rollups.is_due(day):
                continue
            try:
                self._check()
                self.rollups.write(day)
            except FileNotFoundError:
                continue  # the next generation has replaced it
            except Damaged as error:
                self._note_damage(f"rollup {day.path}", str(error))
            finally:
                self.engine.clear()

    def books(self) -> dict[str, str]:
        """What it says of itself."""
        holdings = self._holdings.look()
        closed = waiting(holdings)
        troubles = sorted([*self.trouble.values(), *self._holdings.unreadable.values()])
        return {
            "updated": f"{self._now():.3f}",
            "waiting_hours": str(len({one.hour for one in closed})),
            "waiting_bytes": str(sum(one.extent.end for one in closed)),
            "damaged": str(len(troubles)),
            "trouble": "; ".join(troubles[:3]),
            **self.keeper.books(holdings),
        }

    def _do(self, job: Job) -> bool:
        """Whether a part was published."""
        try:
            with fetched(self._layout, job) as ready:
                made = self.writer.make(ready)
        except ExternalAway as away:
            self._not_before[job.folder] = self._now() + AWAY_SECONDS
            self.keeper.note(away)
            return False
        except FileNotFoundError:
            return True  # what it was to be made of was replaced meanwhile: look again
        except Damaged as error:
            self._check()  # a sleeper finds files gone that are in parts by now
            self._note_damage(job.folder, str(error))
            return False
        self.trouble.pop(job.folder, None)
        return self._publish(made)

    def _publish(self, made: Made) -> bool:
        self._check()
        published = self.writer.publish(made)
        if published:
            what = f"events/{made.job.path}"
            # Hours come by the hundred after an import; days say the same once.
            level = logging.INFO if made.job.hour is None else logging.DEBUG
            size = self._size(made.job.path)
            log.log(level, "compactor: %s: %d events, %d bytes", what, made.footer.events, size)
        return True

    def _note_damage(self, what: str, why: str) -> None:
        """`what`: the folder of a part, or the part that a rollup is made of."""
        self._not_before[what] = self._now() + DAMAGE_SECONDS
        self.trouble[what] = why
        if why not in self._told:
            self._told.add(why)
            log.error("compactor: %s; it stays as it is", why)

    def _size_of(self, part: Part) -> int:
        return self._size(part.path)

    def _size(self, path: str) -> int:
        try:
            return (self._layout.events / path).stat().st_size
        except FileNotFoundError:
            return 0


def made_by(layout: Layout) -> list[Path]:
    """The folders of what compactors have in the making, each named by its epoch."""
    return [path for path in layout.compacting.glob("*") if path.name.isdigit()]

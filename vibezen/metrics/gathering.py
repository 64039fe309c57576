"""What was recorded in a range, added up: each UTC hour from exactly one source, rollups, windows or events, never two.

Windows are cheap and merge exactly, but know percentiles only by their histograms; so do rollups, which are windows of
closed days in files. Events cost a reading of files, and know everything. Rollups answer for hours of which they have
every event. Coverage tells for which others windows may; where they and events may, the cheaper one does.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
from anyio import to_thread
from redis.asyncio import Redis
from redis.exceptions import RedisError

from vibezen.metrics import rollup_reader
from vibezen.metrics.catalogue import Catalogue, Kind
from vibezen.metrics.clock import HOUR, Clock, wall
from vibezen.metrics.committed import hours_of
from vibezen.metrics.coverage import Coverage, Standing, standings
from vibezen.metrics.errors import BadParameter, MetricsError, StoreError
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.event_reader import ATTEMPTS, EventReader, FilesChanged, StepRow, Wanted, unreadable
from vibezen.metrics.gathered import MAX_CELLS, Asked, Cell, Gathered, Group, Source, bound, sources_of
from vibezen.metrics.keys import Keys
from vibezen.metrics.rollup_reader import Rollup, RollupFiles
from vibezen.metrics.rollups import WIDTH
from vibezen.metrics.series import OVERFLOW, PRODUCER, parse_series, series_key
from vibezen.metrics.settings import Settings
from vibezen.metrics.snapshot import Files, Snapshot
from vibezen.metrics.window import from_blob
from vibezen.metrics.window_reader import HISTOGRAM, QUANTILES, Fetched, fetch, fetch_totals

__all__ = ["Asked", "Cell", "Gathered", "Gatherer", "Group", "Source"]

log = logging.getLogger(__name__)

MAX_HISTOGRAMS: Final = 20_000
"""Rows whose percentiles are told by histograms; each may have a hundred buckets."""
CHEAP_LINES: Final = 100_000
"""Events of an hour up to which reading them costs less (some 20 ms) than reading its windows series by series (some
6 µs for each series in each of 60 or 360 windows)."""


class _Overflow(Exception):
    """In these hours windows hold series that were counted together, and the question tells series apart."""

    def __init__(self, hours: set[int]) -> None:
        super().__init__(f"overflow in {len(hours)} hours")
        self.hours = hours


class _Unrolled(Exception):
    """Rollups cannot be read."""


class _Unusable(Exception):
    """Windows cannot be read now, or are of a form that nobody here has written."""


class Gatherer:
    """Reads one store and, where there is one, the server with its windows. `client`: None without a server; `is_away`
    tells where it is known not to answer, so that nobody waits for it."""

    def __init__(
        self,
        reader: EventReader,
        client: Redis | None,
        keys: Keys,
        settings: Settings,
        clock: Clock = wall,
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self.reader = reader
        self._is_away = is_away
        self.catalogue: Catalogue = settings.catalogue()
        self._client, self._keys, self._settings, self._clock = client, keys, settings, clock
        self._labels = settings.aggregation.labels
        self._rollups = RollupFiles(reader.layout)

    async def gather(self, asked: Asked) -> Gathered:
        """Raises BadParameter when the answer would be too large, StoreError when files cannot be read. A server that
        is away is no error: events answer alone."""
        without: set[int] = set()
        windows = self._client is not None and not asked.exact and self._know(asked)
        rollups = not asked.exact and asked.grain() % WIDTH == 0
        changed: FilesChanged | None = None
        for _ in range(ATTEMPTS):
            try:
                return await self._gather(asked, without, windows=windows and not self._is_away(), rollups=rollups)
            except _Overflow as found:
                without |= found.hours
            except (RedisError, _Unusable) as error:
                log.info("windows are not used: %s", error)
                windows = False
            except _Unrolled as error:
                log.warning("rollups are not used: %s", error)
                rollups = False
            except FilesChanged as error:
                changed = error
        raise unreadable(changed)

    def _know(self, asked: Asked) -> bool:
        """Whether windows know every key that is asked about."""
        keys = {*asked.group_by, *(condition.key for condition in asked.where)}
        return keys.issubset(self._labels)

    async def _gather(self, asked: Asked, without: set[int], *, windows: bool, rollups: bool) -> Gathered:
        snapshot = await to_thread.run_sync(self.reader.snapshot, hours_of(asked.start, asked.stop))
        rolled = await to_thread.run_sync(self._rolled, asked, snapshot) if rollups else {}
        shards = await self._standings() if windows else []
        windowed = self._windowed(asked, snapshot, {*without, *rolled}, shards)
        hours = [hour for hour in snapshot.hours() if hour not in windowed and hour not in rolled]
        gathered = Gathered(sources_of(asked, windowed, rolled), exact=True)
        await self._take_windows(asked, windowed, len(shards), gathered)
        if windowed and [shard.floor for shard in await self._standings()] != [shard.floor for shard in shards]:
            raise _Unusable("they were lost while they were read")
        take = partial(self._take_rollups, asked, snapshot, rolled, gathered, alone=not windowed and not hours)
        await to_thread.run_sync(take)
        await to_thread.run_sync(self._take_events, asked, snapshot.files(hours), {*windowed, *rolled}, gathered)
        return gathered

    def _rolled(self, asked: Asked, snapshot: Snapshot) -> dict[int, Rollup]:
        """Hour → the rollup that answers for it."""
        keys = self._keys_of(asked) if self._by_series(asked) else None
        found = self._rollups.of(snapshot, snapshot.hours())
        if asked.metric is not None:
            return {hour: rollup for hour, rollup in found.items() if rollup.tells(asked.metric, keys)}
        # The others are few, or of many series: they are read from events, if they are asked about at all.
        return found if keys is None else {}

    def _keys_of(self, asked: Asked) -> set[str]:
        """Every key that tells apart the series that are asked about."""
        keys = {*asked.group_by, *(condition.key for condition in asked.where)}
        return {*keys, *self._labels, PRODUCER} if self._needs_series(asked) else keys

    def _take_rollups(
        self, asked: Asked, snapshot: Snapshot, rolled: Mapping[int, Rollup], gathered: Gathered, *, alone: bool
    ) -> None:
        """`alone`: nothing else has events of the range."""
        if not rolled:
            return
        keys = self._keys_read(asked)
        wanted = Wanted(asked.start, asked.stop, asked.metric, asked.where)
        quantiles = [name for name in asked.aggregates if name in QUANTILES]
        # One row of rollups is then a whole cell, and its histogram need not be fetched to be merged with others.
        alone = alone and not self._needs_series(asked) and not _overlap(rolled.values())
        try:
            rows = rollup_reader.steps(
                self.reader,
                rolled,
                wanted,
                asked.plan,
                keys,
                MAX_CELLS + 1,
                by_series=self._by_series(asked),
                shares=[QUANTILES[name] for name in quantiles] if alone else (),
                histograms=HISTOGRAM in asked.aggregates or (bool(quantiles) and not alone),
            )
        except FilesChanged:
            raise
        except StoreError as error:
            raise _Unrolled(str(error)) from None
        if len(rows) > MAX_CELLS:
            raise BadParameter("group_by", "too many series here; take a coarser step or fewer labels")
        for row, cell in zip(rows, self._add(asked, keys, rows, gathered), strict=True):
            if row.quantiles is not None:
                cell.quantiles = dict(zip(quantiles, row.quantiles, strict=True))
        gathered.exact = gathered.exact and not quantiles
        if asked.metric is None:
            self._take_others(asked, snapshot, rolled, gathered)

    def _take_others(self, asked: Asked, snapshot: Snapshot, rolled: Mapping[int, Rollup], gathered: Gathered) -> None:
        """Of hours that rollups answer for, the metrics of which they have nothing."""
        by_metrics: dict[tuple[str, ...], list[int]] = {}
        for hour, rollup in rolled.items():
            by_metrics.setdefault(tuple(rollup.footer.others), []).append(hour)
        for metrics, hours in by_metrics.items():
            if metrics:
                self._take_events(asked, snapshot.files(hours), set(rolled), gathered, metrics)

    def _keys_read(self, asked: Asked) -> tuple[str, ...]:
        """The keys whose values events or series are told apart by."""
        if not self._needs_series(asked):
            return asked.group_by
        return tuple(dict.fromkeys((*self._labels, PRODUCER, *asked.group_by)))

    def _add(self, asked: Asked, keys: Sequence[str], rows: Sequence[StepRow], gathered: Gathered) -> list[Cell]:
        """The cell of each row, in their order."""
        cells = []
        for row in rows:
            labels = {key: value for key, value in zip(keys, row.labels, strict=True) if value is not None}
            group = tuple((key, labels[key]) for key in asked.group_by if key in labels)
            start = asked.start if asked.step is None else row.start
            place, series = (row.metric, group, start), series_key(row.metric, labels)
            cells.append(gathered.add(self._kind(row.metric), place, series, row.window))
        bound(gathered)
        return cells

    async def _standings(self) -> list[Standing]:
        """How the windows of every shard stand; none where the server belongs to another store."""
        assert self._client is not None
        known: object = await self._client.get(self._keys.store)
        if isinstance(known, bytes) and known.decode(errors="replace") != self.reader.store_id():
            return []
        try:
            return await standings(self._client, self._keys, self._settings.streams.shards)
        except ValueError as error:
            raise _Unusable(f"foreign data in their books: {error}") from None

    def _windowed(
        self, asked: Asked, snapshot: Snapshot, without: set[int], shards: Sequence[Standing]
    ) -> dict[int, int]:
        """Hour → width of the windows that answer for it."""
        if not shards:
            return {}
        now = self._clock()
        policy = self._settings.aggregation
        coverage = Coverage(policy, shards, snapshot.positions, now)
        kept = max(width.keep_seconds for width in policy.widths)
        first, last = max(asked.start, int(now - kept)), min(asked.stop, int(now + MAX_AHEAD) + 1)
        found: dict[int, int] = {}
        for hour in range(first // HOUR * HOUR, last, HOUR):
            begins, ends = max(hour, asked.start), min(hour + HOUR, asked.stop)
            width = coverage.width(begins, asked.grain())
            cheaper = self._by_series(asked) and coverage.files_are_current and snapshot.lines(hour) <= CHEAP_LINES
            if width is not None and hour not in without and ends > begins and not cheaper:
                found[hour] = width.seconds
        return found

    async def _take_windows(self, asked: Asked, windowed: Mapping[int, int], shards: int, gathered: Gathered) -> None:
        if not windowed:
            return
        assert self._client is not None
        by_series = self._by_series(asked)
        overflow: set[int] = set()
        now = self._clock()
        for width in sorted(set(windowed.values())):
            starts = [
                start for hour, own in windowed.items() if own == width for start in _windows(asked, hour, width, now)
            ]
            read = fetch if by_series else fetch_totals
            async for batch in read(self._client, self._keys, shards, width, starts, asked.metric):
                # Decoding hours of windows must not hold up the live feed.
                overflow |= await to_thread.run_sync(self._take_batch, asked, batch, gathered, by_series)
        if overflow:
            raise _Overflow(overflow)
        gathered.exact = not any(name in QUANTILES for name in asked.aggregates)

    def _by_series(self, asked: Asked) -> bool:
        """Whether series must be read one by one."""
        return _tells_apart(asked) or self._needs_series(asked)

    def _needs_series(self, asked: Asked) -> bool:
        """A gauge's newest value is the sum of each series' own; everything else is told by totals."""
        return asked.metric is not None and self._kind(asked.metric) is Kind.GAUGE and "last" in asked.aggregates

    def _kind(self, metric: str) -> Kind:
        return self.catalogue[metric].kind

    def _take_batch(self, asked: Asked, batch: list[Fetched], gathered: Gathered, by_series: bool) -> set[int]:
        try:
            return self._decoded(asked, batch, gathered, by_series)
        except BadParameter:
            raise
        except (ValueError, msgspec.MsgspecError, MetricsError) as error:
            raise _Unusable(f"foreign data among them: {error}") from None

    def _decoded(self, asked: Asked, batch: list[Fetched], gathered: Gathered, by_series: bool) -> set[int]:
        overflow: set[int] = set()
        for _, start, stored in batch:
            step = asked.step_of(start)
            for name, blob in stored.items():
                series = name.decode()
                metric, labels = parse_series(series)
                if by_series and OVERFLOW in labels:
                    overflow.add(start // HOUR * HOUR)
                elif all(condition.holds(labels.get(condition.key)) for condition in asked.where):
                    group = tuple((label, labels[label]) for label in asked.group_by if label in labels)
                    gathered.add(self._kind(metric), (metric, group, step), series, from_blob(blob))
        bound(gathered)
        return overflow

    def _take_events(
        self, asked: Asked, files: Files, elsewhere: set[int], gathered: Gathered, metrics: Sequence[str] = ()
    ) -> None:
        """`elsewhere`: hours that windows or rollups answer for; `metrics`: only these of all."""
        if not files:
            return
        quantiles = [name for name in asked.aggregates if name in QUANTILES]
        keys = self._keys_read(asked)
        wanted = Wanted(asked.start, asked.stop, asked.metric, asked.where, metrics)
        rows = self.reader.steps(
            files,
            wanted,
            asked.plan,
            keys,
            [QUANTILES[name] for name in quantiles],
            MAX_CELLS + 1,
            sums=not {"sum", "mean", "rate"}.isdisjoint(asked.aggregates),
            lasts="last" in asked.aggregates,
        )
        if len(rows) > MAX_CELLS:
            raise BadParameter("group_by", "too many series here; take a coarser step or fewer labels")
        mixed = bool(quantiles) and (self._needs_series(asked) or _is_mixed(asked, rows, elsewhere))
        if mixed:
            gathered.exact = False
        if mixed or HISTOGRAM in asked.aggregates:
            if len(rows) > MAX_HISTOGRAMS:
                raise BadParameter("group_by", "too many series for percentiles; take a coarser step or fewer labels")
            histograms = self.reader.buckets(files, wanted, asked.plan, keys)
            for row in rows:
                row.window.merge(histograms[row.start, row.metric, row.labels])
        for row, cell in zip(rows, self._add(asked, keys, rows, gathered), strict=True):
            if row.quantiles is not None and not mixed:
                cell.quantiles = dict(zip(quantiles, row.quantiles, strict=True))


def _tells_apart(asked: Asked) -> bool:
    return bool(asked.group_by or asked.where)


def _is_mixed(asked: Asked, rows: Sequence[StepRow], windowed: set[int]) -> bool:
    """Whether values alone cannot tell the percentiles: some stand for several samples, or windows know the rest."""
    if any(row.quantiles is None for row in rows):
        return True
    shared = {asked.step_of(max(hour, asked.start)) for hour in windowed}
    shared |= {asked.step_of(min(hour + HOUR, asked.stop) - 1) for hour in windowed}
    return any((asked.start if asked.step is None else row.start) in shared for row in rows)


def _overlap(rollups: Iterable[Rollup]) -> bool:
    """Whether any metric is in some of these, and of other hours must be read from events."""
    footers = [rollup.footer for rollup in rollups]
    told = {metric for footer in footers for metric in (*footer.metrics, *footer.totals)}
    return any(not told.isdisjoint(footer.others) for footer in footers)


def _windows(asked: Asked, hour: int, width: int, now: float) -> range:
    """Starts of the windows of one hour that are asked for and can exist."""
    return range(max(hour, asked.start), min(hour + HOUR, asked.stop, math.ceil(now + MAX_AHEAD)), width)

"""What was recorded in a range, added up: each UTC hour from exactly one source, windows or events, never from both.

Windows are cheap and merge exactly, but know percentiles only by their histograms. Events cost a reading of files, and
know everything. Coverage tells which hours windows may answer for; where both may, the cheaper one does.
"""

import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
from anyio import to_thread
from redis.asyncio import Redis
from redis.exceptions import RedisError

from vibezen.metrics.catalogue import Catalogue, Kind
from vibezen.metrics.clock import HOUR, Clock, wall
from vibezen.metrics.committed import Snapshot, hours_of
from vibezen.metrics.config import Settings
from vibezen.metrics.coverage import Coverage, Standing, standings
from vibezen.metrics.errors import BadParameter, MetricsError
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.event_reader import ATTEMPTS, EventReader, FilesChanged, StepRow, Wanted, unreadable
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.keys import Keys
from vibezen.metrics.series import OVERFLOW, PRODUCER, SeriesKey, parse_series, series_key
from vibezen.metrics.steps import Plan
from vibezen.metrics.window import Window, from_blob
from vibezen.metrics.window_reader import HISTOGRAM, QUANTILES, Fetched, Total, fetch, fetch_totals

log = logging.getLogger(__name__)

MAX_CELLS: Final = 200_000
"""Rows that events of one question are added up to; some 100 MB."""
MAX_HISTOGRAMS: Final = 20_000
"""Rows whose percentiles are told by histograms; each may have a hundred buckets."""
CHEAP_LINES: Final = 100_000
"""Events of an hour up to which reading them costs less (some 20 ms) than reading its windows series by series (some
6 µs for each series in each of 60 or 360 windows)."""

Group = tuple[tuple[str, str], ...]
"""Labels and their values, in the order they were asked for; those a series has not are left out."""


class Asked(NamedTuple):
    """A range [start, stop) in Unix seconds, in steps (None: the range is one), and what is asked of it.

    `step`, `edges`: as of a Plan.
    `metric`: None for all. `aggregates` decides what must be read: percentiles, or a gauge's newest values.
    """

    start: int
    stop: int
    step: int | None
    metric: str | None
    aggregates: Sequence[str]
    group_by: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    exact: bool = False
    edges: tuple[int, ...] = ()

    @property
    def plan(self) -> Plan | None:
        return None if self.step is None else Plan(self.step, self.start, self.stop, self.edges)

    def step_of(self, ts: int) -> int:
        if self.edges:
            return self.edges[bisect_right(self.edges, ts) - 1]
        return self.start if self.step is None else ts - (ts - self.start) % self.step

    def grain(self) -> int:
        """The longest windows that the steps are made of, in seconds."""
        return math.gcd(self.start, self.step or self.stop, *self.edges)


class Source(msgspec.Struct):
    """Where the answer for [from, to) was taken from: windows or events."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    source: str = "windows"


class Cell:
    """One metric, group and step. `quantiles` by their name, where the values themselves told them."""

    def __init__(self, kind: Kind) -> None:
        self.total = Total(kind)
        self.quantiles: Mapping[str, float] | None = None


class Gathered:
    """What came of a question. `exact`: percentiles are those of the values, not of histograms."""

    def __init__(self, sources: list[Source], *, exact: bool) -> None:
        self.cells: dict[tuple[str, Group, int], Cell] = {}
        self.sources, self.exact = sources, exact
        self.newest = -math.inf

    def add(self, kind: Kind, place: tuple[str, Group, int], series: SeriesKey, window: Window) -> Cell:
        cell = self.cells.get(place)
        if cell is None:
            cell = self.cells[place] = Cell(kind)
        cell.total.add(series, window)
        self.newest = max(self.newest, window.last_ts)
        return cell


class _Overflow(Exception):
    """In these hours windows hold series that were counted together, and the question tells series apart."""

    def __init__(self, hours: set[int]) -> None:
        super().__init__(f"overflow in {len(hours)} hours")
        self.hours = hours


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

    async def gather(self, asked: Asked) -> Gathered:
        """Raises BadParameter when the answer would be too large, StoreError when files cannot be read. A server that
        is away is no error: events answer alone."""
        without: set[int] = set()
        windows = self._client is not None and not asked.exact and self._know(asked)
        changed: FilesChanged | None = None
        for _ in range(ATTEMPTS):
            try:
                return await self._gather(asked, without, windows=windows and not self._is_away())
            except _Overflow as found:
                without |= found.hours
            except (RedisError, _Unusable) as error:
                log.info("windows are not used: %s", error)
                windows = False
            except FilesChanged as error:
                changed = error
        raise unreadable(changed)

    def _know(self, asked: Asked) -> bool:
        """Whether windows know every key that is asked about."""
        keys = {*asked.group_by, *(condition.key for condition in asked.where)}
        return keys.issubset(self._labels)

    async def _gather(self, asked: Asked, without: set[int], *, windows: bool) -> Gathered:
        snapshot = await to_thread.run_sync(self.reader.snapshot, hours_of(asked.start, asked.stop))
        shards = await self._standings() if windows else []
        windowed = self._windowed(asked, snapshot, without, shards)
        hours = [hour for hour in snapshot.hours() if hour not in windowed]
        gathered = Gathered(_sources(asked, windowed), exact=True)
        await self._take_windows(asked, windowed, len(shards), gathered)
        if windowed and [shard.floor for shard in await self._standings()] != [shard.floor for shard in shards]:
            raise _Unusable("they were lost while they were read")
        await to_thread.run_sync(self._take_events, asked, snapshot, hours, set(windowed), gathered)
        return gathered

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
        _bound(gathered)
        return overflow

    def _take_events(
        self, asked: Asked, snapshot: Snapshot, hours: list[int], windowed: set[int], gathered: Gathered
    ) -> None:
        files = snapshot.files(hours)
        if not files:
            return
        quantiles = [name for name in asked.aggregates if name in QUANTILES]
        keys = asked.group_by
        if self._needs_series(asked):
            keys = tuple(dict.fromkeys((*self._labels, PRODUCER, *keys)))
        wanted = Wanted(asked.start, asked.stop, asked.metric, asked.where)
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
        mixed = bool(quantiles) and (self._needs_series(asked) or _is_mixed(asked, rows, windowed))
        if mixed:
            gathered.exact = False
        if mixed or HISTOGRAM in asked.aggregates:
            if len(rows) > MAX_HISTOGRAMS:
                raise BadParameter("group_by", "too many series for percentiles; take a coarser step or fewer labels")
            histograms = self.reader.buckets(files, wanted, asked.plan, keys)
            for row in rows:
                row.window.merge(histograms[row.start, row.metric, row.labels])
        for row in rows:
            labels = {key: value for key, value in zip(keys, row.labels, strict=True) if value is not None}
            group = tuple((key, labels[key]) for key in asked.group_by if key in labels)
            start = asked.start if asked.step is None else row.start
            place = (row.metric, group, start)
            cell = gathered.add(self._kind(row.metric), place, series_key(row.metric, labels), row.window)
            if row.quantiles is not None and not mixed:
                cell.quantiles = dict(zip(quantiles, row.quantiles, strict=True))
        _bound(gathered)


def _tells_apart(asked: Asked) -> bool:
    return bool(asked.group_by or asked.where)


def _is_mixed(asked: Asked, rows: Sequence[StepRow], windowed: set[int]) -> bool:
    """Whether values alone cannot tell the percentiles: some stand for several samples, or windows know the rest."""
    if any(row.quantiles is None for row in rows):
        return True
    shared = {asked.step_of(max(hour, asked.start)) for hour in windowed}
    shared |= {asked.step_of(min(hour + HOUR, asked.stop) - 1) for hour in windowed}
    return any((asked.start if asked.step is None else row.start) in shared for row in rows)


def _bound(gathered: Gathered) -> None:
    if len(gathered.cells) > MAX_CELLS:
        raise BadParameter("group_by", "too many series here; take a coarser step or fewer labels")


def _windows(asked: Asked, hour: int, width: int, now: float) -> range:
    """Starts of the windows of one hour that are asked for and can exist."""
    return range(max(hour, asked.start), min(hour + HOUR, asked.stop, math.ceil(now + MAX_AHEAD)), width)


def _sources(asked: Asked, windowed: Mapping[int, int]) -> list[Source]:
    """The range in runs of one source each; what is no hour of windows is an hour of events."""
    marks = sorted({asked.start, asked.stop, *windowed, *(hour + HOUR for hour in windowed)})
    bounds = [mark for mark in marks if asked.start <= mark <= asked.stop]
    runs: list[Source] = []
    for since, until in pairwise(bounds):
        source = "windows" if since // HOUR * HOUR in windowed else "events"
        if runs and runs[-1].source == source:
            runs[-1].to = until
        else:
            runs.append(Source(since, until, source))
    return runs

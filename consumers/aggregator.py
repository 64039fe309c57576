"""The aggregator: accepted events into windows, each exactly once.

Samples gather per series in slots of the finest width; a commit folds them into the windows of every width and writes
those windows whole, with the position, in one script. What a window's blob holds is exactly the entries up to that
position.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.account import Account
from vibezen.metrics.active_sessions import KEPT_SECONDS, MOST, SESSION
from vibezen.metrics.batch import EntryId, read_entry, read_header
from vibezen.metrics.clock import Clock, monotonic, wall
from vibezen.metrics.consumers import showing
from vibezen.metrics.consumers.lease import LEASE_MS, PACKAGE, Taken, renew, require
from vibezen.metrics.consumers.shard import attach
from vibezen.metrics.consumers.windows import Gathered, WindowCache
from vibezen.metrics.coverage import shape_of
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import Event
from vibezen.metrics.keys import Keys
from vibezen.metrics.live import LIVE_AGE, Frame
from vibezen.metrics.series import SeriesKey, SeriesTable, label_text, metric_of
from vibezen.metrics.settings import Aggregation, Width
from vibezen.metrics.verdict import judge
from vibezen.metrics.window import Window, merged, to_blob, window_of

log = logging.getLogger(__name__)

COMMIT_SAMPLES: Final = 200_000
"""Samples that are committed without waiting for the interval: more would only hold memory."""

Samples = tuple[list[float], list[float]]
"""Values and their times."""


def _shaped(books: Mapping[str, str], group: str, shape: str, now: float) -> float:
    """Since when (Unix seconds) windows are made in this shape; 0 where none was ever made in another."""
    if books.get(f"{group}.shape") == shape:
        return float(books[f"{group}.shaped"])
    return now if f"{group}.entries" in books else 0.0


class Aggregator:
    """The sink of group `aggregate` for one shard. The shard must be ours already."""

    def __init__(
        self,
        client: Redis,
        keys: Keys,
        taken: Taken,
        policy: Aggregation,
        series: SeriesTable,
        now: Clock = wall,
    ) -> None:
        self._client, self._keys, self._taken = client, keys, taken
        self._policy, self._series, self._now = policy, series, now
        self._widths = policy.widths
        self._finest = policy.widths[0]
        self._cache = WindowCache(client, partial(keys.window, taken.shard), policy.max_series)
        self._totals = WindowCache(client, partial(keys.totals, taken.shard))
        standing = attach(client, keys, taken, None, note_floor=True)
        self.cursor: EntryId = standing.position
        self.suspect = standing.suspect
        self._left = standing.position
        self._entries_read = standing.entries_read
        books = standing.books
        self._entries, self._events, self._rejected, self._too_old, self._overflow = (
            int(books.get(f"{taken.group}.{name}", 0))
            for name in ("entries", "events", "rejected", "too_old", "overflow")
        )
        self._account = msgspec.json.decode(books.get(f"{taken.group}.account", "{}"), type=Account)
        self._shape = shape_of(policy)
        self._shaped = _shaped(books, taken.group, self._shape, now())
        self._samples: dict[int, dict[SeriesKey, Samples]] = {}
        self._count = 0
        self._odd: Gathered = {}
        self._sessions: dict[str, float] = {}
        self._since: float | None = None
        self._oldest: float | None = None
        self._newest: float | None = None
        # At once: readers of all shards rely on windows only where each shard says how its own are made.
        self._write({}, {})

    def take(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> None:
        self._begin(entry_id)
        try:
            entry = read_entry(self.cursor, fields)
        except InvalidEvent:
            self._rejected += 1
            self._account.foreign += 1
            self._account.rejected += 1
            return
        verdict = judge(entry.payload, entry.arrived)
        self._account.read(entry.told, entry.n, len(verdict.events) + len(verdict.rejected))
        self._rejected += len(verdict.rejected)
        self._account.rejected += len(verdict.rejected)
        if verdict.events:
            before = self._too_old
            self._add(verdict.events, entry.producer, entry.arrived)
            self._account.too_old += self._too_old - before
            self._account.accepted += len(verdict.events) - (self._too_old - before)

    def knows(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> bool:
        return False  # it reads behind its position alone

    def condemn(self, entry_id: bytes, fields: Mapping[bytes, bytes], reason: str) -> None:
        """Leave an entry out of the windows, which are no longer relied on for what lies before."""
        self._begin(entry_id)
        entry = read_header(self.cursor, fields)
        self._account.read(entry.told, entry.n, entry.n)
        self._account.rejected += entry.n
        self._account.condemned += entry.n
        self._rejected += entry.n
        log.error("%s of shard %d leaves %s out: %s", self._taken.group, self._taken.shard, self.cursor, reason)

    def refill(self, events: Sequence[Event]) -> int:
        """Put events into windows that lie behind the position and are in the books already; how many of them the
        windows still take. For windows that are made anew."""
        counted = self._events, self._too_old
        self._add(events, None, self._now())
        put = self._events - counted[0]
        self._events, self._too_old = counted
        if self._since is None:
            self._since = self._now()
        return put

    def _begin(self, entry_id: bytes) -> None:
        self.cursor = entry_id.decode()
        if self._since is None:
            self._since = monotonic()
        if self._entries_read is not None:
            self._entries_read += 1
        self._entries += 1

    def _add(self, events: Sequence[Event], producer: str | None, arrived: float) -> None:
        """Put events where they count: by the slot, or one by one where they are late or weighted."""
        times: list[float] = [event.ts for event in events]  # type: ignore[misc]  # a judged event has its time
        edge = self._edge(self._finest, arrived)
        width = self._finest.seconds
        known, labels, gauges, key_of = self._series.known, self._series.labels, self._series.gauges, self._series.key
        start, end = 0, 0
        slot: dict[SeriesKey, Samples] = {}
        for event, ts in zip(events, times, strict=True):
            metric = event.metric
            key = known.get((metric, *map(event.metadata.get, labels))) if metric not in gauges else None
            if key is None:
                key = key_of(event, producer)
            if ts < edge or event.sample_rate != 1.0 or event.count != 1:
                self._add_odd(event, ts, key, arrived)
                continue
            if not start <= ts < end:  # most events share their slot with the one before
                start = int(ts // width) * width
                end = start + width
                slot = self._samples.setdefault(start, {})
            held = slot.get(key)
            if held is None:
                slot[key] = ([event.value], [ts])
            else:
                held[0].append(event.value)
                held[1].append(ts)
        self._events += len(events)
        self._count += len(events)
        self._note_age(times, arrived)
        self._note_sessions(events, times, arrived)

    def _note_sessions(self, events: Sequence[Event], times: list[float], arrived: float) -> None:
        """Remember when each session was seen last."""
        since, newest = arrived - KEPT_SECONDS, self._sessions
        for event, ts in zip(events, times, strict=True):
            session = event.metadata.get(SESSION)
            if session is None or ts < since:
                continue
            name = session if type(session) is str else label_text(session)
            if name and ts > newest.get(name, since):
                newest[name] = ts

    def _note_age(self, times: list[float], arrived: float) -> None:
        """Remember the record time of the live events, from which the page tells its delay."""
        since = arrived - LIVE_AGE
        if min(times) < since:
            times = [ts for ts in times if ts >= since]
        if times:
            self._oldest = min(times) if self._oldest is None else min(self._oldest, min(times))
            self._newest = max(times) if self._newest is None else max(self._newest, max(times))

    @staticmethod
    def _edge(width: Width, arrived: float) -> int:
        """Events before this are too old for windows of `width`: those have expired by the entry's own time."""
        return int(-(-(arrived - width.keep_seconds) // width.seconds) - 1) * width.seconds

    def _add_odd(self, event: Event, ts: float, key: SeriesKey, arrived: float) -> None:
        weight = event.count if event.sample_rate == 1.0 else event.count / event.sample_rate
        kept = False
        for width in self._widths:
            if ts >= self._edge(width, arrived):
                kept = True
                start = int(ts // width.seconds) * width.seconds
                self._odd.setdefault((width.seconds, start), {}).setdefault(key, Window()).add(event.value, weight, ts)
        if not kept:
            self._too_old += 1
            self._events -= 1

    def wait_ms(self) -> int | None:
        if self._since is None:
            return None
        touched = sum(map(len, self._samples.values())) + sum(map(len, self._odd.values()))
        if self._count >= COMMIT_SAMPLES or touched >= self._policy.commit_series:
            return 0
        return max(int((self._since + self._policy.commit_interval_seconds - monotonic()) * 1000), 0)

    def idle(self) -> None:
        self.renew()

    def renew(self) -> None:
        renew(self._client, self._keys, self._taken, self._left)

    def commit(self, *, show: bool = True) -> None:
        """`show`: whether the live feed is told."""
        if self._since is None:
            return
        series, by_metric = self._gathered()
        changed, folded = self._cache.apply(series)
        totals, _ = self._totals.apply(by_metric)
        self._overflow += round(folded.get(self._finest.seconds, 0))
        self._write(changed, totals)
        if show:
            width, now = self._finest.seconds, self._now()
            frame = Frame(self._taken.shard, width, showing.changes(changed, width, now), self._oldest, self._newest)
            showing.show(self._client, self._keys, frame, now)
        self._cache.evict()
        self._totals.evict()
        self._samples, self._odd, self._sessions, self._count = {}, {}, {}, 0
        self._since = self._oldest = self._newest = None

    def _gathered(self) -> tuple[Gathered, Gathered]:
        """What came in since the last commit, per window of every width: by series, and by metric alone.

        Most questions are about a metric as a whole, and must not read the thousands of series that a window may hold.
        Windows may be shared: none is to be changed.
        """
        series, totals = self._odd, self._totals_of(self._odd)
        for start, slot in self._samples.items():
            deltas = {key: window_of(values, times) for key, (values, times) in slot.items()}
            self._spread(start, deltas, series)
            self._spread(start, self._added_up(deltas), totals)
        return series, totals

    def _spread(self, fine_start: int, deltas: Mapping[str, Window], into: Gathered) -> None:
        """Add what one slot of the finest width holds to the windows of all widths."""
        for width in self._widths:
            start = fine_start // width.seconds * width.seconds
            target = into.setdefault((width.seconds, start), {})
            for key, delta in deltas.items():
                present = target.get(key)
                target[key] = delta if present is None else merged((present, delta))

    def _totals_of(self, gathered: Gathered) -> Gathered:
        return {window: self._added_up(deltas) for window, deltas in gathered.items()}

    def _added_up(self, deltas: Mapping[SeriesKey, Window]) -> dict[str, Window]:
        """The same samples by metric."""
        totals: dict[str, Window] = {}
        for key, delta in deltas.items():
            metric = metric_of(key)
            present = totals.get(metric)
            if present is None:
                totals[metric] = delta.copy()
            else:
                present.merge(delta)
        return totals

    def _write(self, changed: Gathered, totals: Gathered) -> None:
        shard, group = self._taken.shard, self._taken.group
        books: dict[str, str | int] = {
            "entries": self._entries,
            "events": self._events,
            "rejected": self._rejected,
            "too_old": self._too_old,
            "overflow": self._overflow,
            "account": msgspec.json.encode(self._account).decode(),
            "position": self.cursor,
            "shape": self._shape,
            "shaped": f"{self._shaped:.3f}",
            "epoch": self._taken.epoch,
            "owner": self._taken.owner,
            "updated": f"{self._now():.3f}",
        }
        keep = {width.seconds: width.keep_seconds for width in self._widths}
        keys = [self._keys.events(shard), self._keys.lease(shard, group), self._keys.fence(shard, group)]
        keys += [self._keys.books(shard), self._keys.sessions(shard)]
        args: list[str | bytes | int | float] = [self._taken.fence, self._taken.owner, LEASE_MS, group, self._left]
        args += [self.cursor, "" if self._entries_read is None else self._entries_read, len(books)]
        args += [part for name, value in books.items() for part in (f"{group}.{name}", value)]
        for name, part in ((self._keys.window, changed), (self._keys.totals, totals)):
            for (width, start), windows in part.items():
                keys.append(name(shard, width, start))
                args += [start + width + keep[width], len(windows)]
                for key, window in windows.items():
                    args += (key, to_blob(window))
        if self._sessions:
            args += [KEPT_SECONDS, f"{self._now() - KEPT_SECONDS:.3f}", MOST]
            args += [part for session, ts in self._sessions.items() for part in (repr(ts), session)]
        require(scripts.run(self._client, scripts.load(PACKAGE, "aggregate_commit"), keys, args), self._taken)
        self._left = self.cursor

    def spent(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held outside Redis."""

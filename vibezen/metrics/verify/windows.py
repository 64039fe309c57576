"""Stored windows against the events on disk.

Both sides grow while they are read. So what differs is looked at again once both groups have passed everything that was
in the stream at the look before: what differs by the same numbers then, lacks an event or has one too many. What
differs by others is still changing, and is no difference.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
from redis import Redis

from vibezen.metrics.batch import id_order
from vibezen.metrics.clock import HOUR, floor_to, iso
from vibezen.metrics.coverage import Coverage, Standing, shape_of, standing_of
from vibezen.metrics.doctor.finding import Finding, fail, ok, unknown
from vibezen.metrics.errors import MetricsError, StoreError
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.event_reader import FilesChanged
from vibezen.metrics.keys import GROUPS, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.series import OVERFLOW, PRODUCER, SeriesKey, SeriesTable, metric_of, parse_series, series_key
from vibezen.metrics.settings import Settings, Width
from vibezen.metrics.shard_events import ShardEvents
from vibezen.metrics.verify.sums import add_up, coarser, difference
from vibezen.metrics.window import Window, from_blob, merged

LOOKS: Final = 5
"""How often a window that differs is looked at."""
PATIENCE: Final = 15.0
"""Seconds to wait for both groups between two looks."""
PER_READ: Final = 16
"""Windows fetched in one round trip."""
TOLD: Final = 20
ADVICE: Final = "`vibezen-metrics verify --rebuild-windows` makes them anew from the files"


class Place(NamedTuple):
    """One stored window."""

    shard: int
    start: int
    width: int

    def __str__(self) -> str:
        return f"shard {self.shard}, {self.width} s from {iso(self.start)}"


Differing = dict[Place, frozenset[str]]
"""Window → a line for each of its series, or metrics, that differs."""


class Look(NamedTuple):
    """One look at one shard. `compared`: windows; `reason`: why there was nothing to compare."""

    compared: int
    differing: Differing
    reason: str = ""


class Comparison:
    """Of one store's windows with its events. `now`: the server's clock in Unix seconds."""

    def __init__(self, client: Redis, keys: Keys, layout: Layout, settings: Settings, now: Callable[[], float]) -> None:
        self._client, self._keys, self._layout, self._now = client, keys, layout, now
        self._policy = settings.aggregation
        self._gauges = settings.catalogue().gauges()
        # A line on disk need not tell who sent it, so gauges are compared over all their producers.
        self._series = SeriesTable(self._policy.labels)

    def check(self, shard: int) -> list[Finding]:
        """Raises what the client raises, ValueError for books that nobody of ours wrote."""
        try:
            return self._check_again(shard)
        except OSError as error:
            reason = f"{error.filename}: {(error.strerror or str(error)).lower()}"
        except StoreError as error:
            reason = str(error)
        return [unknown("windows", f"shard {shard}: not compared: {reason}")]

    def _check_again(self, shard: int) -> list[Finding]:
        """Check until no file goes meanwhile: segments may become a part just now."""
        for _ in range(LOOKS - 1):
            with suppress(FilesChanged, FileNotFoundError):
                return self._check(shard)
        return self._check(shard)

    def _check(self, shard: int) -> list[Finding]:
        look = self._look(shard)
        if look.reason:
            return [unknown("windows", f"shard {shard}: not compared: {look.reason}")]
        differing, wrong = look.differing, {}
        for _ in range(LOOKS - 1):
            if not differing:
                break
            if stands := self._wait(shard):
                return [unknown("windows", f"shard {shard}: {len(differing)} differ, but {stands}")]
            again = self._look(shard, differing)
            wrong = {place: lines & again.differing.get(place, frozenset()) for place, lines in differing.items()}
            wrong = {place: lines for place, lines in wrong.items() if lines}
            differing = again.differing
            if wrong.keys() == differing.keys():
                break
        return _findings(shard, look.compared, wrong, len(differing.keys() - wrong.keys()))

    def _look(self, shard: int, only: Collection[Place] | None = None) -> Look:
        """Compare all windows of a shard, or only some."""
        pipe = self._client.pipeline(transaction=False)
        pipe.get(self._keys.floor(shard))
        pipe.hgetall(self._keys.books(shard))
        floor, books = pipe.execute()
        now, standing = self._now(), standing_of(floor, books)
        hours = _hours(self._policy.widths, now)
        found = ShardEvents(self._layout, shard, hours)
        coverage = Coverage(self._policy, [standing], {0: found.last.position}, now)
        compared, differing = 0, Differing()
        for hour in hours:
            covered = [
                Place(shard, start, width.seconds)
                for width in self._policy.widths
                for start in (range(hour, hour + HOUR, width.seconds) if HOUR % width.seconds == 0 else ())
                if coverage.width(start, width.seconds) == width
            ]
            places = [place for place in covered if only is None or place in only]
            if not places:
                continue
            low = min(place.start for place in places)
            high = max(place.start + place.width for place in places)
            finest = min(place.width for place in places)
            sums = {finest: add_up(found.read(hour, low, high), self._series, finest)}
            for place, stored, totals in self._fetch(places):
                if place.width not in sums:
                    sums[place.width] = coarser(sums[finest], place.width)
                events = sums[place.width].get(place.start, {})
                compared += bool(stored or events)
                if lines := self._compare(stored, totals, events):
                    differing[place] = frozenset(lines)
        return Look(compared, differing, "" if compared or only else self._reason(standing, now, coverage))

    def _fetch(self, places: list[Place]) -> Iterator[tuple[Place, Mapping[bytes, bytes], Mapping[bytes, bytes]]]:
        """(place, series → blob, metric → blob)"""
        for first in range(0, len(places), PER_READ):
            some = places[first : first + PER_READ]
            pipe = self._client.pipeline(transaction=False)
            for shard, start, width in some:
                pipe.hgetall(self._keys.window(shard, width, start))
                pipe.hgetall(self._keys.totals(shard, width, start))
            answers: list[Any] = pipe.execute()
            yield from zip(some, answers[::2], answers[1::2], strict=True)

    def _compare(
        self, stored: Mapping[bytes, bytes], totals: Mapping[bytes, bytes], events: Mapping[SeriesKey, Window]
    ) -> list[str]:
        """A line for each series, and for each metric in the totals, that is not what the events give."""
        try:
            return self._compare_read(stored, totals, events)
        except (MetricsError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            return [f"cannot be read: {error}"]

    def _compare_read(
        self, stored: Mapping[bytes, bytes], totals: Mapping[bytes, bytes], events: Mapping[SeriesKey, Window]
    ) -> list[str]:
        windows: dict[SeriesKey, Window] = {}
        for name, blob in stored.items():
            _put(windows, self._plain(name.decode()), from_blob(blob))
        folded = _fold(events, windows, self._gauges)
        found = _lines(windows, folded)
        by_metric: dict[SeriesKey, Window] = {}
        for key, window in events.items():
            _put(by_metric, metric_of(key), window.copy())
        of_metric = {name.decode(): from_blob(blob) for name, blob in totals.items()}
        return found + [f"total of {line}" for line in _lines(of_metric, by_metric)]

    def _plain(self, key: SeriesKey) -> SeriesKey:
        """A gauge's series without its producer."""
        metric, labels = parse_series(key)
        if metric not in self._gauges or PRODUCER in self._policy.labels:
            return key
        return series_key(metric, {name: value for name, value in labels.items() if name != PRODUCER})

    def _reason(self, standing: Standing, now: float, coverage: Coverage) -> str:
        """Why windows do not answer for anything; empty where they would, had there been an event."""
        if standing.floor is None:
            return "no aggregator was here yet"
        if standing.archived is None:
            return "no archiver was here yet"
        if standing.shape != shape_of(self._policy):
            return "they were made under other settings"
        since = max(standing.floor, standing.shaped) + MAX_AHEAD
        if since > now:
            return f"they are complete only from {iso(since)} on"
        finest = self._policy.widths[0].seconds
        return "" if coverage.width(floor_to(now, finest), finest) else "one group is far behind the other"

    def _wait(self, shard: int) -> str:
        """Until both groups have passed the newest entry; who does not, in words."""
        newest: Any = self._client.xrevrange(self._keys.events(shard), count=1)
        if not newest:
            return ""
        goal, end = id_order(newest[0][0].decode()), time.monotonic() + PATIENCE
        while True:
            told: Any = self._client.xinfo_groups(self._keys.events(shard))
            at = {group["name"].decode(): group["last-delivered-id"].decode() for group in told}
            behind = [name for name in GROUPS if id_order(at.get(name, "0-0")) < goal]
            if not behind:
                return ""
            if time.monotonic() > end:
                return f"group {behind[0]} did not get from {at.get(behind[0], '0-0')} to the end of its stream"
            time.sleep(0.1)


def _hours(widths: Iterable[Width], now: float) -> range:
    kept = max(width.keep_seconds + width.seconds for width in widths)
    return range(int((now - kept) // HOUR) * HOUR, int(now + MAX_AHEAD) + 1, HOUR)


def _put(into: dict[SeriesKey, Window], key: SeriesKey, window: Window) -> None:
    into[key] = merged((into[key], window)) if key in into else window


def _fold(
    events: Mapping[SeriesKey, Window], windows: Mapping[SeriesKey, Window], gauges: Collection[str]
) -> dict[SeriesKey, Window]:
    """The events' series as the aggregator had to fold them: where a window has an overflow series, those it does not
    name stand in it. Gauges, whose producers are not told apart here, are then compared by their totals alone."""
    overflowing = {parse_series(key).metric: key for key in windows if parse_series(key).labels.get(OVERFLOW) == "true"}
    if not overflowing:
        return dict(events)
    folded: dict[SeriesKey, Window] = {}
    for key, window in events.items():
        metric = metric_of(key)
        if metric in overflowing and metric in gauges:
            continue
        _put(folded, key if key in windows or metric not in overflowing else overflowing[metric], window.copy())
    as_stored = {key for key in windows if metric_of(key) in gauges and metric_of(key) in overflowing}
    return folded | {key: windows[key] for key in as_stored}


def _lines(stored: Mapping[SeriesKey, Window], events: Mapping[SeriesKey, Window]) -> list[str]:
    found = ((key, difference(stored.get(key), events.get(key))) for key in {*stored, *events})
    return [f"{key}: {text}" for key, text in found if text]


def _findings(shard: int, compared: int, wrong: Differing, changing: int) -> list[Finding]:
    """`wrong`: what differed by the same numbers twice; `changing`: windows that differ by others each time."""
    found = []
    for place in sorted(wrong)[:TOLD]:
        first, *others = sorted(wrong[place])
        more = f"; and {len(others)} more series or totals" if others else ""
        found.append(fail("windows", f"{place}: {first}{more}", ADVICE))
    if len(wrong) > TOLD:
        found.append(fail("windows", f"shard {shard}: and {len(wrong) - TOLD} more windows", ADVICE))
    if not found:
        still = f"; {changing} still changing" if changing else ""
        found.append(ok("windows", f"shard {shard}: {compared} compared, as the events on disk{still}"))
    return found

"""Reading windows: which of them answer a question, how series and shards become one number, and the reads themselves.

Windows merge exactly, so a coarse step is made of finer windows and a total of all series and shards. Gauges are the
exception: their total is the sum over series of each series' newest value.
"""

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.clock import floor_to
from vibezen.metrics.config import Width
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.keys import Keys
from vibezen.metrics.series import SeriesKey, series_key
from vibezen.metrics.window import Window, sum_of

MAX_POINTS: Final = 1500
"""Points in one series of an answer."""
AUTO_POINTS: Final = 400
"""Points a step chosen by us gives at most: about what a chart can show."""
AUTO_STEPS: Final = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86_400)
"""Steps in seconds that are tried beside the widths themselves."""
WINDOWS_PER_READ: Final = 16
"""Windows fetched in one round trip. The server serves nobody else meanwhile: some 4 ms per window of 2,600 series."""
TOTALS_PER_READ: Final = 500
_SCAN_COUNT: Final = 10_000

QUANTILES: Final[Mapping[str, float]] = {
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p99.9": 0.999,
}
AGGREGATES: Final = ("count", "sum", "mean", "min", "max", "last", "rate", *QUANTILES)
DEFAULT_AGGREGATE: Final[Mapping[Kind, str]] = {
    Kind.DISTRIBUTION: "p50",
    Kind.COUNTER: "sum",
    Kind.GAUGE: "last",
    Kind.RATIO: "mean",
}

Number = int | float | None


class Plan(msgspec.Struct, frozen=True):
    """Steps [start, stop) of `step` seconds, made of windows of `width` seconds; those before `kept_from` are gone."""

    width: int
    step: int
    start: int
    stop: int
    kept_from: int

    def steps(self) -> range:
        return range(self.start, self.stop, self.step)

    def windows(self, now: float) -> range:
        """Starts of the windows that can exist at all."""
        return range(max(self.start, self.kept_from), min(self.stop, math.ceil(now + MAX_AHEAD)), self.width)


def plan(widths: Sequence[Width], since: float, until: float, now: float, step: int | None = None) -> Plan:
    """How to answer for [since, until), both in Unix seconds: floored to the step, the last step as far as it is due.

    Without a step, the smallest that gives at most AUTO_POINTS and whose windows are kept since then, else the one
    kept longest. ValueError when the step cannot be made of our windows or gives more than MAX_POINTS.
    """
    if step is not None:
        chosen = _planned(_width_for(widths, step), step, since, until, now)
        if len(chosen.steps()) > MAX_POINTS:
            least = math.ceil((until - since) / MAX_POINTS)
            raise ValueError(
                f"{step} s gives {len(chosen.steps())} points, at most {MAX_POINTS} are served: take {least} s or more"
            )
        return chosen
    best: Plan | None = None
    for candidate in _auto_steps(widths, until - since):
        tried = _planned(_width_for(widths, candidate), candidate, since, until, now)
        if len(tried.steps()) > AUTO_POINTS:
            continue
        if tried.kept_from <= tried.start:
            return tried
        if best is None or tried.kept_from < best.kept_from:
            best = tried
    assert best is not None, "the last candidate is as long as the range"
    return best


def _auto_steps(widths: Sequence[Width], span: float) -> Iterator[int]:
    """Candidates in ascending order; the last one gives few enough points whatever the range."""
    finest = widths[0].seconds
    nice = {width.seconds for width in widths} | {step for step in AUTO_STEPS if step % finest == 0}
    longest = max(nice)
    nice.add(math.ceil(span / (AUTO_POINTS - 1) / longest) * longest)
    yield from sorted(nice)


def _width_for(widths: Sequence[Width], step: int) -> Width:
    """The coarsest width the step is made of: fewest reads, and it is kept longest."""
    fitting = [width for width in widths if step >= width.seconds and step % width.seconds == 0]
    if not fitting:
        raise ValueError(f"{step} s is not a multiple of {widths[0].seconds} s, the finest windows kept")
    return max(fitting, key=lambda width: width.seconds)


def _planned(width: Width, step: int, since: float, until: float, now: float) -> Plan:
    start = floor_to(since, step)
    stop = start + math.ceil((until - start) / step) * step
    return Plan(width.seconds, step, start, stop, floor_to(now - width.keep_seconds, width.seconds))


class Total:
    """Windows of one metric added up: over series, shards and time."""

    def __init__(self, kind: Kind) -> None:
        self._sum = Window()
        self._newest: dict[SeriesKey, Window] | None = {} if kind is Kind.GAUGE else None

    def add(self, series: SeriesKey, window: Window) -> None:
        self._sum.merge(window)
        if self._newest is not None:
            newest = self._newest.get(series)
            if newest is None or window.last_ts >= newest.last_ts:
                self._newest[series] = window

    def window(self) -> Window:
        """The total. Of a gauge, `last` is the sum over series of each one's newest value."""
        if self._newest:
            self._sum.last = sum_of([window.last for window in self._newest.values()])
        return self._sum


def total(kind: Kind, parts: Iterable[tuple[SeriesKey, Window]]) -> Window:
    """One window for all of `parts`; those are left as they are."""
    result = Total(kind)
    for series, window in parts:
        result.add(series, window)
    return result.window()


def aggregates(window: Window, names: Iterable[str], seconds: float) -> list[Number]:
    """The named aggregates of a window that is `seconds` long so far. None where there is no sample to tell it by.

    `rate` is samples per second.
    """
    quantile = window.distribution().quantile if any(name in QUANTILES for name in names) else None
    return [_aggregate(window, name, seconds, quantile) for name in names]


def _aggregate(window: Window, name: str, seconds: float, quantile: Any) -> Number:
    if not window.count:
        return None
    if name in QUANTILES:
        value: Number = quantile(QUANTILES[name])
        return value
    if name == "rate":
        return window.count / seconds if seconds > 0 else None
    found: Number = getattr(window, name)
    return found


class Fetched(NamedTuple):
    """One window of one shard as it is stored: series key → blob."""

    shard: int
    start: int
    series: Mapping[bytes, bytes]


async def shard_count(client: Redis, keys: Keys, configured: int) -> int:
    """The highest number of shards ever used."""
    answer: Any = await client.get(keys.shards)
    return max(int(answer or 0), configured)


async def fetch(
    client: Redis,
    keys: Keys,
    shards: int,
    width: int,
    starts: Sequence[int],
    metric: str | None = None,
) -> AsyncIterator[list[Fetched]]:
    """Read stored windows a round trip at a time, empty ones left out; only the series of `metric` where given."""
    places = [(shard, start) for start in starts for shard in range(shards)]
    for first in range(0, len(places), WINDOWS_PER_READ):
        some = places[first : first + WINDOWS_PER_READ]
        names = [keys.window(shard, width, start) for shard, start in some]
        found = await (_whole(client, names) if metric is None else _of_metric(client, names, metric))
        if batch := _present(some, found):
            yield batch


async def fetch_totals(
    client: Redis, keys: Keys, shards: int, width: int, starts: Sequence[int], metric: str
) -> AsyncIterator[list[Fetched]]:
    """The same for all series of `metric` together, as one without labels: a field per window, whatever the number of
    its series. There are none for gauges."""
    places = [(shard, start) for start in starts for shard in range(shards)]
    name = series_key(metric, {}).encode()
    for first in range(0, len(places), TOTALS_PER_READ):
        some = places[first : first + TOTALS_PER_READ]
        pipe = client.pipeline(transaction=False)
        for shard, start in some:
            pipe.hget(keys.totals(shard, width, start), metric)
        blobs: list[bytes | None] = await pipe.execute()
        if batch := _present(some, [{} if blob is None else {name: blob} for blob in blobs]):
            yield batch


def _present(places: Sequence[tuple[int, int]], found: Sequence[Mapping[bytes, bytes]]) -> list[Fetched]:
    return [Fetched(*place, series) for place, series in zip(places, found, strict=True) if series]


async def _whole(client: Redis, names: Sequence[str]) -> list[dict[bytes, bytes]]:
    pipe = client.pipeline(transaction=False)
    for name in names:
        pipe.hgetall(name)
    answers: list[dict[bytes, bytes]] = await pipe.execute()
    return answers


async def _of_metric(client: Redis, names: Sequence[str], metric: str) -> list[dict[bytes, bytes]]:
    """The server picks the series. A series key ends with its metric, and an unescaped quote cannot be in a label."""
    pattern = f'*,"metric":"{metric}"}}'
    found: list[dict[bytes, bytes]] = [{} for _ in names]
    open_scans = dict.fromkeys(range(len(names)), 0)
    while open_scans:
        pipe = client.pipeline(transaction=False)
        for index, cursor in open_scans.items():
            pipe.hscan(names[index], cursor, match=pattern, count=_SCAN_COUNT)
        answers: list[tuple[int, dict[bytes, bytes]]] = await pipe.execute()
        for index, (cursor, series) in zip(list(open_scans), answers, strict=True):
            found[index].update(series)
            if cursor:
                open_scans[index] = cursor
            else:
                del open_scans[index]
    return found

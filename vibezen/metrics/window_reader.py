"""Reading windows: how series and shards become one number, and the reads themselves.

Windows merge exactly, so a coarse step is made of finer windows and a total of all series and shards. Gauges are the
exception: their total is the sum over series of each series' newest value.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.histogram import Weight
from vibezen.metrics.keys import Keys
from vibezen.metrics.series import SeriesKey, series_key
from vibezen.metrics.window import Window, sum_of

WINDOWS_PER_READ: Final = 16
"""Windows fetched in one round trip. The server serves nobody else meanwhile: some 4 ms per window of 2,600 series."""
TOTALS_PER_READ: Final = 500
MAX_SHARDS: Final = 1024
"""As many as a configuration may name."""
_SCAN_COUNT: Final = 10_000

QUANTILES: Final[Mapping[str, float]] = {
    "p50": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p99.9": 0.999,
}
HISTOGRAM: Final = "histogram"
AGGREGATES: Final = ("count", "sum", "mean", "min", "max", "last", "rate", *QUANTILES, HISTOGRAM)
DEFAULT_AGGREGATE: Final[Mapping[Kind, str]] = {
    Kind.DISTRIBUTION: "p50",
    Kind.COUNTER: "sum",
    Kind.GAUGE: "last",
    Kind.RATIO: "mean",
}

Number = int | float | None
Value = Number | list[tuple[float, float, Weight]]
"""What an aggregate is: a number, or the buckets of a histogram (low, high, samples)."""


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


def aggregates(window: Window, names: Iterable[str], seconds: float, kind: Kind) -> list[Any]:
    """The named aggregates of a window that is `seconds` long so far, each a Value; all but the histogram are Numbers.
    None where there is no sample to tell it by.

    `rate` is per second: the increase of a counter, samples of anything else.
    """
    quantile = window.distribution().quantile if any(name in QUANTILES for name in names) else None
    return [_aggregate(window, name, seconds, kind, quantile) for name in names]


def _aggregate(window: Window, name: str, seconds: float, kind: Kind, quantile: Any) -> Value:
    if not window.count:
        return None
    if name in QUANTILES:
        value: Number = quantile(QUANTILES[name])
        return value
    if name == HISTOGRAM:
        return window.buckets()
    if name == "rate":
        return (window.sum if kind is Kind.COUNTER else window.count) / seconds if seconds > 0 else None
    found: Number = getattr(window, name)
    return found


class Fetched(NamedTuple):
    """One window of one shard as it is stored: series key → blob."""

    shard: int
    start: int
    series: Mapping[bytes, bytes]


async def shard_count(client: Redis, keys: Keys, configured: int) -> int:
    """The highest number of shards ever used; what is no such number does not count."""
    answer: Any = await client.get(keys.shards)
    used = int(answer) if isinstance(answer, bytes) and answer.isdigit() else 0
    return max(min(used, MAX_SHARDS), configured)


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
    client: Redis, keys: Keys, shards: int, width: int, starts: Sequence[int], metric: str | None = None
) -> AsyncIterator[list[Fetched]]:
    """The same with all series of a metric as one without labels: a field per window, whatever the number of its
    series. Of gauges these tell every aggregate but the newest value."""
    places = [(shard, start) for start in starts for shard in range(shards)]
    for first in range(0, len(places), TOTALS_PER_READ):
        some = places[first : first + TOTALS_PER_READ]
        pipe = client.pipeline(transaction=False)
        for shard, start in some:
            name = keys.totals(shard, width, start)
            pipe.hgetall(name) if metric is None else pipe.hget(name, metric)
        answers: list[Any] = await pipe.execute()
        if batch := _present(some, [_by_series(answer, metric) for answer in answers]):
            yield batch


def _by_series(answer: Any, metric: str | None) -> dict[bytes, bytes]:
    """Totals under the keys of series without labels."""
    if metric is not None:
        return {} if answer is None else {series_key(metric, {}).encode(): answer}
    return {series_key(name.decode(), {}).encode(): blob for name, blob in answer.items()}


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

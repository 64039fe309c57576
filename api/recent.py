"""The newest windows of one width in memory, per shard and series, and their totals.

Windows are kept as they are stored: a blob is a quarter of the decoded window, and an old one is rarely asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

import msgspec

from vibezen.metrics.catalogue import Catalogue
from vibezen.metrics.clock import floor_to
from vibezen.metrics.histogram import Weight
from vibezen.metrics.series import SeriesKey, parse_series
from vibezen.metrics.window import BLOB_VERSION, Window, from_blob, to_blob
from vibezen.metrics.window_reader import total

KEPT: Final = 1800
"""Seconds of windows held: a late event within it still reaches the page as a frame."""
_KNOWN_BOUND: Final = 100_000

Slot = tuple[int, str]
"""(start, metric): what one cell of the live feed shows."""
Place = tuple[int, SeriesKey]
"""(shard, series)"""


class Held(Protocol):
    """Windows that can be asked about: all recent ones, or a selection of them."""

    width: int
    catalogue: Catalogue

    def metrics(self) -> list[str]: ...

    def slots(self, since: int) -> set[Slot]: ...

    def parts(self, start: int, metric: str) -> Iterator[tuple[SeriesKey, Window]]: ...

    def total(self, start: int, metric: str) -> Window: ...


class _Counted(msgspec.Struct, array_like=True):
    """The first field of a stored window."""

    count: Weight


_count_decoder = msgspec.msgpack.Decoder(_Counted)


class RecentWindows:
    """Not for several tasks at once. `width` in seconds."""

    def __init__(self, width: int, catalogue: Catalogue) -> None:
        self.width = width
        self.catalogue = catalogue
        self._windows: dict[int, dict[str, dict[Place, bytes]]] = {}
        self._totals: dict[Slot, Window] = {}
        self._known: dict[Place, tuple[str, Place]] = {}

    def oldest_kept(self, now: float) -> int:
        return floor_to(now, self.width) - KEPT + self.width

    def put(self, shard: int, start: int, series: SeriesKey, window: Window) -> Slot | None:
        """Take a frame's word on a series-window; the slot it changes, None when it says nothing new.

        Within a window counts only grow, so a smaller count is the late word of an owner that was replaced.
        """
        metric, place = self._place(shard, series)
        blobs = self._windows.setdefault(start, {}).setdefault(metric, {})
        known, blob = blobs.get(place), to_blob(window)
        if known == blob or (known is not None and _count(known) > window.count):
            return None
        blobs[place] = blob
        self._totals.pop((start, metric), None)
        return start, metric

    def replace(self, shard: int, start: int, stored: Mapping[bytes, bytes]) -> set[Slot]:
        """Take what Redis has stored for a shard's window as the whole truth; the slots that changes.

        Raises MetricsError when it is of a format this version does not know.
        """
        fresh: dict[str, dict[Place, bytes]] = {}
        for key, blob in stored.items():
            if blob[:1] != BLOB_VERSION:
                from_blob(blob)  # raises, and says why
            metric, place = self._place(shard, key.decode())
            fresh.setdefault(metric, {})[place] = blob
        window = self._windows.get(start, {})
        changed: set[Slot] = set()
        for metric in fresh.keys() | window.keys():
            old = window.get(metric, {})
            others = {place: blob for place, blob in old.items() if place[0] != shard}
            new = {**others, **fresh.get(metric, {})}
            if new != old:
                self._windows.setdefault(start, {})[metric] = new
                self._totals.pop((start, metric), None)
                changed.add((start, metric))
        return changed

    def prune(self, now: float) -> None:
        """Forget windows that are older than KEPT."""
        oldest = self.oldest_kept(now)
        self._windows = {start: window for start, window in self._windows.items() if start >= oldest}
        self._totals = {slot: window for slot, window in self._totals.items() if slot[0] >= oldest}
        if len(self._known) > _KNOWN_BOUND:
            self._known.clear()

    def starts(self) -> list[int]:
        return sorted(self._windows)

    def metrics(self) -> list[str]:
        """Metrics with anything in any window held."""
        return sorted({metric for window in self._windows.values() for metric, blobs in window.items() if blobs})

    def slots(self, since: int) -> set[Slot]:
        """All slots of windows that begin at `since` or later."""
        return {(start, metric) for start, window in self._windows.items() if start >= since for metric in window}

    def parts(
        self, start: int, metric: str, wanted: Callable[[SeriesKey], bool] | None = None
    ) -> Iterator[tuple[SeriesKey, Window]]:
        """Every series of every shard, or those that are `wanted`."""
        for series, blob in self.blobs(start, metric):
            if wanted is None or wanted(series):
                yield series, from_blob(blob)

    def blobs(self, start: int, metric: str) -> Iterator[tuple[SeriesKey, bytes]]:
        """The same as it is stored."""
        for (_, series), blob in self._windows.get(start, {}).get(metric, {}).items():
            yield series, blob

    def total(self, start: int, metric: str) -> Window:
        """All series and shards; do not change it. The same object as long as nothing in it has changed."""
        slot = (start, metric)
        found = self._totals.get(slot)
        if found is None:
            found = self._totals[slot] = total(self.catalogue[metric].kind, self.parts(start, metric))
        return found

    def _place(self, shard: int, series: SeriesKey) -> tuple[str, Place]:
        """The metric, and one tuple and one string per series however many windows it is in."""
        known = self._known.get((shard, series))
        if known is None:
            known = self._known[shard, series] = (parse_series(series).metric, (shard, series))
        return known


def _count(blob: bytes) -> Weight:
    return _count_decoder.decode(memoryview(blob)[1:]).count

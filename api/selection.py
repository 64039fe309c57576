"""What recent windows say to one choice: only its metrics, only the series that it means, told apart as it asks."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from vibezen.metrics.api.choice import Choice
from vibezen.metrics.api.recent import RecentWindows, Slot
from vibezen.metrics.catalogue import Catalogue
from vibezen.metrics.series import OVERFLOW, SeriesKey, parse_series
from vibezen.metrics.window import Window
from vibezen.metrics.window_reader import Total, total

MAX_GROUPS: Final = 20
"""Groups told of one metric in one window: those with the most samples."""
_KNOWN_BOUND: Final = 100_000

Labels = tuple[tuple[str, str], ...]


class Groups(NamedTuple):
    """The groups of one slot, those with the most samples first; `omitted`: how many more there are."""

    shown: list[tuple[Labels, Window]]
    omitted: int


class _Made(NamedTuple):
    """A total, the whole metric's at that time, and the stored windows it was made of."""

    whole: Window
    blobs: list[bytes]
    total: Window


class Selection:
    """As RecentWindows, for a choice."""

    def __init__(self, recent: RecentWindows, choice: Choice) -> None:
        self.width: int = recent.width
        self.catalogue: Catalogue = recent.catalogue
        self._recent, self._choice = recent, choice
        self._totals: dict[Slot, _Made] = {}
        self._groups: dict[SeriesKey, Labels | None] = {}

    def metrics(self) -> list[str]:
        return [metric for metric in self._recent.metrics() if self._choice.has(metric)]

    def slots(self, since: int) -> set[Slot]:
        return {slot for slot in self._recent.slots(since) if self._choice.has(slot[1])}

    def parts(self, start: int, metric: str) -> Iterator[tuple[SeriesKey, Window]]:
        return self._recent.parts(start, metric, self._means if self._choice.where else None)

    def total(self, start: int, metric: str) -> Window:
        """The same object as long as nothing that is meant has changed."""
        whole = self._recent.total(start, metric)
        if not self._choice.where:
            return whole
        slot = (start, metric)
        made = self._totals.get(slot)
        if made is not None and made.whole is whole:
            return made.total
        blobs = [blob for series, blob in self._recent.blobs(start, metric) if self._means(series)]
        if made is not None and made.blobs == blobs:
            found = made.total
        else:
            found = total(self.catalogue[metric].kind, self.parts(start, metric))
        self._totals[slot] = _Made(whole, blobs, found)
        return found

    def groups(self, start: int, metric: str) -> Groups:
        """Series by the labels of `group_by`. Those counted together as overflow are a group by themselves."""
        kind = self.catalogue[metric].kind
        totals: dict[Labels, Total] = {}
        for series, window in self.parts(start, metric):
            labels = self._group(series)
            assert labels is not None
            totals.setdefault(labels, Total(kind)).add(series, window)
        found = [(labels, each.window()) for labels, each in totals.items()]
        found.sort(key=lambda group: (-group[1].count, group[0]))
        return Groups(found[:MAX_GROUPS], max(0, len(found) - MAX_GROUPS))

    def prune(self, oldest: int) -> None:
        self._totals = {slot: made for slot, made in self._totals.items() if slot[0] >= oldest}
        if len(self._groups) > _KNOWN_BOUND:
            self._groups.clear()

    def _means(self, series: SeriesKey) -> bool:
        return self._group(series) is not None

    def _group(self, series: SeriesKey) -> Labels | None:
        """The group a series belongs to; None when a condition does not hold for it."""
        try:
            return self._groups[series]
        except KeyError:
            found = self._groups[series] = self._grouped(series)
            return found

    def _grouped(self, series: SeriesKey) -> Labels | None:
        labels = parse_series(series).labels
        if OVERFLOW in labels:  # nobody knows what is in it
            return None if self._choice.where else ((OVERFLOW, labels[OVERFLOW]),)
        if not all(condition.holds(labels.get(condition.key)) for condition in self._choice.where):
            return None
        return tuple((key, labels[key]) for key in self._choice.group_by if key in labels)

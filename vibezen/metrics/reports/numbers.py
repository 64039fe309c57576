"""The numbers of a report: what must be read, in as few readings as there can be, and what came of them."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from anyio import to_thread

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.gathering import Asked, Cell, Gathered, Gatherer, Group, Source
from vibezen.metrics.history import aggregates_of
from vibezen.metrics.reports.comparison import Measured, divided, measured
from vibezen.metrics.reports.definition import Number, Reading
from vibezen.metrics.window_reader import QUANTILES
from vibezen.metrics.window_reader import Number as Value

JUDGING: Final = ("count", "mean", "min", "max", *QUANTILES)
"""What tells how far a number may be off by chance; see comparison.py."""


class Place(NamedTuple):
    """One reading of events or windows: a range in Unix seconds, told apart by labels. `edges`: where its steps begin,
    and where the last one ends; without any the range is one."""

    start: int
    stop: int
    edges: tuple[int, ...] = ()
    group_by: tuple[str, ...] = ()


class _Query(NamedTuple):
    place: Place
    metric: str
    where: tuple[Condition, ...]


class Numbers:
    """First say what is wanted, then read, then ask for it."""

    def __init__(self, gatherer: Gatherer, now: float, *, exact: bool = False) -> None:
        self._gatherer, self._now, self._exact = gatherer, now, exact
        self._wanted: dict[_Query, set[str]] = {}
        self._shown: dict[_Query, set[str]] = {}
        self._found: dict[_Query, dict[Group, dict[int, Cell]]] = {}
        self.exact = True
        """Whether all percentiles shown are those of the values themselves."""
        self.as_of: float | None = None
        self.sources: list[Source] = []
        self.recorded = False
        """Whether anything at all was found."""

    def want(self, place: Place, number: Number, *, judged: bool = False) -> None:
        """`judged`: it will be compared, so that what tells its noise is wanted too."""
        for reading in _readings(number):
            query = _Query(place, reading.metric, reading.where)
            self._shown.setdefault(query, set()).add(reading.agg)
            self._wanted.setdefault(query, set()).update([reading.agg, "count", *(JUDGING if judged else ())])

    async def read(self) -> None:
        """Raises BadParameter when there is too much to tell apart, StoreError when files cannot be read."""
        for query, names in self._wanted.items():
            place = query.place
            gathered = await self._gatherer.gather(
                Asked(
                    start=place.start,
                    stop=place.stop,
                    step=max(b - a for a, b in pairwise(place.edges)) if place.edges else None,
                    metric=query.metric,
                    aggregates=sorted(names),
                    group_by=place.group_by,
                    where=query.where,
                    exact=self._exact,
                    edges=place.edges,
                )
            )
            await to_thread.run_sync(self._take, query, gathered)

    def _take(self, query: _Query, gathered: Gathered) -> None:
        groups = self._found.setdefault(query, {})
        for (_, group, start), cell in gathered.cells.items():
            groups.setdefault(group, {})[start] = cell
        if not gathered.cells:
            return
        self.recorded = True
        self.as_of = max(self.as_of or gathered.newest, gathered.newest)
        self.exact &= gathered.exact or QUANTILES.keys().isdisjoint(self._shown[query])
        if len(gathered.sources) > len(self.sources) or not self.sources:
            self.sources = gathered.sources

    def groups(self, place: Place, number: Number) -> list[Group]:
        """The groups anything was recorded of, in the order of their labels."""
        return sorted(self._cells(place, number.of))

    def value(self, place: Place, number: Number, group: Group = ()) -> Measured:
        """The number over the whole range of a place without steps."""
        of = self._measure(place, number.of, group)
        return of if number.per is None else divided(of, self._measure(place, number.per, group))

    def values(self, place: Place, number: Number, group: Group = ()) -> list[Value]:
        """The number per step, None where nothing was recorded."""
        over = self._column(place, number.of, group)
        if number.per is None:
            return over
        under = self._column(place, number.per, group)
        return [one / other if one is not None and other else None for one, other in zip(over, under, strict=True)]

    def _cells(self, place: Place, reading: Reading) -> dict[Group, dict[int, Cell]]:
        return self._found[_Query(place, reading.metric, reading.where)]

    def _measure(self, place: Place, reading: Reading, group: Group) -> Measured:
        query = _Query(place, reading.metric, reading.where)
        cell = next(iter(self._found[query].get(group, {}).values()), None)
        if cell is None:
            return Measured(None, 0)
        names = tuple(sorted(self._wanted[query]))
        kind = self._kind(reading)
        told = dict(zip(names, aggregates_of(cell, names, self._seconds(place.start, place.stop), kind), strict=True))
        return measured(reading.agg, told, kind)

    def _column(self, place: Place, reading: Reading, group: Group) -> list[Value]:
        cells, kind = self._cells(place, reading).get(group, {}), self._kind(reading)
        found: list[Value] = []
        for start, stop in pairwise(place.edges):
            cell = cells.get(start)
            seconds = self._seconds(start, stop)
            found.append(None if cell is None else aggregates_of(cell, (reading.agg,), seconds, kind)[0])
        return found

    def _kind(self, reading: Reading) -> Kind:
        return self._gatherer.catalogue[reading.metric].kind

    def _seconds(self, start: int, stop: int) -> float:
        return min(stop, self._now) - start


def _readings(number: Number) -> Iterable[Reading]:
    return (number.of,) if number.per is None else (number.of, number.per)

"""The numbers of a report: what must be read, in as few readings as there can be, and what came of them."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
from anyio import to_thread

from vibezen.metrics.catalogue import Kind
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.gathering import Asked, Cell, Gathered, Gatherer, Group, Source
from vibezen.metrics.history import aggregates_of
from vibezen.metrics.reports import savings
from vibezen.metrics.reports.comparison import MIN_SAMPLES, Measured, divided, measured
from vibezen.metrics.reports.definition import Number, Reading
from vibezen.metrics.window_reader import QUANTILES
from vibezen.metrics.window_reader import Number as Value

JUDGING: Final = ("count", "mean", "min", "max", *QUANTILES)
"""What tells how far a number may be off by chance; see comparison.py."""


class Place(NamedTuple):
    """One reading of events or windows, told apart by labels. `edges`: where its steps begin, in Unix seconds, and
    where the last one ends."""

    edges: tuple[int, ...]
    group_by: tuple[str, ...] = ()

    def steps(self) -> Iterable[tuple[int, int]]:
        return pairwise(self.edges)


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
        self._sources: dict[str, Source] = {}
        self.unpriced: set[str] = set()
        """Models whose price nobody knows, so that what a cache saved there is not counted."""
        self.newest_step = 0
        """Where the last step begins in which anything was found, in Unix seconds."""

    def want(self, place: Place, number: Number, *, judged: bool = False) -> None:
        """`judged`: it will be compared, so that what tells its noise is wanted too."""
        for reading in _readings(number):
            query = _query(place, reading)
            if reading.metric == savings.METRIC:
                self._wanted.setdefault(query, set()).update(("sum", "count"))
                self._shown.setdefault(query, set())
                continue
            self._shown.setdefault(query, set()).add(reading.agg)
            self._wanted.setdefault(query, set()).update([reading.agg, "count", *(JUDGING if judged else ())])

    async def read(self) -> None:
        """Raises BadParameter when there is too much to tell apart, StoreError when files cannot be read."""
        for query, names in self._wanted.items():
            edges = query.place.edges
            longest = max(stop - start for start, stop in query.place.steps())
            gathered = await self._gatherer.gather(
                Asked(
                    start=edges[0],
                    stop=edges[-1],
                    step=longest if len(edges) > 2 else None,
                    metric=query.metric,
                    aggregates=sorted(names),
                    group_by=query.place.group_by,
                    where=query.where,
                    exact=self._exact,
                    edges=edges if len(edges) > 2 else (),
                )
            )
            await to_thread.run_sync(self._take, query, gathered)

    def _take(self, query: _Query, gathered: Gathered) -> None:
        groups = self._found.setdefault(query, {})
        for (_, group, start), cell in gathered.cells.items():
            groups.setdefault(group, {})[start] = cell
            self.newest_step = max(self.newest_step, start)
        if not gathered.cells:
            return
        self.as_of = max(self.as_of or gathered.newest, gathered.newest)
        self.exact &= gathered.exact or QUANTILES.keys().isdisjoint(self._shown[query])
        for one in gathered.sources:
            kind = self._sources.setdefault(one.source, msgspec.structs.replace(one))
            kind.since, kind.to = min(kind.since, one.since), max(kind.to, one.to)

    def sources(self) -> list[Source]:
        """What numbers were taken from, each between its first and its last hour, the oldest first."""
        return sorted(self._sources.values(), key=lambda one: (one.since, one.source))

    def groups(self, place: Place, number: Number, start: int | None = None) -> list[Group]:
        """The groups anything was recorded of, in the order of their labels; `start`: in this step."""
        found = self._found[_query(place, number.of)]
        groups = {group for group, cells in found.items() if start is None or start in cells}
        return sorted({_within(group, place.group_by) for group in groups})

    def value(self, place: Place, start: int, number: Number, group: Group = ()) -> Measured:
        """The number in the step that begins at `start`."""
        of = self._measure(place, start, number.of, group)
        return of if number.per is None else divided(of, self._measure(place, start, number.per, group))

    def values(self, place: Place, number: Number, group: Group = ()) -> list[Value]:
        """The number per step, None where nothing was recorded."""
        return [self.value(place, start, number, group).value for start, _ in place.steps()]

    def _measure(self, place: Place, start: int, reading: Reading, group: Group) -> Measured:
        if reading.metric == savings.METRIC:
            return self._saved(place, start, reading, group)
        query = _query(place, reading)
        cell = self._found[query].get(group, {}).get(start)
        if cell is None:
            return Measured(None, 0)
        names, kind = tuple(sorted(self._wanted[query])), self._kind(reading)
        seconds = self._seconds(start, place.edges[place.edges.index(start) + 1])
        told = dict(zip(names, aggregates_of(cell, names, seconds, kind), strict=True))
        return measured(reading.agg, told, kind)

    def _saved(self, place: Place, start: int, reading: Reading, group: Group) -> Measured:
        """Tokens read from the cache, each at what it saved; without a price list nobody knows."""
        total, samples = 0.0, 0.0
        for found, cells in self._found[_query(place, reading)].items():
            if start not in cells or _within(found, place.group_by) != group:
                continue
            labels, tokens = dict(found), cells[start].total.window()
            each = savings.saved(labels.get("provider"), labels.get("model"), start)
            if each is None:
                self.unpriced.add(labels.get("model", "calls without a model"))
            else:
                total, samples = total + each * tokens.sum, samples + tokens.count
        return Measured(total if samples else None, samples, None, samples >= MIN_SAMPLES)

    def _kind(self, reading: Reading) -> Kind:
        return self._gatherer.catalogue[reading.metric].kind

    def _seconds(self, start: int, stop: int) -> float:
        return min(stop, self._now) - start


def _within(group: Group, labels: tuple[str, ...]) -> Group:
    """What remains of a group that was told apart by more labels than these."""
    return tuple(pair for pair in group if pair[0] in labels)


def _query(place: Place, reading: Reading) -> _Query:
    if reading.metric == savings.METRIC:
        group_by = tuple(dict.fromkeys((*place.group_by, *savings.LABELS)))
        return _Query(place._replace(group_by=group_by), savings.TOKENS, (*reading.where, savings.CACHED))
    return _Query(place, reading.metric, reading.where)


def _readings(number: Number) -> Iterable[Reading]:
    return (number.of,) if number.per is None else (number.of, number.per)

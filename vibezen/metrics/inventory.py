"""Which metrics there are, with their units, labels and values: what `GET /api/catalogue` answers."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
from anyio import to_thread

from vibezen.metrics.catalogue import Better, Catalogue
from vibezen.metrics.clock import HOUR
from vibezen.metrics.committed import Files, Snapshot, hours_of
from vibezen.metrics.event_reader import EventReader, Wanted
from vibezen.metrics.question import Parameters, parse_range, single

PARAMETERS: Final = ("from", "to", "tz")
MAX_VALUES: Final = 100
"""Values of one label that are told, the most frequent of each segment first."""
_REMEMBERED: Final = 24 * 400
"""Hours whose closed segments are remembered: those never change, and to find out what is in them costs a reading."""

Rows = Sequence[tuple[Any, ...]]


class Known(msgspec.Struct):
    """One metric. `events`: lines in the range. `labels`: those it can be grouped by, with values found; `metadata`:
    keys that stand in its events only. `declared`: built in or from the configuration."""

    metric: str
    family: str
    unit: str
    kind: str
    better: str | None
    declared: bool
    events: int = 0
    first: float | None = None
    last: float | None = None
    labels: dict[str, list[str]] = {}
    metadata: list[str] = []


class Inventory(msgspec.Struct):
    """[from, to) is the range asked for, rounded out to whole hours."""

    since: float = msgspec.field(name="from")
    to: float = msgspec.field()
    metrics: list[Known] = msgspec.field()


def parse_inventory(parameters: Parameters, now: float) -> range:
    """The hours asked about. Raises BadParameter."""
    return hours_of(*parse_range(single(parameters, PARAMETERS), now, "now-24h"))


async def inventory(reader: EventReader, catalogue: Catalogue, labels: Sequence[str], hours: range) -> Inventory:
    """All metrics declared, and those that events of these hours have. Raises StoreError."""
    return await to_thread.run_sync(reader.ask, partial(_inventory, reader, catalogue, labels, hours), hours)


def _inventory(
    reader: EventReader, catalogue: Catalogue, labels: Sequence[str], hours: range, snapshot: Snapshot
) -> Inventory:
    found: dict[str, Known] = {name: _known(catalogue, name) for name in catalogue.names()}
    for hour in (hour for hour in snapshot.hours() if hour in hours):
        files = snapshot.files([hour])
        _add(found, catalogue, labels, _of_closed(reader, hour, files.closed, tuple(labels)))
        _add(found, catalogue, labels, _rows(reader, hour, files.still_open, labels))
    return Inventory(hours.start, hours.stop, [found[name] for name in sorted(found)])


def _known(catalogue: Catalogue, metric: str) -> Known:
    spec = catalogue[metric]
    better = None if spec.better is Better.NEITHER else str(spec.better)
    return Known(metric, spec.family, spec.unit, spec.kind, better, metric in catalogue)


def _add(found: dict[str, Known], catalogue: Catalogue, labels: Sequence[str], rows: Rows) -> None:
    for metric, key, lines, first, last, values in rows:
        known = found.setdefault(metric, _known(catalogue, metric))
        if key is None:
            known.events += lines
            known.first = first if known.first is None else min(known.first, first)
            known.last = last if known.last is None else max(known.last, last)
        elif key not in labels:
            known.metadata = sorted({*known.metadata, key})
        elif values is not None:
            known.labels[key] = list(dict.fromkeys([*known.labels.get(key, ()), *values]))[:MAX_VALUES]


_remembered: OrderedDict[tuple[int, tuple[tuple[str, int], ...], tuple[str, ...]], Rows] = OrderedDict()


def _of_closed(reader: EventReader, hour: int, files: Files, labels: tuple[str, ...]) -> Rows:
    key = (hour, files.identity(), labels)
    known = _remembered.get(key)
    if known is None:
        known = _remembered[key] = _rows(reader, hour, files, labels)
        while len(_remembered) > _REMEMBERED:
            _remembered.popitem(last=False)
    return known


def _rows(reader: EventReader, hour: int, files: Files, labels: Sequence[str]) -> Rows:
    return reader.inventory(files, Wanted(hour, hour + HOUR), labels, MAX_VALUES)

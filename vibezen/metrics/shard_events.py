"""The events of one shard, hour by hour, up to where its archive was at one moment: from segments, and from parts where
these include the segments.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from vibezen.metrics.clock import HOUR
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.committed import ATTEMPTS, blocks, committed, events_of, open_committed
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event import Event
from vibezen.metrics.event_reader import connect, file_errors, reading
from vibezen.metrics.layout import Layout, hour_of, segment_name
from vibezen.metrics.part_files import PartFiles
from vibezen.metrics.parts import View, date_of
from vibezen.metrics.snapshot import Files, PartSpan, Snapshot

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY: Final = "256MB"
_MICROS: Final = 1_000_000
ROWS: Final = 5000
"""Rows of a part taken at a time."""
ROW_BYTES: Final = 150
"""What an event is on a line, about: for those who show how far they are."""
_ROWS_OF_SHARD: Final = (
    'SELECT epoch_us(ts) / 1e6, metric, value, sample_rate, "count", metadata'
    " FROM read_parquet($place, hive_partitioning=false)"
    " WHERE shard = $shard AND ts >= make_timestamp($since) AND ts < make_timestamp($until) ORDER BY ts, value"
)

Metadata = dict[str, str | int | float | bool | None]


class Block(NamedTuple):
    """Some events, and how many bytes were read for them."""

    events: Sequence[Event]
    bytes: int


class ShardEvents:
    """What one shard's archive had committed when this was made: `extents`, by path, and `last`, its newest record.

    Parts are looked for first: then all that they include stands in the logs that are read. Of a part, all rows of an
    hour are taken that are the shard's: those of the segments it includes. Making one raises StoreError.
    """

    def __init__(self, layout: Layout, shard: int, hours: range) -> None:
        self._layout, self._shard = layout, shard
        views = _views(layout, sorted({date_of(hour) for hour in hours}))
        self.committed = committed(layout, shard)
        self.extents, self.last = self.committed
        by_hour: dict[int, dict[str, Extent]] = {}
        for path, extent in self.extents.items():
            by_hour.setdefault(hour_of(path), {})[path] = extent
        self._snapshot = Snapshot(by_hour, {shard: self.last.position}, views, layout.events)
        self._connection: DuckDBPyConnection | None = None

    def segments(self, hour: int) -> list[Extent]:
        """Those of an hour that no part includes, in the order in which they were archived."""
        names = [one.path.relative_to(self._layout.events).as_posix() for one in self._snapshot.files([hour]).segments]
        return sorted((self.extents[name] for name in names), key=lambda one: segment_name(Path(one.path)) or ())

    def parts(self, hours: Iterable[int]) -> Sequence[PartSpan]:
        """The parts that have the other events of these hours."""
        return self._snapshot.files(hours).parts

    def read(self, hour: int, since: float = 0.0, until: float = math.inf) -> Iterator[Block]:
        """The events of an hour; at least those in [since, until). Raises OSError, StoreError; FilesChanged when a file
        that was there is gone."""
        if parts := self.parts([hour]):
            yield from self._of_part(parts, max(int(since), hour), min(until, hour + HOUR))
        for extent in self.segments(hour):
            if extent.max_ts >= since and extent.min_ts < until:
                with open_committed(self._layout, extent) as file:
                    for block in blocks(file, extent.end):
                        yield Block(events_of(block), len(block))

    def _of_part(self, parts: Sequence[PartSpan], since: int, until: float) -> Iterator[Block]:
        files = Files(parts=parts)
        with file_errors(files), reading(files) as found:
            ((place, _),) = found.parts
            told = {"place": place, "shard": self._shard}
            told |= {"since": since * _MICROS, "until": math.ceil(until) * _MICROS}
            if self._connection is None:
                self._connection = connect(MEMORY)
            with self._connection.cursor() as cursor:
                cursor.execute(_ROWS_OF_SHARD, told)
                while rows := cursor.fetchmany(ROWS):
                    yield Block([_event(*row) for row in rows], len(rows) * ROW_BYTES)


def _views(layout: Layout, dates: Sequence[int]) -> Mapping[int, View]:
    files = PartFiles(layout)
    for _ in range(ATTEMPTS):
        with suppress(FileNotFoundError):
            return files.views(dates)
    raise StoreError(f"storage folder {layout.root}: parts come and go while they are looked for")


_decoder: Final = msgspec.json.Decoder(Metadata)


def _event(ts: float, metric: str, value: float, rate: float, samples: int, metadata: str | None) -> Event:
    return Event(metric, value, ts, rate, samples, _decoder.decode(metadata) if metadata else {})

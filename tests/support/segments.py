"""Segments with their commit logs as archivers leave them, made without a server; and what readers find in a store."""

import os
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from vibezen.metrics.commitlog import Extent, Record, encode_record, read_log
from vibezen.metrics.committed import Snapshot
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.event_sql import Wanted
from vibezen.metrics.layout import Layout, SegmentName, partition_of

ALL = Wanted(0, 4e9)


class Written(NamedTuple):
    """A segment that was committed."""

    path: Path
    extent: Extent


def commit(
    layout: Layout,
    events: Iterable[Event],
    *,
    shard: int = 0,
    epoch: int = 1,
    closed: bool = True,
    at: float | None = None,
) -> list[Written]:
    """Commit events to new segments of a shard, one for each hour. `at`: when they were written, Unix seconds."""
    by_partition: dict[str, list[Event]] = {}
    for event in events:
        assert event.ts is not None
        by_partition.setdefault(partition_of(event.ts), []).append(event)
    log = layout.log(shard, epoch)
    number = len(read_log(log).extents) if log.exists() else 0
    written = []
    for partition, some in sorted(by_partition.items()):
        number += 1
        path = layout.segment(partition, SegmentName(shard, epoch, number))
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encode_lines(some)
        path.write_bytes(data)
        if at is not None:
            os.utime(path, (at, at))
        times = [event.ts for event in some if event.ts is not None]
        name = path.relative_to(layout.events).as_posix()
        extent = Extent(name, len(data), len(some), min(times), max(times), zlib.crc32(data), closed)
        written.append(Written(path, extent))
    with log.open("ab") as file:
        file.write(encode_record(Record(f"{number}-0", [one.extent for one in written])))
    return written


def close(layout: Layout, written: Iterable[Written], *, shard: int = 0, epoch: int = 1) -> None:
    """Close segments that were left open."""
    extents = [msgspec.structs.replace(one.extent, closed=True) for one in written]
    with layout.log(shard, epoch).open("ab") as file:
        file.write(encode_record(Record("1-0", extents)))


def seal(layout: Layout, *, shard: int = 0, epoch: int = 1) -> None:
    """Close the log of an epoch, as its successor does."""
    log = layout.log(shard, epoch)
    state = read_log(log)
    final = [msgspec.structs.replace(extent, closed=True) for extent in state.extents.values()]
    log.write_bytes(encode_record(msgspec.structs.replace(state.last, segments=final, sealed=True)))


def values(layout: Layout, reader: EventReader | None = None) -> Counter[float]:
    """Every event a reader finds, by its value: how often."""
    reader = reader or EventReader(layout)

    def read(snapshot: Snapshot) -> Counter[float]:
        files = snapshot.files(snapshot.hours())
        found = Counter(line.value for line in reader.lines(files, ALL, 1_000_000))
        assert found.total() == files.lines
        return found

    return reader.ask(read)

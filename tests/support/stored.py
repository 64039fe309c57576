"""Stores made without a server: segments with their commit logs as an archiver leaves them, and parts of them."""

import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from vibezen.metrics import part_sql, rollups
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.commitlog import Counters, Extent, Record, encode_record, read_log
from vibezen.metrics.committed import CommittedFiles
from vibezen.metrics.consumers import rollup_rows
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.layout import Layout, SegmentName, date_folder, hour_of, partition_of, segment_name
from vibezen.metrics.part_files import read_footers
from vibezen.metrics.parts import KEY, Footer, HourOf, Input, Part, encode_footer, generation_of, part_name, view
from vibezen.metrics.rollups import RollupFooter, rollup_path
from vibezen.metrics.settings import Settings


def archive(
    layout: Layout, events: Iterable[Event | bytes], *, shard: int = 0, closed: bool = True, epoch: int = 1
) -> list[Extent]:
    """Commit events, or the lines of events, to new segments of `shard`, one for each hour."""
    lines = [one if isinstance(one, bytes) else encode_lines([one]) for one in events]
    by_partition: dict[str, list[tuple[float, bytes]]] = {}
    for line in lines:
        ts = _time(line)
        by_partition.setdefault(partition_of(ts), []).append((ts, line))
    log = layout.log(shard, epoch)
    before = read_log(log) if log.exists() else None
    number = len(before.extents) if before else 0
    extents = []
    for partition, timed in sorted(by_partition.items()):
        number += 1
        path = layout.segment(partition, SegmentName(shard, epoch, number))
        path.parent.mkdir(parents=True, exist_ok=True)
        data = b"".join(line for _, line in timed)
        path.write_bytes(data)
        times = [ts for ts, _ in timed]
        name = path.relative_to(layout.events).as_posix()
        extents.append(Extent(name, len(data), len(timed), min(times), max(times), zlib.crc32(data), closed))
    counted = (before.last.counters.events if before else 0) + len(lines)
    with log.open("ab") as file:
        file.write(encode_record(Record(f"{number}-0", extents, counters=Counters(events=counted))))
    return extents


def _time(line: bytes) -> float:
    ts: float = msgspec.json.decode(line)["ts"]
    return ts


def compact_hour(layout: Layout, hour: int) -> Path:
    """Publish the next generation of an hour, of everything closed in it."""
    return _compact(layout, partition_of(hour), range(hour, hour + HOUR, HOUR))


def compact_day(layout: Layout, date: int) -> Path:
    """Publish the next generation of a UTC date, of its hours' parts and everything closed in it."""
    return _compact(layout, date_folder(date), range(date, date + DAY, HOUR))


def _compact(layout: Layout, folder: str, hours: range) -> Path:
    snapshot = CommittedFiles(layout).snapshot(hours)
    found = snapshot.files(hours)
    segments = [one.path for one in found.segments if one.closed]
    included = _included(layout, hours)
    inputs = [*included, *(_input(layout, path) for path in segments)]
    rows = part_sql.rows(_by_shard(segments), [Path(span.place) for span in found.parts])
    if all(span.spans is None for span in found.parts):
        return write_part(layout, folder, inputs, rows)
    spans = " OR ".join(f"epoch_us(ts) BETWEEN {hour}000000 AND {hour + HOUR}000000 - 1" for hour in hours)
    return write_part(layout, folder, inputs, Sql(f"SELECT * FROM ({rows.text}) WHERE {spans}", rows.parameters))


def _by_shard(segments: Iterable[Path]) -> list[part_sql.Lines]:
    by_shard: dict[int, list[Path]] = {}
    for path in segments:
        name = segment_name(path)
        assert name is not None
        by_shard.setdefault(name.shard, []).append(path)
    return [part_sql.Lines(shard, paths) for shard, paths in by_shard.items()]


def _included(layout: Layout, hours: range) -> list[Input]:
    """What the parts of these hours include by now, each once."""
    found: dict[str, Input] = {}
    for path in sorted(layout.events.glob("date=*/**/part-*.parquet")):
        for one in read_footers([path])[path].inputs:
            if any(one.path.startswith(partition_of(hour) + "/") for hour in hours):
                found[one.path] = one
    return list(found.values())


def _input(layout: Layout, path: Path) -> Input:
    data = path.read_bytes()
    return Input(path.relative_to(layout.events).as_posix(), data.count(b"\n"), zlib.crc32(data))


def write_part(
    layout: Layout, folder: str, inputs: Sequence[Input], rows: Sql, change: Callable[[Footer], Footer] = lambda f: f
) -> Path:
    """Publish the next generation in a folder below events. `change`: to write a footer that is not right."""
    where = layout.events / folder
    where.mkdir(parents=True, exist_ok=True)
    there = [found for path in where.iterdir() if (found := generation_of(path.name)) is not None]
    generation = max(there, default=0) + 1
    with _cursor() as connection:
        one: Any = connection.execute(*part_sql.content(rows)).fetchone()
        by_hour = (
            f"SELECT epoch_us(ts) // {HOUR}000000 * {HOUR} AS hour, count(*), min(epoch_us(ts)) / 1e6,"
            f" max(epoch_us(ts)) / 1e6 FROM ({rows.text}) GROUP BY hour ORDER BY hour"
        )
        hours = {hour: HourOf(*told) for hour, *told in connection.execute(by_hour, rows.parameters).fetchall()}
        made = Footer(layout.read().id, generation, list(inputs), hours, one[1], arrived=max(hours, default=0) + HOUR)
        path = where / part_name(generation)
        copy_part(connection, rows, change(made), path)
    return path


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def _cursor() -> duckdb.DuckDBPyConnection:
    return _database().cursor()


def copy_part(connection: duckdb.DuckDBPyConnection, rows: Sql, footer: Footer, path: Path) -> None:
    connection.execute(
        f"COPY (SELECT {part_sql.COLUMNS} FROM ({rows.text}) ORDER BY metric, ts) TO $target (FORMAT parquet,"
        f" COMPRESSION zstd, KV_METADATA {{{KEY}: $footer}})",
        {**rows.parameters, "target": str(path), "footer": encode_footer(footer)},
    )


def sweep(layout: Layout) -> None:
    """Remove everything that the newest parts include: segments and parts that stand for nothing any more."""
    for date in layout.dates():
        paths = sorted((layout.events / date_folder(date)).glob("**/part-*.parquet"))
        footers = read_footers(paths)
        newest: dict[Path, Path] = {}
        for path in sorted(paths, key=lambda path: footers[path].generation):
            newest[path.parent] = path
        days = [path for path in newest.values() if path.parent.name.startswith("date=")]
        parts = {path: Part(path.relative_to(layout.events).as_posix(), footers[path]) for path in newest.values()}
        hours = {hour_of(part.path): part for path, part in parts.items() if path not in days}
        taken = view(parts[days[0]] if days else None, hours)
        standing = {part.path for part in taken.by_hour.values()} | {parts[path].path for path in days}
        for path in paths:
            if path.relative_to(layout.events).as_posix() not in standing:
                path.unlink()
        for name in taken.included:
            (layout.events / name).unlink(missing_ok=True)


def roll_up(layout: Layout, date: int, labels: Sequence[str], whole: Collection[str], totals: Collection[str]) -> Path:
    """Write the rollup of a day part: of the metrics `whole` with their series, of those in `totals` without."""
    ((part, footer),) = read_footers(_newest(layout.events / date_folder(date))).items()
    with _cursor() as connection:
        metrics = [row[0] for row in connection.execute(*rollup_rows.by_metric(str(part))).fetchall()]
        gauges = Settings().catalogue().gauges()
        made = RollupFooter(
            footer.store,
            footer.generation,
            part.relative_to(layout.events).as_posix(),
            footer.content,
            sorted(labels),
            [one for one in metrics if one in whole],
            [one for one in metrics if one in totals],
            [one for one in metrics if one not in whole and one not in totals],
            [one for one in metrics if one in gauges and one in {*whole, *totals}],
        )
        connection.execute("CREATE OR REPLACE TEMP TABLE windows AS " + rollup_rows.NONE)
        for metric in (*made.metrics, *made.totals):
            keys = rollup_rows.labels_of(labels, gauge=metric in gauges) if metric in whole else None
            rows = rollup_rows.rows(str(part), metric, date * 1_000_000, (date + DAY) * 1_000_000, keys)
            connection.execute(f"INSERT INTO windows {rows.text}", rows.parameters)
        path = rollup_path(layout, date, footer.generation)
        path.parent.mkdir(parents=True, exist_ok=True)
        connection.execute(
            "COPY (FROM windows ORDER BY metric, labels NULLS FIRST, ts) TO $target (FORMAT parquet, COMPRESSION zstd,"
            f" KV_METADATA {{{KEY}: $footer}})",
            {"target": str(path), "footer": rollups.encode_footer(made)},
        )
    return path


def _newest(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"), key=lambda path: generation_of(path.name) or 0)[-1:]

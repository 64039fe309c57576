"""One part: made, verified, published.

What goes in is added up before it is written, by hour: rows, first and last time, and a sum over the rows' contents.
What was written is read again and added up in the same way. Only what is equal is published.
"""

import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Final, NamedTuple

from vibezen.metrics import part_sql
from vibezen.metrics.clock import HOUR
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.committed import BLOCK_BYTES
from vibezen.metrics.consumers import runs
from vibezen.metrics.consumers.compacting import Job, Source
from vibezen.metrics.consumers.engine import Damaged, Engine, failures
from vibezen.metrics.consumers.holdings import Pending
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.layout import Layout, fsync_folder, make_folder, space
from vibezen.metrics.part_files import read_footers
from vibezen.metrics.parts import KEY, Footer, HourOf, Input, encode_footer

log = logging.getLogger(__name__)

SMALLER: Final = (1, 8, 32)
"""How many times smaller pieces are tried when memory does not suffice."""


class Span(NamedTuple):
    """The rows of one hour. `first`, `last`: Unix microseconds."""

    events: int
    first: int
    last: int


class Sums(NamedTuple):
    """What rows add up to: by the hour's beginning, and their contents (part_sql.CONTENT)."""

    hours: dict[int, Span]
    content: int

    def plus(self, other: "Sums") -> "Sums":
        hours = dict(self.hours)
        for hour, span in other.hours.items():
            if (mine := hours.get(hour)) is not None:
                span = Span(mine.events + span.events, min(mine.first, span.first), max(mine.last, span.last))
            hours[hour] = span
        return Sums(hours, self.content + other.content)


class Made(NamedTuple):
    """A part that is whole and verified, under a name that nobody reads."""

    job: Job
    file: Path
    footer: Footer


class PartWriter:
    """Makes parts of one store."""

    def __init__(self, layout: Layout, store: str, engine: Engine, level: int) -> None:
        self._layout, self._store, self._engine, self._level = layout, store, engine, level

    def make(self, job: Job) -> Made:
        """Raises Damaged, StoreFull, FileNotFoundError when a part it was to be made of is gone."""
        for one in job.segments:
            check_segment(self._layout, one.extent)
        file = self._engine.folder / f"{job.folder.replace('/', '-')}-{job.generation}.parquet"
        with self._failures(job), failures(f"events/{job.folder}"):
            older = self._rows_of(job.sources)
            lines = [self._lines(some) for some in runs.of_lines(job.segments)]
            sums = self._sum_up(job, lines)
            footer = self._footer(job, sums)
            self._write(job, older, sums, footer, file)
            self._verify(file, footer, sums)
        return Made(job, file, footer)

    def publish(self, made: Made) -> bool:
        """Give it its name; False when somebody else has made this generation, or, having taken over, has removed what
        is in the making here. Raises StoreFull."""
        target = self._layout.events / made.job.path
        make_folder(target.parent)
        try:
            with space():
                os.link(made.file, target)
        except (FileExistsError, FileNotFoundError):
            return False
        finally:
            made.file.unlink(missing_ok=True)
        fsync_folder(target.parent)
        return True

    def _lines(self, segments: Iterable[Pending]) -> Sql:
        by_shard: dict[int, list[Path]] = {}
        for one in segments:
            by_shard.setdefault(one.shard, []).append(self._layout.events / one.extent.path)
        return part_sql.rows([part_sql.Lines(shard, paths) for shard, paths in sorted(by_shard.items())], [])

    def _rows_of(self, sources: Sequence[Source]) -> list[Sql]:
        """Those that go in whole are read together; of the others, some hours."""
        whole = [self._layout.events / one.part.path for one in sources if one.hours is None]
        found = [part_sql.rows([], whole, "whole")] if whole else []
        for number, one in enumerate(sources):
            if one.hours is not None:
                rows = part_sql.rows([], [self._layout.events / one.part.path], str(number))
                found.append(part_sql.only(rows, _runs(one.hours)))
        return found

    def _sum_up(self, job: Job, lines: Sequence[Sql]) -> Sums:
        """What is to be in the part. Lines are read for it; of a part that goes in whole, its footer knows."""
        sums = Sums({}, 0)
        for rows in lines:
            sums = sums.plus(self._sums(rows))
        if {hour: span.events for hour, span in sums.hours.items()} != _events_by_hour(job.segments):
            raise Damaged(f"events/{job.folder}: its lines are not the events that the logs name")
        for source in job.sources:
            if source.hours is None:
                sums = sums.plus(_told(source.part.footer))
            else:
                sums = sums.plus(self._sums(*self._rows_of([source])))
        return sums

    def _sums(self, rows: Sql) -> Sums:
        hours, content = {}, 0
        for hour, events, contents, first, last, bad in self._engine.run(part_sql.by_hour(rows)):
            if hour is None or bad:
                raise Damaged(f"{bad or events} lines are no events")
            hours[hour] = Span(events, first, last)
            content += int(contents)
        return Sums(hours, content)

    def _footer(self, job: Job, sums: Sums) -> Footer:
        inputs = {one.path: one for source in job.sources for one in source.part.footer.inputs}
        if job.base is not None:
            inputs |= {one.path: one for one in job.base.footer.inputs}
        for segment in job.segments:
            extent = segment.extent
            inputs[extent.path] = Input(extent.path, extent.events, extent.crc)
        before = [source.part.footer.arrived for source in job.sources]
        return Footer(
            store=self._store,
            generation=job.generation,
            inputs=[inputs[path] for path in sorted(inputs)],
            hours={
                hour: HourOf(one.events, one.first / 1e6, one.last / 1e6) for hour, one in sorted(sums.hours.items())
            },
            content=str(sums.content),
            arrived=max([*before, *(segment.written for segment in job.segments)]),
            base=job.base.footer.generation if job.base else None,
            dropped=job.base.footer.dropped if job.base else 0,
        )

    def _write(self, job: Job, older: Sequence[Sql], sums: Sums, footer: Footer, file: Path) -> None:
        """Write all rows, in order. More than can be sorted at once is sorted piece by piece; how much that is, only
        trying tells for certain."""
        import duckdb

        for smaller in SMALLER:
            try:
                self._copy(job, older, sums, footer, file, smaller)
                return
            except duckdb.OutOfMemoryException:
                if smaller == SMALLER[-1]:
                    raise
                log.info("compactor: events/%s is sorted in smaller pieces", job.folder)

    def _copy(self, job: Job, older: Sequence[Sql], sums: Sums, footer: Footer, file: Path, smaller: int) -> None:
        pieces, size = self._pieces(job, older, smaller)
        group = runs.group_rows(sum(span.events for span in sums.hours.values()), size)
        final = f"COMPRESSION zstd, COMPRESSION_LEVEL {int(self._level)}, KV_METADATA {{{KEY}: $footer}}"
        told = {"footer": encode_footer(footer)}
        if len(pieces) == 1:
            self._engine.write(_ordered(pieces[0]), file, _options(group, final), told)
            return
        written = []
        for number, piece in enumerate(pieces):
            written.append(file.with_name(f"{file.name}.{number}"))
            self._engine.write(_ordered(piece), written[-1], _options(group, "COMPRESSION lz4_raw"))
        self._engine.write(part_sql.rows([], written), file, _options(group, final), told)
        for one in written:
            one.unlink()

    def _pieces(self, job: Job, older: Sequence[Sql], smaller: int) -> tuple[list[Sql], int]:
        """What is to be sorted at once, in order, and how many bytes it is all together."""
        lines = [self._lines(some) for some in runs.of_lines(job.segments, smaller)]
        size = sum(one.extent.end for one in job.segments)
        ranges: list[Sql] = []
        rows = job.lines
        if older:
            together = part_sql.together(older)
            cells = self._engine.run(part_sql.cells(together))
            size += sum(cell[3] + cell[2] * runs.ROW_BYTES for cell in cells)
            rows += sum(cell[2] for cell in cells)
            found = runs.of_parts(cells, smaller)
            for run, following in zip_longest(found, found[1:]):
                ranges.append(runs.between(together, run[0], following[0] if following else None, "run"))
        if rows * smaller <= runs.RUN_ROWS and size * smaller <= runs.RUN_BYTES:
            return [part_sql.together([*lines, *older])], size
        return [*ranges, *lines], size

    def _verify(self, file: Path, footer: Footer, sums: Sums) -> None:
        """What lies on disk is what went in, row for row, and it is there to stay."""
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        if self._sums(part_sql.rows([], [file])) != sums or read_footers([file])[file] != footer:
            raise Damaged(f"{file.name}: what was written is not what went into it")

    @contextmanager
    def _failures(self, job: Job) -> Iterator[None]:
        """A part that is gone was replaced: that is no damage."""
        try:
            yield
        except Damaged:
            for source in job.sources:
                os.stat(self._layout.events / source.part.path)
            raise


def check_segment(layout: Layout, extent: Extent) -> None:
    """See that a closed segment is what its log says. Raises Damaged."""
    crc = lines = size = 0
    with suppress(FileNotFoundError), (layout.events / extent.path).open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            crc, size, lines = zlib.crc32(block, crc), size + len(block), lines + block.count(b"\n")
    if (size, lines, crc) != (extent.end, extent.events, extent.crc):
        seen = f"{lines} lines in {size} bytes, checksum {crc:08x}"
        said = f"{extent.events} in {extent.end}, {extent.crc:08x}"
        raise Damaged(f"events/{extent.path}: {seen}; its log says {said}")


def _ordered(rows: Sql) -> Sql:
    return Sql(f"SELECT {part_sql.COLUMNS} FROM ({rows.text}) ORDER BY metric, ts", rows.parameters)  # noqa: S608


def _options(group: int, compression: str) -> str:
    return f"PARQUET_VERSION v1, ROW_GROUP_SIZE {group}, {compression}"


def _events_by_hour(segments: Iterable[Pending]) -> dict[int, int]:
    events: dict[int, int] = {}
    for one in segments:
        events[one.hour] = events.get(one.hour, 0) + one.extent.events
    return events


def _told(footer: Footer) -> Sums:
    hours = {
        hour: Span(one.events, round(one.min_ts * 1e6), round(one.max_ts * 1e6)) for hour, one in footer.hours.items()
    }
    return Sums(hours, int(footer.content))


def _runs(hours: Sequence[int]) -> list[tuple[int, int]]:
    """Hours, in order, as [since, until) of the runs they form."""
    ends = [hour for hour, later in pairwise(hours) if later != hour + HOUR]
    begins = [later for hour, later in pairwise(hours) if later != hour + HOUR]
    return [(since, until + HOUR) for since, until in zip([hours[0], *begins], [*ends, hours[-1]], strict=True)]

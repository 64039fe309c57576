"""The rollup of a day part: made metric by metric, of those metrics for which it pays."""

import os
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from vibezen.metrics.clock import HOUR
from vibezen.metrics.consumers import rollup_rows
from vibezen.metrics.consumers.engine import Engine, failures
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.layout import Layout, fsync_folder, make_folder, space
from vibezen.metrics.parts import KEY, Part, date_of
from vibezen.metrics.rollups import COLUMNS, RollupFooter, encode_footer, rollup_path

SHARE: Final = 10
"""A rollup is at most one part in so many of its events, in bytes."""
FEWEST: Final = 20
"""Lines that a row must stand for, on average, before it is worth trying: a row takes at least twice a line's bytes."""
MOST_METRICS: Final = 1000
"""Metrics of one day that are looked at, those with the most lines."""
SLICE_LINES: Final = 1_000_000
"""Lines that are made into windows at once, or those of one hour."""
_ORDER: Final = "ORDER BY metric, labels NULLS FIRST, ts"
_OPTIONS: Final = "COMPRESSION zstd, COMPRESSION_LEVEL 9, PARQUET_VERSION v1, ROW_GROUP_SIZE 20480"


class Metric(NamedTuple):
    """One metric of a day. `first`, `last`: the times of its lines in Unix microseconds."""

    name: str
    lines: int
    first: int
    last: int


class Rolled(NamedTuple):
    """The windows of one metric, in files of `bytes` together; `whole`: with its series, not only the totals."""

    metric: str
    files: list[Path]
    bytes: int
    lines: int
    whole: bool


class RollupWriter:
    """Makes rollups of one store. `labels`: of series; `gauges`: metrics whose series carry their producer."""

    def __init__(
        self, layout: Layout, store: str, engine: Engine, labels: Sequence[str], gauges: Collection[str]
    ) -> None:
        self._layout, self._store, self._engine = layout, store, engine
        self._labels, self._gauges = labels, gauges
        self._metrics: set[str] = set()
        """Of the part that is rolled up."""

    def is_due(self, day: Part) -> bool:
        """Whether a day part has rows here and no rollup yet."""
        footer = day.footer
        if footer.moved is not None or not footer.hours:
            return False
        return not rollup_path(self._layout, _date(day), footer.generation).exists()

    def write(self, day: Part) -> bool:
        """Make and publish the rollup of a day part; False when it exists. Raises Damaged, StoreFull, Fenced,
        FileNotFoundError when the part is gone."""
        source = self._layout.events / day.path
        bound = source.stat().st_size // SHARE
        file = self._engine.folder / f"rollup-{_date(day)}-{day.footer.generation}.parquet"
        with failures(f"the rollup of events/{day.path}"):
            rolled = self._roll(source, bound, day.footer.events)
            while True:
                self._join(rolled, self._footer(day, rolled), file)
                if not rolled or file.stat().st_size <= bound:
                    break
                rolled.remove(max(rolled, key=lambda one: one.bytes / one.lines))
        return self._publish(file, rollup_path(self._layout, _date(day), day.footer.generation))

    def _roll(self, source: Path, bound: int, lines: int) -> list[Rolled]:
        told = self._engine.run(rollup_rows.by_metric(str(source)))
        self._metrics = {row[0] for row in told}
        metrics = sorted((Metric(*row) for row in told), key=lambda one: -one.lines)[:MOST_METRICS]
        found = []
        for number, metric in enumerate(metrics):
            share = bound * metric.lines // lines
            for whole in (True, False):
                if not self._may_pay(source, metric, whole=whole):
                    continue
                one = self._roll_one(source, metric, f"{number}-{'whole' if whole else 'totals'}", whole=whole)
                if one.bytes <= share:
                    found.append(one)
                    break
                _remove(one.files)
        return sorted(found)

    def _may_pay(self, source: Path, metric: Metric, *, whole: bool) -> bool:
        minutes = (metric.last - metric.first) // 60_000_000 + 1
        if not whole:
            return min(minutes, metric.lines) * FEWEST <= metric.lines
        until = metric.last + 1
        told = self._engine.run(
            rollup_rows.series_minutes(str(source), metric.name, metric.first, until, self._keys(metric.name))
        )
        rows: int = told[0][0]
        return rows * FEWEST <= metric.lines

    def _roll_one(self, source: Path, metric: Metric, name: str, *, whole: bool) -> Rolled:
        files = []
        for number, (since, until) in enumerate(_slices(metric)):
            labels = self._keys(metric.name) if whole else None
            rows = rollup_rows.rows(str(source), metric.name, since, until, labels)
            file = self._engine.folder / f"rollup-{name}-{number}.parquet"
            self._engine.write(Sql(f"{rows.text} {_ORDER}", rows.parameters), file, _OPTIONS)
            files.append(file)
        return Rolled(metric.name, files, sum(file.stat().st_size for file in files), metric.lines, whole)

    def _keys(self, metric: str) -> list[str]:
        return rollup_rows.labels_of(self._labels, gauge=metric in self._gauges)

    def _join(self, rolled: Sequence[Rolled], footer: RollupFooter, file: Path) -> None:
        parameters = {"files": [str(path) for one in rolled for path in one.files]}
        text = f"SELECT {COLUMNS} FROM read_parquet($files) {_ORDER}"  # noqa: S608
        if not rolled:
            text, parameters = rollup_rows.NONE, {}
        options = f"{_OPTIONS}, KV_METADATA {{{KEY}: $footer}}"
        self._engine.write(Sql(text, parameters), file, options, {"footer": encode_footer(footer)})

    def _footer(self, day: Part, rolled: Sequence[Rolled]) -> RollupFooter:
        names = [one.metric for one in rolled]
        return RollupFooter(
            store=self._store,
            generation=day.footer.generation,
            part=day.path,
            content=day.footer.content,
            labels=sorted(self._labels),
            metrics=[one.metric for one in rolled if one.whole],
            totals=[one.metric for one in rolled if not one.whole],
            others=sorted(self._metrics.difference(names)),
            gauges=[name for name in names if name in self._gauges],
        )

    def _publish(self, file: Path, target: Path) -> bool:
        with file.open("rb+") as written:
            os.fsync(written.fileno())
        make_folder(target.parent)
        try:
            with space():
                os.link(file, target)
        except FileExistsError:
            return False
        finally:
            file.unlink()
        fsync_folder(target.parent)
        return True


def _slices(metric: Metric) -> list[tuple[int, int]]:
    """The times of a metric in pieces of whole hours, in Unix microseconds, with about SLICE_LINES lines each."""
    hour = HOUR * 1_000_000
    first, end = metric.first // hour, metric.last // hour + 1
    pieces = min(-(-metric.lines // SLICE_LINES), end - first)
    bounds = [first + (end - first) * number // pieces for number in range(pieces + 1)]
    return [(since * hour, until * hour) for since, until in pairwise(bounds)]


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _date(day: Part) -> int:
    return date_of(min(day.footer.hours))

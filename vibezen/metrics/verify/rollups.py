"""Rollups against the day parts that they stand for: samples, sums, extremes of every metric."""

import math
from collections.abc import Iterator
from typing import Any, Final

from vibezen.metrics.doctor.finding import Finding, fail, ok
from vibezen.metrics.errors import StoreError
from vibezen.metrics.event_reader import EventReader, FilesChanged
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.layout import Layout, date_folder
from vibezen.metrics.parts import date_of
from vibezen.metrics.rollup_reader import RollupFiles
from vibezen.metrics.verify.parts import Compacted

CHECK: Final = "rollups"
RELATIVE: Final = 1e-9
ADVICE: Final = "remove the file: events answer then, and the compactor makes it anew"
_EVENTS: Final = (
    'SELECT metric, sum("count" / sample_rate), fsum(value * ("count" / sample_rate)), min(value), max(value)'
    " FROM read_parquet($place, hive_partitioning=false) GROUP BY metric"
)
_WINDOWS: Final = (
    'SELECT metric, labels IS NULL AS whole, sum("count"), fsum(sum), min(min), max(max)'
    " FROM read_parquet($place, hive_partitioning=false) GROUP BY metric, whole"
)


def checks(layout: Layout, compacted: Compacted) -> Iterator[Finding]:
    """Of every rollup that answers questions; of what was moved elsewhere there is nothing to compare with."""
    reader, files = EventReader(layout), RollupFiles(layout)
    count = 0
    wrong = []
    for part in compacted.parts:
        rollup = files.of_part(part) if part.footer.moved is None else None
        if rollup is None:
            continue
        count += 1
        try:
            events = {row[0]: row[1:] for row in reader.run(Sql(_EVENTS, {"place": str(layout.events / part.path)}))}
            windows = reader.run(Sql(_WINDOWS, {"place": rollup.place}))
        except FilesChanged:
            continue  # a newer generation has come
        except StoreError as error:
            wrong.append(fail(CHECK, f"{rollup.place}: {error}", ADVICE))
            continue
        name = f"rollups/1m/{date_folder(date_of(min(part.footer.hours)))}"
        differ = [metric for metric, _, *told in windows if not _agree(told, events.get(metric))]
        lacking = {*rollup.footer.metrics, *rollup.footer.totals} - {row[0] for row in windows}
        if differ or lacking:
            metric = min([*differ, *lacking])
            wrong.append(fail(CHECK, f"{name}: {metric} is not what its events give", ADVICE))
    yield from wrong
    if count and not wrong:
        yield ok(CHECK, f"{count} file{'' if count == 1 else 's'}: counts, sums and extremes as the events give")


def _agree(told: Any, events: Any) -> bool:
    if events is None:
        return False
    (count, total, *extremes), (events_count, events_total, *events_extremes) = told, events
    added = events_count * max(map(abs, events_extremes))
    return (
        math.isclose(count, events_count, rel_tol=RELATIVE)
        and math.isclose(total, events_total, rel_tol=RELATIVE, abs_tol=1e-14 * added)
        and extremes == events_extremes
    )

"""`verify` on stores whose hours have become parts: healthy ones differ in nothing, each damage is told."""

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import redis
from msgspec.structs import replace

from tests.support.feeding import NOON, event
from tests.support.pipeline import Pipeline
from tests.support.stored import compact_day, compact_hour, roll_up, sweep, write_part
from vibezen.metrics import part_sql
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.commitlog import read_log
from vibezen.metrics.committed import CommittedFiles
from vibezen.metrics.doctor import store
from vibezen.metrics.doctor.finding import Finding
from vibezen.metrics.event_sql import Sql
from vibezen.metrics.layout import date_folder, partition_of
from vibezen.metrics.part_files import footer_text, read_footers
from vibezen.metrics.verify import books as sides
from vibezen.metrics.verify import examine, files, parts
from vibezen.metrics.verify.parts import Compacted

pytestmark = pytest.mark.server

FIRST = int(NOON)
DATE = FIRST // DAY * DAY


@pytest.fixture
def pipeline(client: redis.Redis, redis_url: str, tmp_path: Path) -> Pipeline:
    """Two hours of events in files, all closed but the last."""
    pipeline = Pipeline(client, redis_url, tmp_path / "store")
    for start in (0, HOUR, 2 * HOUR):
        pipeline.take_in([event(number, NOON + start + number / 7, provider=f"p{number % 3}") for number in range(100)])
    return pipeline


@pytest.fixture
def verify(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> "Verify":
    for module in (files, sides, parts):
        monkeypatch.setattr(module, "PAUSE", 0.01)
    return lambda offline=True: list(examine(pipeline.settings, lambda _: None, offline=offline))


Verify = Callable[..., list[Finding]]


def told(found: list[Finding], status: str = "fail") -> list[str]:
    return [f"{one.name}: {one.seen}" for one in found if one.status == status]


def test_healthy_store_differs_in_nothing(pipeline: Pipeline, verify: Verify) -> None:
    compact_hour(pipeline.layout, FIRST)
    compact_hour(pipeline.layout, FIRST + HOUR)
    found: list[Finding] = []
    for step in ("segments beside", "segments gone", "a day", "hours gone"):
        if step.endswith("gone"):
            sweep(pipeline.layout)
        elif step == "a day":
            compact_day(pipeline.layout, DATE)
        found = verify(offline=False)
        assert told(found) + told(found, "warn") == [], step
    assert [one for one in told(found, "ok") if one.startswith("parts: 1 file: 200 events")]
    assert files.size(pipeline.layout) < 100 * 200
    assert store.compacted(pipeline.layout.root).seen == "1, with 200 events"


def test_part_whose_rows_are_others_is_told(pipeline: Pipeline, verify: Verify) -> None:
    path = compact_hour(pipeline.layout, FIRST)
    footer = read_footers([path])[path]
    rows = part_sql.rows((), [path])
    for changed, expected in (
        (Sql(f"SELECT * REPLACE (value + 1 AS value) FROM ({rows.text})", rows.parameters), "the sum over its rows is"),
        (Sql(f"SELECT * FROM ({rows.text}) WHERE value > 0", rows.parameters), "99 events from"),
        (
            Sql(f"SELECT * REPLACE (ts + INTERVAL 1 SECOND AS ts) FROM ({rows.text})", rows.parameters),
            "the footer says",
        ),
    ):
        other = write_part(pipeline.layout, partition_of(FIRST), footer.inputs, changed, lambda _: footer)
        other.rename(other.with_name("other"))
        kept = path.read_bytes()
        path.write_bytes(other.with_name("other").read_bytes())
        (found,) = told(verify())
        assert found.startswith(f"parts: events/{partition_of(FIRST)}/part-1.parquet: ")
        assert expected in found
        path.write_bytes(kept)
        other.with_name("other").unlink()


def test_part_that_cannot_be_read_is_told(pipeline: Pipeline, verify: Verify) -> None:
    path = compact_hour(pipeline.layout, FIRST)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert any("part-1.parquet" in one for one in told(verify()))
    doctor = store.compacted(pipeline.layout.root)
    assert (doctor.status, "part-1.parquet" in doctor.seen) == ("fail", True)
    path.write_bytes(whole[:4] + bytes(100) + whole[104:])
    assert any("part-1.parquet: cannot be read" in one for one in told(verify()))


def test_part_that_claims_more_than_was_committed_is_told(pipeline: Pipeline, verify: Verify) -> None:
    rows = part_sql.rows([part_sql.Lines(0, [next(iter(pipeline.layout.segments()))])], ())
    inputs = [one for path in [compact_hour(pipeline.layout, FIRST)] for one in read_footers([path])[path].inputs]
    write_part(pipeline.layout, partition_of(FIRST), [replace(inputs[0], events=101)], rows)
    (found,) = told(verify())
    assert "100 events of segments that have 101; it includes 101 events of" in found


def test_segment_that_is_gone_and_in_no_part_is_told(pipeline: Pipeline, verify: Verify) -> None:
    compact_hour(pipeline.layout, FIRST)
    sweep(pipeline.layout)
    lost = next(iter(pipeline.layout.segments()))
    assert partition_of(FIRST + HOUR) in str(lost)
    lost.unlink()
    (found,) = told(verify())
    assert "the file is gone" in found
    next(pipeline.layout.events.rglob("*.parquet")).unlink()
    assert len(told(verify())) == 2


def test_segments_that_become_a_part_meanwhile_are_no_difference(
    pipeline: Pipeline, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    compacted = Compacted.__init__

    def meanwhile(self: Compacted, *arguments: object) -> None:
        compacted(self, *arguments)  # type: ignore[arg-type]
        compact_hour(pipeline.layout, FIRST)
        sweep(pipeline.layout)

    monkeypatch.setattr(Compacted, "__init__", meanwhile)
    assert told(verify()) == []


def test_what_was_dropped_is_told_and_balances(pipeline: Pipeline, verify: Verify) -> None:
    compact_day(pipeline.layout, DATE)
    (span,) = CommittedFiles(pipeline.layout).snapshot().files(range(DATE, DATE + DAY, HOUR)).parts
    footer = span.part.footer
    rows = part_sql.rows((), [Path(span.place)])
    nothing = Sql(f"SELECT * FROM ({rows.text}) WHERE false", rows.parameters)
    write_part(
        pipeline.layout, date_folder(DATE), footer.inputs, nothing, lambda made: replace(made, dropped=footer.events)
    )
    sweep(pipeline.layout)
    found = verify(offline=False)
    assert told(found) == []
    assert any("200 events dropped by retention" in one for one in told(found, "ok"))
    logs = [path for _, path in pipeline.layout.logs(0) if (log := read_log(path)).last.sealed and log.extents]
    for path in logs:
        path.unlink()
    assert len(logs) == 2
    assert told(verify(offline=False)) == []


def test_what_parts_have_replaced_is_told_when_it_is_old(pipeline: Pipeline, verify: Verify) -> None:
    first = compact_hour(pipeline.layout, FIRST)
    pipeline.take_in([event(1, NOON + 5), event(1, NOON + DAY)])
    pipeline.archive()
    second = compact_hour(pipeline.layout, FIRST)
    assert second.name == "part-2.parquet"
    assert told(verify(), "warn") == []
    for path in (first, second):
        os.utime(path, (NOON, NOON))
    (found,) = told(verify(), "warn")
    assert found.startswith("other files: 3 that parts have replaced: ")
    sweep(pipeline.layout)
    assert told(verify(), "warn") == []


def test_foreign_files_among_parts_are_told(pipeline: Pipeline, verify: Verify) -> None:
    path = compact_hour(pipeline.layout, FIRST)
    duckdb.execute("COPY (SELECT 1 AS x) TO $target (FORMAT parquet)", {"target": str(path.with_name("x.parquet"))})
    (found,) = told(verify(), "warn")
    assert found == f"other files: 1 not ours: events/{partition_of(FIRST)}/x.parquet"
    path.with_name("x.parquet").rename(path.with_name("part-7.parquet"))
    assert any("no part of a store" in one for one in told(verify()))


def test_rollup_that_tells_something_else_is_told(pipeline: Pipeline, verify: Verify) -> None:
    compact_day(pipeline.layout, DATE)
    path = roll_up(pipeline.layout, DATE, ("provider",), ("response_time",), ())
    assert [one for one in told(verify(), "ok") if one.startswith("rollups: 1 file: ")]
    copy = path.with_name("copy")
    for changed in ('* REPLACE ("count" + 1 AS "count")', "* REPLACE (sum + 1 AS sum)", "* REPLACE (max + 1 AS max)"):
        whole = path.read_bytes()
        footer = footer_text(path).decode()
        duckdb.execute(
            f"COPY (SELECT {changed} FROM read_parquet($path)) TO $copy (FORMAT parquet,"
            " KV_METADATA {vibezen: $footer})",
            {"path": str(path), "copy": str(copy), "footer": footer},
        )
        copy.rename(path)
        (found,) = told(verify())
        assert found == "rollups: rollups/1m/date=2025-11-24: response_time is not what its events give"
        path.write_bytes(whole)
    assert told(verify()) == []

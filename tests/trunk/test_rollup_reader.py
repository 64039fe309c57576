"""Rollups answer for hours of which they have every event, and for nothing else."""

from pathlib import Path
from typing import Any

import anyio
import duckdb
import pytest

from tests.support.feeding import NOON, event
from tests.support.stored import archive, compact_day, roll_up, sweep
from vibezen.metrics import config
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.event_reader import EventReader
from vibezen.metrics.gathering import Gatherer
from vibezen.metrics.history import History, history
from vibezen.metrics.keys import Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.part_files import footer_text
from vibezen.metrics.parts import KEY
from vibezen.metrics.question import parse_question
from vibezen.metrics.summary import Summary, parse_summary, summary

FIRST = int(NOON)
DATE = FIRST // DAY * DAY
SETTINGS = config.load(environ={})
LABELS = SETTINGS.aggregation.labels


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Three hours of a closed day, with a rollup of one of its two metrics."""
    layout = Layout(tmp_path / "store")
    layout.create()
    some = [event(1 + n, FIRST + n * 37 % (3 * HOUR), provider=f"p{n % 2}") for n in range(300)]
    archive(layout, [*some, *(event(n, FIRST + n, "novel") for n in range(50))])
    compact_day(layout, DATE)
    sweep(layout)
    roll_up(layout, DATE, LABELS, ("response_time",), ())
    return layout


def gatherer(layout: Layout) -> Gatherer:
    return Gatherer(EventReader(layout), None, Keys(), SETTINGS)


def ask(layout: Layout, **asked: str) -> History:
    given = {"metric": "response_time", "from": str(FIRST), "to": str(FIRST + 3 * HOUR), "step": "1h", "agg": "count"}
    question = parse_question(given | asked, SETTINGS, NOON + DAY)
    return anyio.run(history, gatherer(layout), question, NOON + DAY)


def sources(answer: History | Summary) -> list[tuple[str, float]]:
    return [(one.source, (one.to - one.since) / HOUR) for one in answer.sources]


def total(answer: History) -> float:
    return sum(value for line in answer.series for _, value in line.points if isinstance(value, int | float))


@pytest.mark.parametrize(
    "asked",
    [{}, {"step": "60"}, {"group_by": "provider"}, {"where": "provider!=p0", "group_by": "provider"}, {"step": "5m"}],
)
def test_what_a_rollup_knows_is_told_by_it(layout: Layout, asked: dict[str, str]) -> None:
    answer = ask(layout, **asked)
    assert (sources(answer), answer.exact) == ([("rollups", 3)], True)
    assert total(answer) == (150 if "where" in asked else 300)


@pytest.mark.parametrize(
    "asked", [{"exact": "true"}, {"step": "10"}, {"group_by": "session"}, {"where": "x=1"}, {"metric": "novel"}]
)
def test_what_it_does_not_know_is_told_by_events(layout: Layout, asked: dict[str, str]) -> None:
    assert sources(ask(layout, **asked | ({"to": str(FIRST + HOUR)} if "step" in asked else {})))[0][0] == "events"


def test_hour_with_a_late_event_is_told_by_events(layout: Layout) -> None:
    archive(layout, [event(7, FIRST + HOUR + 5)], closed=False)
    answer = ask(layout, agg="count,p95")
    assert sources(answer) == [("rollups", 1), ("events", 1), ("rollups", 1)]
    counts = [value for line in answer.series if line.agg == "count" for _, value in line.points]
    assert (sum(value for value in counts if isinstance(value, int)), answer.exact) == (301, False)


def test_rollup_of_other_rows_stands_for_nothing(layout: Layout) -> None:
    archive(layout, [event(7, FIRST + HOUR + 5)])
    compact_day(layout, DATE)
    path = layout.rollups / f"date={'2025-11-24'}"
    (path / "part-1.parquet").rename(path / "part-2.parquet")
    answer = ask(layout)
    assert (sources(answer), total(answer)) == ([("events", 3)], 301)


@pytest.mark.parametrize("how", ["cut", "zeros", "foreign"])
def test_damaged_rollup_is_done_without(layout: Layout, how: str) -> None:
    (path,) = layout.rollups.rglob("*.parquet")
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-30], "zeros": data[:4] + bytes(900) + data[904:], "foreign": b"PAR1"}[how])
    for asked in ({}, {"agg": "p95"}):
        answer = ask(layout, **{"step": "60", **asked})
        assert sources(answer) == [("events", 3)]


def test_rollup_that_does_not_say_what_it_lacks_stands_for_nothing(layout: Layout) -> None:
    (path,) = layout.rollups.rglob("*.parquet")
    told = footer_text(path).decode()
    assert ',"others":["novel"]' in told
    silent = told.replace(',"others":["novel"]', "")
    assert '"others"' not in silent
    with duckdb.connect() as connection:
        options = f"FORMAT parquet, KV_METADATA {{{KEY}: $footer}}"
        connection.execute(f"CREATE TABLE kept AS FROM read_parquet('{path}', hive_partitioning=false)")
        connection.execute(f"COPY kept TO '{path}' ({options})", {"footer": silent})
    for metric, count in (("novel", 50), ("response_time", 300)):
        answer = ask(layout, metric=metric)
        assert (sources(answer), total(answer)) == ([("events", 3)], count)


def test_metrics_without_a_rollup_are_in_the_summary_all_the_same(layout: Layout) -> None:
    asked: Any = {"from": str(FIRST), "to": str(FIRST + 3 * HOUR)}
    answer = anyio.run(summary, gatherer(layout), parse_summary(asked, SETTINGS, NOON + DAY), NOON + DAY)
    assert {name: numbers.count for name, numbers in answer.metrics.items()} == {"response_time": 300, "novel": 50}
    assert sources(answer) == [("rollups", 3)]


def test_percentiles_of_a_metric_that_one_day_has_rolled_up_and_another_has_not_are_of_both(layout: Layout) -> None:
    archive(layout, [event(1000 + n, FIRST + DAY + n) for n in range(900)])
    compact_day(layout, DATE + DAY)
    sweep(layout)
    roll_up(layout, DATE + DAY, LABELS, (), ())
    now = NOON + 2 * DAY
    asked: Any = {"from": str(FIRST), "to": str(FIRST + DAY + HOUR)}
    answer = anyio.run(summary, gatherer(layout), parse_summary(asked, SETTINGS, now), now)
    told = answer.metrics["response_time"]
    assert (told.count, told.max) == (1200, 1899)
    assert told.p50 == pytest.approx(1300, rel=0.02)
    assert told.p99 == pytest.approx(1887, rel=0.02)

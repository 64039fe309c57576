"""History over ten million archived events: closed days in parts and rollups, beside bare DuckDB over the same parts
and over the lines they were made of.

Ours: what an API process does for one question without a server's windows, from the folder to the answer's numbers.
Each in an interpreter that has answered before, as an API has.
"""

import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import QUIET, server, work_folder
from benchmarks.stream import settings_for
from benchmarks.workload import METRICS, MODELS, PHASES
from vibezen.metrics.clock import DAY, HOUR, floor_to, wall
from vibezen.metrics.commitlog import Counters, Extent, Record, encode_record
from vibezen.metrics.histogram import MAX_RELATIVE_ERROR
from vibezen.metrics.layout import Layout, SegmentName, partition_of
from vibezen.metrics.settings import Compaction, Settings

PER_HOUR: Final = 208_333
DAYS: Final = 2
EVENTS: Final = PER_HOUR * 24 * DAYS
"""Ten million."""
AGO: Final = 3
"""Days before today: no windows are kept that long."""
METRIC: Final = "response_time"
ASKED: Final = 5
"""Times a question is asked in each round; the median counts."""
_HOUR: Final = """
SELECT json_object('metric', list_value({metrics})[1 + (r >> 4) % {kinds}], 'value', round(exp(5.5 + 0.7 *
 sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())), 3), 'ts', round({hour} + (n + 0.999 * random()) * {gap}, 6),
 'metadata', json_object('provider', model[1], 'model', model[2], 'phase', list_value({phases})[1 + (r >> 16) % 4],
 'session', 's' || (r >> 20) % 200, 'agent', 'agent-' || (r >> 30) % 12, 'attempt', (r >> 8) % 3)) AS line
FROM (SELECT n, (hash(n + {hour}) >> 1)::BIGINT AS r,
 list_value({models})[1 + ((hash(n * 7 + {hour}) >> 3)::BIGINT % {many})] AS model
 FROM range({count}) t(n))
"""


def run(options: Options) -> Report:
    first = floor_to(wall(), DAY) - (AGO + DAYS - 1) * DAY
    with work_folder() as folder, server(folder, *QUIET) as url:
        storage, lines = folder / "store", folder / "lines"
        in_fresh_process(_make, storage, lines, first)
        in_fresh_process(_compact, url, storage)
        day = first + (DAYS - 1) * DAY
        seconds = alternate(
            {
                "rollups": partial(in_fresh_process, _ours, storage, day, "false"),
                "events": partial(in_fresh_process, _ours, storage, day, "true"),
                "bare": partial(in_fresh_process, _bare, _of_parts(storage, day)),
                "lines": partial(in_fresh_process, _bare, _of_lines(lines, day)),
                "summary": partial(in_fresh_process, _summary, storage, day),
                "hour": partial(in_fresh_process, _hour, storage, day),
            },
            options.rounds,
        )
        size = _bytes(storage / "events", "*.parquet"), _bytes(storage / "rollups", "*.parquet")
    figures = [
        _ms("p95 per minute of a day: from rollups", seconds["rollups"], 100),
        _ms("p95 per minute of a day: from events", seconds["events"], 300),
        _ms("p95 per minute of a day: bare query over the parts", seconds["bare"]),
        _ms("p95 per minute of a day: bare query over the lines", seconds["lines"]),
        _times("from events / bare over the parts", seconds["events"], seconds["bare"], at_most=1.3),
        _times("bare over the lines / from events", seconds["lines"], seconds["events"], at_least=7),
        _times("bare over the lines / from rollups", seconds["lines"], seconds["rollups"]),
        _ms("every metric over the day and the day before", seconds["summary"], 20),
        _ms("one hour of a metric, exact", seconds["hour"]),
        Figure("bytes per event", [size[0] / EVENTS], "B", at_most=10),
        Figure("rollups, of the events' bytes", [size[1] / size[0]], "×", at_most=0.1),
    ]
    return Report(
        "parts",
        "3c. history: ten million events of two days, from parts and rollups",
        figures,
        {"events": EVENTS, "days": DAYS, "of one metric in a day": EVENTS // DAYS // len(METRICS), "asked": ASKED},
        ["Answers from events equal the bare query's, those from rollups are within 1.1 %; checked before the clock."],
    )


def _ms(what: str, seconds: list[float], at_most: float | None = None) -> Figure:
    return Figure(what, [1000 * one for one in seconds], "ms", at_most=at_most)


def _times(
    what: str, one: list[float], other: list[float], at_least: float | None = None, at_most: float | None = None
) -> Figure:
    return Figure(what, ratio(what, one, other).rounds, "×", at_least=at_least, at_most=at_most)


def _bytes(folder: Path, name: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(name))


def _make(storage: Path, lines: Path, first: int) -> None:
    """Sealed segments with their log, as an archiver leaves them; and the same files in a place of their own."""
    import duckdb

    layout = Layout(storage)
    layout.create()
    extents = []
    with duckdb.connect() as connection:
        for number, hour in enumerate(range(first, first + DAYS * DAY, HOUR)):
            path = layout.segment(partition_of(hour), SegmentName(0, 1, number + 1))
            path.parent.mkdir(parents=True, exist_ok=True)
            text = _HOUR.format(
                metrics=_texts(METRICS),
                kinds=len(METRICS),
                phases=_texts(PHASES),
                models=", ".join(f"[{_texts(model)}]" for model in MODELS),
                many=len(MODELS),
                hour=hour,
                gap=HOUR / PER_HOUR,
                count=PER_HOUR,
            )
            connection.execute(
                f"COPY ({text}) TO '{path}' (FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x01')"
            )
            data = path.read_bytes()
            events = data.count(b"\n")
            name = path.relative_to(layout.events).as_posix()
            extents.append(Extent(name, len(data), events, hour, hour + HOUR - 1e-6, zlib.crc32(data), True))
            os.utime(path, (hour + HOUR, hour + HOUR))
            kept = lines / name
            kept.parent.mkdir(parents=True)
            os.link(path, kept)
    record = Record("1-0", extents, counters=Counters(events=sum(one.events for one in extents)), sealed=True)
    layout.log(0, 1).write_bytes(encode_record(record))


def _texts(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _compact(url: str, storage: Path) -> None:
    from msgspec.structs import replace

    from vibezen.metrics.consumers.compactor_process import run

    settings = replace(settings_for(url, storage), compaction=Compaction(after_seconds=0.001), retention_days=3650)
    assert run(settings, once=True) == 0


def _gatherer(storage: Path) -> tuple[Any, Settings]:
    from vibezen.metrics.event_reader import EventReader
    from vibezen.metrics.gathering import Gatherer
    from vibezen.metrics.keys import Keys

    settings = Settings(storage_dir=storage)
    return Gatherer(EventReader(Layout(storage)), None, Keys(), settings), settings


def _timed(ask: Callable[[], Any]) -> float:
    """`ask` is called twice beforehand: interpreter, caches and pages are warm."""
    took = []
    ask()
    ask()
    for _ in range(ASKED):
        start = time.perf_counter()
        ask()
        took.append(time.perf_counter() - start)
    return median(took)


@contextmanager
def _asking(storage: Path, since: int, until: int, **asked: str) -> Iterator[Callable[[], Any]]:
    """A function that asks in one event loop, as an API does."""
    from anyio.from_thread import start_blocking_portal

    from vibezen.metrics.history import history
    from vibezen.metrics.question import parse_question

    gatherer, settings = _gatherer(storage)
    given = {"metric": METRIC, "from": str(since), "to": str(until), **asked}
    with start_blocking_portal() as portal:
        yield lambda: portal.call(history, gatherer, parse_question(given, settings, wall()), wall())


def _ours(storage: Path, day: int, exact: str) -> float:
    with _asking(storage, day, day + DAY, step="60", agg="p95", exact=exact) as ask:
        answer = ask()
        assert [one.source for one in answer.sources] == ["events" if exact == "true" else "rollups"], answer.sources
        assert answer.exact is (exact == "true")
        (line,) = answer.series
        found = {start // 60: value for start, value in line.points if value is not None}
        bare = dict(_rows(_of_parts(storage, day)))
        assert found.keys() == bare.keys()
        error = 1e-9 if exact == "true" else MAX_RELATIVE_ERROR * 1.001
        assert all(math.isclose(value, bare[minute], rel_tol=error) for minute, value in found.items())
        return _timed(ask)


def _hour(storage: Path, day: int) -> float:
    with _asking(storage, day + 5 * HOUR, day + 6 * HOUR, step="60", agg="p95", exact="true") as ask:
        return _timed(ask)


def _summary(storage: Path, day: int) -> float:
    from anyio.from_thread import start_blocking_portal

    from vibezen.metrics.question import Parameters
    from vibezen.metrics.summary import parse_summary, summary

    gatherer, settings = _gatherer(storage)
    given: Parameters = {"from": str(day), "to": str(day + DAY)}
    with start_blocking_portal() as portal:
        answer = portal.call(summary, gatherer, parse_summary(given, settings, wall()), wall())
        assert [one.source for one in answer.sources] == ["rollups"]
        assert len(answer.metrics) == len(METRICS)
        return _timed(lambda: portal.call(summary, gatherer, parse_summary(given, settings, wall()), wall()))


Query = tuple[str, list[str]]


def _of_parts(storage: Path, day: int) -> Query:
    files = sorted(map(str, (storage / "events" / partition_of(day).partition("/")[0]).glob("part-*.parquet")))[-1:]
    text = (
        "SELECT epoch_us(ts) // 60000000 AS minute, quantile_cont(value, 0.95) FROM read_parquet(?)"
        f" WHERE metric = '{METRIC}' AND ts >= make_timestamp({day * 1_000_000})"
        f" AND ts < make_timestamp({(day + DAY) * 1_000_000}) GROUP BY minute"
    )
    return text, files


def _of_lines(lines: Path, day: int) -> Query:
    files = sorted(map(str, (lines / partition_of(day).partition("/")[0]).glob("hour=*/*.jsonl")))
    return (
        "SELECT floor(ts / 60)::BIGINT AS minute, quantile_cont(value, 0.95) FROM read_json(?,"
        " format='newline_delimited', columns={ts: 'DOUBLE', metric: 'VARCHAR', value: 'DOUBLE'})"
        f" WHERE metric = '{METRIC}' GROUP BY minute"
    ), files


def _rows(query: Query) -> list[tuple[Any, ...]]:
    import duckdb

    text, files = query
    with duckdb.connect() as connection:
        return connection.execute(text, [files]).fetchall()


def _bare(query: Query) -> float:
    import duckdb

    text, files = query
    assert files
    with duckdb.connect(config={"threads": 2}) as connection:
        return _timed(lambda: connection.execute(text, [files]).fetchall())

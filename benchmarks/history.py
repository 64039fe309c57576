"""History from files: a day of a million events in JSONL, beside the bare DuckDB query over the same files.

Ours: what an API process does for one question without a server's windows, from commit logs to the answer's numbers.
Bare: the same numbers by one query over the files' names, typed columns, nothing checked. Both in an interpreter that
has answered before, as an API has.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import QUIET, server, work_folder
from benchmarks.stream import fill, lines_on_disk, settings_for
from benchmarks.workload import samples
from vibezen.metrics.clock import floor_to, wall
from vibezen.metrics.keys import ARCHIVE
from vibezen.metrics.settings import Settings

EVENTS: Final = 1_000_000
DIFFERENT: Final = 50_000
DAY: Final = 86_400
AGO: Final = 3
"""Days before today: no windows are kept that long."""
ASKED: Final = 5
"""Times a question is asked in each round; the median counts."""

QUESTIONS: Final[dict[str, dict[str, str]]] = {
    "p95 per minute": {"step": "60", "agg": "p95"},
    "sum per hour by provider": {"step": "1h", "agg": "sum", "group_by": "provider"},
    "count per hour of one session": {"step": "1h", "agg": "count", "where": "session=%s"},
}
BARE: Final = {
    "p95 per minute": "SELECT floor(ts / 60) AS step, quantile_cont(value, 0.95) FROM {files} GROUP BY step",
    "sum per hour by provider": "SELECT floor(ts / 3600) AS step, metadata.provider AS provider, sum(value)"
    " FROM {files} GROUP BY step, provider",
    "count per hour of one session": "SELECT floor(ts / 3600) AS step, count(*) FROM {files}"
    " AND metadata.session = '%s' GROUP BY step",
}
METADATA: Final = {
    "p95 per minute": "",
    "sum per hour by provider": "provider",
    "count per hour of one session": "session",
}


def run(options: Options) -> Report:
    day = floor_to(wall(), DAY) - AGO * DAY
    with work_folder() as folder:
        storage = folder / "store"
        with server(folder, *QUIET) as url:
            fill(url, samples(DIFFERENT), EVENTS // DIFFERENT, EVENTS / DAY, day + DAY)
            for _ in range(2):  # the second owner seals what the first left open
                in_fresh_process(_archive, url, storage)
        assert lines_on_disk(storage) == EVENTS
        figures: list[Figure] = []
        for what in QUESTIONS:
            contestants = {
                "ours": partial(_turn, _ours, storage, day, what),
                "bare": partial(_turn, _bare, storage, day, what),
            }
            seconds = alternate(contestants, options.rounds)
            figures += [
                Figure(f"{what}: ours", [1000 * one for one in seconds["ours"]], "ms"),
                Figure(f"{what}: bare query", [1000 * one for one in seconds["bare"]], "ms"),
                _times(f"{what}: ours / bare", seconds["ours"], seconds["bare"]),
            ]
    return Report(
        "history",
        "3b. history: a day of a million events, from JSONL",
        figures,
        {"events": EVENTS, "files": "24 hours, sealed", "asked": ASKED},
        ["Both answer the same; that is checked before anything is timed."],
    )


def _turn(contestant: Callable[[Path, int, str], float], storage: Path, day: int, what: str) -> float:
    return in_fresh_process(contestant, storage, day, what)


def _times(what: str, ours: list[float], bare: list[float]) -> Figure:
    return Figure(what, ratio(what, ours, bare).rounds, "×", at_most=1.3)


def _archive(url: str, storage: Path) -> None:
    from vibezen.metrics.consumers.supervisor import run

    run(ARCHIVE, settings_for(url, storage), once=True)


def _timed(ask: Callable[[], Any]) -> float:
    took = []
    ask()
    for _ in range(ASKED):
        start = time.perf_counter()
        ask()
        took.append(time.perf_counter() - start)
    return median(took)


def _session() -> str:
    return samples(1)[0].session


def _ours(storage: Path, day: int, what: str) -> float:
    import anyio

    from vibezen.metrics.event_reader import EventReader
    from vibezen.metrics.gathering import Gatherer
    from vibezen.metrics.history import history
    from vibezen.metrics.keys import Keys
    from vibezen.metrics.layout import Layout
    from vibezen.metrics.question import parse_question

    settings = Settings(storage_dir=storage)
    gatherer = Gatherer(EventReader(Layout(storage)), None, Keys(), settings)
    asked = {name: value.replace("%s", _session()) for name, value in QUESTIONS[what].items()}
    given = {"metric": "response_time", "from": str(day), "to": str(day + DAY), **asked}

    async def ask() -> dict[Any, float]:
        answer = await history(gatherer, parse_question(given, settings, wall()), wall())
        return {
            (start // answer.step, *line.labels.values()): value
            for line in answer.series
            for start, value in line.points
            if value is not None
        }

    async def all_of_it() -> float:
        _see_that_they_agree(await ask(), _rows(storage, what))
        took = []
        for _ in range(ASKED):
            start = time.perf_counter()
            await ask()
            took.append(time.perf_counter() - start)
        return median(took)

    return anyio.run(all_of_it)


def _query(storage: Path, what: str) -> tuple[str, list[str]]:
    files = sorted(map(str, storage.glob("events/*/*/*.jsonl")))
    key = METADATA[what]
    metadata = f", metadata: 'STRUCT({key} VARCHAR)'" if key else ""
    columns = f"{{ts: 'DOUBLE', metric: 'VARCHAR', value: 'DOUBLE'{metadata}}}"
    source = f"read_json(?, format='newline_delimited', columns={columns}) WHERE metric = 'response_time'"
    return BARE[what].replace("%s", _session()).format(files=source), files


def _rows(storage: Path, what: str) -> dict[Any, float]:
    import duckdb

    text, files = _query(storage, what)
    with duckdb.connect() as connection:
        found = connection.execute(text, [files]).fetchall()
    return {tuple(row[:-1]): row[-1] for row in found}


def _see_that_they_agree(ours: dict[Any, float], bare: dict[Any, float]) -> None:
    assert ours.keys() == bare.keys(), "ours and the bare query differ in what they tell"
    for key, value in ours.items():
        assert math.isclose(value, bare[key], rel_tol=1e-9), f"at {key} ours is {value}, the bare query's {bare[key]}"


def _bare(storage: Path, day: int, what: str) -> float:
    import duckdb

    text, files = _query(storage, what)
    with duckdb.connect(config={"threads": 2}) as connection:
        return _timed(lambda: connection.execute(text, [files]).fetchall())

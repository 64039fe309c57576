"""Goals 7 and 8: how small parts are, how fast they are made, and in how much memory.

Ours: what the compactor does with closed segments, checksums before, and reading again after included. Bare: DuckDB's
`COPY` of the same lines, in the same order and compression, with all the memory it wants, which verifies nothing.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from time import monotonic
from typing import Final, NamedTuple

import duckdb

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import work_folder
from vibezen.metrics import part_sql
from vibezen.metrics.clock import DAY, HOUR
from vibezen.metrics.commitlog import Extent, Record, encode_record
from vibezen.metrics.consumers.compactor import Compactor
from vibezen.metrics.consumers.holdings import Holdings
from vibezen.metrics.layout import Layout, SegmentName, partition_of
from vibezen.metrics.settings import Compaction, Settings

DATE: Final = 1_763_942_400
MUCH_LATER: Final = 4e9
SEGMENT_LINES: Final = 400_000
"""Of a segment that rolls by its size."""
MANY: Final = 2_000_000
VERY_MANY: Final = 10_000_000
METRICS: Final = (
    *("response_time", "time_to_first_token", "tokens", "cost", "error", "cache_hit"),
    *("thinking_depth", "quality_score", "test_pass_rate", "memory_bytes", "cpu_percent", "queue_depth"),
)


class Done(NamedTuple):
    """`seconds` that it took; `peak`: of memory, MB; `bytes`: of the parts; `rollups`: of those, bytes."""

    seconds: float
    peak: float
    bytes: int
    rollups: int


def run(options: Options) -> Report:
    with work_folder() as folder:
        sizes = {rate: in_fresh_process(_day, folder / f"day-{rate}", rate) for rate in (2_000, 20_000, 100_000)}
        hour = in_fresh_process(_hour, folder / "hour", 400_000)
        turns = {"ours": lambda: in_fresh_process(_hour, folder / "many", MANY)}
        turns["bare"] = lambda: in_fresh_process(_bare, folder / "many", MANY)
        done = alternate(turns, options.rounds)
        large = in_fresh_process(_hour, folder / "large", VERY_MANY)
    rates = {name: [MANY / one.seconds for one in found] for name, found in done.items()}
    rolled = sizes[100_000]
    return Report(
        "compact",
        "7 and 8. compaction: closed segments → verified parts, one process",
        [
            Figure("a day of 2,000 an hour", [sizes[2_000].bytes / 48_000], "bytes/event", at_most=15),
            Figure("a day of 20,000 an hour", [sizes[20_000].bytes / 480_000], "bytes/event", at_most=10),
            Figure("an hour of 400,000", [hour.bytes / 400_000], "bytes/event", at_most=10),
            Figure("rollups / events, 100,000 an hour", [rolled.rollups / rolled.bytes], "×", at_most=0.1),
            Figure("ours, 2 million in an hour", rates["ours"], "events/s", at_least=300_000),
            Figure("bare COPY", rates["bare"], "events/s"),
            ratio("ours / bare", rates["ours"], rates["bare"]),
            Figure("ours, 10 million in an hour", [VERY_MANY / large.seconds], "events/s", at_least=300_000),
            Figure("peak memory, 2 million", [one.peak for one in done["ours"]], "MB", at_most=300),
            Figure("peak memory, 10 million", [large.peak], "MB", at_most=300),
        ],
        {"duckdb": duckdb.__version__, "metrics": len(METRICS), "lines per segment": SEGMENT_LINES},
        [
            "Times have random microseconds, events six metadata keys.",
            "Ours reads each line twice, once for sums to compare with, and what it wrote once.",
        ],
    )


def _day(folder: Path, rate: int) -> Done:
    for hour in range(24):
        _fill(folder, DATE + hour * HOUR, rate, first=hour + 1)
    return _compact(folder, DATE + 2 * DAY)


def _hour(folder: Path, lines: int) -> Done:
    _fill(folder, DATE, lines, first=1)
    return _compact(folder, DATE + 2 * HOUR)


def _fill(folder: Path, hour: int, lines: int, first: int) -> None:
    """The segments of an hour as an archiver leaves them; those that are there are kept."""
    layout = Layout(folder)
    layout.create()
    extents = []
    for number, path in enumerate(_segments(layout, hour, lines, first)):
        count = min(SEGMENT_LINES, lines - number * SEGMENT_LINES)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, hour, count, number * SEGMENT_LINES / lines, count / lines)
        data = path.read_bytes()
        name = path.relative_to(layout.events).as_posix()
        extents.append(Extent(name, len(data), count, hour, hour + HOUR - 1, zlib.crc32(data), closed=True))
    with layout.log(0, first).open("wb") as file:
        file.write(encode_record(Record("1-0", extents, sealed=True)))


def _segments(layout: Layout, hour: int, lines: int, first: int) -> Iterator[Path]:
    for number in range(-(-lines // SEGMENT_LINES)):
        yield layout.segment(partition_of(hour), SegmentName(0, first, number + 1))


def _write(path: Path, hour: int, lines: int, begin: float, share: float) -> None:
    """`begin`, `share`: which part of the hour these lines are of."""

    def one_of(*values: str) -> str:
        return f"{list(values)}[1 + floor(random() * {len(values)})::INTEGER]"

    metadata = (
        f"{{'provider': {one_of('anthropic', 'google', 'mistral', 'openai')},"
        f" 'model': {one_of('large', 'medium', 'mini', 'flash', 'preview')},"
        f" 'phase': {one_of('specification', 'implementation', 'review', 'verification')},"
        f" 'operation': {one_of('complete', 'embed', 'rerank')},"
        " 'project': 'p' || floor(random() * 20)::INTEGER,"
        " 'status': CASE WHEN random() < 0.05 THEN 'error' ELSE 'ok' END}"
    )
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SELECT setseed($seed)", {"seed": zlib.crc32(path.name.encode()) / 2**32})
        connection.execute(
            f"COPY (SELECT metric, value, ts, metadata FROM (SELECT {one_of(*METRICS)} AS metric,"
            " round(exp(random() * 5), 3) AS value,"
            f" round({hour} + ({begin} + (number + random()) * {share / lines}) * {HOUR - 1}, 6) AS ts,"
            f" {metadata} AS metadata FROM range({lines}) AS numbers(number))) TO $path (FORMAT json)",
            {"path": str(path)},
        )


def _compact(folder: Path, now: float) -> Done:
    layout = Layout(folder)
    for path in layout.events.rglob("part-*.parquet"):
        path.unlink()
    rmtree(layout.rollups, ignore_errors=True)
    policy = Compaction(after_seconds=1, grace_seconds=1e9)
    settings = Settings(storage_dir=folder, retention_days=100_000, compaction=policy)
    compactor = Compactor(layout, settings, Holdings(layout, lambda shard: None), 1, lambda: None, lambda: MUCH_LATER)
    hours_only = now < DATE + DAY
    began = monotonic()
    if hours_only:
        _, jobs = compactor.look()
        for job in jobs:
            compactor.writer.publish(compactor.writer.make(job))
    else:
        while compactor.round():
            pass
    seconds = monotonic() - began
    compactor.close()
    pattern = "date=*/hour=*/part-*.parquet" if hours_only else "date=*/part-*.parquet"
    sizes = [path.stat().st_size for path in layout.events.glob(pattern)]
    rollups = [path.stat().st_size for path in layout.rollups.rglob("*.parquet")]
    return Done(seconds, _peak(), sum(sizes), sum(rollups))


def _bare(folder: Path, lines: int) -> Done:
    layout = Layout(folder)
    paths = list(_segments(layout, DATE, lines, 1))
    rows = part_sql.rows([part_sql.Lines(0, paths)], [])
    target = folder / "bare.parquet"
    began = monotonic()
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute(
            f"COPY (SELECT * FROM ({rows.text}) ORDER BY metric, ts) TO $target (FORMAT parquet, COMPRESSION zstd,"
            f" COMPRESSION_LEVEL {Compaction().level}, PARQUET_VERSION v1)",
            {**rows.parameters, "target": str(target)},
        )
    return Done(monotonic() - began, _peak(), target.stat().st_size, 0)


def _peak() -> float:
    """The most memory this process had, in MB. Zero where the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)

"""Goal 5: the whole path with real processes, and how long an event takes to the screen.

Throughput: producer, server, archiver and aggregator; from the first `record()` until both readers have committed the
last event, and then the books must balance to the event. Delay: 10,000 events a second beside an API process and a
plain client of its event stream; an event is visible once the counts the client was sent include it.
"""

import resource
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.options import Options
from benchmarks.report import Figure, Report
from benchmarks.roles import Failed, answers, role, wait_until
from benchmarks.server import free_port, server, server_version, work_folder
from benchmarks.sse import Watcher
from benchmarks.stream import KEYS, books, counted, lines_on_disk
from benchmarks.workload import paced, samples
from vibezen.metrics.clock import wall
from vibezen.metrics.connection import connect
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, GROUPS
from vibezen.metrics.settings import Aggregation

OFFERED: Final = 160_000
"""Events a second that the producer records: a little above the goal, so that falling behind would show."""
OFFERED_BURST: Final = 160
DELAY_RATE: Final = 10_000
DELAY_BURST: Final = 10
"""Events recorded at once, every millisecond."""
DIFFERENT: Final = 50_000
DRAIN_SECONDS: Final = 300.0
WIDTHS: Final = tuple(width.seconds for width in Aggregation().widths)
LOW_LATENCY: Final = {"FLUSH_INTERVAL_SECONDS": "0.02", "AGGREGATION__COMMIT_INTERVAL_SECONDS": "0.05"}

Percentiles = tuple[float, float]
"""p50 and p99."""


class Produced(NamedTuple):
    """`bursts`: (Unix seconds, events recorded up to its end), in order. `dropped`: events lost in the producer."""

    appended: int
    dropped: int
    bursts: list[tuple[float, int]]
    ended: float


class Carried(NamedTuple):
    """A run of the whole path. `recorded`: seconds of recording; `seconds`: until all was committed; `behind`: events
    the slower reader still had to read when recording ended; `cpu`: processor seconds of all processes together."""

    produced: Produced
    recorded: float
    seconds: float
    behind: int
    cpu: float
    server: str


def run(options: Options) -> Report:
    carried = _throughput(options.seconds)
    events, dropped = carried.produced.appended, carried.produced.dropped
    usual = _delays(options.seconds, {})
    quick = _delays(options.seconds, LOW_LATENCY)
    return Report(
        "path",
        "5. the whole path: producer, server, archiver, aggregator, and to the screen",
        [
            Figure("sustained, books balanced", [events / carried.seconds], "events/s", at_least=150_000),
            Figure("recorded", [(events + dropped) / carried.recorded], "events/s"),
            Figure("dropped by the producer's buffer", [dropped], "events", at_most=0),
            Figure("still to be read when recording ended", [carried.behind], "events"),
            Figure("processor time of all processes per event", [carried.cpu / events * 1e6], "µs"),
            Figure("record → SSE, default settings, p50", [usual[0]], "ms"),
            Figure("record → SSE, default settings, p99", [usual[1]], "ms", at_most=2000),
            Figure("record → SSE, low latency, p50", [quick[0]], "ms"),
            Figure("record → SSE, low latency, p99", [quick[1]], "ms", at_most=300),
        ],
        {
            "server": carried.server,
            "seconds": options.seconds,
            "offered": f"{OFFERED:,}/s",
            "delay at": f"{DELAY_RATE:,}/s",
            "low latency": " ".join(
                f"{name.lower().replace('__', '.')}={value}" for name, value in LOW_LATENCY.items()
            ),
        },
        [
            "Sustained: from the first record() until archive and aggregate have committed the last event.",
            "Balanced: appended = lines on disk = books of both readers = samples in the windows of each width: "
            f"{events:,} each.",
        ],
    )


def _throughput(seconds: float) -> Carried:
    used = _children_cpu()
    with work_folder() as folder, server(folder) as url:
        running = server_version(url)
        with _readers(url, folder, {}):
            with _producing(url, {}, OFFERED, seconds, OFFERED_BURST) as producing:
                produced = producing.result()
            behind = _behind(url, produced.appended)
            wait_until(lambda: _behind(url, produced.appended) == 0, "all is committed", DRAIN_SECONDS)
            all_committed = wall()
        _check_books(url, folder, produced.appended)
    began = produced.bursts[0][0]
    cpu = _children_cpu() - used
    return Carried(produced, produced.ended - began, all_committed - began, behind, cpu, running)


def _children_cpu() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _delays(seconds: float, settings: Mapping[str, str]) -> Percentiles:
    """Milliseconds from record() until a client has been sent a count that includes the event."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with work_folder() as folder, server(folder) as url, _readers(url, folder, settings):
        with role(folder, "api", "--port", str(port), **_settings(url, folder, settings)):
            wait_until(lambda: answers(f"{address}/readyz"), "the API is ready")
            watcher = Watcher(address)
            watcher.start()
            watcher.connected.wait()
            with _producing(url, settings, DELAY_RATE, seconds, DELAY_BURST) as producing:
                produced = producing.result()
            wait_until(lambda: watcher.failure or watcher.visible() >= produced.appended, "all events are visible")
        _check_books(url, folder, produced.appended)
    if watcher.failure:
        raise watcher.failure
    if produced.dropped:
        raise Failed(f"{produced.dropped} events were dropped at {DELAY_RATE} events a second")
    counts = [count for _, count in watcher.seen]
    delays = sorted(watcher.seen[bisect_left(counts, upto)][0] - at for at, upto in produced.bursts)
    return delays[len(delays) // 2] * 1000, delays[int(len(delays) * 0.99)] * 1000


# --- the processes


def _settings(url: str, folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    return {"REDIS__URL": url, "STORAGE_DIR": str(folder / "store"), **settings}


@contextmanager
def _readers(url: str, folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Archiver and aggregator, each a process that owns its shard."""
    told = _settings(url, folder, settings)
    with role(folder, "consume", ARCHIVE, **told), role(folder, "consume", AGGREGATE, **told), connect(url) as client:
        wait_until(lambda: all(client.exists(KEYS.lease(0, group)) for group in GROUPS), "both readers own the shard")
        yield


@contextmanager
def _producing(
    url: str, settings: Mapping[str, str], rate: float, seconds: float, burst: int
) -> Iterator[Future[Produced]]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool.submit(_produce, url, settings, rate, seconds, burst)


def _produce(url: str, settings: Mapping[str, str], rate: float, seconds: float, burst: int) -> Produced:
    from vibezen.metrics import MetricsCollector
    from vibezen.metrics.config import ENVIRONMENT_PREFIX, load

    told = {ENVIRONMENT_PREFIX + name: value for name, value in settings.items()}
    taken = samples(DIFFERENT)
    bursts: list[tuple[float, int]] = []
    with MetricsCollector(settings=load(redis_url=url, environ=told)) as collector:
        record = collector.record_nowait
        record(taken[0].metric, taken[0].value)  # starts the sender's thread and its connection
        collector.flush_sync(60)
        for number in paced(rate, seconds, burst):
            first = number * burst % DIFFERENT
            bursts.append((time.time(), 1 + (number + 1) * burst))
            for metric, value, provider, model, phase, session in taken[first : first + burst]:
                record(metric, value, {"provider": provider, "model": model, "phase": phase, "session": session})
        ended = time.time()
        collector.flush_sync(DRAIN_SECONDS)
        stats = collector.stats()
    return Produced(stats.appended, sum(stats.dropped.values()), bursts, ended)


# --- the books


def _behind(url: str, appended: int) -> int:
    found = books(url)
    return appended - min(found.get(f"{group}.events", 0) for group in GROUPS)


def _check_books(url: str, folder: Path, appended: int) -> None:
    kept = books(url)
    found = {f"{group}.events": kept[f"{group}.events"] for group in GROUPS}
    found["lines on disk"] = lines_on_disk(folder / "store")
    found |= {f"windows of {width} s": counted(url, width) for width in WIDTHS}
    if set(found.values()) != {appended}:
        raise Failed(f"the books do not balance: appended {appended}, {found}")

"""Goal 1: what a call of `record()` costs the application.

The collector runs with default settings against a real server, so its sender works while the calls are timed. The
peers aggregate in memory and send nothing per event; they are set up as their documentation shows.
"""

import os
import threading
import time
from collections.abc import Callable
from statistics import fmean, median
from typing import Final, NamedTuple

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import server, server_version, work_folder
from benchmarks.workload import LABELS, Sample, paced, samples

CALLS: Final = 240_000
"""Calls per round, over all threads."""
THREADS: Final = 8
STEADY_RATE: Final = 50_000
"""Calls a second of the paced run: a busy application, which does something else in between."""
STEADY_BURST: Final = 50
STEADY_SECONDS: Final = 4.0
BUCKETS_MS: Final = (5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000)
"""Those the peers' documentation gives for seconds, in milliseconds."""

Record = Callable[[Sample], object]


class Timings(NamedTuple):
    """Nanoseconds per call: the median, what one call in a thousand exceeds, and the run's time over all calls.
    `lost`: events the collector dropped for want of room."""

    median: float
    p999: float
    mean: float
    lost: int = 0


class Turn(NamedTuple):
    """One contestant's run, by how it was made: in a tight loop on one thread and on eight, and paced."""

    one: Timings
    eight: Timings
    steady: Timings


def run(options: Options) -> Report:
    with work_folder() as folder, server(folder) as url:
        contestants = {
            "ours": lambda: in_fresh_process(_ours, url),
            "prometheus": lambda: in_fresh_process(_prometheus),
            "opentelemetry": lambda: in_fresh_process(_opentelemetry),
            "nothing": lambda: in_fresh_process(_nothing),
        }
        turns = alternate(contestants, options.rounds)
        running = server_version(url)
    ours, prometheus, opentelemetry = turns["ours"], turns["prometheus"], turns["opentelemetry"]
    medians = {name: [turn.one.median for turn in found] for name, found in turns.items()}
    eight = {name: [turn.eight.mean for turn in found] for name, found in turns.items()}
    figures = [
        _micros("record(), one thread, median", medians["ours"], 2),
        _micros("record(), eight threads, median", [turn.eight.median for turn in ours], 2),
        _micros(f"record(), {STEADY_RATE:,}/s paced, median", [turn.steady.median for turn in ours], 2),
        _micros("record(), one thread, p99.9", [turn.one.p999 for turn in ours], 50),
        _micros("record(), eight threads, p99.9", [turn.eight.p999 for turn in ours], 50),
        _micros(f"record(), {STEADY_RATE:,}/s paced, p99.9", [turn.steady.p999 for turn in ours], 50),
        _micros("prometheus_client labels().observe(), median", medians["prometheus"]),
        _micros("OpenTelemetry histogram record(), median", medians["opentelemetry"]),
        ratio("prometheus_client / ours, one thread", medians["prometheus"], medians["ours"], 3),
        ratio("OpenTelemetry / ours, one thread", medians["opentelemetry"], medians["ours"], 10),
        ratio("prometheus_client / ours, eight threads", [turn.eight.median for turn in prometheus],
              [turn.eight.median for turn in ours], 3),
        ratio("OpenTelemetry / ours, eight threads", [turn.eight.median for turn in opentelemetry],
              [turn.eight.median for turn in ours], 10),
        _micros("ours, run time per call, one thread, sender included", [turn.one.mean for turn in ours]),
        _micros("ours, run time per call, eight threads, sender included", eight["ours"]),
        _micros("prometheus_client, run time per call, eight threads", eight["prometheus"]),
        _micros("OpenTelemetry, run time per call, eight threads", eight["opentelemetry"]),
        _micros("the clock itself, median", medians["nothing"]),
        Figure("events dropped", [turn.one.lost + turn.eight.lost + turn.steady.lost for turn in ours], "", at_most=0),
    ]  # fmt: skip
    return Report(
        "record",
        "1. record() in the application",
        figures,
        {"server": running, "calls per round": CALLS, "labels": " ".join(LABELS), "collector": "default settings"},
        [
            "All times include reading the clock twice, and ours the making of a fresh metadata dict.",
            "The peers add to sums in memory and ship nothing per event: a comparison of what the caller pays, only.",
        ],
    )


def _micros(what: str, nanoseconds: list[float], at_most: float | None = None) -> Figure:
    return Figure(what, [value / 1000 for value in nanoseconds], "µs", at_most=at_most)


# --- contestants, each in an interpreter of its own


def _ours(url: str) -> Turn:
    from vibezen.metrics import MetricsCollector

    collector = MetricsCollector(redis_url=url)
    record_nowait = collector.record_nowait

    def record(sample: Sample) -> None:
        record_nowait(
            "response_time",
            sample.value,
            {"provider": sample.provider, "model": sample.model, "phase": sample.phase},
        )

    def lost() -> int:
        collector.flush_sync(60)
        return sum(collector.stats().dropped.values())

    turn = _turn(record, lost)
    collector.close_sync()
    return turn


def _prometheus() -> Turn:
    from prometheus_client import Histogram

    histogram = Histogram("response_time_ms", "Time until the answer", LABELS, buckets=BUCKETS_MS)

    def record(sample: Sample) -> None:
        histogram.labels(sample.provider, sample.model, sample.phase).observe(sample.value)

    return _turn(record)


def _opentelemetry() -> Turn:
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    with open(os.devnull, "w") as nowhere:
        provider = MeterProvider(metric_readers=[PeriodicExportingMetricReader(ConsoleMetricExporter(out=nowhere))])
        metrics.set_meter_provider(provider)
        histogram = metrics.get_meter("benchmarks").create_histogram("response_time", unit="ms")

        def record(sample: Sample) -> None:
            histogram.record(
                sample.value,
                {"provider": sample.provider, "model": sample.model, "phase": sample.phase},
            )

        turn = _turn(record)
        provider.shutdown()
    return turn


def _nothing() -> Turn:
    return _turn(lambda sample: None)


# --- timing


def _turn(record: Record, lost: Callable[[], int] = int) -> Turn:
    taken = samples(10_000)
    _loop(record, taken, CALLS // 20)  # warm: caches, the sender's connection, the peers' children
    before = lost()
    one = _threads(record, taken, 1)
    after_one = lost()
    eight = _threads(record, taken, THREADS)
    after_eight = lost()
    steady = _steady(record, taken)
    return Turn(
        one._replace(lost=after_one - before),
        eight._replace(lost=after_eight - after_one),
        steady._replace(lost=lost() - after_eight),
    )


def _loop(record: Record, taken: list[Sample], calls: int) -> list[int]:
    """Nanoseconds of each call."""
    clock, count = time.perf_counter_ns, len(taken)
    took = [0] * calls
    for number in range(calls):
        sample = taken[number % count]
        start = clock()
        record(sample)
        took[number] = clock() - start
    return took


def _threads(record: Record, taken: list[Sample], threads: int) -> Timings:
    took: list[list[int]] = []
    ready = threading.Barrier(threads + 1)

    def work() -> None:
        ready.wait()
        took.append(_loop(record, taken, CALLS // threads))

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    ready.wait()
    start = time.perf_counter_ns()
    for thread in running:
        thread.join()
    whole = time.perf_counter_ns() - start
    return _timings([one for each in took for one in each], whole / CALLS)


def _steady(record: Record, taken: list[Sample]) -> Timings:
    took: list[int] = []
    for _ in paced(STEADY_RATE, STEADY_SECONDS, STEADY_BURST):
        took += _loop(record, taken, STEADY_BURST)
    return _timings(took, fmean(took))


def _timings(took: list[int], mean: float) -> Timings:
    took.sort()
    return Timings(median(took), took[int(len(took) * 0.999)], mean)

"""Goal 2: from `record()` into the stream, one producer process.

Ours: events recorded as fast as one thread can, until the collector knows that all are in the stream. Bare: the same
number of ready-made events encoded and appended by a loop that does nothing else; and the same loop when it makes its
events on the way, without buffer, checks or thread. Peer: FastStream's publish.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import QUIET, server, server_version, work_folder
from benchmarks.stream import ENTRY_EVENTS, KEYS, empty
from benchmarks.workload import Sample, events, metadata_of, samples
from vibezen.metrics.clock import wall
from vibezen.metrics.connection import connect
from vibezen.metrics.event import Event, encode_lines

EVENTS: Final = 500_000
DIFFERENT: Final = 50_000
"""Events that are made ready; they are taken again and again."""
PUBLISHED: Final = 4_000
PIPELINED: Final = 20_000
BARE_SEEN: Final = 470_000
"""Events a second that the bare loop reached before anything was built; it must reach half of that to be a measure."""

C = TypeVar("C")
Contestant = Callable[[str], tuple[float, int]]


def run(options: Options) -> Report:
    with work_folder() as folder, server(folder, *QUIET) as url:
        contestants = {
            "ours": lambda: _emptied(url, _ours),
            "bare": lambda: _emptied(url, _bare),
            "making": lambda: _emptied(url, _bare_making),
            "publish": lambda: _emptied(url, _publish),
            "pipelined": lambda: _emptied(url, _publish_pipelined),
        }
        results = alternate(contestants, options.rounds)
        running = server_version(url)
    rates = {name: [rate for rate, _ in found] for name, found in results.items()}
    return Report(
        "append",
        "2. record → encoded → appended, one producer process",
        [
            Figure("ours", rates["ours"], "events/s", at_least=300_000),
            Figure("bare loop", rates["bare"], "events/s", at_least=BARE_SEEN / 2),
            Figure("bare loop that makes its events", rates["making"], "events/s"),
            Figure("FastStream publish", rates["publish"], "events/s"),
            Figure("FastStream publish, pipelined", rates["pipelined"], "events/s"),
            ratio("ours / bare", rates["ours"], rates["bare"], 0.6),
            ratio("ours / bare loop that makes its events", rates["ours"], rates["making"]),
            ratio("ours / FastStream publish", rates["ours"], rates["publish"], 100),
            ratio("ours / FastStream publish, pipelined", rates["ours"], rates["pipelined"]),
            Figure("ours, events dropped", [lost for _, lost in results["ours"]], "", at_most=0),
        ],
        {"server": running, "events": EVENTS, "entry": ENTRY_EVENTS, "collector": "default settings"},
        ["Dropped events are not counted as appended: a full buffer drops its oldest."],
    )


def _emptied(url: str, contestant: Contestant) -> tuple[float, int]:
    empty(url)
    return in_fresh_process(contestant, url)


# --- contestants, each in an interpreter of its own: events appended per second, and events lost


def _ours(url: str) -> tuple[float, int]:
    from vibezen.metrics import MetricsCollector

    taken = samples(DIFFERENT)
    with MetricsCollector(redis_url=url) as collector:
        record = collector.record_nowait
        record("warm", 1.0)  # starts the sender's thread and its connection
        collector.flush_sync(60)
        start = time.perf_counter()
        for _ in range(EVENTS // DIFFERENT):
            for metric, value, provider, model, phase, session in taken:
                record(metric, value, {"provider": provider, "model": model, "phase": phase, "session": session})
        collector.flush_sync(60)
        took = time.perf_counter() - start
        stats = collector.stats()
    return (stats.appended - 1) / took, sum(stats.dropped.values())


def _bare(url: str) -> tuple[float, int]:
    ready = events(samples(DIFFERENT), wall(), 500_000)
    chunks = [ready[first : first + ENTRY_EVENTS] for first in range(0, DIFFERENT, ENTRY_EVENTS)]
    return _append(url, chunks, lambda chunk: chunk), 0


def _bare_making(url: str) -> tuple[float, int]:
    taken = samples(DIFFERENT)
    chunks = [taken[first : first + ENTRY_EVENTS] for first in range(0, DIFFERENT, ENTRY_EVENTS)]
    return _append(url, chunks, _made), 0


def _made(chunk: list[Sample]) -> list[Event]:
    """What `record()` cannot do without: a time, a metadata dict, an event."""
    now = wall
    return [
        Event(metric, value, now(), 1.0, 1, {"provider": provider, "model": model, "phase": phase, "session": session})
        for metric, value, provider, model, phase, session in chunk
    ]


def _append(url: str, chunks: Sequence[C], made: Callable[[C], list[Event]]) -> float:
    """Encode and append the events made of each chunk, one entry per chunk."""
    with connect(url) as client:
        client.ping()
        start = time.perf_counter()
        for turn in range(EVENTS // DIFFERENT):
            for number, chunk in enumerate(chunks):
                seq = turn * DIFFERENT + number * ENTRY_EVENTS + 1
                lines = encode_lines(made(chunk))
                fields = {"v": 1, "producer": "bare", "seq": seq, "n": ENTRY_EVENTS, "events": lines}
                client.xadd(KEYS.events(0), fields)
        return EVENTS / (time.perf_counter() - start)


def _publish(url: str) -> tuple[float, int]:
    return _faststream(url, PUBLISHED, pipelined=False), 0


def _publish_pipelined(url: str) -> tuple[float, int]:
    return _faststream(url, PIPELINED, pipelined=True), 0


def _faststream(url: str, count: int, *, pipelined: bool) -> float:
    from benchmarks.faststream_peer import publish

    now = wall()
    messages = [
        {"metric": sample.metric, "value": sample.value, "ts": now, "metadata": metadata_of(sample)}
        for sample in samples(count)
    ]
    return publish(url, messages, pipelined=pipelined)

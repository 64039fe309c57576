"""Goal 4: from the stream into windows of three widths with histograms, 128 series, one process.

Ours: what `consume aggregate --once` does, on a stream that is there already, without the start of an interpreter.
Bare: a loop that decodes the same entries, sorts values by series, counts them into buckets and writes one hash per
width, without lateness, weights, cardinality bounds, fences or frames. The price of a commit is taken apart from this:
windows that are full already are given one sample per series and committed, again and again.
"""

import time
from collections import Counter
from math import ceil, log2
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import QUIET, server, server_version, work_folder
from benchmarks.stream import ENTRY_EVENTS, KEYS, books, counted, empty, fill, forget_readers, settings_for
from benchmarks.workload import LABELS, SERIES, events, one_of_each, samples
from vibezen.metrics.batch import batch_fields
from vibezen.metrics.clock import wall
from vibezen.metrics.connection import connect
from vibezen.metrics.consumers.aggregator import COMMIT_SAMPLES
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.histogram import SCALE
from vibezen.metrics.keys import AGGREGATE
from vibezen.metrics.settings import Aggregation, Settings, Width

EVENTS: Final = 500_000
DIFFERENT: Final = 50_000
RATE: Final = 250_000
"""Events a second that the times in the events tell of: a few windows of ten seconds."""
WIDTHS: Final = (10, 60, 3600)
KEEP: Final = 7200
READ_ENTRIES: Final = 64
PER_OCTAVE: Final = 2**SCALE
"""Buckets per doubling, as many as ours."""
COMMITS: Final = 200
"""Commits whose price is taken, after the windows have been filled."""
FILLED: Final = 200_000
"""Events in the windows by then."""


def run(options: Options) -> Report:
    with work_folder() as folder, server(folder, *QUIET) as url:
        fill(url, samples(DIFFERENT), EVENTS // DIFFERENT, RATE)
        rates = alternate({"ours": lambda: _turn(url, folder), "bare": lambda: _bare_turn(url)}, options.rounds)
        empty(url)
        prices = [in_fresh_process(_price_of_commit, url) for _ in range(options.rounds)]
        running = server_version(url)
    return Report(
        "aggregate",
        "4. aggregate: three widths, histograms, 128 series, one process",
        [
            Figure("ours", rates["ours"], "events/s", at_least=250_000),
            Figure("bare loop", rates["bare"], "events/s"),
            ratio("ours / bare", rates["ours"], rates["bare"]),
            Figure("commit, per series-window", prices, "µs", at_most=15),
        ],
        {
            "server": running,
            "events": EVENTS,
            "entry": ENTRY_EVENTS,
            "series": SERIES,
            "widths": " ".join(map(str, WIDTHS)),
            "samples per commit": COMMIT_SAMPLES,
        },
        [
            "After each of our rounds: the windows of every width hold exactly the events appended.",
            f"A commit here writes {SERIES * len(WIDTHS)} series-windows, each with the histogram of "
            f"{FILLED // SERIES:,} samples, and tells the live feed; all of that is in its price.",
        ],
    )


def _settings(url: str, storage_dir: Path) -> Settings:
    widths = tuple(Width(seconds=seconds, keep_seconds=KEEP) for seconds in WIDTHS)
    return msgspec.structs.replace(settings_for(url, storage_dir), aggregation=Aggregation(widths=widths))


def _turn(url: str, folder: Path) -> float:
    forget_readers(url)
    took = in_fresh_process(_ours, url, folder)
    found = books(url)["aggregate.events"], *(counted(url, width) for width in WIDTHS)
    assert set(found) == {EVENTS}, f"appended {EVENTS}, in the books and the windows {found}"
    return EVENTS / took


def _bare_turn(url: str) -> float:
    forget_readers(url)
    return EVENTS / in_fresh_process(_bare, url)


# --- contestants, each in an interpreter of its own


def _ours(url: str, folder: Path) -> float:
    from vibezen.metrics.consumers.supervisor import run

    settings = _settings(url, folder)
    start = time.perf_counter()
    run(AGGREGATE, settings, once=True)
    return time.perf_counter() - start


def _bare(url: str) -> float:
    decode = msgspec.json.Decoder(Event).decode_lines
    stream, position, taken = KEYS.events(0), b"0-0", 0
    held: dict[tuple[str | int | float | None, ...], list[float]] = {}
    windows: dict[tuple[str | int | float | None, ...], Counter[int]] = {}
    with connect(url) as client:
        client.ping()
        start = time.perf_counter()
        while True:
            answer: Any = client.xread({stream: position}, count=READ_ENTRIES)
            entries = answer.get(stream.encode(), []) if answer else []
            for _, fields in entries:
                for event in decode(fields[b"events"]):
                    series = (event.metric, *map(event.metadata.get, LABELS))
                    values = held.get(series)
                    if values is None:
                        held[series] = [event.value]
                    else:
                        values.append(event.value)
                    taken += 1
            if entries:
                position = entries[-1][0]
            if taken >= COMMIT_SAMPLES or (taken and not entries):
                blobs = {str(series): _add(windows, series, values) for series, values in held.items()}
                for width in WIDTHS:
                    client.hset(KEYS.window(0, width, 0), mapping=blobs)
                client.xgroup_setid(stream, AGGREGATE, position)
                held, taken = {}, 0
            if not entries:
                return time.perf_counter() - start


def _add(
    windows: dict[tuple[str | int | float | None, ...], Counter[int]],
    series: tuple[str | int | float | None, ...],
    values: list[float],
) -> bytes:
    """Count values into a series' buckets; its blob."""
    window = windows.setdefault(series, Counter())
    window.update([ceil(log2(value) * PER_OCTAVE) for value in values])
    return msgspec.msgpack.encode([len(values), sum(values), min(values), max(values), values[-1], dict(window)])


def _price_of_commit(url: str) -> float:
    """Microseconds per series-window."""
    from vibezen.metrics.consumers.aggregator import Aggregator
    from vibezen.metrics.consumers.lease import release, take
    from vibezen.metrics.series import SeriesTable

    settings = _settings(url, Path())
    now = wall() // 10 * 10 + 5  # one window of each width takes all, and is young enough to be shown live
    taken_at = f"{int(now * 1000)}".encode()
    took: list[float] = []
    with connect(url) as client:
        taken = take(client, KEYS, 0, AGGREGATE, "price")
        assert taken is not None
        sink = Aggregator(client, KEYS, taken, settings.aggregation, SeriesTable(settings.aggregation.labels))
        for number in range(FILLED // ENTRY_EVENTS):
            sink.take(
                b"%b-%d" % (taken_at, number), _entry(encode_lines(events(samples(ENTRY_EVENTS, number), now, 1e9)))
            )
        sink.commit()
        one_more = _entry(encode_lines(events(one_of_each(), now, 1e9)), SERIES)
        for number in range(COMMITS):
            sink.take(b"%b-%d" % (taken_at, FILLED + number), one_more)
            start = time.perf_counter()
            sink.commit()
            took.append(time.perf_counter() - start)
        release(client, KEYS, taken)
        client.flushall()
    return median(took) / (SERIES * len(WIDTHS)) * 1e6


def _entry(lines: bytes, count: int = ENTRY_EVENTS) -> dict[bytes, bytes]:
    """The fields of an entry, as a reader gets them."""
    flat = [
        part if isinstance(part, bytes) else str(part).encode()
        for part in batch_fields("price", 1, count, lines, b"{}")
    ]
    return dict(zip(flat[::2], flat[1::2], strict=True))

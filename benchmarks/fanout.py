"""Goal 9: the live feed of one API process, to a thousand WebSockets and a thousand event streams.

Ours: an API as a user starts it, and commits that come in as an aggregator tells them. Bare: the same HTTP server whose
clients' tasks do nothing but send. Delivery is from the time a frame says it was made at until a client has read it.
"""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from benchmarks.fanout_bare import serve
from benchmarks.fanout_clients import Seen, follow
from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.roles import Failed, answers, role, wait_until
from benchmarks.rounds import alternate
from benchmarks.server import free_port, server, server_version, work_folder
from benchmarks.stream import KEYS
from vibezen.metrics.clock import floor_to, wall
from vibezen.metrics.connection import connect
from vibezen.metrics.live import FIELD, Change, Frame, encode_frame
from vibezen.metrics.series import series_key
from vibezen.metrics.window import Window

CLIENTS: Final = 1000
"""Of each transport."""
RATE: Final = 5.0
"""Frames a second."""
METRICS: Final = ("response_time", "tokens")
"""As many as make a frame of a kilobyte or a little more."""
FRAME_BYTES: Final = 1256
"""What a frame of these metrics takes; the bare loop sends as much."""
SECONDS: Final = 10.0
"""Measured in one turn, at most."""
ROUNDS: Final = 3
SETTLE: Final = 2.0
"""Seconds for what every client is told at first."""
LATE: Final = 1.0
"""Seconds before the end from which on frames do not count: they may still be on their way."""
TRANSPORTS: Final = ("websocket", "sse")


class Turn(NamedTuple):
    """`websocket`, `sse`: seconds from making a frame until a client had it. `cpu`: share of a core, by the server
    process's own times. `memory`: bytes per client. `sent`: deliveries a second. `missed`: the share of frames that a
    client saw fewer than another, at most. `size`: of a frame, in bytes."""

    websocket: list[float]
    sse: list[float]
    cpu: float
    memory: float
    sent: float
    missed: float
    size: float


def run(options: Options) -> Report:
    rounds, seconds = min(options.rounds, ROUNDS), min(options.seconds, SECONDS)
    with work_folder() as folder, server(folder) as url:
        turns = alternate(
            {"ours": lambda: _ours(folder, url, seconds), "bare": lambda: _bare(seconds)},
            rounds,
        )
        running = server_version(url)
    ours, bare = turns["ours"], turns["bare"]
    figures = [
        *_figures("ours", ours, bounded=True),
        *_figures("bare loop", bare, bounded=False),
        ratio("processor time per delivery, ours / bare loop", _per_delivery(ours), _per_delivery(bare)),
        ratio("memory per client, ours / bare loop", [one.memory for one in ours], [one.memory for one in bare]),
        *(
            ratio(f"{transport}, p99, ours / bare loop", _delays(ours, transport, 0.99), _delays(bare, transport, 0.99))
            for transport in TRANSPORTS
        ),
    ]
    return Report(
        "fanout",
        f"9. live feed, one process: {CLIENTS:,} WebSockets and {CLIENTS:,} event streams",
        figures,
        {"server": running, "frames a second": RATE, "seconds": seconds},
        [
            "The clients run in two processes on the same cores and take more of them than the server: delays are "
            "those of a machine that is full. Processor time and memory are the server process's own.",
        ],
    )


def _figures(who: str, turns: list[Turn], *, bounded: bool) -> list[Figure]:
    found = []
    for transport in TRANSPORTS:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            goal = 100 if bounded and name == "p99" else None
            rounds = [delay * 1000 for delay in _delays(turns, transport, share)]
            found.append(Figure(f"{who}, {transport}: made → received, {name}", rounds, "ms", at_most=goal))
    return [
        *found,
        Figure(f"{who}: one core's share", [turn.cpu for turn in turns], "cores", at_most=0.7 if bounded else None),
        Figure(f"{who}: processor time per delivery", [each * 1e6 for each in _per_delivery(turns)], "µs"),
        Figure(
            f"{who}: memory per client", [turn.memory / 1024 for turn in turns], "KB", at_most=40 if bounded else None
        ),
        Figure(f"{who}: bytes of a frame", [turn.size for turn in turns], "bytes"),
        Figure(f"{who}: deliveries", [turn.sent for turn in turns], "/s"),
        Figure(f"{who}: frames a client missed, at most", [turn.missed * 100 for turn in turns], "%"),
    ]


def _per_delivery(turns: list[Turn]) -> list[float]:
    """Seconds of processor time."""
    return [turn.cpu / turn.sent for turn in turns]


def _delays(turns: list[Turn], transport: str, share: float) -> list[float]:
    return [_quantile(getattr(turn, transport), share) for turn in turns]


def _quantile(delays: list[float], share: float) -> float:
    ordered = sorted(delays)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


# --- contestants


def _ours(folder: Path, url: str, seconds: float) -> Turn:
    port = free_port()
    settings = {
        "REDIS__URL": url,
        "STORAGE_DIR": str(folder / "store"),
        "LIVE__INTERVAL_SECONDS": str(1 / RATE - 0.01),  # else it would wait for every other commit, when one is early
    }
    with role(folder, "api", "--port", str(port), **settings) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "the API is ready")
        with _commits(url):
            return _measured(process.pid, port, seconds)


@contextmanager
def _commits(url: str) -> Iterator[None]:
    """What an aggregator tells after each commit, RATE times a second."""
    ended = threading.Event()

    def tell() -> None:
        windows = {metric: Window() for metric in METRICS}
        began, number = time.monotonic(), 0
        with connect(url) as client:
            while not ended.wait(max(0.0, began + number / RATE - time.monotonic())):
                number += 1
                now = wall()
                for metric, window in windows.items():
                    window.add(100.0 + number % 900 + len(metric), 1, now)
                start = floor_to(now, 10)
                changes = [Change(start, series_key(metric, {}), window) for metric, window in windows.items()]
                client.xadd(KEYS.frames, {FIELD: encode_frame(Frame(0, 10, changes, now, now))}, maxlen=1000)

    thread = threading.Thread(target=tell, name="commits")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bare(seconds: float) -> Turn:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(port, FRAME_BYTES, RATE), daemon=True)
    process.start()
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), "the bare server is ready")
        assert process.pid is not None
        return _measured(process.pid, port, seconds)
    finally:
        process.terminate()
        process.join()


# --- measuring


def _measured(pid: int, port: int, seconds: float) -> Turn:
    alone = _memory(pid)
    with _followers(port) as followers:
        time.sleep(SETTLE)
        began, used = wall(), _processor(pid)
        time.sleep(seconds)
        ended, used = wall(), _processor(pid) - used
        memory = _memory(pid) - alone
        seen = followers()
    frames = {
        transport: [[one for one in client if began <= one.made < ended - LATE] for client in clients]
        for transport, clients in seen.items()
    }
    counts = [len(client) for clients in frames.values() for client in clients]
    if not max(counts):
        raise Failed("no frame came")
    delays = {
        transport: [one.received - one.made for client in clients for one in client]
        for transport, clients in frames.items()
    }
    return Turn(
        delays["websocket"],
        delays["sse"],
        used / (ended - began),
        memory / (2 * CLIENTS),
        sum(counts) / (ended - LATE - began),
        1 - min(counts) / max(counts),
        median(one.size for client in frames["websocket"] for one in client),
    )


@contextmanager
def _followers(port: int) -> Iterator[Callable[[], dict[str, list[list[Seen]]]]]:
    """All clients, connected; a call ends them and answers what each has seen."""
    spawn = get_context("spawn")
    done = spawn.Event()
    ready, answers_, processes = {}, {}, []
    for transport in TRANSPORTS:
        ready[transport] = spawn.Event()
        answers_[transport], told = spawn.Pipe(duplex=False)
        arguments = (transport, port, CLIENTS, ready[transport], done, told)
        processes.append(spawn.Process(target=follow, args=arguments, daemon=True))
        processes[-1].start()
        told.close()

    def results() -> dict[str, list[list[Seen]]]:
        done.set()
        found = {transport: answer.recv() for transport, answer in answers_.items()}
        for what in found.values():
            if isinstance(what, str):
                raise Failed(what)
        return found

    try:
        wait_until(
            lambda: all(each.is_set() for each in ready.values()) or any(each.poll() for each in answers_.values()),
            "all clients are connected",
            120.0,
            0.1,
        )
        yield results
    finally:
        done.set()
        for process in processes:
            process.join(10)
            process.kill()


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has used, its own and the system's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

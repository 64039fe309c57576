"""Goal 10: how soon it is there, and what it weighs.

The import is timed in fresh interpreters. `up` is started as a user would, first in a new folder, then again on what is
there; its processes are weighed when ready and after a while under load.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.options import Options
from benchmarks.report import Figure, Report
from benchmarks.roles import answers, role, wait_until, weights
from benchmarks.rounds import in_fresh_process
from benchmarks.server import free_port, work_folder
from benchmarks.workload import paced, samples
from vibezen.metrics.connection import Endpoint

IMPORT: Final = """
import json, sys, time
start = time.perf_counter()
from vibezen.metrics import MetricsCollector
took = time.perf_counter() - start
print(json.dumps([took, [name for name in ("duckdb", "starlette", "redis") if name in sys.modules]]))
"""
IMPORTS: Final = 10
HEAVY: Final = ("duckdb", "starlette")
"""What an application that only records must never load."""
LOAD_RATE: Final = 10_000
LOAD_BURST: Final = 50
DIFFERENT: Final = 50_000
ROLES: Final = ("server", "archive", "aggregate", "api", "gateway")


class Started(NamedTuple):
    """`address`: of the API; `pid`: of `up` itself."""

    seconds: float
    pid: int


def run(options: Options) -> Report:
    took, loaded = zip(*(_import() for _ in range(IMPORTS)), strict=True)
    heavy = {name for names in loaded for name in names if name in HEAVY}
    first: list[float] = []
    again: list[float] = []
    before: list[Mapping[str, float]] = []
    after: list[Mapping[str, float]] = []
    for _ in range(min(options.rounds, 3)):
        with work_folder() as folder:
            with _up(folder) as started:
                first.append(started.seconds)
            with _up(folder) as started:
                again.append(started.seconds)
                before.append(weights(started.pid))
                in_fresh_process(_load, _address(folder), options.seconds)
                after.append(weights(started.pid))
    return Report(
        "start",
        "10. start and weight",
        [
            Figure("import of MetricsCollector", [seconds * 1000 for seconds in took], "ms", at_most=100),
            Figure("heavy modules it loads", [len(heavy)], "", at_most=0),
            Figure("`up` answers /readyz, new folder", first, "s", at_most=4),
            Figure("`up` answers /readyz, second start", again, "s", at_most=4),
            *(Figure(f"{name}, when ready", [found[name] for found in before], "MB") for name in ("up", *ROLES)),
            *(Figure(f"{name}, after load", [found[name] for found in after], "MB", at_most=120) for name in ROLES),
        ],
        {"load": f"{LOAD_RATE:,} events/s for {options.seconds:g} s", "imports": IMPORTS},
        [
            "Heavy modules: " + " and ".join(HEAVY) + ".",
            "Resident memory, pages shared with other processes included. The goal is meant for an hour of load.",
        ],
    )


def _import() -> tuple[float, list[str]]:
    """Seconds, and the modules of interest it brought."""
    answer = subprocess.run([sys.executable, "-P", "-c", IMPORT], capture_output=True, text=True, check=True).stdout
    took, loaded = json.loads(answer)
    return took, loaded


@contextmanager
def _up(folder: Path) -> Iterator[Started]:
    port = free_port()
    start = time.perf_counter()
    settings = {"STORAGE_DIR": str(folder / "store"), "GATEWAY__PORT": str(free_port())}
    with role(folder, "up", "--port", str(port), **settings) as process:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "`up` is ready")
        yield Started(time.perf_counter() - start, process.pid)


def _address(folder: Path) -> str:
    """Of the embedded server, as `up` tells other programs of this user."""
    import msgspec

    endpoint = folder / "state" / "vibezen-metrics" / "endpoint.json"
    return msgspec.json.decode(endpoint.read_bytes(), type=Endpoint).url


def _load(url: str, seconds: float) -> None:
    from vibezen.metrics import MetricsCollector

    taken = samples(DIFFERENT)
    with MetricsCollector(redis_url=url) as collector:
        for number in paced(LOAD_RATE, seconds, LOAD_BURST):
            first = number * LOAD_BURST % DIFFERENT
            for metric, value, provider, model, phase, session in taken[first : first + LOAD_BURST]:
                collector.record_nowait(
                    metric, value, {"provider": provider, "model": model, "phase": phase, "session": session}
                )

"""An import, end to end: a CSV file with three events a row until all of them are in the stream, one process.

Ours: the command itself, from its start in a fresh interpreter to its exit code, checks, numbers and balance included.
Bare: the same rows read by the csv module, made into JSON and appended 500 per entry by a loop that checks nothing.
"""

import csv
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import QUIET, server, server_version, work_folder
from benchmarks.stream import ENTRY_EVENTS, KEYS, empty
from vibezen.metrics.connection import connect

ROWS: Final = 150_000
"""Three events each: just below the backlog at which an import waits for readers, of which there are none here."""
EVENTS: Final = 3 * ROWS
MAPPING: Final = (
    *("--event", "api_calls=1", "--event", "tokens={ContextTokens},type=input"),
    *("--event", "tokens={GeneratedTokens},type=output", "--set", "provider=azure"),
)


def run(options: Options) -> Report:
    with work_folder() as folder, server(folder, *QUIET) as url:
        path = _written(folder / "trace.csv")
        contestants = {
            "ours": lambda: _emptied(url, path, _ours),
            "again": lambda: _ours(url, path),
            "bare": lambda: _emptied(url, path, _bare_apart),
        }
        rates = alternate(contestants, options.rounds)
        running = server_version(url)
    return Report(
        "importing",
        "Import of a CSV file with three events a row, end to end, one process",
        [
            Figure("ours", rates["ours"], "events/s", at_least=150_000),
            Figure("bare loop", rates["bare"], "events/s"),
            Figure("ours, all of it there already", rates["again"], "events/s"),
            ratio("ours / bare", rates["ours"], rates["bare"]),
        ],
        {"server": running, "rows": ROWS, "events": EVENTS, "entry": ENTRY_EVENTS},
        ["Ours includes the start of the interpreter; the bare loop starts counting when it is ready."],
    )


def _written(path: Path) -> Path:
    """Rows like those of the Azure LLM inference trace: time with 100 ns digits, two numbers of tokens."""
    rng = random.Random(1)
    start = datetime(2023, 11, 16, 18, 17, 3, tzinfo=UTC).timestamp()
    with path.open("w") as file:
        file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for row in range(ROWS):
            when = datetime.fromtimestamp(start + row / 10, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            file.write(f"{when}0,{rng.randint(1, 7500)},{rng.randint(1, 1900)}\n")
    return path


def _emptied(url: str, path: Path, contestant: Callable[[str, Path], float]) -> float:
    empty(url)
    return contestant(url, path)


def _bare_apart(url: str, path: Path) -> float:
    return in_fresh_process(_bare, url, path)


# --- contestants: events per second


def _ours(url: str, path: Path) -> float:
    command = [sys.executable, "-m", "vibezen.metrics", "import", str(path), *MAPPING, "--redis-url", url, "--json"]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    took = time.perf_counter() - start
    (balance,) = json.loads(done.stdout)["files"]
    assert balance["appended"] + balance["already_there"] == balance["events"] == EVENTS
    return EVENTS / took


def _bare(url: str, path: Path) -> float:
    encode = msgspec.json.Encoder().encode_lines
    with connect(url) as client, path.open(newline="") as file:
        client.ping()
        start = time.perf_counter()
        rows = csv.reader(file)
        next(rows)
        waiting: list[dict[str, object]] = []
        for when, context, generated in rows:
            ts = datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
            read, written = {"provider": "azure", "type": "input"}, {"provider": "azure", "type": "output"}
            waiting += (
                {"metric": "api_calls", "value": 1, "ts": ts, "metadata": {"provider": "azure"}},
                {"metric": "tokens", "value": float(context), "ts": ts, "metadata": read},
                {"metric": "tokens", "value": float(generated), "ts": ts, "metadata": written},
            )
            if len(waiting) >= ENTRY_EVENTS:
                client.xadd(KEYS.events(0), {"n": len(waiting), "events": encode(waiting)})
                waiting.clear()
        if waiting:
            client.xadd(KEYS.events(0), {"n": len(waiting), "events": encode(waiting)})
        return EVENTS / (time.perf_counter() - start)

"""Goal 3: from the stream to durable lines, one process.

Ours: what `consume archive --once` does, on a stream that is there already, without the start of an interpreter.
Bare: a loop that reads the same entries, decodes them, writes the received bytes and makes them durable as often as we
do. Peer: FastStream's batch subscriber doing the same job on its own messages.
"""

import os
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.options import Options
from benchmarks.report import Figure, Report, ratio
from benchmarks.rounds import alternate, in_fresh_process
from benchmarks.server import QUIET, server, server_version, work_folder
from benchmarks.stream import (
    ENTRY_EVENTS,
    KEYS,
    books,
    bytes_on_disk,
    fill,
    forget_readers,
    lines_on_disk,
    settings_for,
)
from benchmarks.workload import metadata_of, samples
from vibezen.metrics.clock import wall
from vibezen.metrics.connection import connect
from vibezen.metrics.consumers.archiver import COMMIT_BYTES
from vibezen.metrics.event import Event
from vibezen.metrics.keys import ARCHIVE

EVENTS: Final = 1_000_000
DIFFERENT: Final = 50_000
RATE: Final = 350_000
"""Events a second that the times in the events tell of."""
READ_ENTRIES: Final = 64
"""Entries per read of the bare loop."""
MESSAGES: Final = 20_000
BARE_SEEN: Final = 550_000
"""Events a second that the bare loop reached before anything was built."""


def run(options: Options) -> Report:
    with work_folder() as folder, server(folder, *QUIET) as url:
        fill(url, samples(DIFFERENT), EVENTS // DIFFERENT, RATE)
        in_fresh_process(_publish, url)
        turns = _Turns(url, folder)
        rates = alternate({"ours": turns.ours, "bare": turns.bare, "faststream": turns.faststream}, options.rounds)
        running = server_version(url)
    return Report(
        "archive",
        "3. archive: read → validate → append → fdatasync → acknowledge, one process",
        [
            Figure("ours", rates["ours"], "events/s", at_least=350_000),
            Figure("bare loop", rates["bare"], "events/s", at_least=BARE_SEEN / 2),
            Figure("FastStream batch subscriber", rates["faststream"], "events/s"),
            ratio("ours / bare", rates["ours"], rates["bare"], 0.6),
            ratio("ours / FastStream batch subscriber", rates["ours"], rates["faststream"], 15),
        ],
        {
            "server": running,
            "events": EVENTS,
            "entry": ENTRY_EVENTS,
            "bytes per line": round(turns.bytes_per_line),
            "bytes per fdatasync": COMMIT_BYTES,
            "FastStream messages": MESSAGES,
        },
        [
            "After each of our rounds: lines on disk and the archiver's books equal what was appended.",
            "FastStream holds one event per entry, reads 500 at a time and makes each batch durable.",
        ],
    )


class _Turns:
    """One round of each contestant, over the same stream."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._number = 0
        self.bytes_per_line = 0.0

    def _fresh(self) -> Path:
        forget_readers(self._url)
        self._number += 1
        return self._folder / f"round-{self._number}"

    def ours(self) -> float:
        storage_dir = self._fresh()
        took = in_fresh_process(_ours, self._url, storage_dir)
        found = lines_on_disk(storage_dir), books(self._url)["archive.events"]
        assert found == (EVENTS, EVENTS), f"appended {EVENTS}, on disk and in the books {found}"
        self.bytes_per_line = bytes_on_disk(storage_dir) / EVENTS
        return EVENTS / took

    def bare(self) -> float:
        return EVENTS / in_fresh_process(_bare, self._url, self._fresh())

    def faststream(self) -> float:
        return in_fresh_process(_faststream, self._url, self._fresh())


# --- contestants, each in an interpreter of its own


def _ours(url: str, storage_dir: Path) -> float:
    from vibezen.metrics.consumers.supervisor import run

    settings = settings_for(url, storage_dir)
    start = time.perf_counter()
    run(ARCHIVE, settings, once=True)
    return time.perf_counter() - start


def _bare(url: str, path: Path) -> float:
    decode = msgspec.json.Decoder(Event).decode_lines
    stream, position, waiting = KEYS.events(0), b"0-0", 0
    with connect(url) as client, path.open("wb", buffering=0) as file:
        client.ping()
        start = time.perf_counter()
        while True:
            answer: Any = client.xread({stream: position}, count=READ_ENTRIES)
            entries = answer.get(stream.encode(), []) if answer else []
            lines = [fields[b"events"] for _, fields in entries]
            for batch in lines:
                decode(batch)
            data = b"".join(lines)
            file.write(data)
            waiting += len(data)
            if entries:
                position = entries[-1][0]
            if waiting >= COMMIT_BYTES or (waiting and not entries):
                os.fdatasync(file.fileno())
                client.xgroup_setid(stream, ARCHIVE, position)
                waiting = 0
            if not entries:
                return time.perf_counter() - start


def _publish(url: str) -> None:
    from benchmarks.faststream_peer import publish

    now = wall()
    messages = [
        {"metric": sample.metric, "value": sample.value, "ts": now, "metadata": metadata_of(sample)}
        for sample in samples(MESSAGES)
    ]
    publish(url, messages, pipelined=True)


def _faststream(url: str, path: Path) -> float:
    from benchmarks.faststream_peer import STREAM, archive

    with connect(url) as client:
        for group in client.xinfo_groups(STREAM):
            client.xgroup_destroy(STREAM, group["name"])
    return archive(url, MESSAGES, path)

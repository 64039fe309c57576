"""Streams made ready to be read, and what readers left behind."""

import os
import secrets
from pathlib import Path
from typing import Final

from benchmarks.workload import Sample, events
from vibezen.metrics.clock import wall
from vibezen.metrics.connection import connect
from vibezen.metrics.event import encode_lines
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, Keys
from vibezen.metrics.layout import Layout
from vibezen.metrics.producers.append import Batch, append
from vibezen.metrics.settings import Redis as RedisSettings
from vibezen.metrics.settings import Settings
from vibezen.metrics.window import from_blob

ENTRY_EVENTS: Final = 500
"""Events per entry, as a busy collector packs them."""
KEYS: Final = Keys()


def settings_for(url: str, storage_dir: Path) -> Settings:
    return Settings(storage_dir=storage_dir, redis=RedisSettings(url=url))


def empty(url: str) -> None:
    with connect(url) as client:
        client.flushall()


def fill(url: str, taken: list[Sample], repeat: int, rate: float, until: float | None = None) -> int:
    """Append `taken` over and over, as if `rate` events a second had been recorded until now, or `until`; how many they
    are."""
    producer, seq = secrets.token_hex(16), 1
    total = len(taken) * repeat
    start = (wall() if until is None else until) - total / rate
    with connect(url) as client:
        for number in range(repeat):
            recorded = events(taken, start + number * len(taken) / rate, rate)
            for first in range(0, len(recorded), ENTRY_EVENTS):
                chunk = recorded[first : first + ENTRY_EVENTS]
                append(client, KEYS, 0, producer, seq, [Batch(len(chunk), encode_lines(chunk))])
                seq += len(chunk)
    return total


def forget_readers(url: str) -> None:
    """Let both groups begin at the stream's start again, as in a new store."""
    with connect(url) as client:
        client.delete(KEYS.books(0), KEYS.store, KEYS.floor(0))
        for group in (ARCHIVE, AGGREGATE):
            client.delete(KEYS.lease(0, group), KEYS.fence(0, group))
            client.xgroup_setid(KEYS.events(0), group, "0")
        windows = list(client.scan_iter(match=f"{KEYS.prefix}:*:[wt]:*", count=1000))
        if windows:
            client.delete(*windows)


def books(url: str) -> dict[str, int]:
    """The counters the readers keep: `archive.events`, `aggregate.events`, …"""
    with connect(url) as client:
        found = client.hgetall(KEYS.books(0))
    return {name.decode(): int(value) for name, value in found.items() if value.isdigit()}


def lines_on_disk(storage_dir: Path) -> int:
    """Lines in all visible segments."""
    return sum(path.read_bytes().count(b"\n") for path in Layout(storage_dir).segments())


def bytes_on_disk(storage_dir: Path) -> int:
    return sum(os.stat(path).st_size for path in Layout(storage_dir).segments())


def counted(url: str, width: int) -> int:
    """Samples in all windows of one width."""
    with connect(url) as client:
        names = list(client.scan_iter(match=f"{KEYS.prefix}:*:w:{width}:*", count=1000))
        blobs = [blob for name in names for blob in client.hvals(name)]
    return round(sum(from_blob(blob).count for blob in blobs))

"""Segments against what commit logs say of them: length, checksum, lines, times; and files that no log names."""

import math
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.clock import HOUR, iso
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.committed import blocks, open_committed
from vibezen.metrics.layout import Layout, hour_of, segment_name
from vibezen.metrics.parts import generation_of

Progress = Callable[[int], None]
"""Called with the bytes that were read since the last call."""

_HIDDEN = re.compile(r"\.(\d+)-(\d+)-\d+\.jsonl\.new\Z")


class _Line(msgspec.Struct):
    ts: float


_decoder: Final = msgspec.json.Decoder(_Line)


class FileFacts(NamedTuple):
    """The committed part of one file as it is. `size`: of the whole file; the rest: of its first bytes, as many as
    were committed. `bad`: the number of the first line, from 1, that is no event; 0 without any."""

    size: int
    crc: int
    lines: int
    min_ts: float
    max_ts: float
    bad: int


def read(layout: Layout, extent: Extent, progress: Progress) -> FileFacts:
    """Read what was committed, in constant memory. Raises OSError; FileNotFoundError where there is no such file."""
    crc = lines = bad = 0
    low, high = math.inf, -math.inf
    with open_committed(layout, extent) as file:
        size = os.fstat(file.fileno()).st_size
        for block in blocks(file, extent.end):
            crc = zlib.crc32(block, crc)
            progress(len(block))
            times, first_bad = _times(block)
            bad = bad or (first_bad and lines + first_bad)
            lines += block.count(b"\n") + (block[-1:] != b"\n")
            if times:
                low, high = min(low, *times), max(high, *times)
    return FileFacts(size, crc, lines, low, high, bad)


def _times(block: bytes) -> tuple[list[float], int]:
    """The times in a block of lines, and the number of its first line that is no event (0: all are)."""
    try:
        times = [line.ts for line in _decoder.decode_lines(block)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        times = []
    if len(times) == block.count(b"\n"):
        return times, 0
    return _times_one_by_one(block)


def _times_one_by_one(block: bytes) -> tuple[list[float], int]:
    times, bad = [], 0
    for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), 1):
        try:
            times.append(_decoder.decode(line).ts)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            bad = bad or number
    return times, bad


def differences(extent: Extent, facts: FileFacts) -> list[str]:
    """In what a file is not as its log says, each with both numbers."""
    found = []
    if facts.size < extent.end or (extent.closed and facts.size != extent.end):
        found.append(f"{facts.size} bytes, the log says {extent.end}")
    if facts.crc != extent.crc:
        found.append(f"checksum {facts.crc:08x}, the log says {extent.crc:08x}")
    if facts.lines != extent.events:
        found.append(f"{facts.lines} lines, the log says {extent.events}")
    if facts.bad:
        found.append(f"line {facts.bad} is no event")
    elif facts.lines and (facts.min_ts, facts.max_ts) != (extent.min_ts, extent.max_ts):
        found.append(f"{_span(facts.min_ts, facts.max_ts)}, the log says {_span(extent.min_ts, extent.max_ts)}")
    start = hour_of(extent.path)
    if facts.lines and not start <= facts.min_ts <= facts.max_ts < start + HOUR and math.isfinite(facts.min_ts):
        found.append(f"events of another hour: {_span(facts.min_ts, facts.max_ts)}")
    return found


def _span(low: float, high: float) -> str:
    return f"times from {iso(low)} to {iso(high)}"


class Strays(NamedTuple):
    """Files that no log names, relative to the events folder. `unnamed`: segments that a glob over the files would
    count; `begun`: those of present owners, without any commit yet; `left`: what a crash left; `foreign`: others'."""

    unnamed: list[str]
    begun: list[str]
    left: list[str]
    foreign: list[str]


def listing(layout: Layout) -> list[str]:
    """Every file in the events folder, by its relative path."""
    return [
        os.path.relpath(os.path.join(folder, name), layout.events)
        for folder, _, names in os.walk(layout.events)
        for name in names
    ]


def strays(files: list[str], named: set[str], epochs: dict[int, int]) -> Strays:
    """`named`: paths the logs name, read after the files were listed; `epochs`: the newest of each shard."""
    found = Strays([], [], [], [])
    for path in sorted(files):
        name = Path(path).name
        if path in named:
            continue
        if match := _HIDDEN.match(name):
            is_begun = int(match[2]) >= epochs.get(int(match[1]), 0)
            if str(Path(path).with_name(name[1 : -len(".new")])) not in named:
                (found.begun if is_begun else found.left).append(path)
        elif name.startswith(".") and name.endswith(".tmp"):
            found.left.append(path)
        elif segment_name(Path(name)):
            found.unnamed.append(path)
        elif generation_of(name) is not None:
            continue  # looked at with the parts
        else:
            found.foreign.append(path)
    return found

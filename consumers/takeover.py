"""Taking the archive of a shard over: close what the predecessor left, and begin a log of one's own.

Every step may be cut off by a crash and run again by the next owner; none trusts that the predecessor is dead. The
predecessor's files are replaced by copies of what it committed: should it wake up, it writes into files that no name
leads to.
"""

import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from vibezen.metrics.commitlog import Extent, LogState, Record, Seen, encode_record, fold, read_log
from vibezen.metrics.errors import Fenced
from vibezen.metrics.layout import (
    FILE_MODE,
    Layout,
    append_all,
    fsync_folder,
    hidden,
    make_folder,
    publish,
    publish_copy,
    publish_once,
)

log = logging.getLogger(__name__)

PRODUCERS_KEPT: Final = 30 * 86_400.0
"""Seconds for which a silent producer's number is remembered."""


class Inherited(NamedTuple):
    """What a new owner starts from: the newest record and the numbers seen, and its own log, open for appending."""

    state: LogState
    log: "CommitLog"


class CommitLog:
    """The log of the present epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        self._begin = self._end = os.fstat(self._fd).st_size

    @property
    def grown(self) -> int:
        """Bytes appended by this owner."""
        return self._end - self._begin

    def append(self, record: Record) -> None:
        """Durable on return: from then on, what the record names is data.

        Raises StoreFull with nothing appended: behind a torn record readers would see no other.
        """
        line = encode_record(record)
        append_all(self._fd, self._end, line)
        os.fdatasync(self._fd)
        self._end += len(line)

    def close(self) -> None:
        os.close(self._fd)


def highest_epoch(layout: Layout, shard: int) -> int:
    logs = layout.logs(shard)
    return logs[-1][0] if logs else 0


def inherit(layout: Layout, shard: int, epoch: int) -> Inherited:
    """Seal what earlier epochs of the shard left, and begin the log of `epoch`. The fence must already be raised."""
    state = _seal_newest(layout, shard, epoch)
    for path in layout.strays(shard, epoch):
        path.unlink(missing_ok=True)
    last = state.last
    snapshot = Record(
        last.position, [], _recent(state.producers), last.dead, last.counters, last.before, account=last.account
    )
    path = layout.log(shard, epoch)
    if not publish_once(path, encode_record(snapshot)):
        # The fence was lost with a server's data, and given to somebody else once more.
        raise Fenced(f"archive of shard {shard}: another owner has begun epoch {epoch}")
    return Inherited(state, CommitLog(path))


def _recent(producers: dict[str, Seen]) -> dict[str, Seen]:
    """The producers worth remembering: a process that lived and ended long ago sends nothing again."""
    newest = max((seen.at for seen in producers.values()), default=0.0)
    return {name: seen for name, seen in producers.items() if seen.at > newest - PRODUCERS_KEPT}


def _seal_newest(layout: Layout, shard: int, epoch: int) -> LogState:
    """Seal the newest earlier epoch, whose log holds the shard's state; drop logs that lost a race to it."""
    logs = [(found, path) for found, path in layout.logs(shard) if found < epoch]
    if not logs:
        return fold(b"")
    predecessor, newest = logs.pop()
    state = _settled(layout, newest, layout.closing(shard, predecessor))
    for extent in state.extents.values():
        if not extent.closed:
            _seal_segment(layout, extent)
    if not state.last.sealed:
        _keep_damaged(layout, newest)
        _seal_log(newest, state)
    layout.closing(shard, predecessor).unlink(missing_ok=True)
    for _, path in logs:
        # What is damaged stays, for `verify` to name: it may have been sealed, and be the only word on its segments.
        if not read_log(path).last.sealed and not _is_damaged(path.read_bytes()):
            path.unlink()
    return state


def _is_damaged(log_bytes: bytes) -> bool:
    """Whether a log has whole lines that are no records. A crash leaves a torn end, and nothing else."""
    return b"\n" in log_bytes[fold(log_bytes).length :]


def _keep_damaged(layout: Layout, log_file: Path) -> None:
    """Before a log is closed: what something else has damaged is evidence of what it named."""
    data = log_file.read_bytes()
    if _is_damaged(data):
        kept = layout.quarantine / log_file.name
        make_folder(kept.parent)
        publish_once(kept, data)
        log.error("%s is damaged; as it was, it is kept as %s", log_file, kept)


def _settled(layout: Layout, log: Path, closing: Path) -> LogState:
    """What a log says, the same for all who close it.

    Its owner may sleep and add a record between the looks of two of them, one of which sleeps, too: the late one would
    cut off what the other has relied on. So the first one's look is settled by a link that replaces nothing. Whoever
    comes after that was taken away again finds the log closed.
    """
    while not (state := _without_missing(layout, read_log(log))).last.sealed:
        look = msgspec.structs.replace(state.last, segments=[*state.extents.values()], producers=state.producers)
        publish_once(closing, encode_record(look))
        with suppress(FileNotFoundError):
            settled = read_log(closing)
            if not read_log(log).last.sealed:
                return settled
    return state


def _without_missing(layout: Layout, state: LogState) -> LogState:
    """The state without committed events that are gone from open segments, which are then told and counted.

    Nothing of ours takes a committed byte away; a disk that lied about it or a person may have. What is left is kept.
    """
    extents, missing = dict(state.extents), 0
    for extent in state.extents.values():
        if not extent.closed and _size(layout, extent) < extent.end:
            found = _cut(layout, extent)
            missing += extent.events - (found.events if found else 0)
            extents.pop(extent.path) if found is None else extents.update({found.path: found})
            log.error(
                "%s: %d committed events are missing", extent.path, extent.events - (found.events if found else 0)
            )
    if not missing:
        return state
    counters = msgspec.structs.replace(state.last.counters, missing=state.last.counters.missing + missing)
    return state._replace(extents=extents, last=msgspec.structs.replace(state.last, counters=counters))


def _size(layout: Layout, extent: Extent) -> int:
    path = layout.events / extent.path
    for found in (path, hidden(path), path):  # its owner may be about to show it
        with suppress(FileNotFoundError):
            return found.stat().st_size
    return 0


def _cut(layout: Layout, extent: Extent) -> Extent | None:
    """An extent that is longer than its file, without the line that is torn; None when no line is left."""
    path = layout.events / extent.path
    source = path if path.exists() else hidden(path)
    data = source.read_bytes() if source.exists() else b""
    data = data[: data.rfind(b"\n") + 1]
    if not data:
        return None
    return msgspec.structs.replace(extent, end=len(data), events=data.count(b"\n"), crc=zlib.crc32(data))


def _seal_segment(layout: Layout, extent: Extent) -> None:
    path = layout.events / extent.path
    source = path if path.exists() else hidden(path)
    publish_copy(source, path, extent.end)
    # Only after the sealed copy has the name: until then this may be the only file that holds the data.
    hidden(path).unlink(missing_ok=True)
    fsync_folder(path.parent)


def _seal_log(path: Path, state: LogState) -> None:
    """Replace the log by one record that says the same; a log without segments keeps only its position."""
    final = [msgspec.structs.replace(extent, closed=True) for extent in state.extents.values()]
    record = msgspec.structs.replace(state.last, segments=final, producers=state.producers, sealed=True)
    publish(path, encode_record(record))

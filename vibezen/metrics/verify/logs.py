"""Commit logs against their own checksums, and against what the archive counted."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vibezen.metrics.commitlog import Counters, LogState, fold
from vibezen.metrics.doctor.finding import Finding, fail, warn
from vibezen.metrics.layout import Layout

CHECK = "commit logs"


class LogFacts(NamedTuple):
    """One log, read. `rest`: bytes after the last good record; `torn`: they are a line that was never finished;
    `following`: good records among them, which no reader reaches."""

    path: Path
    epoch: int
    records: int
    state: LogState
    rest: int
    torn: bool
    following: int


def read(path: Path, epoch: int) -> LogFacts:
    """Raises OSError."""
    data = path.read_bytes()
    state = fold(data)
    rest = data[state.length :]
    return LogFacts(
        path=path,
        epoch=epoch,
        records=data[: state.length].count(b"\n"),
        state=state,
        rest=len(rest),
        torn=b"\n" not in rest,
        following=sum(fold(line).length > 0 for line in rest.splitlines(keepends=True)),
    )


def read_all(layout: Layout, shard: int) -> list[LogFacts]:
    """A shard's logs, oldest first. Raises OSError; FileNotFoundError when one is gone by now."""
    return [read(path, epoch) for epoch, path in layout.logs(shard)]


def judge(shard: int, logs: Iterable[LogFacts], unnamed: int = 0) -> list[Finding]:
    """What is wrong with a shard's logs; nothing when all is well. `unnamed`: events of logs that are gone, since all
    they named was dropped."""
    found: list[Finding] = []
    known = list(logs)
    for log in known:
        found += _judge_one(log, newest=log is known[-1])
    named = sum(extent.events for log in known for extent in log.state.extents.values())
    counters = known[-1].state.last.counters if known else Counters()
    counted = counters.events
    if counters.missing:
        seen = f"shard {shard}: {counters.missing} committed events are gone: something cut or removed their file"
        found.append(fail(CHECK, seen, "only a backup can still have them"))
    if named + unnamed + counters.missing != counted:
        seen = f"shard {shard}: its logs name {named} events, the archive counted {counted}"
        found.append(fail(CHECK, seen, "a log is missing, damaged or of another store"))
    return found


def _judge_one(log: LogFacts, *, newest: bool) -> list[Finding]:
    name, sealed = f"commits/{log.path.name}", log.state.last.sealed
    if log.rest and (sealed or not log.torn):
        number = log.records + 1
        seen = f"{name}: record {number}, at byte {log.state.length}, is damaged"
        seen += f"; {log.following} good ones after it are not read" if log.following else ""
        return [fail(CHECK, seen, "bring the file back from a backup")]
    if not log.records:
        return [fail(CHECK, f"{name}: no good record in {log.rest} bytes", "bring the file back from a backup")]
    if log.rest:
        seen = f"{name}: ends in {log.rest} bytes of a record that was never finished, and is not committed"
        return [warn(CHECK, seen, "nothing: its archiver goes on, or the next one cuts them off")]
    if not sealed and not newest:
        seen = f"{name}: never closed, though a newer one is there"
        return [warn(CHECK, seen, "nothing: the next archiver of the shard settles it")]
    return []

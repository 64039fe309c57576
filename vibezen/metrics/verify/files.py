"""The files of a store against themselves: logs first, then every segment they name. Needs no server.

Archivers may go on meanwhile. What differs is looked at again, since a file that gets its name, or is replaced by a
copy of its committed part, may be missed once; what differs each time is told.
"""

import time
from collections.abc import Iterator
from typing import Final

from vibezen.metrics.commitlog import Extent
from vibezen.metrics.doctor.finding import Finding, fail, ok, warn
from vibezen.metrics.layout import Layout
from vibezen.metrics.verify import logs, segments
from vibezen.metrics.verify.logs import LogFacts
from vibezen.metrics.verify.segments import Progress

LOOKS: Final = 4
"""How often something is looked at before it is told as a difference."""
PAUSE: Final = 0.3
"""Seconds between two looks; an archiver commits five times a second."""
TOLD: Final = 20
"""Differences of one kind that are told one by one."""
RESTORE: Final = "bring the file back from a backup; what it holds now is read without the damaged lines"

Extents = dict[str, Extent]


def size(layout: Layout) -> int:
    """Bytes that `checks` will read at least: for a progress bar."""
    return sum(extent.end for shard in layout.shards() for extent in named(_logs(layout, shard)).values())


def checks(layout: Layout, progress: Progress) -> Iterator[Finding]:
    """Raises StoreError through the layout, OSError for what cannot be read at all."""
    files = segments.listing(layout)  # before the logs: what has a name by now stands in them
    shards = layout.shards()
    known = {shard: _settled_logs(layout, shard) for shard in shards}
    wrong = [finding for shard in shards for finding in logs.judge(shard, known[shard])]
    count = sum(map(len, known.values()))
    yield from wrong or [
        ok(logs.CHECK, f"{of(count, 'log')} of {of(len(shards), 'shard')}, every record as it was written")
    ]
    yield from _segments(layout, known, progress)
    yield from _strays(layout, files, known)


def of(count: int, what: str) -> str:
    """`1 file`, `2 files`"""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def named(found: list[LogFacts]) -> Extents:
    """Every extent that these logs name; the newer log wins."""
    return {path: extent for log in found for path, extent in log.state.extents.items()}


def _logs(layout: Layout, shard: int) -> list[LogFacts]:
    for _ in range(LOOKS):
        try:
            return logs.read_all(layout, shard)
        except FileNotFoundError:
            time.sleep(PAUSE)
    return logs.read_all(layout, shard)


def _settled_logs(layout: Layout, shard: int) -> list[LogFacts]:
    """Logs without what is only in the making."""
    found = _logs(layout, shard)
    for _ in range(LOOKS):
        if not logs.judge(shard, found):
            break
        time.sleep(PAUSE)
        found = _logs(layout, shard)
    return found


def _segments(layout: Layout, known: dict[int, list[LogFacts]], progress: Progress) -> Iterator[Finding]:
    count = total = events = 0
    wrong: list[Finding] = []
    for shard, found in known.items():
        for path, extent in named(found).items():
            differs = _differs(layout, extent, progress)
            if differs:
                differs = _look_again(layout, shard, path, differs)
            if differs:
                wrong.append(fail("segments", f"events/{path}: {'; '.join(differs)}", RESTORE))
            count, total, events = count + 1, total + extent.end, events + extent.events
    yield from told(wrong)
    if not wrong:
        yield ok("segments", f"{of(count, 'file')}, {of(events, 'event')}, {total} bytes: as the logs say")


def told(wrong: list[Finding]) -> Iterator[Finding]:
    """The first differences one by one, the others by their number."""
    yield from wrong[:TOLD]
    if len(wrong) > TOLD:
        yield fail(wrong[0].name, f"and {len(wrong) - TOLD} more differences", "")


def _differs(layout: Layout, extent: Extent, progress: Progress) -> list[str]:
    try:
        return segments.differences(extent, segments.read(layout, extent, progress))
    except FileNotFoundError:
        return [f"the file is gone, the log says {extent.events} events in {extent.end} bytes"]
    except OSError as error:
        return [f"the file cannot be read: {(error.strerror or str(error)).lower()}"]


def _look_again(layout: Layout, shard: int, path: str, differs: list[str]) -> list[str]:
    for _ in range(LOOKS - 1):
        time.sleep(PAUSE)
        extent = named(_logs(layout, shard)).get(path)
        if extent is None or not (differs := _differs(layout, extent, lambda _: None)):
            return []
    return differs


def _strays(layout: Layout, files: list[str], known: dict[int, list[LogFacts]]) -> Iterator[Finding]:
    names = {path for found in known.values() for path in named(found)}
    epochs = {shard: found[-1].epoch for shard, found in known.items() if found}
    found = segments.strays(files, names, epochs)
    advice = "move it away: `jq` and DuckDB over the folder count its lines, nobody else does"
    yield from told(
        [fail("other files", f"events/{path}: a segment that no log names", advice) for path in found.unnamed]
    )
    for what, paths, advice in (
        ("left by a crash", found.left, "nothing: the next archiver of the shard removes it, or you may"),
        ("not ours", found.foreign, "move it away, if nobody needs it there"),
    ):
        if paths:
            seen = ", ".join(f"events/{path}" for path in paths[:3]) + (" …" if len(paths) > 3 else "")
            yield warn("other files", f"{len(paths)} {what}: {seen}", advice)
    if not (found.unnamed or found.left or found.foreign):
        begun = f"; {len(found.begun)} begun, not committed yet" if found.begun else ""
        yield ok("other files", f"none{begun}")

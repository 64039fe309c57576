"""The files of a store against themselves: logs first, then every segment they name. Needs no server.

Archivers may go on meanwhile. What differs is looked at again, since a file that gets its name, or is replaced by a
copy of its committed part, may be missed once; what differs each time is told.
"""

import time
from collections.abc import Iterator
from typing import Final

from vibezen.metrics.clock import wall
from vibezen.metrics.commitlog import Extent
from vibezen.metrics.doctor.finding import Finding, fail, ok, warn
from vibezen.metrics.layout import Layout
from vibezen.metrics.verify import logs, parts, rollups, segments
from vibezen.metrics.verify.logs import LogFacts
from vibezen.metrics.verify.parts import Compacted
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
    compacted = Compacted(layout)
    extents = (one for shard in layout.shards() for one in named(_logs(layout, shard)).values())
    return sum(extent.end for extent in extents if not compacted.includes(extent.path)) + sum(
        path.stat().st_size for part in compacted.parts if (path := layout.events / part.path).exists()
    )


def checks(layout: Layout, progress: Progress) -> Iterator[Finding]:
    """Raises StoreError through the layout, OSError for what cannot be read at all."""
    files = segments.listing(layout)  # before the logs: what has a name by now stands in them
    compacted = Compacted(layout)  # before the logs, too: what parts include stands in them
    shards = layout.shards()
    known = {shard: _settled_logs(layout, shard, compacted) for shard in shards}
    wrong = [finding for shard in shards for finding in _judged(shard, known[shard], compacted)]
    count = sum(map(len, known.values()))
    yield from wrong or [
        ok(logs.CHECK, f"{of(count, 'log')} of {of(len(shards), 'shard')}, every record as it was written")
    ]
    yield from _segments(layout, known, compacted, progress)
    extents = {path: extent for found in known.values() for path, extent in named(found).items()}
    yield from parts.checks(layout, compacted, extents, progress)
    yield from rollups.checks(layout, compacted)
    yield from _strays(layout, files, known, compacted)


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


def _judged(shard: int, found: list[LogFacts], compacted: Compacted) -> list[Finding]:
    return logs.judge(shard, found, compacted.unnamed(shard, named(found)))


def _settled_logs(layout: Layout, shard: int, compacted: Compacted) -> list[LogFacts]:
    """Logs without what is only in the making."""
    found = _logs(layout, shard)
    for _ in range(LOOKS):
        if not _judged(shard, found, compacted):
            break
        time.sleep(PAUSE)
        found = _logs(layout, shard)
    return found


def _segments(
    layout: Layout, known: dict[int, list[LogFacts]], compacted: Compacted, progress: Progress
) -> Iterator[Finding]:
    count = total = events = 0
    wrong: list[Finding] = []
    for shard, found in known.items():
        for path, extent in named(found).items():
            if compacted.includes(path) and not (layout.events / path).exists():
                continue
            differs = _differs(layout, extent, progress)
            if differs and not (layout.events / path).exists() and compacted.includes_now(path):
                continue
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


def _strays(
    layout: Layout, files: list[str], known: dict[int, list[LogFacts]], compacted: Compacted
) -> Iterator[Finding]:
    names = {path for found in known.values() for path in named(found)}
    epochs = {shard: found[-1].epoch for shard, found in known.items() if found}
    found = segments.strays(files, names, epochs)
    unnamed = [path for path in found.unnamed if not compacted.includes_now(path)]
    replaced = compacted.left_behind(files, wall())
    advice = "move it away: `jq` and DuckDB over the folder count its lines, nobody else does"
    yield from told([fail("other files", f"events/{path}: a segment that no log names", advice) for path in unnamed])
    for what, paths, advice in (
        ("left by a crash", found.left, "nothing: the next archiver of the shard removes it, or you may"),
        ("that parts have replaced", replaced, "nothing: `vibezen-metrics consume compact` deletes them"),
        ("not ours", found.foreign, "move it away, if nobody needs it there"),
    ):
        if paths:
            seen = ", ".join(f"events/{path}" for path in paths[:3]) + (" …" if len(paths) > 3 else "")
            yield warn("other files", f"{len(paths)} {what}: {seen}", advice)
    if not (unnamed or found.left or found.foreign or replaced):
        begun = f"; {len(found.begun)} begun, not committed yet" if found.begun else ""
        yield ok("other files", f"none{begun}")

"""Commit logs that somebody cut, damaged or removed: what they named is no data any more, and must be told.

The books on the server are told only of what is on disk. Where they know of more than the log does, and the stream has
it no more, it is gone.
"""

from collections.abc import Mapping
from typing import Any

from redis import Redis

from vibezen.metrics.batch import Entry, EntryId, read_header
from vibezen.metrics.commitlog import Seen
from vibezen.metrics.consumers.shard import MAX_COUNT


def missing_events(
    client: Redis, stream: str, left: EntryId, producers: Mapping[str, Seen], confirmed: int, known: int
) -> int:
    """Lines that were committed and are in no log any more. `confirmed`: lines that the books know of; `known`: those
    that the log does; `producers`: their numbers by the log; `left`: where the group stands."""
    if confirmed <= known:
        return 0
    return max(confirmed - known - _still_there(client, stream, left, producers), 0)


def _still_there(client: Redis, stream: str, left: EntryId, producers: Mapping[str, Seen]) -> int:
    """Lines in the stream, up to where the group was left, that are not archived by what the log says."""
    lines, since = 0, "-"
    while True:
        found: Any = client.xrange(stream, since, left, count=MAX_COUNT)
        if not found:
            return lines
        lines += sum(_new_lines(read_header(entry_id.decode(), fields), producers) for entry_id, fields in found)
        since = f"({found[-1][0].decode()}"


def _new_lines(entry: Entry, producers: Mapping[str, Seen]) -> int:
    seen = producers.get(entry.producer) if entry.producer else None
    return min(max(entry.seq + entry.n - 1 - seen.number, 0), entry.n) if seen else entry.n

"""Appending batches as a producer would, and reading back what came of them, by the plainest means."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import redis

from vibezen.metrics.batch import EntryId, batch_fields
from vibezen.metrics.connection import primaries
from vibezen.metrics.event import Event, encode_lines
from vibezen.metrics.keys import Keys
from vibezen.metrics.window import Window, from_blob, merged

NOON: Final = 1_763_985_600.0
"""2025-11-24T12:00:00Z."""


def event(value: float = 1.0, ts: float | None = None, metric: str = "response_time", **metadata: Any) -> Event:
    return Event(metric, value, ts, metadata=metadata)


class Feed:
    """One producer on one shard. `append` gives its batches the numbers a producer would."""

    def __init__(self, client: redis.Redis, name: str = "p1", shard: int = 0) -> None:
        self._client, self.name, self.shard = client, name, shard
        self.next = 1

    def append(self, events: Sequence[Event], *, entry_id: EntryId = "*", seq: int | None = None) -> EntryId:
        added = self.append_in(events, entry_id=entry_id, seq=seq)
        assert isinstance(added, bytes)
        return added.decode()

    def append_in(self, events: Sequence[Event], *, entry_id: EntryId = "*", seq: int | None = None) -> object:
        """The same in a pipeline, which answers later."""
        number = self.next if seq is None else seq
        fields: Any = batch_fields(self.name, number, len(events), encode_lines(events), b"{}")
        self.next = max(self.next, number + len(events))
        pairs = dict(zip(fields[::2], fields[1::2], strict=True))
        return self._client.xadd(Keys().events(self.shard), pairs, id=entry_id)


def lines_on_disk(root: Path) -> list[dict[str, Any]]:
    """Every line that a glob over `*.jsonl` finds, as `jq` or DuckDB would."""
    return [json.loads(line) for path in sorted(root.rglob("*.jsonl")) for line in path.read_bytes().splitlines()]


def values_on_disk(root: Path) -> Counter[float]:
    return Counter(line["value"] for line in lines_on_disk(root))


def windows(client: redis.Redis, width: int = 10, shards: int = 1) -> Iterator[tuple[int, int, Mapping[str, Window]]]:
    """(shard, start, series → window) for every stored window of `width`."""
    keys = Keys()
    for shard in range(shards):
        pattern = keys.window(shard, width, 0)[:-1] + "*"
        for name in (name for server in primaries(client) for name in server.scan_iter(pattern)):
            stored: Any = client.hgetall(name)
            blobs = {series.decode(): from_blob(blob) for series, blob in stored.items()}
            yield shard, int(name.decode().rpartition(":")[2]), blobs


def total(client: redis.Redis, width: int = 10, shards: int = 1) -> Window:
    """All windows of `width` as one."""
    return merged(window for _, _, blobs in windows(client, width, shards) for window in blobs.values())


def lag(client: redis.Redis, group: str, shard: int = 0) -> int | None:
    """Entries the group has yet to commit, as the server tells it."""
    try:
        groups: Any = client.xinfo_groups(Keys().events(shard))
    except redis.ResponseError:
        return None  # nobody has made the stream yet
    for told in groups:
        if told["name"] == group.encode():
            return None if told["lag"] is None else int(told["lag"])
    return None


def values_in_stream(url: str, metric: str | None = None, shard: int = 0) -> list[float]:
    """The value of every event in the stream, in order; `metric`: of this one alone."""
    with redis.Redis.from_url(url, legacy_responses=False, protocol=2) as client:
        entries: Any = client.xrange(Keys().events(shard))
    events = [json.loads(line) for _, fields in entries for line in fields[b"events"].splitlines()]
    return [event["value"] for event in events if metric is None or event["metric"] == metric]

"""Events as they arrive: the streams of all shards, read from a position on, without being part of any group."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis import Redis
from redis.exceptions import ResponseError

from vibezen.metrics.batch import EntryId, read_entry
from vibezen.metrics.connection import is_missing_group, readable_together
from vibezen.metrics.errors import InvalidEvent
from vibezen.metrics.event import Event
from vibezen.metrics.event_sql import Condition
from vibezen.metrics.keys import Keys
from vibezen.metrics.series import label_text
from vibezen.metrics.verdict import judge

BLOCK_MS: Final = 500
ENTRIES: Final = 50
"""Entries of one shard taken at a time; each may hold a thousand events."""


class _Shard:
    """Where we are in one stream. `count`: entries ever added up to there; None while that is not known."""

    def __init__(self, position: EntryId) -> None:
        self.position = position
        self.count: int | None = None

    def is_made_anew(self, about: Mapping[str, Any]) -> bool:
        """Whether the stream was deleted meanwhile, and is another now; then it is to be read from its beginning."""
        if self.count is None or int(about["entries-added"]) >= self.count:
            return False
        self.position, self.count = "0-0", 0
        return True

    def move(self, about: Mapping[str, Any], entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> int:
        """Past what was read; the number of entries that were trimmed before."""
        added, gone = int(about["entries-added"]), int(about["entries-added"]) - int(about["length"])
        missed = 0
        if self.count is not None:
            missed = max(gone - self.count, 0)
            self.count += missed + len(entries)
        if len(entries) < ENTRIES:
            self.count = added
        if entries:
            self.position = entries[-1][0].decode()
        return missed


class Following:
    """Goes on from `positions` (shard → entry ID). For one thread.

    `missed`: entries that were trimmed before they could be read here. Both groups had committed them, so the files
    have them, but nobody saw them pass by.
    """

    def __init__(self, client: Redis, keys: Keys, positions: Mapping[int, EntryId]) -> None:
        self._client, self._keys = client, keys
        self._shards = {shard: _Shard(position) for shard, position in positions.items()}
        self.missed = 0

    def wait(self) -> None:
        """Until anything has arrived, or for half a second."""
        streams: Any = {self._keys.events(number): shard.position for number, shard in self._shards.items()}
        parts = readable_together(self._client, streams)
        for part in parts:
            if self._client.xread(part, count=1, block=BLOCK_MS // len(parts) or 1):
                return

    def take(self) -> list[Event]:
        """What has arrived since the last time, in the order of arrival; rejected lines are left out."""
        events: list[Event] = []
        for number, shard in self._shards.items():
            stream = self._keys.events(number)
            # One transaction: apart, a trimming in between could not be told from one after the reading.
            pipe = self._client.pipeline(transaction=True)
            pipe.xinfo_stream(stream)
            pipe.xread({stream: shard.position}, count=ENTRIES)
            about, answer = pipe.execute(raise_on_error=False)
            if isinstance(about, ResponseError) and is_missing_group(about):
                continue  # nobody has appended yet
            for part in (about, answer):
                if isinstance(part, Exception):
                    raise part
            if shard.is_made_anew(about):
                continue
            entries = next(iter(answer.values()), ()) if answer else ()
            self.missed += shard.move(about, entries)
            for entry_id, fields in entries:
                events += _events(entry_id, fields)
        return events


def newest(client: Redis, keys: Keys, shards: int) -> dict[int, EntryId]:
    """The positions behind everything that has arrived so far."""
    positions: dict[int, EntryId] = {}
    for shard in range(shards):
        try:
            about: Any = client.xinfo_stream(keys.events(shard))
            positions[shard] = about["last-generated-id"].decode()
        except ResponseError as error:
            if not is_missing_group(error):
                raise
            positions[shard] = "0-0"
    return positions


def has_events(client: Redis, keys: Keys, shards: int) -> bool:
    """Whether anything was ever appended. Streams are there as soon as somebody reads them."""
    return any(position != "0-0" for position in newest(client, keys, shards).values())


def matches(event: Event, metric: str | None, where: Sequence[Condition]) -> bool:
    """Whether it is what is looked for; the same as a search in files would say."""
    return (metric is None or event.metric == metric) and all(
        condition.holds(label_text(event.metadata.get(condition.key))) for condition in where
    )


def _events(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Sequence[Event]:
    try:
        entry = read_entry(entry_id, fields)
    except InvalidEvent:
        return ()
    return judge(entry.payload, entry.arrived).events

"""Which hours the stored windows answer for, so that each hour of an answer comes from exactly one source.

Windows stand in for an hour when nothing can be missing from them: every shard's aggregator has kept them since before
that hour, under the labels and widths that are asked by, and is as far as the archiver is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from vibezen.metrics.batch import EntryId, id_order, id_time
from vibezen.metrics.clock import HOUR
from vibezen.metrics.event import MAX_AHEAD
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, Keys
from vibezen.metrics.settings import Aggregation, Width
from vibezen.metrics.window_reader import shard_count

CAUGHT_UP: Final = 5.0
"""Seconds of entry time an aggregator may be behind the archiver and still count as caught up: it commits once a
second, the archiver five times, so that it nearly always is a little behind. `as_of` tells how far an answer goes."""
READ_MARGIN: Final = 60.0
"""Seconds before their expiry from which on windows are not relied on: reading them takes time, and clocks differ."""
SHAPE_VERSION: Final = 1
"""Of what aggregators store; a new one makes readers take earlier hours from events."""


def shape_of(policy: Aggregation) -> str:
    """What decides which windows and series an aggregator makes, in one comparable line."""
    told = [SHAPE_VERSION, policy.labels, [[width.seconds, width.keep_seconds] for width in policy.widths]]
    return msgspec.json.encode(told).decode()


class Standing(NamedTuple):
    """How one shard's windows stand. `floor`: Unix seconds since when they are complete, None while they are not;
    `shape`: what is made now, `shaped`: since when; `position`: how far the aggregator is."""

    floor: float | None
    shape: str
    shaped: float
    position: EntryId
    archived: EntryId | None
    """How far the archiver is, as it told this server; None before it has compared its files with it."""


async def standings(client: Redis, keys: Keys, configured_shards: int) -> list[Standing]:
    """Every shard ever used. Raises ValueError for what no aggregator wrote."""
    shards = await shard_count(client, keys, configured_shards)
    pipe = client.pipeline(transaction=False)
    for shard in range(shards):
        pipe.get(keys.floor(shard))
        pipe.hgetall(keys.books(shard))
    answers: list[Any] = await pipe.execute()
    return [standing_of(floor, books) for floor, books in zip(answers[::2], answers[1::2], strict=True)]


def standing_of(floor: bytes | None, books: Mapping[bytes, bytes]) -> Standing:
    """From a shard's floor and books. Raises ValueError for what no aggregator wrote."""

    def told(what: str, otherwise: str, group: str = AGGREGATE) -> str:
        return books.get(f"{group}.{what}".encode(), otherwise.encode()).decode()

    position, archived = told("position", "0-0"), told("position", "0-0", ARCHIVE)
    for entry_id in (position, archived):
        id_order(entry_id)  # raises for what is none
    return Standing(
        floor=None if floor is None else float(floor),
        shape=told("shape", ""),
        shaped=float(told("shaped", "inf")),
        position=position,
        archived=archived if f"{ARCHIVE}.epoch".encode() in books else None,
    )


class Coverage:
    """The rule, at one moment. `now` in Unix seconds."""

    def __init__(
        self, policy: Aggregation, shards: Sequence[Standing], archived: Mapping[int, EntryId], now: float
    ) -> None:
        self._widths = policy.widths
        # Windows expire by the server's clock, which may be ahead of ours; its newest entries tell.
        self._now = max([now, *(id_time(shard.position) for shard in shards)])
        shape = shape_of(policy)
        # A server that knows fewer shards than the files is an older copy.
        self._is_whole = max(archived, default=-1) < len(shards) and all(
            shard.archived is not None
            and shard.floor is not None
            and shard.shape == shape
            and self._caught_up(shard.archived, archived.get(number, "0-0"))
            and self._caught_up(shard.position, archived.get(number, "0-0"))
            for number, shard in enumerate(shards)
        )
        self.files_are_current = all(
            self._caught_up(archived.get(number, "0-0"), shard.position) for number, shard in enumerate(shards)
        )
        """Whether files are not behind the windows."""
        # An event may be an hour ahead of its entry: what was lost or otherwise shaped before may have lain so far on.
        self._since = max((max(shard.floor or 0.0, shard.shaped) for shard in shards), default=0.0) + MAX_AHEAD

    def width(self, first: int, step: int) -> Width | None:
        """The coarsest windows that `step` is made of and that are complete from `first` (Unix seconds) on: the fewest
        reads. None where events must answer."""
        if not self._is_whole or first < self._since:
            return None
        fitting = [
            width
            for width in self._widths
            if step % width.seconds == 0
            and HOUR % width.seconds == 0
            and first + width.keep_seconds > self._now + READ_MARGIN
        ]
        return max(fitting, key=lambda width: width.seconds, default=None)

    def _caught_up(self, one: EntryId, other: EntryId) -> bool:
        """Whether the reader that is at `one` is not behind that at `other`, but for a little and only for a while."""
        if id_order(one) >= id_order(other):
            return True
        arrived = id_time(other)
        return arrived - id_time(one) <= CAUGHT_UP and self._now - arrived <= 2 * CAUGHT_UP

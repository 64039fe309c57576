"""Appending: the one way batches get into a stream, idempotent by (producer, number).

A lost reply leaves the caller not knowing whether its batch is there. Calling again with the same producer, number and
batches is always right: what is there already is not added again.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.batch import FORMAT_VERSION
from vibezen.metrics.keys import GROUPS, Keys

_PACKAGE = "vibezen.metrics.producers"


class Batch(NamedTuple):
    """`payload`: `n` events as NDJSON, one a line, each line ended by a newline."""

    n: int
    payload: bytes


class Appended(NamedTuple):
    """`duplicate`: everything was there already. `last`: the number of the producer's last event on this shard.
    `created`: the stream did not exist before."""

    duplicate: bool
    last: int
    created: bool


def shard_of(producer: str, shards: int) -> int:
    """The shard a producer stays on."""
    return zlib.crc32(producer.encode()) % shards


def append(
    client: Redis, keys: Keys, shard: int, producer: str, seq: int, batches: Sequence[Batch], stats: bytes = b"{}"
) -> Appended:
    """Append `batches`, whose first event has the number `seq`, each as one entry and all or none of them.

    `seq` counts a producer's events on this shard from 1. Events numbered up to the stored number are left out; numbers
    skipped stay skipped, and readers count them as lost. Never re-sends: on an error the caller calls again with the
    same arguments. Raises what the client raises.
    """
    reply = scripts.run(
        client,
        scripts.load(_PACKAGE, "append"),
        (keys.events(shard), keys.producers(shard)),
        append_args(producer, seq, batches, stats),
    )
    return read_reply(reply)


def append_args(producer: str, seq: int, batches: Sequence[Batch], stats: bytes) -> list[str | bytes | int | float]:
    """The arguments of append.lua."""
    args: list[str | bytes | int | float] = [producer, seq, FORMAT_VERSION, stats, " ".join(GROUPS)]
    for batch in batches:
        args += batch
    return args


def read_reply(reply: Any) -> Appended:
    """The reply of append.lua."""
    status, last, created = reply
    return Appended(status in (b"duplicate", "duplicate"), int(last), created == 1)


def raise_shards(client: Redis, keys: Keys, shards: int) -> int:
    """Tell readers of how many shards there are at least; returns the highest number ever used."""
    return int(scripts.run(client, scripts.load(_PACKAGE, "raise_shards"), (keys.shards,), (shards,)))

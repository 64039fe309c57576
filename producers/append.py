"""Appending: the one way batches get into a stream, idempotent by (producer, number).

A lost reply leaves the caller not knowing whether its batch is there. Calling again with the same producer, number and
batches is always right: what is there already is not added again.
"""

import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from redis import Redis
from redis.exceptions import NoPermissionError

from vibezen.metrics import scripts
from vibezen.metrics.batch import FORMAT_VERSION
from vibezen.metrics.connection import check_suitable, server_info
from vibezen.metrics.errors import NotReplicated
from vibezen.metrics.keys import GROUPS, Keys

PACKAGE = "vibezen.metrics.producers"
WAIT_MS: Final = 1000
"""Milliseconds until replicas are given up for this time."""


class Batch(NamedTuple):
    """`payload`: `n` events as NDJSON, one a line, each line ended by a newline."""

    n: int
    payload: bytes


class Appended(NamedTuple):
    """`duplicate`: everything was there already. `last`: the number of the producer's last event on this shard.
    `created`: the stream did not exist before. `gap`: refused, because events before these never came. `known`: how
    many of the events had been there already."""

    duplicate: bool
    last: int
    created: bool
    gap: bool = False
    known: int = 0


def shard_of(producer: str, shards: int) -> int:
    """The shard a producer stays on."""
    return zlib.crc32(producer.encode()) % shards


def shard_holding(client: Redis, keys: Keys, producer: str, shards: int) -> int:
    """The shard of a producer that may have been here before: the one that keeps its number, else the one of its id.

    For producers that come back under the same name, since the number of shards may have changed meanwhile.
    """
    used = client.get(keys.shards)
    most = max(shards, int(used) if isinstance(used, bytes) else 1)
    if most > 1:
        pipe = client.pipeline(transaction=False)
        for shard in range(most):
            pipe.hexists(keys.producers(shard), producer)
        for shard, is_there in enumerate(pipe.execute()):
            if is_there:
                return shard
    return shard_of(producer, shards)


def last_number(client: Redis, keys: Keys, shard: int, producer: str) -> int:
    """The number of the producer's last event on this shard; 0 for one that never appended."""
    stored = client.hget(keys.producers(shard), producer)
    return int(stored.split()[0]) if isinstance(stored, bytes) else 0


def append(
    client: Redis,
    keys: Keys,
    shard: int,
    producer: str,
    seq: int,
    batches: Sequence[Batch],
    stats: bytes = b"{}",
    *,
    gapless: bool = False,
    replicas: int = 0,
) -> Appended:
    """Append `batches`, whose first event has the number `seq`, each as one entry and all or none of them.

    `seq` counts a producer's events on this shard from 1. Events numbered up to the stored number are left out; numbers
    skipped stay skipped, and readers count them as lost, unless `gapless` refuses to skip any. `stats`: the producer's
    counters as JSON; without batches they alone reach the server. Never re-sends: on an error the caller calls again
    with the same arguments. `replicas`: returns only once so many have them, too. Raises NotReplicated when fewer do,
    and what the client raises; the server's OOM also while the stream is over its bound.
    """
    script, names = scripts.load(PACKAGE, "append"), script_keys(keys, shard)
    args = append_args(producer, seq, batches, stats, gapless=gapless)
    if not replicas:
        return read_reply(scripts.run(client, script, names, args))
    reply, have = scripts.run_replicated(client, script, names, args, replicas, WAIT_MS)
    require_replicas(have, replicas)
    return read_reply(reply)


def script_keys(keys: Keys, shard: int) -> tuple[str, str, str]:
    """The keys of append.lua."""
    return keys.events(shard), keys.producers(shard), keys.books(shard)


def append_args(
    producer: str, seq: int, batches: Sequence[Batch], stats: bytes, *, gapless: bool = False
) -> list[str | bytes | int | float]:
    """The arguments of append.lua."""
    args: list[str | bytes | int | float] = [producer, seq, FORMAT_VERSION, stats, " ".join(GROUPS), int(gapless)]
    for batch in batches:
        args += batch
    return args


def read_reply(reply: Any) -> Appended:
    """The reply of append.lua."""
    status, last, created, known = reply
    told = status.decode() if isinstance(status, bytes) else status
    return Appended(told == "duplicate", int(last), created == 1, told == "gap", int(known))


def require_replicas(have: Any, replicas: int) -> None:
    """Judge what WAIT answered. Raises NotReplicated, and the error that it answered."""
    if isinstance(have, Exception):
        raise have
    if have < replicas:
        raise NotReplicated(f"{have} of {replicas} replicas have the events")


def prepare(client: Redis, url: str, keys: Keys, shards: int) -> None:
    """What comes before the first append on a connection: the server must be suitable, and readers learn of the shards.

    Raises ServerUnsuitable, and what the client raises.
    """
    with suppress(NoPermissionError):  # a producer's user may be allowed nothing but to append
        check_suitable(server_info(client.info("server")), url)
    raise_shards(client, keys, shards)


def raise_shards(client: Redis, keys: Keys, shards: int) -> int:
    """Tell readers of how many shards there are at least; returns the highest number ever used."""
    return int(scripts.run(client, scripts.load(PACKAGE, "raise_shards"), (keys.shards,), (shards,)))

"""`GET /api/pipeline`: shards, groups, positions, lag and owners, as Redis has them now."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from vibezen.metrics.balance import NEWEST, Books, books_of
from vibezen.metrics.connection import async_primaries, is_missing_group, server_info
from vibezen.metrics.keys import AGGREGATE, ARCHIVE, GROUPS, Keys
from vibezen.metrics.producer_stats import Producers, producers_of
from vibezen.metrics.storage import MetricsStorage
from vibezen.metrics.window_reader import shard_count


class Group(msgspec.Struct):
    """One group on one shard. `lag`: entries not committed yet, null when the server cannot tell. `owner`: who holds
    the lease now. `trouble`: why it cannot commit now, null when it can. `lost`, the archiver's: events of which there
    is but the gap in their producer's numbers. `too_old`, `overflow`: the aggregator's; `sessions_cut`, too:
    sessions that were too many to be kept as active."""

    owner: str | None
    epoch: int
    position: str
    lag: int | None
    entries: int
    events: int
    rejected: int
    updated: float | None
    trouble: str | None
    lost: int | msgspec.UnsetType = msgspec.UNSET
    too_old: int | msgspec.UnsetType = msgspec.UNSET
    overflow: int | msgspec.UnsetType = msgspec.UNSET
    sessions_cut: int | msgspec.UnsetType = msgspec.UNSET


class Shard(msgspec.Struct):
    """`length` in entries; `bytes` of memory the stream takes; `dead`: dead letters that are kept;
    `dead_unkept`: those that came when there were too many. `producers`: null where they are too many to ask."""

    shard: int
    length: int
    bytes: int | None
    last_id: str
    dead: int
    dead_unkept: int
    books: Books
    producers: Producers | None
    groups: dict[str, Group]


class Store(msgspec.Struct):
    """`damaged_lines`: lines of committed segments that were found to be no events when they were last read."""

    id: str
    path: str
    free_bytes: int
    damaged_lines: int


class Compactor(msgspec.Struct):
    """What the compactor said last. `waiting_hours`, `waiting_bytes`: of closed segments that no part includes yet.
    `damaged`: hours and days that are left as they are; `trouble`: why, null without any. `updated`: Unix seconds.
    `dropped`: events that retention has removed; `moved`: events that lie in external storage; `external_trouble`: why
    none go there now."""

    owner: str | None
    updated: float | None
    waiting_hours: int
    waiting_bytes: int
    damaged: int
    trouble: str | None
    dropped: int
    moved: int
    external_trouble: str | None


class Server(msgspec.Struct):
    version: str
    server: str
    used_memory: int


class Pipeline(msgspec.Struct):
    at: float
    shards: list[Shard]
    store: Store
    compactor: Compactor
    redis: Server


MOST_PRODUCERS: Final = 5000
"""Producers of a shard that are asked for their counters; each tells some 300 bytes."""
_NOTHING: Final = "0-0"


async def pipeline(
    client: Redis, keys: Keys, storage: MetricsStorage, configured_shards: int, damaged_lines: int, now: float
) -> Pipeline:
    shards = await shard_count(client, keys, configured_shards)
    servers = [server_info(await each.info()) for each in await async_primaries(client)]
    return Pipeline(
        at=now,
        shards=[await _shard(client, keys, shard, now) for shard in range(shards)],
        store=await asyncio.to_thread(_store, storage, damaged_lines),
        compactor=await _compactor(client, keys),
        redis=Server(servers[0].version, servers[0].kind, sum(server.used_memory for server in servers)),
    )


async def troubles(client: Redis, keys: Keys, configured_shards: int) -> list[str]:
    """Why events cannot get where they belong now, a line each: from the groups' owners, and from the server."""
    pipe = client.pipeline(transaction=False)
    for shard in range(await shard_count(client, keys, configured_shards)):
        pipe.hmget(keys.books(shard), [f"{group}.trouble" for group in GROUPS])
    told = await pipe.execute()
    found = [
        f"{group} of shard {shard}: {text.decode()}"
        for shard, texts in enumerate(told)
        for group, text in zip(GROUPS, texts, strict=True)
        if text
    ]
    persistence = [await each.info("persistence") for each in await async_primaries(client)]
    if any(one.get("aof_enabled") and one.get("aof_last_write_status") != "ok" for one in persistence):
        found.append("the server cannot write its append-only file, and takes no events until it can")
    return found


async def _compactor(client: Redis, keys: Keys) -> Compactor:
    owner: Any = await client.get(keys.compact_lease)
    told: Any = await client.hgetall(keys.compact_books)
    updated = told.get(b"updated")
    return Compactor(
        owner=owner.decode() if owner else None,
        updated=float(updated) if updated else None,
        waiting_hours=int(told.get(b"waiting_hours", 0)),
        waiting_bytes=int(told.get(b"waiting_bytes", 0)),
        damaged=int(told.get(b"damaged", 0)),
        trouble=told.get(b"trouble", b"").decode() or None,
        dropped=int(told.get(b"dropped", 0)),
        moved=int(told.get(b"moved", 0)),
        external_trouble=told.get(b"external_trouble", b"").decode() or None,
    )


async def _shard(client: Redis, keys: Keys, shard: int, now: float) -> Shard:
    stream = keys.events(shard)
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(keys.books(shard))
    pipe.xrevrange(stream, count=NEWEST)
    pipe.xinfo_stream(stream)
    pipe.xinfo_groups(stream)
    pipe.memory_usage(stream)
    pipe.hlen(keys.dead(shard))
    for group in GROUPS:
        pipe.get(keys.lease(shard, group))
    answers: list[Any] = await pipe.execute(raise_on_error=False)
    books, newest, about, groups, memory, dead, *owners = map(_present, answers)
    about = about or {}
    known = {group["name"].decode(): group for group in groups or []}
    return Shard(
        shard=shard,
        length=about.get("length", 0),
        bytes=memory,
        last_id=_text(about.get("last-generated-id")) or _NOTHING,
        dead=dead,
        dead_unkept=int(books.get(b"archive.dead_unkept", 0)),
        books=books_of(books, newest or []),
        producers=await _producers(client, keys.producers(shard), now),
        groups={
            group: _group(group, known.get(group, {}), books, _text(owner))
            for group, owner in zip(GROUPS, owners, strict=True)
        },
    )


async def _producers(client: Redis, name: str, now: float) -> Producers | None:
    length: Any = client.hlen(name)  # redis-py's stubs know only the client for threads
    if await length > MOST_PRODUCERS:
        return None
    stored: Any = client.hgetall(name)
    return producers_of(await stored, now)


def _present(answer: Any) -> Any:
    """None for a stream or group that is not there; any other error is raised."""
    if isinstance(answer, ResponseError) and is_missing_group(answer):
        return None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _group(name: str, about: Mapping[str, Any], books: Mapping[bytes, bytes], owner: str | None) -> Group:
    def number(what: str) -> int:
        return int(books.get(f"{name}.{what}".encode(), 0))

    updated = books.get(f"{name}.updated".encode())
    group = Group(
        owner=owner,
        epoch=number("epoch"),
        position=_text(about.get("last-delivered-id")) or _NOTHING,
        lag=about.get("lag"),
        entries=number("entries"),
        events=number("events"),
        rejected=number("rejected"),
        updated=float(updated) if updated else None,
        trouble=_text(books.get(f"{name}.trouble".encode())) or None,
    )
    if name == ARCHIVE:
        group.lost = number("lost")
    if name == AGGREGATE:
        group.too_old, group.overflow = number("too_old"), number("overflow")
        group.sessions_cut = number("sessions_cut")
    return group


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _store(storage: MetricsStorage, damaged_lines: int) -> Store:
    disk = os.statvfs(storage.path)
    return Store(storage.layout.read().id, str(storage.path), disk.f_bavail * disk.f_frsize, damaged_lines)

"""How the pipeline does, as families: what `/api/pipeline` tells.

What Redis counts for as long as the store lives is a counter, the same in every process of the API. What is added up
over producers is none: it falls when one of them is forgotten.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from vibezen.metrics.api.pipeline import Compactor, Group, Pipeline, Shard
from vibezen.metrics.balance import Side
from vibezen.metrics.batch import id_time
from vibezen.metrics.exposition.family import Family, Sample, counter, gauge, info

_OF_PRODUCERS: Final = ("recorded", "sampled_out", "appended", "buffered", "in_flight", "spooled")
_SIDE: Final = tuple(name for name in Side.__struct_fields__ if name != "difference")


def pipeline_families(pipeline: Pipeline) -> list[Family]:
    return [
        gauge("shards", "Shards that events have ever been appended to.", Sample(len(pipeline.shards))),
        *_streams(pipeline.shards),
        *_groups(pipeline.shards),
        *_books(pipeline.shards),
        *_producers(pipeline.shards),
        gauge("store_free_bytes", "Free space where the store lies.", Sample(pipeline.store.free_bytes), unit="bytes"),
        gauge(
            "store_damaged_lines",
            "Lines of committed segments that were no events when this process read them.",
            Sample(pipeline.store.damaged_lines),
        ),
        *_compactor(pipeline.compactor),
        gauge(
            "redis_used_memory_bytes",
            "Memory of the server, of all servers of a cluster.",
            Sample(pipeline.redis.used_memory),
            unit="bytes",
        ),
        info("redis", "The server.", {"server": pipeline.redis.server, "version": pipeline.redis.version}),
    ]


def _streams(shards: list[Shard]) -> Iterator[Family]:
    def each(tell: Callable[[Shard], float | None]) -> list[Sample]:
        return [Sample(value, _of(shard)) for shard in shards if (value := tell(shard)) is not None]

    yield gauge("stream_entries", "Entries in the stream.", *each(lambda shard: shard.length))
    yield gauge("stream_bytes", "Memory the stream takes.", *each(lambda shard: shard.bytes), unit="bytes")
    yield counter("appended_events", "Events appended to the stream.", *each(lambda shard: shard.books.appended))
    yield gauge("dead_letters", "Dead letters that are kept.", *each(lambda shard: shard.dead))
    yield counter(
        "dead_letters_unkept", "Dead letters that came when too many were kept.", *each(lambda shard: shard.dead_unkept)
    )


def _groups(shards: list[Shard]) -> Iterator[Family]:
    def each(tell: Callable[[Group], float | None]) -> list[Sample]:
        return [
            Sample(value, {**_of(shard), "group": name})
            for shard in shards
            for name, group in shard.groups.items()
            if (value := tell(group)) is not None
        ]

    def counted(what: str) -> list[Sample]:
        return each(lambda group: found if isinstance(found := getattr(group, what), int) else None)

    yield gauge("group_lag_entries", "Entries not committed yet.", *each(lambda group: group.lag))
    yield gauge(
        "group_owned", "1 while a process owns the shard for this group.", *each(lambda group: int(bool(group.owner)))
    )
    yield gauge("group_epoch", "Grows by one whenever another process takes over.", *each(lambda group: group.epoch))
    yield gauge("group_trouble", "1 while the owner cannot commit.", *each(lambda group: int(bool(group.trouble))))
    yield gauge(
        "group_position_timestamp_seconds",
        "When the last committed entry was appended.",
        *each(lambda group: id_time(group.position) or None),
        unit="seconds",
    )
    yield gauge(
        "group_updated_timestamp_seconds",
        "When the owner last wrote its books.",
        *each(lambda group: group.updated),
        unit="seconds",
    )
    yield counter("group_entries", "Entries committed.", *counted("entries"))
    yield counter("group_events", "Events committed.", *counted("events"))
    yield counter("group_rejected_events", "Events that are none, by contract.", *counted("rejected"))
    yield counter("archive_lost_events", "Events of which there is but the gap in their numbers.", *counted("lost"))
    yield counter("aggregate_too_old_events", "Events whose windows had expired.", *counted("too_old"))
    yield counter("aggregate_overflow_events", "Events in series beyond the bound.", *counted("overflow"))


def _books(shards: list[Shard]) -> Iterator[Family]:
    sides = [(shard, name, side) for shard in shards for name, side in shard.books.groups.items()]
    yield gauge(
        "books_events",
        "What became of a shard's events in the present epoch of its books, one side per group.",
        *(
            Sample(getattr(side, what), {**_of(shard), "group": name, "side": what})
            for shard, name, side in sides
            for what in _SIDE
        ),
    )
    yield gauge(
        "books_difference_events",
        "Events that no side of the books has; anything but 0 is a fault.",
        *(Sample(side.difference, {**_of(shard), "group": name}) for shard, name, side in sides),
    )
    yield gauge(
        "books_balanced",
        "1 while both groups' books balance, and agree where they can be compared.",
        *(Sample(int(shard.books.balances), _of(shard)) for shard in shards),
    )


def _producers(shards: list[Shard]) -> Iterator[Family]:
    told = [(shard, shard.producers) for shard in shards if shard.producers is not None]
    yield gauge(
        "producers", "Producers of the last 30 days.", *(Sample(all_.known, _of(shard)) for shard, all_ in told)
    )
    yield gauge(
        "producer_events",
        "Events of these producers, by what became of them.",
        *(
            Sample(getattr(all_, state), {**_of(shard), "state": state})
            for shard, all_ in told
            for state in _OF_PRODUCERS
        ),
    )
    for what in ("refused", "dropped"):
        yield gauge(
            f"producer_{what}_events",
            f"Events these producers have {what}, by reason.",
            *(
                Sample(count, {**_of(shard), "reason": reason})
                for shard, all_ in told
                for reason, count in sorted(getattr(all_, what).items())
            ),
        )
    yield gauge(
        "producers_silent",
        "Those that ended without closing: what they had not sent is unknown.",
        *(Sample(all_.silent, _of(shard)) for shard, all_ in told),
    )


def _compactor(compactor: Compactor) -> Iterable[Family]:
    return [
        gauge("compactor_owned", "1 while a process compacts.", Sample(int(bool(compactor.owner)))),
        gauge("compactor_trouble", "1 while something is left as it is.", Sample(int(bool(compactor.trouble)))),
        gauge(
            "external_trouble",
            "1 while no day goes to external storage.",
            Sample(int(bool(compactor.external_trouble))),
        ),
        gauge("compactor_waiting_partitions", "Closed partitions without a part.", Sample(compactor.waiting_hours)),
        gauge(
            "compactor_waiting_bytes",
            "Closed segments that no part includes.",
            Sample(compactor.waiting_bytes),
            unit="bytes",
        ),
        gauge("compactor_damaged_partitions", "Partitions left as they are.", Sample(compactor.damaged)),
        gauge("retention_dropped_events", "Events that retention has removed.", Sample(compactor.dropped)),
        gauge("external_events", "Events that lie in external storage.", Sample(compactor.moved)),
    ]


def _of(shard: Shard) -> dict[str, str]:
    return {"shard": str(shard.shard)}

"""Both sides of the books: what was appended against what each group made of it, and each producer's own counts."""

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from redis import Redis

from vibezen.metrics.balance import NEWEST, Books, Side, books_of
from vibezen.metrics.doctor.finding import Finding, fail, ok, unknown, warn
from vibezen.metrics.keys import Keys
from vibezen.metrics.producer_stats import Producer, read_producer

LOOKS: Final = 10
PAUSE: Final = 0.2
"""Seconds between looks for a moment at which both groups stand at the same entry."""
TOLD: Final = 5
OURS: Final = "report it: this is a fault of ours"


def ask(client: Redis, keys: Keys, shard: int) -> Books:
    """The books of a shard at one moment; where possible one at which both groups stand at the same entry."""
    books = _ask(client, keys, shard)
    for _ in range(LOOKS - 1):
        if books.archived_less_aggregated is not None or not books.appended:
            break
        time.sleep(PAUSE)
        books = _ask(client, keys, shard)
    return books


def _ask(client: Redis, keys: Keys, shard: int) -> Books:
    pipe = client.pipeline(transaction=True)
    pipe.hgetall(keys.books(shard))
    pipe.xrevrange(keys.events(shard), count=NEWEST)
    stored, newest = pipe.execute()
    return books_of(stored, newest)


def ask_producers(client: Redis, keys: Keys, shard: int) -> list[Producer]:
    stored: Iterable[Any] = client.hscan_iter(keys.producers(shard), count=1000)
    return [read_producer(name, value) for name, value in stored]


def judge(shard: int, books: Books) -> list[Finding]:
    """Each group's side, and what both groups made of the same entries."""
    found = [_judge_side(shard, name, side) for name, side in books.groups.items()]
    between = books.archived_less_aggregated
    where = f"shard {shard}, archived against aggregated"
    if between:
        found.append(fail("books", f"{where}: they differ by {between} events at the same position", OURS))
    elif between is None:
        found.append(ok("books", f"{where}: not compared, the groups stand at different entries"))
    else:
        found.append(ok("books", f"{where}: equal"))
    return found


def _judge_side(shard: int, name: str, side: Side) -> Finding:
    left = _sum(appended=side.appended, foreign=side.foreign)
    told: Mapping[str, int] = msgspec.to_builtins(side)
    right = _sum(
        **{"archived" if name == "archive" else "aggregated": side.accepted},
        **{what: told[what] for what in ("too_old", "dead", "repeated", "trimmed", "unread") if told[what]},
    )
    seen = f"shard {shard}, {name}: {left} = {right}"
    if side.difference:
        return fail("books", f"{seen}, but for {side.difference}", OURS)
    if side.trimmed:
        advice = "look for what trims the stream: XTRIM, XDEL or MAXLEN of another program, or a server that lost data"
        return warn("books", f"{seen}; trimmed before {name} read them", advice)
    return ok("books", seen)


def _sum(**parts: int) -> str:
    return " + ".join(f"{number} {what.replace('_', ' ')}" for what, number in parts.items())


def judge_producers(shard: int, producers: Iterable[Producer], now: float) -> list[Finding]:
    """`now`: the server's clock, Unix seconds."""
    telling = [(one, one.stats) for one in producers if one.stats is not None]
    found = [
        fail(
            "producers",
            f"shard {shard}, {one.name}: {stats.recorded} recorded, {stats.recorded - stats.difference} accounted for",
            OURS,
        )
        for one, stats in telling
        if stats.difference
    ]
    silent = [(one, stats) for one, stats in telling if one.ended_silently(now)]
    if silent:
        most = max(stats.bound for _, stats in silent)
        names = ", ".join(one.name for one, _ in silent[:TOLD]) + (" …" if len(silent) > TOLD else "")
        bound = f", {most} events each" if most else ""
        seen = f"shard {shard}: {len(silent)} ended without closing; what they lost is unknown, at most their buffers"
        found.append(unknown("producers", f"{seen}{bound}: {names}"))
    dropped = sum(sum(stats.dropped.values()) for _, stats in telling)
    refused = sum(sum(stats.refused.values()) for _, stats in telling)
    if not telling:
        found.append(ok("producers", f"shard {shard}: none tells its own counts"))
    elif not any(finding.status == "fail" for finding in found):
        recorded = sum(stats.recorded for _, stats in telling)
        seen = f"shard {shard}: {recorded} recorded by the {len(telling)} that tell, all accounted for"
        found.append(ok("producers", f"{seen}; {dropped} dropped and {refused} refused among them"))
    return found

"""Checks of the stream: its groups, who owns them, how far they are, what could not be read."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from vibezen.metrics.connection import is_missing_group
from vibezen.metrics.doctor.finding import Finding, Status, fail, ok, unknown, warn
from vibezen.metrics.keys import GROUPS, Keys

QUIET: Final = 60.0
"""Seconds without a commit after which an owner with work to do is taken to be stuck."""


class GroupFacts(msgspec.Struct, frozen=True):
    """`lag`: entries not committed, None when the server cannot tell. `updated`: Unix seconds of the last commit.
    `trouble`: why its owner cannot commit, in its own words."""

    there: bool = False
    lag: int | None = None
    pending: int = 0
    owner: str | None = None
    updated: float | None = None
    trouble: str | None = None


class ShardFacts(msgspec.Struct, frozen=True):
    """`length`: entries; None without a stream. `foreign`: lag of groups that are not ours, by name. `dead`: letters
    kept, `unkept`: those that were too many."""

    shard: int
    length: int | None
    groups: Mapping[str, GroupFacts]
    foreign: Mapping[str, int | None]
    dead: int
    unkept: int = 0


def ask(client: Redis, keys: Keys, configured: int) -> list[ShardFacts] | None:
    """All shards ever used; None when this user may not ask."""
    try:
        known = client.get(keys.shards)
        shards = max(configured, int(known) if isinstance(known, bytes) else 1)
        return [_shard(client, keys, shard) for shard in range(shards)]
    except NoPermissionError:
        return None


def _shard(client: Redis, keys: Keys, shard: int) -> ShardFacts:
    stream = keys.events(shard)
    books: Any = client.hgetall(keys.books(shard))
    told: Mapping[str, Any] = {}
    length: int | None = None
    try:
        length = client.xlen(stream) if client.exists(stream) else None
        told = {group["name"].decode(): group for group in client.xinfo_groups(stream)}
    except ResponseError as error:
        if not is_missing_group(error):
            raise
    return ShardFacts(
        shard=shard,
        length=length,
        groups={group: _group(client, keys, shard, group, told.get(group), books) for group in GROUPS},
        foreign={name: about.get("lag") for name, about in told.items() if name not in GROUPS},
        dead=client.hlen(keys.dead(shard)),
        unkept=int(books.get(b"archive.dead_unkept", 0)),
    )


def _group(
    client: Redis, keys: Keys, shard: int, group: str, about: Mapping[str, Any] | None, books: Mapping[bytes, bytes]
) -> GroupFacts:
    owner: Any = client.get(keys.lease(shard, group))
    updated = books.get(f"{group}.updated".encode())
    trouble = books.get(f"{group}.trouble".encode(), b"").decode()
    return GroupFacts(
        there=about is not None,
        lag=about.get("lag") if about else None,
        pending=int(about.get("pending", 0)) if about else 0,
        owner=owner.decode() if owner else None,
        updated=float(updated) if updated else None,
        trouble=trouble or None,
    )


def checks(shards: list[ShardFacts] | None, now: float) -> list[Finding]:
    """`now`: Unix seconds."""
    if shards is None:
        return [unknown("stream", "this user may not ask for it", "allow the user to read the stream's keys")]
    found = [_alike(f"group {name}", [group(shard, name, now) for shard in shards], len(shards)) for name in GROUPS]
    return [stream(shards), *(one for findings in found for one in findings), foreign(shards), dead_letters(shards)]


def stream(shards: Iterable[ShardFacts]) -> Finding:
    lengths = [shard.length for shard in shards]
    there = [length for length in lengths if length is not None]
    if not there:
        return ok("stream", "no event was ever appended")
    return ok("stream", f"{len(there)} of {len(lengths)} shards in use, {sum(there)} entries held")


def group(shard: ShardFacts, name: str, now: float) -> Finding:
    """One of our groups on one shard."""
    facts, where, start = shard.groups[name], f"group {name}, shard {shard.shard}", f"`vibezen-metrics consume {name}`"
    if shard.length is None:
        owned = f"nothing to read, owner {facts.owner}" if facts.owner else "nothing to read"
        return ok(where, owned)
    if not facts.there:
        return fail(where, "the stream has no such group", f"start {start}: it makes the group anew")
    if facts.trouble:
        return fail(where, f"{facts.trouble}; {_count(facts.lag)} to read", "see to it: it goes on by itself")
    seen = f"{_count(facts.lag)} to read, {_owned(facts)}, {_age(facts, now)}"
    if facts.pending:
        advice = "ours never leaves any: let other programs use a group of their own"
        return warn(where, f"{facts.pending} entries delivered to another program; {seen}", advice)
    if facts.owner is None:
        if facts.lag == 0:
            return warn(where, seen, f"start {start}: what is appended from now on waits")
        return fail(where, seen, f"start {start}: nobody reads")
    if facts.lag is None:
        return unknown(where, seen)
    if facts.lag and facts.updated is not None and now - facts.updated > QUIET:
        return fail(where, seen, "look at its owner's log: it has work and does not commit")
    return ok(where, seen)


def _alike(name: str, findings: list[Finding], shards: int) -> list[Finding]:
    """Shards that are well in one line; the others one by one."""
    well = [finding for finding in findings if finding.status is Status.OK]
    if shards == 1 or len(well) < 2:
        return findings
    return [ok(name, f"{len(well)} of {shards} shards are read"), *(one for one in findings if one not in well)]


def foreign(shards: Iterable[ShardFacts]) -> Finding:
    """Groups of other programs: the stream is trimmed without waiting for them."""
    found = {(name, shard.shard): lag for shard in shards for name, lag in shard.foreign.items()}
    if not found:
        return ok("other groups", "none")
    seen = ", ".join(f"{name} on shard {shard} ({_count(lag)} to read)" for (name, shard), lag in found.items())
    behind = any(lag != 0 for lag in found.values())
    advice = "what both groups of ours have read is trimmed, read by these or not; if nobody uses one: XGROUP DESTROY"
    return warn("other groups", seen, advice) if behind else ok("other groups", seen)


def dead_letters(shards: Iterable[ShardFacts]) -> Finding:
    found = [shard for shard in shards if shard.dead or shard.unkept]
    if not found:
        return ok("dead letters", "none")
    seen = ", ".join(f"{shard.dead} on shard {shard.shard}{_unkept(shard)}" for shard in found)
    return warn("dead letters", seen, "look at them: `vibezen-metrics dead list`; then `dead requeue` or `dead drop`")


def _unkept(shard: ShardFacts) -> str:
    return f" and {shard.unkept} more that were not kept" if shard.unkept else ""


def _count(lag: int | None) -> str:
    return "an unknown number of entries" if lag is None else "1 entry" if lag == 1 else f"{lag} entries"


def _owned(facts: GroupFacts) -> str:
    return f"owner {facts.owner}" if facts.owner else "no owner"


def _age(facts: GroupFacts, now: float) -> str:
    return "never committed" if facts.updated is None else f"last commit {max(0.0, now - facts.updated):.0f} s ago"

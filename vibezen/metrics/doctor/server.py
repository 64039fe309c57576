"""Checks of the Redis or Valkey server."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from redis import Redis
from redis.exceptions import NoPermissionError

from vibezen.metrics.clock import Clock
from vibezen.metrics.connection import KEEPS_ALL, MIN_REDIS, MIN_VALKEY, primaries, server_info
from vibezen.metrics.doctor.finding import Finding, Status, fail, ok, size, unknown, warn
from vibezen.metrics.keys import Keys

REPAIRED: Final[Mapping[str, Mapping[tuple[int, int], int]]] = {
    "redis": {(7, 2): 16, (7, 4): 11, (8, 2): 9, (8, 4): 6, (8, 6): 6, (8, 8): 2, (8, 10): 1},
    "valkey": {(8, 0): 7, (8, 1): 6, (9, 0): 3},
}
"""Per release line the first version without the holes published until August 2026 (Redis: CVE-2026-81934, which comes
after CVE-2025-49844 and -62507 and CVE-2026-23479, -25243 and -23631; Valkey: CVE-2026-21863 and -27623). A line
between these that is not named gets no repairs any more; a newer one is taken to be whole."""
SKEW_WARN: Final = 1.0
SKEW_FAIL: Final = 60.0
"""Seconds between this machine's clock and the server's. Events more than an hour ahead are refused, and windows of
the last minute look empty long before that."""
NEARLY_FULL: Final = 0.8
NOT_ALLOWED: Final = "this user may not ask for it"


class ServerFacts(msgspec.Struct, frozen=True):
    """What the server told; None where it may not be asked. `skew`: seconds our clock is ahead of its clock, give or
    take `trip`, half the time that asking took. `name`: of one of several its address."""

    name: str = ""
    info: Mapping[str, Any] | None = None
    appendfsync: str | None = None
    skew: float | None = None
    trip: float = 0.0
    store: bytes | None = None


def ask(client: Redis, keys: Keys, clock: Clock) -> list[ServerFacts]:
    """Of a cluster every server that holds some of the keys. Raises what redis-py does when one is away or refuses this
    user as a whole."""
    store: Any = _allowed(lambda: client.get(keys.store))
    return [_ask(server, store, clock) for server in primaries(client)]


def _ask(client: Redis, store: Any, clock: Clock) -> ServerFacts:
    client.ping()
    before = clock()
    told: Any = _allowed(client.time)
    after = clock()
    config: Any = _allowed(lambda: client.config_get("appendfsync"))
    place = client.connection_pool.connection_kwargs
    return ServerFacts(
        name=f"{place.get('host')}:{place.get('port')}",
        info=_allowed(client.info),
        appendfsync=config.get("appendfsync") if config else None,
        skew=None if told is None else (before + after) / 2 - (told[0] + told[1] / 1e6),
        trip=(after - before) / 2,
        store=store if isinstance(store, bytes) else None,
    )


def _allowed(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except NoPermissionError:
        return None


def checks(servers: Sequence[ServerFacts]) -> list[Finding]:
    """What several do equally well in one line, the rest server by server."""
    each = [_checks(facts) for facts in servers]
    if len(each) == 1:
        return each[0]
    found = [replicas(servers)]
    for alike in zip(*each, strict=True):
        well = [finding for finding in alike if finding.status is Status.OK]
        if well:
            found.append(ok(well[0].name, f"{len(well)} of {len(alike)} servers; the first: {well[0].seen}"))
        found += [
            replace(finding, name=f"{finding.name}, {facts.name}")
            for facts, finding in zip(servers, alike, strict=True)
            if finding.status is not Status.OK
        ]
    return found


def replicas(servers: Sequence[ServerFacts]) -> Finding:
    """Of a cluster: whether each server has one that can take its place."""
    if any(facts.info is None for facts in servers):
        return unknown("cluster", NOT_ALLOWED, "allow the user +info")
    alone = [facts.name for facts in servers if facts.info and not int(facts.info.get("connected_slaves", 0))]
    seen = f"{len(servers)} servers hold the keys"
    if alone:
        advice = "give it a replica: while it is away its shards take nothing, and what it loses is lost"
        return warn("cluster", f"{seen}; no replica has {', '.join(alone)}", advice)
    return ok("cluster", f"{seen}, each with a replica")


def _checks(facts: ServerFacts) -> list[Finding]:
    names = ("server version", "server security", "eviction", "server memory", "persistence", "role of the server")
    if facts.info is None:
        told = [unknown(name, NOT_ALLOWED, "allow the user +info") for name in names]
    else:
        told = [
            version(facts.info),
            security(facts.info),
            eviction(facts.info),
            memory(facts.info),
            persistence(facts.info, facts.appendfsync),
            role(facts.info),
        ]
    return [*told, clock_skew(facts.skew, facts.trip)]


def version(info: Mapping[str, Any]) -> Finding:
    server = server_info(info)
    floor = MIN_VALKEY if server.kind == "valkey" else MIN_REDIS
    seen = f"{server.kind.capitalize()} {server.version}"
    if _numbers(server.version)[:2] < floor:
        return fail("server version", seen, f"upgrade to {'.'.join(map(str, floor))} or newer")
    return ok("server version", seen)


def security(info: Mapping[str, Any]) -> Finding:
    """Whether the version is one with known holes."""
    server = server_info(info)
    major, minor, patch = _numbers(server.version)
    line = major, minor
    lines = REPAIRED[server.kind]
    seen = f"{server.kind.capitalize()} {server.version}"
    if line in lines and patch < lines[line]:
        return warn(
            "server security", f"{seen} has known holes", f"upgrade to {line[0]}.{line[1]}.{lines[line]} or newer"
        )
    if line not in lines and line < max(lines):
        advice = "upgrade, unless your distribution repairs it under the same number"
        return warn("server security", f"{seen} gets no repairs from its makers any more", advice)
    return ok("server security", f"no hole of {seen} is known to this version of ours")


def eviction(info: Mapping[str, Any]) -> Finding:
    policy, bound = str(info.get("maxmemory_policy", KEEPS_ALL)), int(info.get("maxmemory", 0))
    if policy == KEEPS_ALL:
        return ok("eviction", policy)
    advice = f"set maxmemory-policy {KEEPS_ALL}: a full server would throw events away"
    if not bound:
        return warn("eviction", f"{policy}, without a maxmemory to begin it", advice)
    return fail("eviction", policy, advice)


def memory(info: Mapping[str, Any]) -> Finding:
    used, bound = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not bound:
        advice = "set maxmemory below the machine's memory: without, the system may kill the server"
        return warn("server memory", f"{size(used)} used, no bound", advice)
    seen = f"{size(used)} of {size(bound)} used"
    if used >= bound:
        return fail("server memory", seen, "raise maxmemory or start what consumes: appends are refused")
    if used > bound * NEARLY_FULL:
        return warn("server memory", seen, "raise maxmemory, or see below whether a group has fallen behind")
    return ok("server memory", seen)


def persistence(info: Mapping[str, Any], appendfsync: str | None) -> Finding:
    """The append-only file, and how the last write of either kind went."""
    failed = [
        what
        for what, field in (
            ("append-only file", "aof_last_write_status"),
            ("its rewriting", "aof_last_bgrewrite_status"),
            ("snapshot", "rdb_last_bgsave_status"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if failed:
        advice = "look at the server's log and its disk: it refuses writes until it can write again"
        return fail("persistence", f"the last write failed: {', '.join(failed)}", advice)
    if not int(info.get("aof_enabled", 0)):
        advice = "set appendonly yes: what is acknowledged but not archived is lost when the server is killed"
        return fail("persistence", "no append-only file", advice)
    if appendfsync is None:
        return unknown("persistence", f"append-only file; how often it is synced: {NOT_ALLOWED}", "allow +config|get")
    if appendfsync == "no":
        advice = "set appendfsync always: a crash of the machine may take half a minute"
        return warn("persistence", "append-only file, appendfsync no", advice)
    return ok("persistence", f"append-only file, appendfsync {appendfsync}")


def role(info: Mapping[str, Any]) -> Finding:
    found = str(info.get("role", ""))
    if found == "slave":
        seen = f"a replica of {info.get('master_host')}:{info.get('master_port')}"
        return fail("role of the server", seen, "set redis.url to the primary: a replica takes no events")
    return ok("role of the server", "primary" if found == "master" else found)


def clock_skew(skew: float | None, trip: float) -> Finding:
    """`skew` and `trip` in seconds; see ServerFacts."""
    if skew is None:
        return unknown("clock", NOT_ALLOWED, "allow the user +time")
    off = max(0.0, abs(skew) - trip)
    seen = f"{off:.1f} s {'ahead of' if skew > 0 else 'behind'} the server's" if off >= 0.05 else "as the server's"
    advice = "let both machines set their clocks by NTP: windows show events at the wrong time, more than 1 h ahead "
    advice += "they are refused"
    if off > SKEW_FAIL:
        return fail("clock", seen, advice)
    return warn("clock", seen, advice) if off > SKEW_WARN else ok("clock", seen)


def _numbers(text: str) -> tuple[int, int, int]:
    major, minor, patch, *_ = (*map(int, re.findall(r"\d+", text)), 0, 0, 0)
    return major, minor, patch

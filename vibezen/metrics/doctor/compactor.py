"""Check of the compactor: whether there is one, and what it says of itself."""

from typing import Any, Final

import msgspec
from redis import Redis
from redis.exceptions import NoPermissionError

from vibezen.metrics.doctor.finding import Finding, fail, ok, unknown, warn
from vibezen.metrics.keys import Keys

QUIET: Final = 3600.0
"""Seconds without a word after which one at work is taken to be stuck; a large hour takes minutes."""
START: Final = "start `vibezen-metrics consume compact`"


class CompactorFacts(msgspec.Struct, frozen=True):
    """`updated`: Unix seconds of its last word, None when there was never one. `waiting`: closed hours that are not in
    a part yet. `trouble`: in its own words."""

    owner: str | None = None
    updated: float | None = None
    waiting: int = 0
    trouble: str | None = None


def ask(client: Redis, keys: Keys) -> CompactorFacts | None:
    """None when this user may not ask."""
    try:
        owner: Any = client.get(keys.compact_lease)
        told: Any = client.hgetall(keys.compact_books)
    except NoPermissionError:
        return None
    return CompactorFacts(
        owner.decode() if owner else None,
        float(told[b"updated"]) if b"updated" in told else None,
        int(told.get(b"waiting_hours", 0)),
        told.get(b"trouble", b"").decode(errors="replace") or None,
    )


def check(facts: CompactorFacts | None, now: float) -> Finding:
    """`now`: Unix seconds."""
    if facts is None:
        return unknown("compactor", "this user may not ask for it", "allow the user to read its keys")
    if facts.trouble:
        return fail("compactor", facts.trouble, "see to it: the rest is compacted meanwhile")
    if facts.updated is None:
        return ok("compactor", f"owner {facts.owner}" if facts.owner else "none has run yet")
    seen = f"{facts.waiting} hours to compact"
    if facts.owner is None:
        return warn("compactor", f"{seen}, none at work", f"{START}: files stay as large as they were written")
    if now - facts.updated > QUIET:
        return warn("compactor", f"{seen}, no word for {now - facts.updated:.0f} s", "look at its log")
    return ok("compactor", f"{seen}, owner {facts.owner}")

"""What the doctor makes of what the compactor says."""

import pytest
import redis

from vibezen.metrics.doctor.compactor import QUIET, CompactorFacts, ask, check
from vibezen.metrics.keys import Keys

NOW = 1_763_985_600.0


@pytest.mark.parametrize(
    ("facts", "status", "seen"),
    [
        (None, "unknown", "may not ask"),
        (CompactorFacts(), "ok", "none has run"),
        (CompactorFacts("me", NOW, 2), "ok", "2 hours to compact"),
        (CompactorFacts(None, NOW, 2), "warn", "none at work"),
        (CompactorFacts("me", NOW - QUIET - 1), "warn", "no word for"),
        (CompactorFacts("me", NOW, 2, "events/date=2025-11-24: is damaged"), "fail", "is damaged"),
    ],
)
def test_the_compactor_is_judged_by_its_own_words(facts: CompactorFacts | None, status: str, seen: str) -> None:
    found = check(facts, NOW)
    assert (found.status, seen in found.seen) == (status, True)


def test_its_words_are_read_from_the_books(client: redis.Redis) -> None:
    keys = Keys()
    assert ask(client, keys) == CompactorFacts()
    client.hset(keys.compact_books, mapping={"updated": str(NOW), "waiting_hours": "3", "trouble": "no space"})
    client.set(keys.compact_lease, "me")
    assert ask(client, keys) == CompactorFacts("me", NOW, 3, "no space")

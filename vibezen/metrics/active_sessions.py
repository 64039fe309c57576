"""Sessions at work: a sorted set per shard, of each session's newest event, which the aggregator keeps."""

from collections.abc import Iterable
from typing import Any, Final

from redis.asyncio import Redis

from vibezen.metrics.clock import DAY
from vibezen.metrics.keys import Keys

SESSION: Final = "session"
"""The metadata key that names an event's session."""
KEPT_SECONDS: Final = DAY
"""How long after its newest event a session is kept."""
MOST: Final = 10_000
"""Sessions that one shard keeps: beyond it those go that were seen longest ago, and are counted. A name has at most
1,024 characters."""


async def seen_since(client: Redis, keys: Keys, shards: Iterable[int], since: float) -> dict[str, float]:
    """Session → Unix seconds of its newest event, of all that have one since then."""
    pipe = client.pipeline(transaction=False)
    for shard in shards:
        pipe.zrangebyscore(keys.sessions(shard), since, "+inf", withscores=True)
    answers: list[Any] = await pipe.execute()
    seen: dict[str, float] = {}
    for name, ts in (pair for answer in answers for pair in answer):
        session = name.decode(errors="replace")
        seen[session] = max(seen.get(session, ts), ts)
    return seen

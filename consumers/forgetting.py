"""Forgetting producers that will not send again, so that the server's memory holds those that may.

A producer's number is what makes its repeated batches harmless. It is kept for as long as any repetition is possible:
a spool may be found weeks later, but what was closed with nothing left has nothing to repeat.
"""

from typing import Any, Final

import msgspec
from redis import Redis

from vibezen.metrics import scripts
from vibezen.metrics.consumers.lease import PACKAGE
from vibezen.metrics.keys import IMPORTS, Keys

KEPT: Final = 30 * 86_400.0
"""Seconds for which the number of a silent producer is kept; spools that are older are not sent any more."""
CLOSED_KEPT: Final = 3600.0
"""Seconds for which one is kept that has closed with nothing left to send."""
EVERY: Final = 3600.0
"""Seconds between two looks."""
_KEPT_FOR_GOOD: Final = IMPORTS.encode()
"""An import is run again months later, and adds what is new by its number."""
_SCAN_COUNT: Final = 500


class Left(msgspec.Struct):
    """What a producer's counters say it had left to send."""

    closed: bool = False
    buffered: int = 0
    in_flight: int = 0
    spooled: int = 0


def forget(client: Redis, keys: Keys, shard: int) -> int:
    """Look at all producers of a shard and forget those that will not send again; how many those were."""
    seconds, micros = client.time()
    now = seconds + micros / 1e6
    script, name = scripts.load(PACKAGE, "forget"), keys.producers(shard)
    cursor, forgotten = 0, 0
    while True:
        answer: Any = client.hscan(name, cursor, count=_SCAN_COUNT)
        cursor, found = answer
        over = [
            part
            for producer, stored in found.items()
            if not producer.startswith(_KEPT_FOR_GOOD) and is_over(stored, now)
            for part in (producer, stored)
        ]
        if over:
            forgotten += int(scripts.run(client, script, [name], over))
        if not cursor:
            return forgotten


def is_over(stored: bytes, now: float) -> bool:
    """Whether a producer with this value, `<last number> <server milliseconds> <its counters>`, sends no more."""
    parts = stored.split(b" ", 2)
    try:
        silent = now - int(parts[1]) / 1000
        left = msgspec.json.decode(parts[2], type=Left) if len(parts) > 2 else Left()
    except (IndexError, ValueError, msgspec.MsgspecError):
        return False  # not ours to judge
    if left.closed and not (left.buffered or left.in_flight or left.spooled):
        return silent > CLOSED_KEPT
    return silent > KEPT

"""Every key name, in one place.

What one script touches shares one hash tag, so that it lives in one slot of a Redis Cluster: the shard's number for
all that belongs to a shard, `meta`, `live`, `alerts` and `compact` for the rest.
"""

from typing import Final

ARCHIVE: Final = "archive"
AGGREGATE: Final = "aggregate"
GROUPS: Final = (ARCHIVE, AGGREGATE)
"""The declared groups: a stream is created with them, and is trimmed to what all of them have committed."""

COMPACT: Final = "compact"
"""What compacts: no group of the stream, since it reads files."""

IMPORTS: Final = "import-"
"""How the producers of imports are named: their numbers are bookmarks, and stay for as long as the server does."""

DEFAULT_PREFIX: Final = "vibezen"


class Keys:
    """Key names under one prefix. `shard` is a number from 0."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.prefix = prefix
        self.shards = f"{prefix}:{{meta}}:shards"
        self.store = f"{prefix}:{{meta}}:store"
        self.frames = f"{prefix}:{{live}}:frames"
        self.transitions = f"{prefix}:{{alerts}}:transitions"
        self.compact_lease = f"{prefix}:{{compact}}:lease"
        self.compact_fence = f"{prefix}:{{compact}}:fence"
        self.compact_books = f"{prefix}:{{compact}}:books"  # hash of what the compactor says of itself

    def ticket(self, digest: str) -> str:
        """Mark of the token that a ticket with this SHA-256 digest was made with; expires by itself."""
        return f"{self.prefix}:{{live}}:ticket:{digest}"

    def members(self, group: str) -> str:
        """Sorted set of the processes that work for `group` (score: last sign of life, server milliseconds)."""
        return f"{self.prefix}:{{meta}}:members:{group}"

    def imported(self, producer: str) -> str:
        """Hash of one import: `confirmed` → events known to be in the stream; a number of events → CRC-32 of their
        lines, server milliseconds and the file's name."""
        return f"{self.prefix}:{{meta}}:import:{producer}"

    def shifted(self, producer: str) -> str:
        """By how many seconds the events of one replay are moved."""
        return f"{self.prefix}:{{meta}}:shift:{producer}"

    def events(self, shard: int) -> str:
        return self._shard(shard, "events")

    def producers(self, shard: int) -> str:
        """Hash: producer id → `<last number> <server milliseconds> <its counters as JSON>`."""
        return self._shard(shard, "producers")

    def dead(self, shard: int) -> str:
        """Hash: `<entry id>/<line>` → dead letter as JSON."""
        return self._shard(shard, "dead")

    def lease(self, shard: int, group: str) -> str:
        return self._shard(shard, f"lease:{group}")

    def fence(self, shard: int, group: str) -> str:
        return self._shard(shard, f"fence:{group}")

    def window(self, shard: int, width: int, start: int) -> str:
        """Hash: series key → blob, for the window [start, start + width) in Unix seconds."""
        return self._shard(shard, f"w:{width}:{start}")

    def totals(self, shard: int, width: int, start: int) -> str:
        """Hash: metric → blob of all its series together (not for gauges), beside the window of the same bounds."""
        return self._shard(shard, f"t:{width}:{start}")

    def sessions(self, shard: int) -> str:
        """Sorted set of the sessions that are at work (score: Unix seconds of the newest event)."""
        return self._shard(shard, "sessions")

    def floor(self, shard: int) -> str:
        """Unix seconds from which on the shard's windows are known to be complete."""
        return self._shard(shard, "floor")

    def books(self, shard: int) -> str:
        """Hash of counters, `<group>.<what>` → absolute number, written by scripts only."""
        return self._shard(shard, "books")

    def _shard(self, shard: int, name: str) -> str:
        return f"{self.prefix}:{{{shard}}}:{name}"
